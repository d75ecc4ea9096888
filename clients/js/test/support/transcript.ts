// Transcripts (tests/it/transcripts), as far as a client can play them: what it says goes through a desk, what arrives is read
// off the wire. The format is described in tests/it/support/transcript/mod.rs.

type Json = Record<string, any>;

/** One line. */
export type Step = { line: number } & (
  | { kind: "register"; peer: string; source: string; data: Json; code: string | undefined }
  | { kind: "subscribe"; peer: string; pattern: string; data: Json; code: string | undefined; isHandler: boolean }
  | { kind: "send"; peer: string; envelope: Json }
  | { kind: "expect"; peers: string[]; messages: Json[] }
  | { kind: "nothing" | "leave"; peer: string }
  | { kind: "close"; peer: string; code: number }
);

export interface Transcript {
  config: string;
  steps: Step[];
}

/** Options that a desk has. */
const OPTIONS = { register: ["user", "token", "will"], subscribe: ["group", "user", "recover"], handle: ["answers"] };
/** Commands by which a client manages its session itself. */
const OWN = /^Broker\/(Application\/(Register|Unregister|Renew)|Connection\/Acknowledge|Subscription\/)/;

/** Reads a transcript. Returns why a client cannot play it, if it cannot. */
export function read(text: string): Transcript | string {
  const lines = text.replaceAll(/\n +/g, " ").split("\n");
  const transcript: Transcript = { config: "", steps: [] };
  const registered = new Set<string>();
  for (let at = 0; at < lines.length; at += 1) {
    const line = lines[at] as string;
    if (!line.trim() || line.startsWith("#") || line.startsWith("log once") || line === "needs adapters") continue;
    if (line === "config <<toml") {
      const end = lines.indexOf("toml", at);
      transcript.config = lines.slice(at + 1, end).join("\n");
      at = end;
      continue;
    }
    const step = readLine(line);
    if (typeof step === "string") return step;
    if (step.kind === "register") registered.add(step.peer);
    else if ("peer" in step && !registered.has(step.peer)) return "it sends something before Register";
    const last = transcript.steps.at(-1);
    const isMore = line.includes("<* ") && last?.kind === "expect" && last.line === at;
    if (isMore && step.kind === "expect" && last.peers[0] === step.peers[0]) {
      last.messages.push(...step.messages);
      last.line = at + 1;
    } else {
      transcript.steps.push({ ...step, line: at + 1 } as Step);
    }
  }
  return transcript;
}

type Read = Step extends infer S ? (S extends Step ? Omit<S, "line"> : never) : never;

function readLine(line: string): Read | string {
  const [, names = "", mark, rest = ""] = /^([^ <>]+)([ <>])\s*(.*)$/.exec(line) ?? [];
  const peers = names.split("|");
  const peer = names;
  if (mark === "<") {
    if (rest === "nothing") return { kind: "nothing", peer };
    if (rest.startsWith("close ")) return { kind: "close", peer, code: Number(rest.slice(6)) };
    const message = envelope(rest.replace(/^\* /, ""));
    return message ? { kind: "expect", peers, messages: [message] } : "a message that is not a triple";
  }
  if (mark === ">") {
    const message = envelope(rest);
    if (!message) return "a text that is not an envelope";
    const isOwn = OWN.test(`${message.channel}/${message.topic}/${message.subtopic}`);
    return isOwn ? "a command of the session" : { kind: "send", peer, envelope: message };
  }
  if (rest === "leaves") return { kind: "leave", peer };
  const [command = "", code] = rest.split(" fails with ");
  const [, verb, what = "", options = "{}"] = /^(registers as|subscribes to|handles) (.*?)( \{.*)?$/.exec(command) ?? [];
  if (!verb) return `'${line.split(" ")[0]}'`;
  const data: Json = JSON.parse(options);
  const kind = ({ "registers as": "register", "subscribes to": "subscribe", handles: "handle" } as const)[verb as "handles"];
  const unknown = Object.keys(data).find((key) => !OPTIONS[kind as "handle"].includes(key));
  if (unknown) return `the option ${unknown}`;
  const failure = code?.split(":")[0];
  if (verb === "registers as") {
    const [source = "", user] = what.split(" for ");
    if (data.will) return "a will as an envelope";
    return { kind: "register", peer, source, data: { ...data, ...(user && { user }) }, code: failure };
  }
  return { kind: "subscribe", peer, pattern: what, data, code: failure, isHandler: verb === "handles" };
}

function envelope(text: string): Json | undefined {
  const [, channel, topic, subtopic, rest = "{}"] = /^([^/{"\[]+)\/([^/ ]+)\/([^/ ]+)( \{.*)?$/.exec(text) ?? [];
  if (!subtopic) return undefined;
  try {
    return { channel, topic, subtopic, ...JSON.parse(rest) };
  } catch {
    return undefined;
  }
}

/** Texts that the broker made and a transcript has named. */
export class Names {
  #names: Map<string, string>;

  constructor(names: Iterable<[string, string]> = []) {
    this.#names = new Map(names);
  }

  /** Replaces every `$name`. */
  fill<T>(value: T): T {
    const names = [...this.#names].sort(([a], [b]) => b.length - a.length);
    return JSON.parse(names.reduce((text, [name, found]) => text.replaceAll(`$${name}`, found), JSON.stringify(value)));
  }

  /** Returns where a message differs from the expected one, and remembers the names that it binds if it does not. */
  compare(expected: Json, found: Json): string | undefined {
    const names = new Names(this.#names);
    const why = names.#differs("", names.fill(expected), found);
    if (!why) this.#names = names.#names;
    return why;
  }

  #differs(path: string, expected: any, found: any): string | undefined {
    if (typeof expected === "string" && /^<.*>$/s.test(expected)) return this.#special(path, expected.slice(1, -1), found);
    if (Array.isArray(expected) && Array.isArray(found)) {
      if (expected.length !== found.length) return `${path} has ${found.length} elements`;
      const left = [...expected];
      for (const one of found) {
        // The order matters only in payloads, which the broker passes on byte for byte.
        const at = left.findIndex((other) => !this.#differs(path, other, one));
        if (at < 0) return `${path} has ${JSON.stringify(one)}`;
        left.splice(at, 1);
      }
      return undefined;
    }
    if (!isObject(expected) || !isObject(found)) {
      return Object.is(expected, found) ? undefined : `${path} is ${JSON.stringify(found)}, not ${JSON.stringify(expected)}`;
    }
    const extra = Object.keys(found).find((key) => !("..." in expected) && !(key in expected));
    if (extra) return `${path}.${extra} was not expected`;
    for (const [key, value] of Object.entries(expected)) {
      if (key === "...") continue;
      if (!(key in found)) return `${path}.${key} is missing`;
      const why = this.#differs(`${path}.${key}`, value, found[key]);
      if (why) return why;
    }
    return undefined;
  }

  #special(path: string, special: string, found: any): string | undefined {
    const [kind, ...rest] = special.split(":");
    const wrong = `${path} is ${JSON.stringify(found)}, not <${special}>`;
    const fits = {
      any: () => true,
      uuid: () => /^[0-9a-f-]{36}$/.test(found),
      time: () => !Number.isNaN(Date.parse(found)),
      has: () => String(found).includes(rest.join(":")),
      success: () => found?.Success === true && found.ErrorMessage === null,
      failure: () => found?.Success === false && found.ErrorCode === rest[0] && found.ErrorMessage.includes(rest.slice(1).join(":")),
      id: () => typeof found === "string" && Boolean(this.#names.set(rest.join(":"), found)),
    }[kind as "any"];
    return fits?.() ? undefined : wrong;
  }
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
