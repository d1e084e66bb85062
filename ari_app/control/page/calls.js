// The history: found by filters; a call opened shows what was said, drawn and heard.

import { act, ask, cell, clock, el, ends, facts, field, line, number, seconds, t, table, time, word, write } from "./kit.js";
import { drawCall } from "./picture.js";

const FILTERS = ["text", "number", "agent_id", "trunk", "status", "direction", "from", "to"];

// What was looked for last: whoever has opened a call comes back to the same list.
let lookedFor = {};

export async function showCalls(main, me, [id]) {
  return id ? await showOne(main, me, id) : await showList(main);
}

async function showList(main) {
  const inputs = Object.fromEntries(FILTERS.map((name) => [name, input(name)]));
  for (const [name, value] of Object.entries(lookedFor)) inputs[name].value = value;
  const button = el("button", {}, t("search"));
  const clear = el("button", { class: "plain", type: "button" }, t("clear"));
  const more = el("button", { class: "plain", type: "button", hidden: true }, t("more"));
  const heads = [t("when"), t("caller"), t("called"), t("agent"), t("outcome"), t("duration"), t("sound")];
  const list = table(heads, []);
  const body = list.querySelector("tbody");
  const none = el("p", { class: "soft", hidden: true }, t("nothing_found"));
  let cursor = null, turn = 0;

  async function load(anew) {
    const own = turn += 1;
    // There is no more of what is no longer looked for.
    if (anew) {
      more.hidden = true;
      lookedFor = Object.fromEntries(Object.entries(inputs).map(([name, one]) => [name, one.value]));
      clear.hidden = !Object.values(lookedFor).some(Boolean);
    }
    const query = new URLSearchParams({ limit: "50" });
    for (const [name, value] of Object.entries(lookedFor)) {
      if (value) query.set(name, inputs[name].type === "datetime-local" ? new Date(value).toISOString() : value);
    }
    if (!anew && cursor) query.set("cursor", cursor);
    const page = await ask(`calls?${query}`);
    if (own !== turn) return;
    if (anew) body.replaceChildren();
    body.append(...page.calls.map(row));
    cursor = page.cursor;
    more.hidden = !cursor;
    none.hidden = body.children.length > 0;
    list.hidden = !none.hidden;
  }

  more.addEventListener("click", () => act(more, () => load(false)));
  clear.addEventListener("click", () => {
    for (const one of Object.values(inputs)) one.value = "";
    inputs.text.focus();
    act(button, () => load(true));
  });
  main.append(el("h1", {}, t("calls")), el("form", { class: "row", role: "search", onsubmit: (event) => { event.preventDefault(); act(button, () => load(true)); } },
    FILTERS.map((name) => field(t(`filter.${name}`), inputs[name])), button, clear), none, list, el("p", {}, more));
  await load(true);
}

function input(name) {
  const choices = { status: ["COMPLETED", "TRANSFER", "TIMEOUT", "REJECTED", "FAILED"], direction: ["in", "out"] }[name];
  if (choices) return el("select", {}, el("option", { value: "" }, t("any")), choices.map((value) => el("option", { value }, word(name, value))));
  return el("input", { type: name === "from" || name === "to" ? "datetime-local" : "search", autocomplete: "off" });
}

function row(call) {
  return line({},
    cell(t("when"), el("a", { href: `#calls/${encodeURIComponent(call.session_id)}` }, time(call.started_at))),
    cell(t("caller"), call.caller_number || (call.direction === "out" ? word("direction", "out") : t("unknown"))), cell(t("called"), call.called_number), cell(t("agent"), call.agent_id),
    cell(t("outcome"), word("status", call.status), el("div", { class: "soft" }, word("reason", call.reason) || word("result", call.result))),
    cell(t("duration"), clock(call.seconds)),
    cell(t("sound"), call.score === null ? "" : String(call.score)));
}

// Who took the call over, and who listened.
function supervised(call) {
  const who = (one) => one.who || t("somebody");
  const between = (one) => ({ who: who(one), from: clock(one.from), until: clock(one.until) });
  const lines = [
    ...(call.take_overs ?? []).map((one) => one.from === null
      ? t("supervised.failed", { who: who(one), reason: word("result", one.failed) }) : t("supervised.took", between(one))),
    ...(call.listeners ?? []).map((one) => t("supervised.listened", between(one))),
  ];
  return lines.length ? [el("h2", {}, t("supervision")), el("ul", {}, lines.map((text) => el("li", {}, text)))] : null;
}

// What was measured of its sound and its answers.
function soundOf({ sound, response_times: waits = [] }) {
  const sorted = waits.toSorted((a, b) => a - b);
  const lost = [sound.rtp?.received_lost, sound.rtp?.sent_lost].map((value) => value ?? "–");
  return [
    [t("answers"), sorted.length ? t("answers_told", { usual: seconds(sorted[Math.floor(sorted.length / 2)]), slowest: seconds(sorted.at(-1)) }) : ""],
    [t("barge_in"), sound.barge_in_ms.length ? t("at_most", { value: number(Math.max(...sound.barge_in_ms)) }) : ""],
    [t("underruns"), sound.underruns ? t("times", { n: sound.underruns }) : t("none")],
    [t("gaps"), sound.gaps ? t("gaps_told", { gaps: t("times", { n: sound.gaps }), longest: number(sound.longest_gap_ms) }) : t("none")],
    [t("lost"), sound.rtp ? lost.join(" / ") : ""], [t("jitter"), sound.rtp ? `${seconds(sound.rtp.received_jitter_ms)} ms` : ""],
  ];
}

