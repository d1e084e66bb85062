// The calls that are running: all of them as a list, one of them opened.

import { act, ask, cell, clock, el, facts, field, seconds, t, table, word } from "./kit.js";
import { listen } from "./listen.js";

export async function showNow(main, me, [chosen]) {
  const health = el("p", {});
  const room = el("p", { class: "soft" });
  const rows = new Map();
  const heads = [t("caller"), t("called"), t("agent"), t("state"), t("duration"), t("voices"), t("response")];
  const list = table(heads, []);
  const body = list.querySelector("tbody");
  const none = el("p", { class: "soft" }, t("no_calls"));
  const opened = el("section", { class: "card", "aria-label": t("opened"), hidden: true });
  main.append(el("h1", {}, t("now")), health, room, el("div", { class: "split" }, el("div", {}, none, list), opened));
  let close = () => {};

  function open(call) {
    close();
    for (const row of rows.values()) row.element.classList.toggle("chosen", row.call.id === call.id);
    history.replaceState(null, "", `#now/${encodeURIComponent(call.id)}`);
    close = follow(opened, call, me);
    if (matchMedia("(max-width: 60rem)").matches) opened.scrollIntoView({ block: "start" });
  }

  function draw(call) {
    let row = rows.get(call.id);
    if (!row) {
      row = { element: el("tr", {}) };
      rows.set(call.id, row);
      body.prepend(row.element);
    }
    row.call = call;
    row.duration = el("span", {});
    row.voices = [meter("caller"), meter("agent")];
    const button = el("button", { class: "link", onclick: () => open(row.call) }, call.caller || t("unknown"));
    row.element.replaceChildren(
      cell(t("caller"), button), cell(t("called"), call.called), cell(t("agent"), call.agent),
      cell(t("state"), word("state", call.state), call.outcome ? el("div", { class: "soft" }, `${call.outcome} · ${call.reason ?? ""}`) : null),
      cell(t("duration"), row.duration), cell(t("voices"), row.voices.map((one) => one.element)),
      cell(t("response"), call.response === null ? "" : `${seconds(call.response)} s`));
    if (chosen === call.id) { chosen = null; open(call); }
  }

  function tick() {
    for (const { call, duration } of rows.values())
      duration.textContent = clock(call.seconds ?? (Date.now() - new Date(call.started)) / 1000);
  }

  const source = new EventSource("page/watch");
  source.onmessage = ({ data }) => {
    const news = JSON.parse(data);
    for (const call of news.calls) draw(call);
    for (const id of news.gone) { rows.get(id)?.element.remove(); rows.delete(id); }
    for (const [id, levels] of Object.entries(news.levels)) rows.get(id)?.voices.forEach((one, n) => one.set(levels[n]));
    none.hidden = rows.size > 0;
    list.hidden = rows.size === 0;
    health.className = news.problems.length ? "bad" : "good";
    health.textContent = news.problems.length ? `${t("not_ready")} ${news.problems.join("; ")}` : t("ready");
    room.textContent = t("room", { running: news.running, limit: news.limit });
    tick();
  };
  source.onerror = () => { health.className = "bad"; health.textContent = t("no_answer"); };
  const timer = setInterval(tick, 1000);
  return () => { source.close(); clearInterval(timer); close(); };
}

function meter(kind) {
  const bar = el("i", {});
  return {
    element: el("span", { class: `meter ${kind}`, role: "img", "aria-label": t(kind) }, bar),
    set(level) { bar.style.transform = `scaleX(${Math.max(0, (level + 60) / 60)})`; },
  };
}

// One call as it goes on: what is said, and what may be done.
export function follow(place, call, me) {
  const said = el("div", { class: "said", tabindex: "0", role: "log", "aria-label": t("transcript") });
  const state = el("p", {});
  const path = `sessions/${encodeURIComponent(call.id)}`;
  const post = (action, body) => ask(`${path}/${action}`, { method: "POST", body });
  const button = (name, work, kind = "plain") => {
    const one = el("button", { class: kind, type: "button" }, t(name));
    one.addEventListener("click", () => act(one, work, t("done")));
    return one;
  };
  const actions = [];
  let deaf = null;
  if (me.scope !== "read") {
    const ear = el("button", { class: "plain", type: "button", "aria-pressed": "false" }, t("listen"));
    const hear = (on) => { ear.textContent = t(on ? "listen_no_more" : "listen"); ear.setAttribute("aria-pressed", String(on)); };
    ear.addEventListener("click", () => {
      if (deaf) { deaf(); deaf = null; } else deaf = listen(`${path}/listen`, () => { deaf = null; hear(false); });
      hear(Boolean(deaf));
    });
    const target = el("input", { autocomplete: "off", required: true });
    const mode = el("select", {}, el("option", { value: "blind" }, t("blind")), el("option", { value: "attended" }, t("attended")));
    const telling = el("input", { autocomplete: "off", required: true, maxlength: 2000 });
    const transfer = el("button", {}, t("transfer"));
    const tell = el("button", {}, t("tell"));
    actions.push(
      el("div", { class: "row" }, ear, button("hold", () => post("hold")), button("unhold", () => post("unhold")),
        button("mute", () => post("mute", { muted: true })), button("unmute", () => post("mute", { muted: false })),
        button("hang_up", () => ask("webhook/end-call", { method: "POST", body: { session_id: call.id, reason: "page" } }), "bad")),
      el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); act(tell, async () => { await post("say-to-agent", { kind: "context", text: telling.value }); telling.value = ""; }, t("done")); } },
        field(t("tell_agent"), telling), tell),
      el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); act(transfer, () => post("transfer", { to: target.value, mode: mode.value }), t("done")); } },
        field(t("transfer_to"), target), field(t("how"), mode), transfer));
  }
  place.hidden = false;
  place.replaceChildren(el("h2", {}, `${call.caller || t("unknown")} → ${call.called}`), state,
    facts([[t("agent"), call.agent], [t("session"), call.id]]), el("div", {}, actions), el("h2", {}, t("transcript")), said);

  const source = new EventSource(`${path}/events`);
  const line = (event, who, text) => {
    const low = said.scrollHeight - said.scrollTop - said.clientHeight < 40;
    said.append(el("p", { class: who }, el("time", {}, clock((new Date(event.at) - new Date(call.started)) / 1000)),
      el("b", {}, `${word("who", who)}: `), text));
    if (low) said.scrollTop = said.scrollHeight;
  };
  const on = (kind, work) => source.addEventListener(kind, (message) => work(JSON.parse(message.data)));
  on("state", (event) => { state.textContent = word("state", event.state); });
  on("transcript", (event) => line(event, event.who, event.text));
  for (const kind of ["interruption", "tool", "dtmf", "note"]) on(kind, (event) => line(event, kind, event.text));
  on("agent_lost", (event) => line(event, "note", t("agent_lost")));
  on("agent_resumed", (event) => line(event, "note", t("agent_resumed")));
  on("ended", (event) => { line(event, "note", t("ended", { status: event.agent_status ?? "", reason: event.end_reason ?? "" })); source.close(); });
  return () => { source.close(); deaf?.(); };
}
