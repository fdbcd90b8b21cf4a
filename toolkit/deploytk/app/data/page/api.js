// What the server is asked.

export class Refused extends Error {
  constructor(code, message, status = 0, retryAfterS = 0) {
    super(message);
    Object.assign(this, { code, status, retryAfterS });
  }
}

async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("network", String(error.message));
  }
  if (answer.ok || (path === "ready" && answer.status === 503)) return answer;
  const body = await answer.json().catch(() => ({}));
  const { code, type, message } = body.error || {};
  const isFull = /context.?length|context window|maximum context|too long/i.test(`${code} ${type} ${message}`);
  const known = isFull ? "context_length_exceeded" : typeof code === "string" ? code : type;
  throw new Refused(known || "other", message || `HTTP ${answer.status}`, answer.status, Number(answer.headers.get("retry-after")));
}

export const getState = async () => (await call("ready")).json();
export const getSettings = async () => (await call("page/settings.json")).json();
export const getQueue = async (ticket) => (await call(`queue?ticket=${ticket}`)).json();
export const logIn = (key) => call("login", { method: "POST", body: new URLSearchParams({ key }) });

// The answer to a chat request, event by event.
export async function* stream(fields, ticket, signal) {
  const answer = await call("v1/chat/completions", {
    method: "POST", signal, body: JSON.stringify({ ...fields, stream: true, stream_options: { include_usage: true } }),
    headers: { "Content-Type": "application/json", "X-Deploytk-Ticket": ticket },
  });
  const reader = answer.body.getReader(), decoder = new TextDecoder();
  for (let rest = "", isDone = false; !isDone;) {
    const { done, value } = await read(reader);
    const lines = (rest + decoder.decode(value, { stream: !done })).split("\n");
    rest = lines.pop();
    isDone = done;
    for (const line of lines) {
      if (line.startsWith("data: [DONE]")) return;
      if (!line.startsWith("data: {")) continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Refused(event.error.code || "engine_lost", event.error.message);
      yield event;
    }
  }
  throw new Refused("engine_lost", "the answer was cut");
}

async function read(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("network", String(error.message));
  }
}

export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
