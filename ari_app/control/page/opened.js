// One call as it goes on: what is said, and what may be done.

import { AGAIN_MS, act, ask, clock, eachFrame, el, ends, facts, field, keep, kept, say, seconds, t, whileSeen, word } from "./kit.js";
import { listen } from "./listen.js";

const MOST_LINES = 1000;

// Who has a hand in a call, in words.
export function supervision(call) {
  const { muted, take_over: over, listeners = [] } = call;
  return [
    over && t(`supervised.${over.state}`, { who: over.who || t("somebody"), endpoint: over.endpoint }),
    muted && t("supervised.muted"),
    listeners.length > 0 && t("supervised.listening", { who: listeners.map((who) => who || t("somebody")).join(", ") }),
  ].filter(Boolean).join(" · ");
}

// Show a call; `shut` is called when somebody has seen enough of it. Of what comes back `update` takes what is known of it anew, `again` makes a new connection, `close` ends it.
export function follow(place, call, me, shut) {
  const said = el("div", { class: "said", tabindex: "0", role: "log", "aria-label": t("transcript") });
  const state = el("p", {});
  const supervised = el("p", { class: "soft" });
  const path = `sessions/${encodeURIComponent(call.id)}`;
  const actions = me.scope === "read" ? { element: el("div", {}), show() {}, close() {} } : makeActions(call.id, path, show);
  const over = el("p", { hidden: true }, el("a", { href: `#calls/${encodeURIComponent(call.id)}` }, t("in_the_log")));
  // What the events tell at once, `update` tells half a second later; where only events come they are enough.
  const known = { muted: false, take_over: null, listeners: [], can: null, state: "", ...call };

  function show(news) {
    Object.assign(known, news);
    state.textContent = word("state", known.state);
    supervised.textContent = supervision(known);
    actions.show(known);
  }

  place.hidden = false;
  place.tabIndex = -1;
  const close = shut && el("button", { class: "plain", type: "button", onclick: shut }, t("close"));
  place.replaceChildren(el("div", { class: "head" }, el("h2", {}, ends(call.caller, call.called, call.out)), close), state, supervised,
    facts([[t("agent"), call.agent], [t("session"), call.id]]), actions.element, over, el("h2", {}, t("transcript")), said);
  show({});

  // A call that is opened late tells all that was said at once.
  let lines = [];
  const addLines = eachFrame(() => {
    const low = said.scrollHeight - said.scrollTop - said.clientHeight < 40;
    said.append(...lines);
    lines = [];
    while (said.children.length > MOST_LINES) said.firstChild.remove();
    if (low) said.scrollTop = said.scrollHeight;
  });
  const line = (event, who, text) => {
    lines.push(el("p", { class: who }, el("time", {}, clock((new Date(event.at) - new Date(call.started)) / 1000)),
      el("b", {}, `${word("who", who)}: `), el("bdi", {}, text)));
    if (lines.length > MOST_LINES) lines.shift();
    addLines();
  };
  const kinds = {};
  const on = (kind, work) => { kinds[kind] = work; };
  on("state", (event) => show({ state: event.state }));
  on("transcript", (event) => line(event, event.who, event.text));
  for (const kind of ["tool", "dtmf", "note"]) on(kind, (event) => line(event, kind, word("note", event.text)));
  on("interruption", (event) => line(event, "interruption", t("cut_off", { heard: seconds(event.heard_ms / 1000), unheard: seconds(event.unheard_ms / 1000) })));
  on("given_back", () => show({ take_over: null }));
  on("take_over_failed", (event) => {
    show({ take_over: null });
    if (me.scope !== "read") say(t("not_taken_over", { reason: word("result", event.reason) }), true);
  });
  on("ended", (event) => {
    if (event.agent_status === "FAILED") tellWhy(event);
    line(event, "note", t("ended", { status: word("status", event.agent_status), reason: event.end_reason ? `(${word("reason", event.end_reason)})` : "" }));
    finish();
  });

  // Why a number could not be dialled is kept with the call.
  async function tellWhy(event) {
    const { detail } = await ask(path).catch(() => ({}));
    if (detail) line(event, "note", detail);
  }

  // Nothing can be done with it any more.
  function finish() {
    const focus = document.activeElement;
    show({ take_over: null, muted: false, listeners: [] });
    actions.element.hidden = true;
    if (focus === document.body || actions.element.contains(focus)) place.focus({ preventScroll: true });
    over.hidden = !me.features.log;
    leave();
  }

  let source, timer, seen = "";
  function begin() {
    const own = source = new EventSource(`${path}/events${seen && `?last_event_id=${seen}`}`);
    for (const [kind, work] of Object.entries(kinds)) {
      own.addEventListener(kind, (message) => { seen = message.lastEventId; work(JSON.parse(message.data)); });
    }
    // A browser tries again by itself, but not after an answer such as a proxy's 502.
    own.onerror = () => { if (own === source && own.readyState === EventSource.CLOSED) timer = setTimeout(lookAgain, AGAIN_MS, own); };
  }
  async function lookAgain(own) {
    let gone = false;
    try { await ask(path); } catch (error) { gone = error.status === 404; }
    if (own !== source) return;
    if (gone) { show({ state: "ended" }); finish(); } else begin();
  }
  function end() {
    source?.close();
    source = null;
    clearTimeout(timer);
  }
  const leave = whileSeen(begin, end);
  return {
    update(news) { if (news.id === call.id) show(news); },
    again() { if (source) { end(); begin(); } },
    close() { leave(); actions.close(); },
  };
}