// Plays a recording of one part or several, which follow one another; times are those of the call, in seconds.
function makePlayer(address, parts) {
  const element = el("audio", { controls: true, preload: "metadata", "aria-label": t("recording") });
  const silent = el("p", { class: "bad", role: "status" });
  const choice = el("select", {}, parts.map((part, n) => el("option", { value: n }, t("part_of", { n: n + 1, all: parts.length, from: clock(part.from) }))));
  let now = 0;
  const from = () => parts[now].from ?? 0;
  function load(n) {
    now = n;
    choice.value = n;
    element.src = address(n);
  }
  // Where it cannot, "error" says why.
  const play = () => element.play().catch(() => {});
  choice.addEventListener("change", () => { load(Number(choice.value)); play(); });
  element.addEventListener("ended", () => { if (now + 1 < parts.length) { load(now + 1); play(); } });
  // A player that cannot play does not say why; whoever gives the recording out does.
  element.addEventListener("error", async () => {
    try { await ask(element.src, { headers: { Range: "bytes=0-0" } }); write(silent, t("not_played")); } catch (error) { write(silent, error.message); }
  });
  element.addEventListener("loadedmetadata", () => write(silent, ""));
  load(0);
  return {
    elements: [element, parts.length > 1 ? field(t("part"), choice) : "", silent],
    at: () => element.currentTime + from(),
    seek(at) {
      const n = Math.max(0, parts.findLastIndex((part) => (part.from ?? 0) <= at));
      if (n !== now) load(n);
      element.currentTime = Math.max(0, at - from());
    },
    play,
    follow: (work) => element.addEventListener("timeupdate", work),
  };
}

async function showOne(main, me, id) {
  const path = `calls/${encodeURIComponent(id)}`;
  const call = await ask(path);
  const parts = me.features.recordings ? call.recordings ?? [] : [];
  const address = (n) => `${path}/recording?part=${n + 1}`;
  const player = parts.length ? makePlayer(address, parts) : null;
  const picture = drawCall(call, player);
  const said = el("div", { class: "said", tabindex: "0", role: "group", "aria-label": t("transcript") }, (call.turns ?? []).map((turn) => {
    const line = el("p", { class: turn.who }, el("time", {}, clock(turn.at)), el("b", {}, `${word("who", turn.who)}: `),
      el("bdi", {}, turn.text), turn.interrupted || typeof turn.heard === "string" ? el("span", { class: "soft" }, " (", turn.interrupted && t("interrupted"),
        typeof turn.heard === "string" && [turn.interrupted ? ", " : "", `${t("heard")}: `, el("bdi", {}, turn.heard || t("nothing"))], ")") : null);
    if (player) line.addEventListener("click", () => { player.seek(turn.at); player.play(); });
    return line;
  }));
  player?.follow(() => {
    const at = player.at();
    (call.turns ?? []).forEach((turn, n) => said.children[n].classList.toggle("at", at >= turn.at && at < (turn.until ?? turn.at + 1)));
  });
  const forget = el("button", { class: "bad", type: "button" }, t("delete"));
  forget.addEventListener("click", () => {
    if (confirm(t("delete_sure"))) act(forget, async () => { await ask(path, { method: "DELETE" }); location.hash = "#calls"; }, t("deleted"));
  });
  main.append(el("p", {}, el("a", { href: "#calls" }, t("back"))),
    el("h1", {}, ends(call.caller_number, call.called_number, call.direction === "out")), picture, ...(player?.elements ?? []),
    el("div", { class: "split" },
      el("section", { class: "card" }, el("h2", {}, t("transcript")), said,
        el("p", {}, ["txt", "vtt", "json"].map((kind) => [el("a", { href: `${path}/transcript?format=${kind}`, download: true, "aria-label": `${t("transcript")}: ${kind}` }, kind), " "]))),
      el("section", { class: "card" }, el("h2", {}, t("why")),
        facts([[t("outcome"), [word("status", call.status), word("reason", call.reason)].filter(Boolean).join(" · ")], [t("reason"), call.reason], [t("transfer_to"), call.transfer_to], [t("result"), word("result", call.result)],
          [t("cause"), call.hangup_cause], ["SIP", call.sip_code], [t("detail"), call.detail], [t("when"), time(call.started_at)], [t("duration"), clock(call.seconds)],
          [t("agent"), call.agent_id], [t("conversation"), call.conversation_id], [t("session"), call.session_id], [t("way"), call.way], [t("trunk"), call.trunk], [t("hidden"), (call.hidden ?? []).join(", ")],
          [t("judged"), call.agent_report?.call_successful], [t("summary"), call.agent_report?.transcript_summary]]),
        el("h2", {}, t("sound")), call.score.value === null ? null : el("p", {}, `${call.score.value} / 100`),
        facts(soundOf(call)), call.score.reasons.length ? el("ul", {}, call.score.reasons.map((reason) => el("li", {}, reason))) : null,
        el("h2", {}, t("tools")), (call.tools ?? []).length ? el("ul", {}, call.tools.map((tool) => el("li", { class: tool.is_error ? "bad" : "" },
          `${clock(tool.at)} ${tool.name} · ${seconds(tool.seconds)} s · ${tool.result ?? ""}`))) : el("p", { class: "soft" }, t("none")),
        supervised(call),
        (call.webhooks ?? []).length ? [el("h2", {}, t("webhooks")), el("ul", {}, call.webhooks.map((one) => el("li", {}, `${one.event ?? one.type ?? ""} · ${one.state ?? one.status ?? ""}`)))] : null,
        el("p", { class: "row" }, parts.map((_, n) => el("a", { href: address(n), download: true }, t("download"), parts.length > 1 ? ` ${n + 1}` : null)), me.scope === "admin" ? forget : null))));
}
