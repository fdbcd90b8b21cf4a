// What is shown until the model is there: the phases that it went through, its progress, the last line of its log, or why
// it failed and what to do.

import { getState } from "./api.js";
import { find, make } from "./elements.js";
import { word } from "./words.js";

const EVERY_MS = 700;

// Returns the state once the model is ready; asks as long as it takes.
export async function untilReady() {
  for (;;) {
    const state = await getState().catch(() => null);
    if (state?.state === "ready") { find("loading").hidden = true; return state; }
    show(state);
    await new Promise((done) => setTimeout(done, EVERY_MS));
  }
}

function show(state) {
  const section = find("loading");
  section.hidden = false;
  if (!state) { section.replaceChildren(make("h2", {}, word("awayTitle")), make("p", {}, word("away"))); return; }
  const isFailed = state.state === "failed", parts = [make("h2", {}, word(isFailed ? "failedTitle" : "loadingTitle")), phases(state)];
  if (state.percent !== null && !isFailed) parts.push(bar(state.percent));
  if (isFailed) parts.push(make("p", { role: "alert", class: "trouble" }, state.fault ? word(`faults.${state.fault}`) : word("strangerFailed")));
  if (isFailed && state.detail) parts.push(make("pre", { id: "detail", tabindex: "0", lang: "en" }, state.detail));
  else if (state.log || state.detail) parts.push(make("p", { class: "small" }, word("logLine")), make("pre", { id: "detail", lang: "en", tabindex: "0" }, state.detail || state.log));
  section.replaceChildren(...parts);
}

function phases(state) {
  const items = state.phases.map(({ state: name, seconds }, at) => {
    const next = state.phases[at + 1]?.state, isNow = !next;
    const hasFailed = name === "failed" || ["failed", "starting"].includes(next);  // it is started again when it ends
    const kind = hasFailed ? "failed" : isNow ? "now" : "done";
    const time = name === "failed" ? "" : word("seconds", { seconds: seconds < 10 ? seconds : Math.round(seconds) });
    return make("li", { class: kind, ...(isNow ? { "aria-current": "step" } : {}) }, make("span", {}, word(name) || name), make("span", { class: "time" }, time));
  });
  return make("ol", { id: "phases" }, ...items);
}

function bar(percent) {
  const progress = make("progress", { max: 100, value: percent, "aria-label": word("loadingTitle") });
  return make("p", { class: "bar" }, progress, make("span", {}, `${percent} %`));
}
