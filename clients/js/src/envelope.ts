import { SwitchboardError } from "./error.js";
import type { Message } from "./switchboard.js";

/** A JSON object on the wire. */
export type Envelope = Record<string, unknown>;

/** The payload of what the broker sends, as far as it is an object. */
export type Data = Record<string, any>;

/** The three parts of a triple or pattern. */
export interface Triple {
  channel: string;
  topic: string;
  subtopic: string;
}

/** Splits `Channel/Topic/Subtopic`. Parts that are left off at the end become `*`. */
export function split(text: string): Triple {
  const [channel, topic = "*", subtopic = "*", ...more] = String(text).split("/");
  if (!channel || more.length) throw new SwitchboardError("INVALID_ENVELOPE", `'${text}' is not Channel/Topic/Subtopic`);
  return { channel, topic, subtopic };
}

/** Reads a message. One that is not an envelope becomes an empty one, which nobody takes. */
export function parse(text: string): Envelope {
  try {
    const found = JSON.parse(text);
    return [found.channel, found.topic, found.subtopic].every((part) => typeof part === "string") ? found : {};
  } catch {
    return {};
  }
}

/** Joins the triple of an envelope. */
export function join({ channel, topic, subtopic }: Triple | Envelope): string {
  return `${channel}/${topic}/${subtopic}`;
}

/** Returns how many parts of a pattern are `*`. */
export function width({ channel, topic, subtopic }: Triple): number {
  return [channel, topic, subtopic].filter((part) => part === "*").length;
}

/** Returns whether a pattern matches a triple. With `fold`, topics and subtopics are compared without regard to case. */
export function matches(pattern: Triple, triple: Triple, fold: boolean): boolean {
  const same = (part: string, value: string) =>
    part === "*" || part === value || (fold && part.toLowerCase() === value.toLowerCase());
  const channel = pattern.channel === "*" ? triple.channel !== "Broker" : pattern.channel === triple.channel;
  return channel && same(pattern.topic, triple.topic) && same(pattern.subtopic, triple.subtopic);
}

/** Returns the payload of an envelope. */
export function payload(envelope: Envelope): unknown {
  return "data" in envelope ? envelope.data : envelope.message;
}

/** Returns `data` of an envelope if it is an object, and otherwise an empty one. */
export function fields(envelope: Envelope): Data {
  return typeof envelope.data === "object" && envelope.data !== null ? envelope.data : {};
}

/** Returns these keys of an object as far as it has them, with a small first letter. */
export function pick(from: Envelope, ...keys: string[]): any {
  const found: Envelope = {};
  for (const key of keys) if (from[key] != null) found[(key[0] as string).toLowerCase() + key.slice(1)] = from[key];
  return found;
}

/** Makes a message for the application. */
export function message(envelope: Envelope, text: string): Message {
  const keys = ["channel", "topic", "subtopic", "source", "user", "id", "retained", "replayed", "offset", "epoch"];
  return { triple: join(envelope), ...pick(envelope, ...keys), data: payload(envelope), envelope, text };
}
