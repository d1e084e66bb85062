// Numbers: how many calls, how they ended, how quick, how good and how dear they were; by day, agent or trunk.

import { ask, cell, el, field, line, locale, now, number, say, t, table, word } from "./kit.js";
import { drawBars } from "./picture.js";

const MOST = 10000;
const BARS = 31;

export async function showNumbers(main, me) {
  const choose = (values, name, chosen, change) => {
    const select = el("select", { onchange: change }, values.map((value) => el("option", { value }, name(value))));
    select.value = chosen;
    return select;
  };
  let calls = [], cut = false, known = false, turn = 0;
  const days = choose([1, 7, 30], (value) => value === 1 ? t("day") : t("days", { days: value }), "7", () => load().catch((error) => say(error.message, true)));
  const by = choose(["day", "agent", "trunk"], (value) => t(`by.${value}`), "day", () => draw());
  const place = el("div", {});
  main.append(el("h1", {}, t("numbers")), el("div", { class: "row" }, field(t("period"), days), field(t("by"), by)), place);

  async function load() {
    const own = turn += 1;
    say("");
    // What is shown is never of another period than the one that is chosen.
    known = false;
    place.replaceChildren();
    const from = new Date(now() - Number(days.value) * 86400000).toISOString();
    const found = [];
    let cursor = null;
    do {
      const query = new URLSearchParams({ from, limit: "200" });
      if (cursor) query.set("cursor", cursor);
      const page = await ask(`calls?${query}`);
      // Another period was chosen meanwhile, or somebody has gone on to another view.
      if (own !== turn || !place.isConnected) return;
      found.push(...page.calls);
      cursor = page.cursor;
    } while (cursor && found.length < MOST);
    [calls, cut] = [found, Boolean(cursor)];
    known = true;
    draw();
  }

  function draw() {
    if (!known) return;
    if (!calls.length) {
      place.replaceChildren(el("p", {}, t("so_many_calls", { calls: "0" })), el("p", { class: "soft" }, t("nothing_found")));
      return;
    }
    const all = sums("", calls, me.price);
    const rows = [...group(calls, KEYS[by.value])].map(([name, own]) => sums(name, own, me.price));
    // Days in their order, the rest by how much there is of it.
    if (by.value === "day") rows.reverse(); else rows.sort((a, b) => b.calls - a.calls);
    const columns = COLUMNS.filter(([, , isKnown]) => !isKnown || isKnown(all));
    const drawn = columns.filter(([name]) => DRAWN.includes(name));
    const shown = by.value === "day" ? rows.slice(-BARS) : rows.slice(0, BARS);
    const ends = [...group(calls, (call) => call.status)].map(([name, own]) => [word("status", name), own.length, name === "FAILED", number(own.length)]);
    place.replaceChildren(
      el("p", {}, t("so_many_calls", { calls: number(all.calls) }), cut ? ` ${t("cut_at", { most: number(MOST) })}` : ""),
      all.p50 === null ? "" : el("p", {}, t("responses", { p50: number(all.p50, 2), p95: number(all.p95, 2) })),
      all.costs ? el("p", {}, t(all.costs < all.calls ? "cost_known" : "cost_all", { known: number(all.costs), calls: number(all.calls) })) : "",
      el("div", { class: "cards" },
        drawn.map(([name, digits]) => {
          const title = t("measure_by", { measure: heading(name, me.price), by: t(`by.${by.value}`) });
          return el("section", { class: "card" }, el("h2", {}, title),
            drawBars(title, shown.map((row) => [row.name || "—", row[name] ?? 0, false, number(row[name], digits)])));
        }),
        el("section", { class: "card" }, el("h2", {}, t("by_end")), drawBars(t("by_end"), ends))),
      el("section", {}, el("h2", {}, t(`by.${by.value}`)),
        table([t(`by.${by.value}`), ...columns.map(([name]) => heading(name, me.price))], rows.map((row) => line({},
          cell(t(`by.${by.value}`), row.name || "—"),
          columns.map(([name, digits]) => cell(heading(name, me.price), number(row[name], digits)))))),
        el("p", {}, el("button", { type: "button", class: "plain", onclick: () => save(columns, rows) }, t("as_csv")))));
  }

  function save(columns, rows) {
    const names = columns.map(([name]) => name === "price" ? `price_${me.price.currency}` : name);
    const lines = [[by.value, ...names], ...rows.map((row) => [row.name, ...columns.map(([name]) => exact(row[name]))])];
    const link = el("a", { download: `numbers-by-${by.value}.csv`, href: URL.createObjectURL(new Blob([csv(lines)], { type: "text/csv" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  await load();
}

const STATUSES = ["COMPLETED", "TRANSFER", "TIMEOUT", "REJECTED", "FAILED"];
// What a column is called in a row, to how many places, and whether anything is known of it.
const COLUMNS = [
  ["calls", 0], ...STATUSES.map((name) => [name, 0, (all) => all[name] > 0]), ["minutes", 1],
  ["credits", 0, (all) => all.credits !== null], ["usd", 2, (all) => all.usd !== null], ["price", 2, (all) => all.price !== null],
  ["p50", 2, (all) => all.p50 !== null], ["p95", 2, (all) => all.p95 !== null], ["score", 0, (all) => all.score !== null],
];
const DRAWN = ["calls", "minutes", "credits", "usd", "price", "p50", "p95", "score"];
const KEYS = {
  day: (call) => new Date(call.started_at).toLocaleDateString(locale()),
  agent: (call) => call.agent_id,
  trunk: (call) => call.trunk || call.way,
};

function heading(name, price) {
  if (STATUSES.includes(name)) return word("status", name);
  return t(`measure.${name}`) + (name === "price" ? ` (${price.currency})` : "");
}

// An agent's time; calls that were kept before it was measured say how long they were.
const minutesOf = (call) => (call.agent_seconds ?? (call.answered_at ? call.seconds : 0) ?? 0) / 60;

function sums(name, calls, price) {
  const known = (field) => calls.map((call) => call[field]).filter((value) => value !== null && value !== undefined);
  const total = (values) => values.length ? values.reduce((sum, value) => sum + value, 0) : null;
  // What the caller of each call waited for an answer, the median of its turns; the shortest first.
  const waits = known("response_time").sort((a, b) => a - b);
  const scores = known("score");
  const minutes = total(calls.map(minutesOf));
  return {
    ...Object.fromEntries(STATUSES.map((status) => [status, calls.filter((call) => call.status === status).length])),
    name, calls: calls.length, minutes, credits: total(known("credits")), usd: total(known("cost_usd")), costs: known("credits").length,
    price: price ? minutes * price.amount : null, p50: part(waits, 0.5), p95: part(waits, 0.95),
    score: scores.length ? total(scores) / scores.length : null,
  };
}

function part(sorted, share) { return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] : null; }

const exact = (value) => value === null ? "" : Math.round(value * 1000) / 1000;

function group(all, by) {
  const found = new Map();
  for (const one of all) {
    const key = by(one);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(one);
  }
  return found;
}

// RFC 4180; what a spreadsheet would take for a formula gets an apostrophe before it.
function csv(lines) {
  const quoted = (value) => typeof value === "number" ? String(value) : `"${String(value).replace(/^(?=[=+\-@\t\r])/, "'").replaceAll('"', '""')}"`;
  return lines.map((line) => line.map(quoted).join(",") + "\r\n").join("");
}
