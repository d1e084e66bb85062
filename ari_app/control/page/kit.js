// What every view needs: elements, words, requests. Text only ever enters the page as text.

// Until there are words of the chosen language, this is all there is to say.
let words = { trying_again: "The service does not answer; trying again." };

export async function speak(language) {
  words = await ask(`page/words.${language}.json`);
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
}

// A word of the chosen language; {name} is replaced.
export function t(name, values = {}) {
  return (words[name] ?? name).replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

// A word for one of many values, such as a state; the value itself where there is none. What ended a call may have kept
// it from beginning, too: agent_limit is limit.
export const word = (kind, value) => value ? words[`${kind}.${value}`] ?? words[`${kind}.${value.replace(/^agent_/, "")}`] ?? value : "";

export function el(tag, attributes = {}, ...children) {
  const element = tag.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export class Refused extends Error {
  constructor(status, detail) { super(detail); this.status = status; }
}

// The time by the service's clock, in ms: this machine's may be minutes off. An answer tells it to the second.
let ahead = 0;
export const now = () => Date.now() + ahead;
function setClock(response) {
  const there = Date.parse(response.headers.get("Date"));
  if (Math.abs(there - now()) > 2000) ahead = there - Date.now();
}

// So long after an answer that was none it is asked again.
export const AGAIN_MS = 3000;

// Ask for JSON. Errors carry the sentence of the service's problem details.
export async function ask(path, { method = "GET", body, key, headers: more } = {}) {
  const headers = { Accept: "application/json", ...more };
  if (method !== "GET") headers["X-Ari-App-Page"] = "1";
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["X-API-Key"] = key;
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Refused(0, t("no_answer"));
  }
  setClock(response);
  const text = await response.text();
  let data = null;
  try { data = text ? JSON.parse(text) : null; } catch { /* no JSON */ }
  if (response.status === 401 && !key) {
    dispatchEvent(new Event("signed-out"));
    throw new Refused(401, t("signed_out"));
  }
  if (!response.ok) throw new Refused(response.status, data?.detail ?? `HTTP ${response.status}`);
  return data;
}

// What this browser keeps between visits, where it keeps anything.
export const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
export const keep = (name, value) => { try { localStorage.setItem(name, value); } catch { /* not kept */ } };

let silence;
export function say(text, bad = false) {
  const box = document.getElementById("says");
  box.textContent = text;
  box.classList.toggle("bad-says", bad);
  clearTimeout(silence);
  // What went wrong stays until something else is done: not everybody reads quickly, or looks there at once.
  if (!bad) silence = setTimeout(() => say(""), 4000);
}

// Do something for a button: locked meanwhile, and what went wrong is said.
export async function act(button, work, done) {
  const focused = document.activeElement === button;
  button.disabled = true;
  say("");
  try { await work(); if (done) say(done); } catch (error) { say(error.message, true); }
  button.disabled = false;
  // What is disabled loses the keyboard's place.
  if (focused && document.activeElement === document.body) button.focus();
}

// The browser's own way of writing dates, where it speaks the chosen language.
export function locale() {
  const { lang } = document.documentElement;
  return navigator.languages.find((one) => one.startsWith(lang)) ?? lang;
}
export const time = (text) => text ? new Date(text).toLocaleString(locale(), { dateStyle: "short", timeStyle: "medium" }) : "";
export function number(value, digits = 0) {
  return value === null || value === undefined ? "" : value.toLocaleString(locale(), { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
export const seconds = (value) => number(value, 2);
export function clock(value) {
  const whole = Math.max(0, Math.round(value ?? 0));
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

// Do `work` before the next frame, once, however often it is asked for; not at all while nobody looks.
export function eachFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; work(); });
  };
}

// `begin` while this tab is seen, `end` while it is not; call what comes back to end for good. A browser has six connections
// to one address (HTTP/1.1): with streams of tabs that nobody looks at, none would be left for a button of the one in front.
export function whileSeen(begin, end) {
  const look = () => { if (document.hidden) end(); else begin(); };
  document.addEventListener("visibilitychange", look);
  look();
  return () => { document.removeEventListener("visibilitychange", look); end(); };
}

// Text that is as it was costs the browser nothing.
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function field(label, input) { return el("label", {}, el("span", {}, label), input); }

// The roles are said, for where rows are no rows to the layout they would be none to a screen reader.
export function table(heads, rows, kind) {
  return el("table", { class: kind, role: "table" },
    el("thead", { role: "rowgroup" }, line({}, heads.map((head) => el("th", { scope: "col", role: "columnheader" }, head)))),
    el("tbody", { role: "rowgroup" }, rows));
}

export const line = (attributes, ...cells) => el("tr", { role: "row", ...attributes }, ...cells);

export const cell = (name, ...children) => el("td", { role: "cell", "data-name": name }, el("div", {}, ...children));

// Who calls whom. A name that is written from right to left does not turn the arrow, and the number behind it, round.
export const ends = (caller, called, out) => [el("bdi", {}, caller || (out ? "" : t("unknown"))), " → ", el("bdi", {}, called)];

export function facts(pairs) {
  return el("dl", {}, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [el("dt", {}, name), el("dd", {}, el("bdi", {}, String(value)))]));
}
