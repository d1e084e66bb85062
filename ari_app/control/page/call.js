// Start a call, see it ring, and what became of it.

import { act, ask, el, field, t } from "./kit.js";
import { follow } from "./opened.js";

export async function showCall(main, me) {
  const number = el("input", { type: "tel", required: true, autocomplete: "off", placeholder: "+493023125001" });
  const caller = el("input", { type: "tel", autocomplete: "off" });
  const agent = el("input", { autocomplete: "off" });
  const variables = el("textarea", { rows: 4, placeholder: "customer_name=Jane", spellcheck: "false" });
  const button = el("button", {}, t("place"));
  const place = el("section", { class: "card", hidden: true, "aria-label": t("opened") });
  let panel = null;
  // Whoever asks again because the answer did not come is not to call anybody twice. Another wish has another name.
  let wish = null;

  async function begin() {
    const body = { called_number: number.value };
    if (caller.value) body.caller_number = caller.value;
    if (agent.value) body.agent_id = agent.value;
    const pairs = variables.value.split("\n").filter((line) => line.trim()).map((line) => line.split(/=(.*)/s).map((part) => (part ?? "").trim()));
    if (pairs.length) body.dynamic_variables = Object.fromEntries(pairs.map(([name, value]) => [name, value ?? ""]));
    wish ??= crypto.getRandomValues(new Uint32Array(4)).join("-");
    const answer = await ask("webhook/initiate-call", { method: "POST", body, headers: { "Idempotency-Key": wish } });
    wish = null;
    panel?.close();
    panel = follow(place, { id: answer.session_id, out: true, caller: caller.value, called: number.value, agent: agent.value, started: answer.timestamp }, me);
  }

  main.append(el("h1", {}, t("call")), el("div", { class: "split" },
    el("form", { class: "column card", oninput: () => { wish = null; }, onsubmit: (event) => { event.preventDefault(); act(button, begin); } },
      field(t("number"), number), field(t("caller_number"), caller), field(t("agent_id"), agent), field(t("variables"), variables), el("div", {}, button)),
    place));
  number.focus();
  return () => panel?.close();
}
