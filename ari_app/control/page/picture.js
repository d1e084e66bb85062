// Pictures: a call over time, and bars.

import { clock, el, t, word } from "./kit.js";

// On a telephone the picture is drawn narrower, so that its words can still be read.
const isNarrow = () => matchMedia("(max-width: 52rem)").matches;

// Both voices, interruptions, tools and keys of a call over its time; a line follows the player.
export function drawCall(call, player) {
  const [width, most] = isNarrow() ? [400, 5] : [1000, 12];
  const length = Math.max(1, call.seconds ?? 0, ...(call.turns ?? []).map((turn) => turn.until ?? turn.at));
  const x = (at) => 60 + (at / length) * (width - 70);
  const parts = [];
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800].find((one) => length / one <= most) ?? 3600;
  for (let at = 0; at <= length; at += step) {
    parts.push(el("svg:line", { class: "axis", x1: x(at), x2: x(at), y1: 12, y2: 104 }),
      x(at) < width - 35 ? el("svg:text", { x: x(at) + 2, y: 118 }, clock(at)) : []);
  }
  for (const [who, y] of [["caller", 20], ["agent", 58]]) {
    parts.push(el("svg:text", { x: 2, y: y + 18 }, word("who", who)));
    for (const turn of (call.turns ?? []).filter((one) => one.who === who)) {
      const until = turn.until ?? turn.at + 0.4;
      parts.push(el("svg:rect", { class: who, x: x(turn.at), y, width: Math.max(2, x(until) - x(turn.at)), height: 28, rx: 3 },
        el("svg:title", {}, `${clock(turn.at)} ${turn.text}`)));
      if (turn.interrupted) parts.push(el("svg:rect", { class: "cut", x: x(until) - 2, y: y - 3, width: 4, height: 34 }, el("svg:title", {}, t("interrupted"))));
    }
  }
  for (const taken of (call.take_overs ?? []).filter((one) => one.from !== null)) {
    const told = t("supervised.took", { who: taken.who || t("somebody"), from: clock(taken.from), until: clock(taken.until) });
    parts.push(el("svg:rect", { class: "colleague", x: x(taken.from), y: 59, width: Math.max(4, x(taken.until) - x(taken.from)), height: 26, rx: 3 }, el("svg:title", {}, told)));
  }
  for (const tool of call.tools ?? []) {
    parts.push(el("svg:line", { class: "mark", x1: x(tool.at), x2: x(tool.at), y1: 90, y2: 104 }), el("svg:text", { x: x(tool.at) + 3, y: 101 }, tool.name));
  }
  for (const key of call.keys ?? []) parts.push(el("svg:text", { x: x(key.at), y: 10 }, key.digits));
  const place = el("svg:line", { class: "place", y1: 10, y2: 104, visibility: player ? "visible" : "hidden" });
  const picture = el("svg:svg", { class: "picture", viewBox: `0 0 ${width} 124`, role: "img", "aria-label": t("picture_of", { seconds: clock(length) }) }, parts.flat(), place);
  if (player) {
    const follow = () => { for (const end of ["x1", "x2"]) place.setAttribute(end, x(player.at())); };
    player.follow(follow);
    follow();
    picture.addEventListener("click", (event) => {
      const box = picture.getBoundingClientRect();
      player.seek((((event.clientX - box.left) / box.width) * width - 60) / (width - 70) * length);
      follow();
    });
  }
  return picture;
}

// A name that does not fit keeps its beginning; the table has all of it.
const short = (name) => name.length > 14 ? `${name.slice(0, 13)}…` : name;

// Bars with their names: [[name, value, bad, text]]; the text stands for the value.
export function drawBars(title, bars) {
  const most = Math.max(1e-9, ...bars.map(([, value]) => value));
  const height = 24 * bars.length + 6;
  return el("svg:svg", { class: "picture bars", viewBox: `0 0 300 ${height}`, role: "img", "aria-label": `${title}: ${bars.map(([name, value, , text]) => `${name} ${text ?? value}`).join(", ")}` },
    bars.map(([name, value, bad, text], n) => [
      el("svg:text", { x: 4, y: 24 * n + 19 }, short(String(name))),
      el("svg:rect", { class: bad ? "bar bad" : "bar", x: 126, y: 24 * n + 6, width: Math.max(1, (value / most) * 118), height: 16, rx: 3 }),
      el("svg:text", { x: 131 + (value / most) * 118, y: 24 * n + 19 }, text ?? String(value)),
    ]));
}