function makeActions(id, path, tell) {
  const post = (action, body) => ask(`${path}/${action}`, { method: "POST", body });
  const button = (name, work, kind = "plain") => {
    const one = el("button", { class: kind, type: "button" }, t(name));
    one.addEventListener("click", () => act(one, work, t("done")));
    return one;
  };
  const form = (work, ...parts) => el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); work(); } }, ...parts);
  let known = {};
  let deaf = null;

  const ear = el("button", { class: "plain", type: "button", "aria-pressed": "false" }, t("listen"));
  const hear = (on) => { ear.textContent = t(on ? "listen_no_more" : "listen"); ear.setAttribute("aria-pressed", String(on)); };
  ear.addEventListener("click", () => {
    if (deaf) { deaf(); deaf = null; } else deaf = listen(`${path}/listen`, (well) => { deaf = null; hear(false); if (!well) say(t("not_heard"), true); });
    hear(Boolean(deaf));
  });
  const hold = button("hold", () => post(known.state === "holding" ? "unhold" : "hold"));
  const mute = button("mute", async () => { const muted = !known.muted; await post("mute", { muted }); tell({ muted }); });
  const hangUp = button("hang_up", () => ask("webhook/end-call", { method: "POST", body: { session_id: id, reason: "page" } }), "bad");

  const whisper = el("input", { autocomplete: "off", required: true, maxlength: 2000 });
  const whispers = el("button", {}, t("tell"));
  const telling = form(() => act(whispers, async () => { await post("say-to-agent", { kind: "context", text: whisper.value }); whisper.value = ""; }, t("done")),
    field(t("tell_agent"), whisper), whispers);

  const phone = el("input", { autocomplete: "off", required: true, maxlength: 200, value: kept("phone") ?? "" });
  const take = el("button", {}, t("take_over"));
  const taking = form(() => act(take, async () => { await post("take-over", { endpoint: phone.value }); keep("phone", phone.value); }, t("phone_rings")),
    field(t("own_phone"), phone), take);
  const back = button("give_back", () => post("give-back"), "");
  const giving = el("div", { class: "row" }, back);

  const target = el("input", { autocomplete: "off", required: true });
  const blind = el("option", { value: "blind" }, t("blind"));
  const attended = el("option", { value: "attended" }, t("attended"));
  const mode = el("select", {}, blind, attended);
  const transfer = el("button", {}, t("transfer"));
  const transferring = form(() => act(transfer, () => post("transfer", { to: target.value, mode: mode.value }), t("done")),
    field(t("transfer_to"), target), field(t("how"), mode), transfer);

  const element = el("div", {}, el("div", { class: "row" }, ear, hold, mute, hangUp), telling, taking, giving, transferring);
  // What is hidden loses the keyboard's place: it goes to what has come instead.
  const swap = (shown, hidden, next) => {
    const moves = hidden.contains(document.activeElement) && !hidden.hidden;
    [shown.hidden, hidden.hidden] = [false, true];
    if (moves) next.focus();
  };
  return {
    element,
    show(news) {
      known = news;
      const can = (action) => !known.can || known.can.includes(action);
      hold.hidden = !can("hold") || known.state === "taken_over";
      mute.hidden = known.state === "taken_over";
      hold.textContent = t(known.state === "holding" ? "unhold" : "hold");
      mute.textContent = t(known.muted ? "unmute" : "mute");
      const consults = ["consulting", "briefing"].includes(known.state);
      const over = consults ? known.state : known.take_over?.state ?? (known.state === "taken_over" ? "talking" : null);
      back.textContent = t(consults ? "call_off_transfer" : over === "ringing" ? "call_off" : "give_back");
      if (over) swap(giving, taking, back); else swap(taking, giving, take);
      if (!can("take_over")) taking.hidden = true;
      blind.disabled = !can("blind");
      attended.disabled = !can("attended");
      if (blind.disabled) mode.value = "attended";
      transferring.hidden = Boolean(over) || (blind.disabled && attended.disabled);
    },
    close() { deaf?.(); },
  };
}
