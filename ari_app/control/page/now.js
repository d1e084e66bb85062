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
  }

  // Where it was asked for by hand, the keyboard goes to it too, and a small screen scrolls there.
  function openAndGo(call) {
    open(call);
    opened.focus();
  }

  // The elements of a row stay while it changes: neither the keyboard's place nor a meter is lost.
  function begin(id) {
    const row = {
      button: el("button", { class: "link", onclick: () => openAndGo(row.call) }), called: el("span", {}), agent: el("span", {}),
      state: el("span", {}), outcome: el("div", { class: "soft" }), duration: el("span", {}), voices: [meter("caller"), meter("agent")],
      response: cell(t("response")),
    };
    row.element = el("tr", {}, cell(t("caller"), row.button), cell(t("called"), row.called), cell(t("agent"), row.agent),
      cell(t("state"), row.state, row.outcome), cell(t("duration"), row.duration),
      cell(t("voices"), row.voices.map((one) => one.element)), row.response);
    rows.set(id, row);
    body.prepend(row.element);
    return row;
  }

  function draw(call) {
    const row = rows.get(call.id) ?? begin(call.id);
    row.call = call;
    row.button.textContent = call.caller || t("unknown");
    row.called.textContent = call.called;
    row.agent.textContent = call.agent;
    row.state.textContent = word("state", call.state);
    row.outcome.textContent = call.outcome ? [word("status", call.outcome), call.reason].filter(Boolean).join(" · ") : "";
    row.response.firstChild.textContent = call.response === null ? "" : `${seconds(call.response)} s`;
    if (call.outcome) for (const one of row.voices) one.set(-60);
    if (chosen === call.id) { chosen = null; open(call); }
  }

  function tick() {
    for (const { call, duration } of rows.values())
      duration.textContent = clock(call.seconds ?? (Date.now() - new Date(call.started)) / 1000);
  }

  function show(news) {
    for (const call of news.calls) draw(call);
    for (const id of news.gone) { rows.get(id)?.element.remove(); rows.delete(id); }
    for (const [id, levels] of Object.entries(news.levels)) rows.get(id)?.voices.forEach((one, n) => one.set(levels[n]));
    none.hidden = rows.size > 0;
    list.hidden = rows.size === 0;
    health.className = news.problems.length ? "bad" : "good";
    health.textContent = news.problems.length ? `${t("not_ready")} ${news.problems.join("; ")}` : t("ready");
    room.textContent = t("room", { running: news.running, limit: news.limit });
    tick();
  }

  let source, again;
  function watch() {
    source = new EventSource("page/watch");
    // All calls are told anew on each connection; what is not among them has gone meanwhile.
    let first = true;
    source.onmessage = ({ data }) => {
      const news = JSON.parse(data);
      if (first) news.gone = [...rows.keys()].filter((id) => !news.calls.some((call) => call.id === id));
      first = false;
      show(news);
    };
    source.onerror = () => {
      first = true;
      health.className = "bad";
      health.textContent = t("no_answer");
      // A browser tries again by itself, but not after an answer such as a proxy's 502.
      if (source.readyState === EventSource.CLOSED) again = setTimeout(lookAgain, 3000);
    };
  }
  async function lookAgain() {
    try { await ask("page/me"); } catch (error) { if (error.status === 401) { location.reload(); return; } }
    if (source.readyState === EventSource.CLOSED && body.isConnected) watch();
  }
  watch();
  const timer = setInterval(tick, 1000);
  return () => { source.close(); clearTimeout(again); clearInterval(timer); close(); };
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
  const actions = el("div", {});
  const over = el("p", { hidden: true }, el("a", { href: `#calls/${encodeURIComponent(call.id)}` }, t("in_the_log")));
  let told = () => {};
  let deaf = null;
  if (me.scope !== "read") {
    const ear = el("button", { class: "plain", type: "button", "aria-pressed": "false" }, t("listen"));
    const hear = (on) => { ear.textContent = t(on ? "listen_no_more" : "listen"); ear.setAttribute("aria-pressed", String(on)); };
    ear.addEventListener("click", () => {
      if (deaf) { deaf(); deaf = null; } else deaf = listen(`${path}/listen`, () => { deaf = null; hear(false); });
      hear(Boolean(deaf));
    });
    let held = false;
    const hold = button("hold", () => post(held ? "unhold" : "hold"));
    told = (now) => { held = now === "holding"; hold.textContent = t(held ? "unhold" : "hold"); };
    const target = el("input", { autocomplete: "off", required: true });
    const mode = el("select", {}, el("option", { value: "blind" }, t("blind")), el("option", { value: "attended" }, t("attended")));
    const telling = el("input", { autocomplete: "off", required: true, maxlength: 2000 });
    const transfer = el("button", {}, t("transfer"));
    const tell = el("button", {}, t("tell"));
    actions.append(
      el("div", { class: "row" }, ear, hold,
        button("mute", () => post("mute", { muted: true })), button("unmute", () => post("mute", { muted: false })),
        button("hang_up", () => ask("webhook/end-call", { method: "POST", body: { session_id: call.id, reason: "page" } }), "bad")),
      el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); act(tell, async () => { await post("say-to-agent", { kind: "context", text: telling.value }); telling.value = ""; }, t("done")); } },
        field(t("tell_agent"), telling), tell),
      el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); act(transfer, () => post("transfer", { to: target.value, mode: mode.value }), t("done")); } },
        field(t("transfer_to"), target), field(t("how"), mode), transfer));
  }
  place.hidden = false;
  place.tabIndex = -1;
  place.replaceChildren(el("h2", {}, `${call.caller || (call.out ? "" : t("unknown"))} → ${call.called}`.trim()), state,
    facts([[t("agent"), call.agent], [t("session"), call.id]]), actions, over, el("h2", {}, t("transcript")), said);

  const source = new EventSource(`${path}/events`);
  const line = (event, who, text) => {
    const low = said.scrollHeight - said.scrollTop - said.clientHeight < 40;
    said.append(el("p", { class: who }, el("time", {}, clock((new Date(event.at) - new Date(call.started)) / 1000)),
      el("b", {}, `${word("who", who)}: `), text));
    if (low) said.scrollTop = said.scrollHeight;
  };
  const on = (kind, work) => source.addEventListener(kind, (message) => work(JSON.parse(message.data)));
  on("state", (event) => { state.textContent = word("state", event.state); told(event.state); });
  on("transcript", (event) => line(event, event.who, event.text));
  for (const kind of ["interruption", "tool", "dtmf", "note"]) on(kind, (event) => line(event, kind, event.text));
  on("agent_lost", (event) => line(event, "note", t("agent_lost")));
  on("agent_resumed", (event) => line(event, "note", t("agent_resumed")));
  on("ended", (event) => { line(event, "note", t("ended", { status: word("status", event.agent_status), reason: event.end_reason ? `(${event.end_reason})` : "" }));
    const focus = document.activeElement;
    actions.hidden = true;
    if (focus === document.body || actions.contains(focus)) place.focus({ preventScroll: true });
    over.hidden = !me.features.log;
    source.close();
  });
  return () => { source.close(); deaf?.(); };
}
