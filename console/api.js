// Calls of the admin API. docs/operate.md and GET /v1/openapi.json describe them.

const STORED = "switchboard.console.key";

/** The most bytes of a stream that wait for the end of an event. */
const EVENT_CHARACTERS_MAX = 1 << 20;

/** An error of a call: a problem document, or why there is none. */
export class Problem extends Error {
  constructor(code, message, status) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/** Notified when the broker does not accept the key any more. */
export const events = new EventTarget();

export function hasKey() {
  return sessionStorage.getItem(STORED) !== null;
}

/** Keeps a key or a token until the tab is closed. */
export function keep(key) {
  sessionStorage.setItem(STORED, key);
}

export function forget() {
  sessionStorage.removeItem(STORED);
}

async function request(method, path, { body, signal } = {}) {
  const headers = {};
  const key = sessionStorage.getItem(STORED);
  if (key !== null) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const options = { method, headers, signal, cache: "no-store", credentials: "omit", redirect: "error" };
  if (body !== undefined) options.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem("UNREACHABLE", "The broker does not answer. It may be restarting; this page tries again.", 0);
  }
  return response;
}

async function problemOf(response) {
  const problem = await response.json().catch(() => ({}));
  if (response.status === 401) {
    forget();
    events.dispatchEvent(new Event("signed-out"));
  }
  return new Problem(problem.code ?? `HTTP ${response.status}`, problem.detail ?? "The answer is not an error document.", response.status);
}

/** Makes a call, and returns what it answers. `also`: a further status that is an answer. */
export async function call(method, path, { body, signal, also } = {}) {
  const response = await request(method, path, { body, signal });
  if (!response.ok && response.status !== also) throw await problemOf(response);
  return response.status === 202 ? null : response.json();
}

export function get(path, signal) {
  return call("GET", path, { signal });
}

/** Reads a text. */
export async function text(path, signal) {
  const response = await request("GET", path, { signal });
  if (!response.ok) throw await problemOf(response);
  return response.text();
}

/** A path with the parameters that have a value. */
export function path(base, parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value !== undefined && value !== null));
  return query.size > 0 ? `${base}?${query}` : base;
}

/** Reads Server-Sent Events until the stream ends or `signal` ends it: calls `each` with the name and the data of each. */
export async function stream(path, signal, each) {
  const response = await request("GET", path, { signal });
  if (!response.ok) throw await problemOf(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let read = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    read += value;
    let end;
    while ((end = read.indexOf("\n\n")) >= 0) {
      const lines = read.slice(0, end).split("\n");
      read = read.slice(end + 2);
      const part = (start) => lines.find((line) => line.startsWith(start))?.slice(start.length);
      const data = part("data: ");
      if (data !== undefined) each(part("event: ") ?? "message", JSON.parse(data));
    }
    if (read.length > EVENT_CHARACTERS_MAX) throw new Problem("TOO_LARGE", "An event of the stream is too large.", 0);
  }
}
