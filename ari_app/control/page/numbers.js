// Numbers: how many calls, how they ended, how quick and how good they were; by day and by agent.

import { ask, el, t, table, cell, word } from "./kit.js";
import { drawBars } from "./picture.js";

const MOST = 2000;

export async function showNumbers(main) {
  const days = el("select", { onchange: () => load() }, [1, 7, 30].map((value) => el("option", { value }, t("days", { days: value }))));
  days.value = "7";
  const place = el("div", {});
  main.append(el("h1", {}, t("numbers")), el("p", {}, el("label", {}, el("span", {}, t("period")), days)), place);

  async function load() {
    const from = new Date(Date.now() - Number(days.value) * 86400000).toISOString();
    const calls = [];
    let cursor = null;
    do {
      const query = new URLSearchParams({ from, limit: "200" });
      if (cursor) query.set("cursor", cursor);
      const page = await ask(`calls?${query}`);
      calls.push(...page.calls);
      cursor = page.cursor;
    } while (cursor && calls.length < MOST);
    draw(calls, Boolean(cursor));
  }

  function draw(calls, cut) {
    const times = waitsOf(calls);
    const byDay = count(calls, (call) => new Date(call.started_at).toLocaleDateString(document.documentElement.lang)).reverse();
    const byEnd = count(calls, (call) => call.status).map(([name, value]) => [word("status", name), value, name === "FAILED"]);
    const agents = [...group(calls, (call) => call.agent_id)];
    place.replaceChildren(
      el("p", {}, t("so_many_calls", { calls: calls.length }), cut ? ` ${t("cut_at", { most: MOST })}` : ""),
      el("p", {}, times.length ? t("responses", { p50: part(times, 0.5), p95: part(times, 0.95) }) : ""),
      calls.length === 0 ? el("p", { class: "soft" }, t("nothing_found")) : el("div", { class: "cards" },
        el("section", { class: "card" }, el("h2", {}, t("by_day")), drawBars(t("by_day"), byDay)),
        el("section", { class: "card" }, el("h2", {}, t("by_end")), drawBars(t("by_end"), byEnd))),
      calls.length === 0 ? "" : el("section", {}, el("h2", {}, t("by_agent")), table([t("agent"), t("calls"), t("minutes"), "p50", "p95", t("sound")],
          agents.map(([agent, own]) => {
            const waits = waitsOf(own);
            const scores = own.map((call) => call.score).filter((value) => value !== null);
            return el("tr", {}, cell(t("agent"), agent || "—"), cell(t("calls"), String(own.length)),
              cell(t("minutes"), (own.reduce((sum, call) => sum + (call.seconds ?? 0), 0) / 60).toFixed(1)),
              cell("p50", waits.length ? `${part(waits, 0.5)} s` : ""), cell("p95", waits.length ? `${part(waits, 0.95)} s` : ""),
              cell(t("sound"), scores.length ? String(Math.round(scores.reduce((a, b) => a + b) / scores.length)) : ""));
          }))));
  }

  await load();
}

// What the caller of each call waited for an answer, the median of its turns; the shortest first.
const waitsOf = (calls) => calls.map((call) => call.response_time).filter((value) => value !== null).sort((a, b) => a - b);
const part = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))].toFixed(2);
function group(all, by) { const found = new Map(); for (const one of all) { const key = by(one); found.set(key, [...(found.get(key) ?? []), one]); } return found; }
const count = (all, by) => [...group(all, by)].map(([name, own]) => [name, own.length]);
