// The page: who is signed in, which view is shown.

import { AGAIN_MS, act, ask, el, field, keep, kept, say, speak, t } from "./kit.js";

const main = document.getElementById("main");
// Signing in waits for none of them; the browser has fetched them by then.
const views = {
  now: async () => (await import("./now.js")).showNow, calls: async () => (await import("./calls.js")).showCalls,
  call: async () => (await import("./call.js")).showCall, numbers: async () => (await import("./numbers.js")).showNumbers,
};
let turn = 0;
let me = null;
let leave = () => {};

async function show() {
  leave();
  leave = () => {};
  const own = turn += 1;
  const [name, ...rest] = location.hash.slice(1).split("/");
  const view = views[name] ? name : "now";
  for (const link of document.querySelectorAll("#nav a")) {
    // Without a word it means nothing to a screen reader.
    if (link.getAttribute("href") === `#${view}`) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  // Of this view alone: what comes when somebody has gone on to another one is not seen there.
  const place = el("div", {});
  main.replaceChildren(place);
  document.title = `${t(view)} · ari-app`;
  try {
    const open = await views[view]();
    if (own !== turn) return;
    const close = await open(place, me, rest.map(decodeURIComponent)) ?? (() => {});
    if (own === turn) leave = close; else close();
  } catch (error) {
    if (own === turn) place.append(el("p", { class: "bad" }, error.message));
  }
}

function askForKey() {
  leave();
  leave = () => {};
  turn += 1;
  document.getElementById("nav").hidden = document.getElementById("sign-out").hidden = true;
  document.getElementById("who").textContent = "";
  const key = el("input", { type: "password", autocomplete: "current-password", required: true });
  const button = el("button", {}, t("sign_in"));
  main.replaceChildren(el("h1", {}, t("sign_in")), el("form", {
    class: "row",
    onsubmit: (event) => {
      event.preventDefault();
      act(button, async () => { await ask("page/sign-in", { method: "POST", key: key.value }); await enter(); main.focus(); });
    },
  }, field(t("key"), key), button), el("p", { class: "soft" }, t("key_where")));
  key.focus();
}

async function enter(asked = ask("page/me")) {
  me = await asked;
  say("");
  document.getElementById("version").textContent = me.version;
  document.getElementById("who").textContent = me.name;
  document.getElementById("nav").hidden = false;
  document.getElementById("sign-out").hidden = me.name === "local";
  document.getElementById("nav-call").hidden = me.scope === "read";
  document.getElementById("nav-calls").hidden = document.getElementById("nav-numbers").hidden = !me.features.log;
  await show();
}

async function begin() {
  const choice = document.getElementById("language");
  choice.value = kept("language") ?? (navigator.language.startsWith("de") ? "de" : "en");
  let spoken = false;
  choice.addEventListener("change", () => act(choice, async () => {
    try { await speak(choice.value); } catch (error) { choice.value = document.documentElement.lang; throw error; }
    keep("language", choice.value);
    spoken = true;
    if (me) await show(); else askForKey();
  }));
  const out = document.getElementById("sign-out");
  out.addEventListener("click", () => act(out, async () => {
    await ask("page/sign-out", { method: "POST" });
    me = null;
    askForKey();
  }));
  // Its address names no view.
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
  addEventListener("signed-out", () => { if (me) { me = null; askForKey(); say(t("signed_out"), true); } });
  addEventListener("hashchange", () => { say(""); if (me) show().then(() => main.focus()); });
  while (true) {
    const asked = ask("page/me");
    asked.catch(() => {});
    try {
      if (!spoken) await speak(choice.value);
      spoken = true;
      await enter(asked);
      return;
    } catch (error) {
      if (error.status === 401) { askForKey(); return; }
      say(error.status ? error.message : t("trying_again"), true);
    }
    await new Promise((go) => setTimeout(go, AGAIN_MS));
  }
}

begin();
