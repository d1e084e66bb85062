// The calls that are running: all of them as a list, one of them opened.

import { AGAIN_MS, ask, cell, clock, eachFrame, el, line, now, seconds, t, table, whileSeen, word, write } from "./kit.js";
import { follow, supervision } from "./opened.js";

// News come twice a second; without any for so long the connection is taken for lost.
const DEAF_MS = 15000;

export async function showNow(main, me, [chosen]) {
  const health = el("p", { role: "status" });
  const warned = el("p", { role: "status" });
  const room = el("p", { class: "soft" });
  const rows = new Map();
  const heads = [t("caller"), t("called"), t("agent"), t("state"), t("duration"), t("voices"), t("response")];
  const list = table(heads, [], "now");
  const body = list.querySelector("tbody");
  const none = el("p", { class: "soft" }, t("no_calls"));
  // What moves all the time moves only where it can be seen.
  const seen = new Set();
  const looking = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const row = rows.get(target.dataset.id);
      if (row && isIntersecting) seen.add(row); else seen.delete(row);
    }
    move();
  }, { rootMargin: "100px" });
  const opened = el("section", { class: "card", "aria-label": t("opened"), hidden: true });
  main.append(el("h1", {}, t("now")), health, warned, room, el("div", { class: "split" }, el("div", {}, none, list), opened));
  let panel = null, shown = null;

  function open(call) {
    panel?.close();
    shown = call.id;
    for (const row of rows.values()) row.element.classList.toggle("chosen", row.call.id === shown);
    history.replaceState(null, "", `#now/${encodeURIComponent(call.id)}`);
    panel = follow(opened, call, me, () => shut(call.id));
  }

  // The keyboard goes back to where it came from.
  function shut(id) {
    panel.close();
    panel = shown = null;
    opened.hidden = true;
    opened.replaceChildren();
    history.replaceState(null, "", "#now");
    const row = rows.get(id);
    row?.element.classList.remove("chosen");
    (row?.button ?? main.closest("main")).focus();
  }

  // Where it was asked for by hand, the keyboard goes to it too, and a small screen scrolls there.
  function openAndGo(call) {
    open(call);
    opened.focus();
  }

  // The elements of a row stay while it changes: neither the keyboard's place nor a meter is lost.
  function begin(call) {
    const row = {
      call,
      button: el("button", { class: "link", onclick: () => openAndGo(row.call) }), called: el("span", {}), agent: el("span", {}),
      state: el("span", {}), outcome: el("div", { class: "soft" }), supervised: el("div", { class: "soft" }), duration: el("span", {}), voices: [meter("caller"), meter("agent")],
      response: cell(t("response")), levels: [-60, -60],
    };
    // One that has gone for a moment, with its worker, comes back as it was.
    row.element = line({ "data-id": call.id, class: call.id === shown && "chosen" }, cell(t("caller"), row.button), cell(t("called"), row.called), cell(t("agent"), row.agent),
      cell(t("state"), row.state, row.outcome, row.supervised), cell(t("duration"), row.duration),
      cell(t("voices"), row.voices.map((one) => one.element)), row.response);
    rows.set(call.id, row);
    looking.observe(row.element);
    return row;
  }

  function draw(call) {
    const row = rows.get(call.id);
    row.call = call;
    write(row.button, call.caller || (call.out ? word("direction", "out") : t("unknown")));
    write(row.called, call.called);
    write(row.agent, call.agent);
    write(row.state, word("state", call.state));
    write(row.outcome, call.outcome ? [word("status", call.outcome), word("reason", call.reason)].filter(Boolean).join(" · ") : "");
    write(row.response.firstChild, call.response === null ? "" : `${seconds(call.response)} s`);
    if (call.outcome) row.levels = [-60, -60];
    if (call.seconds !== null) write(row.duration, clock(call.seconds));
    write(row.supervised, supervision(call));
    if (chosen === call.id) { chosen = null; open(call); }
    panel?.update(call);
  }

  const move = eachFrame(() => {
    for (const row of seen) {
      write(row.duration, clock(row.call.seconds ?? (now() - new Date(row.call.started)) / 1000));
      row.voices.forEach((one, n) => one.set(row.levels[n]));
    }
  });

  function show(news) {
    const begun = news.calls.filter((call) => !rows.has(call.id)).map((call) => begin(call).element);
    for (const call of news.calls) draw(call);
    body.prepend(...begun.reverse());
    for (const id of news.gone) forget(rows.get(id));
    for (const [id, levels] of Object.entries(news.levels)) if (rows.has(id)) rows.get(id).levels = levels;
    none.hidden = rows.size > 0;
    list.hidden = rows.size === 0;
    health.className = news.problems.length ? "bad" : "good";
    write(health, news.problems.length ? `${t("not_ready")} ${news.problems.join("; ")}` : t("ready"));
    write(warned, news.warnings.length ? `${t("warned")} ${news.warnings.join(" ")}` : "");
    write(room, t("room", { running: news.running, limit: news.limit }));
    move();
  }

  function forget(row) {
    if (!row) return;
    looking.unobserve(row.element);
    row.element.remove();
    rows.delete(row.call.id);
    seen.delete(row);
  }

  let source, again, heard;
  // The service answers, but does not tell of calls.
  let refused = false;
  function watch() {
    const own = source = new EventSource("page/watch");
    heard = Date.now();
    // All calls are told anew on each connection; what is not among them has gone meanwhile.
    let first = true;
    own.onmessage = ({ data }) => {
      heard = Date.now();
      refused = false;
      const news = JSON.parse(data);
      if (first) news.gone = [...rows.keys()].filter((id) => !news.calls.some((call) => call.id === id));
      first = false;
      show(news);
    };
    own.onerror = () => {
      first = true;
      health.className = "bad";
      write(health, t(refused ? "not_watched" : "trying_again"));
      // A browser tries again by itself, but not after an answer such as a proxy's 502.
      if (own === source && own.readyState === EventSource.CLOSED) again = setTimeout(lookAgain, AGAIN_MS, own);
    };
  }
  async function lookAgain(own) {
    // Whoever is not signed in any more is asked for a key by that.
    try { await ask("page/me"); refused = true; } catch { refused = false; }
    if (own === source) watch();
  }
  function watchNoMore() {
    source?.close();
    source = null;
    clearTimeout(again);
  }
  // A connection may be gone without a word: the other machine has lost its power, this one was asleep, or is in another network.
  function look() {
    move();
    if (!source || Date.now() - heard < DEAF_MS) return;
    source.onerror();
    watchNoMore();
    watch();
    panel?.again();
  }
  const close = whileSeen(watch, watchNoMore);
  const timer = setInterval(look, 1000);
  return () => { close(); looking.disconnect(); clearInterval(timer); panel?.close(); };
}

function meter(kind) {
  const bar = el("i", {});
  let shown = -60;
  return {
    element: el("span", { class: `meter ${kind}`, role: "img", "aria-label": t(kind) }, bar),
    set(level) {
      if (level === shown) return;
      shown = level;
      bar.style.transform = `scaleX(${Math.max(0, (level + 60) / 60)})`;
    },
  };
}
