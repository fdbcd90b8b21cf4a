// One answer: asked for until it comes, with its place in the queue, its speed, and what is left of the context.

import { Refused, getQueue, getState, newId, stream } from "./api.js";
import { splitThoughts } from "./markdown.js";
import { word } from "./words.js";

const LOOK_EVERY_MS = 1000;
const TRIES = { too_many_requests: Infinity, busy: Infinity, not_ready: Infinity, engine_lost: 2 };

// `show` gets {text, note, stats} whenever something changes. Raises Refused; whatever came before is in `show`.
export async function ask(messages, options, settings, signal, show) {
  const fields = fieldsOf(messages, options, settings);
  for (const tries = { ...TRIES };;) {
    try {
      return await askOnce(fields, signal, show);
    } catch (error) {
      if (!tries[error.code] || error.hasBegun) throw error;
      tries[error.code] -= 1;
      await waitFor(error, settings, signal, show);
      fields.model = settings.model;
    }
  }
}

function fieldsOf(messages, options, settings) {
  const { system, temperature, topP, maxTokens } = options;
  const told = system.trim() ? [{ role: "system", content: system }] : [];
  // What was thought is no part of what was said: models expect it to be left out.
  const said = messages.map(({ role, text }) => ({ role, content: role === "assistant" ? splitThoughts(text).answer : text }));
  return { model: settings.model, messages: [...told, ...said], temperature, top_p: topP, max_tokens: maxTokens };
}

async function askOnce(fields, signal, show) {
  const ticket = newId(), shown = { text: "", note: word("sent"), stats: null };
  const stats = { tokens: 0, seconds: 0, total: 0, isCut: false };
  let first = 0, isThinking = false;
  show(shown);
  const stopLooking = watchQueue(ticket, (note) => { shown.note = note; show(shown); });
  try {
    for await (const event of stream(fields, ticket, signal)) {
      stopLooking();
      const choice = event.choices?.[0], thought = choice?.delta?.reasoning_content || choice?.delta?.reasoning || "";
      const piece = choice?.delta?.content || "";
      if (thought && !isThinking) shown.text += "<think>";
      if (piece && isThinking) shown.text += "</think>";
      isThinking = piece ? false : isThinking || Boolean(thought);
      shown.text += thought + piece;
      if (thought || piece) {
        first ||= performance.now();
        stats.tokens += 1;
      }
      stats.isCut ||= choice?.finish_reason === "length";
      if (event.usage) Object.assign(stats, { tokens: event.usage.completion_tokens, total: event.usage.total_tokens });
      stats.seconds = first ? (performance.now() - first) / 1000 : 0;
      show(Object.assign(shown, { note: "", stats }));
    }
  } catch (error) {
    error.hasBegun = Boolean(first);
    throw error;
  } finally {
    stopLooking();
  }
  if (!shown.text) throw new Refused("empty", "");
  return stats;
}

// For engines that do not count in a stream: Chinese has about a token a character, English one in four.
export function guessTokens(messages) {
  const text = messages.map((message) => message.text).join(" ");
  const chinese = (text.match(/[\u2e80-\uffff]/g) || []).length;
  return Math.round(chinese + (text.length - chinese) / 4);
}

// Says which place the request has, until the returned function is called.
function watchQueue(ticket, tell) {
  let timer = setTimeout(look, LOOK_EVERY_MS / 2), isOver = false;
  async function look() {
    const { ahead } = await getQueue(ticket).catch(() => ({}));
    if (isOver) return;
    if (typeof ahead === "number") tell(ahead ? word("waiting", { ahead }) : word("next1"));
    else if (ahead === null) tell("");
    timer = setTimeout(look, LOOK_EVERY_MS);
  }
  return () => { isOver = true; clearTimeout(timer); };
}

// A server that is full or whose model is away: the message is kept, and asked again.
async function waitFor(error, settings, signal, show) {
  if (error.code !== "not_ready") {
    const seconds = error.retryAfterS || 2;
    show({ text: "", note: word("busyRetry", { seconds }), stats: null });
    return pause(seconds * 1000 * (1 + Math.random() / 2), signal);
  }
  for (;;) {
    const state = await getState().catch(() => ({ state: "starting" }));
    if (state.state === "ready") { settings.model = state.model; return undefined; }
    if (state.state === "failed") throw error;
    show({ text: "", note: word("comesBack", { state: word(state.state) || state.state }), stats: null });
    await pause(LOOK_EVERY_MS, signal);
  }
}

export function pause(ms, signal) {
  return new Promise((done, fail) => {
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", () => { clearTimeout(timer); fail(new DOMException("", "AbortError")); }, { once: true });
  });
}
