import { call, type Hub, isMatch, makeHub, type Subscriber } from "./openajax-hub.js";
import type { Desk, Message } from "./switchboard.js";

export type * from "./openajax.d.ts";

/** What a part of a triple may be. */
const PART_BYTES_MAX = 128;
/** In place of a part that a name does not have. */
const MISSING = "-";

/** See openajax.d.ts. */
export function attachOpenAjax(desk: Desk<any>, page: object = globalThis): () => void {
  const owner = page as { OpenAjax?: { hub?: Hub } };
  const openAjax = (owner.OpenAjax ??= {});
  const hub = (openAjax.hub ??= makeHub());
  const { publish, subscribe, unsubscribe } = hub;
  const joined = new Map<unknown, () => void>();
  let hasEnded = false;

  hub.publish = (name, data) => {
    publish.call(hub, name, data);
    const triple = toTriple(name);
    // A name that is not a triple stays within the page, and so does what JSON cannot represent.
    if (!hasEnded && triple && isJson(data)) void desk.publish(triple, data);
  };
  hub.subscribe = (name, callback, scope, subscriberData, filter) => {
    const id = subscribe.call(hub, name, callback, scope, subscriberData, filter);
    const pattern = toPattern(name);
    if (hasEnded || !pattern) return id;
    const subscriber: Subscriber = { name: name.split("."), callback, scope, subscriberData, filter };
    const { unsubscribe } = desk.subscribe(pattern, (event) => give(subscriber, event));
    joined.set(id, unsubscribe);
    return id;
  };
  hub.unsubscribe = (id) => {
    joined.get(id)?.();
    joined.delete(id);
    return unsubscribe.call(hub, id);
  };
  return () => {
    hasEnded = true;
    for (const end of joined.values()) end();
    joined.clear();
  };
}

/** Calls a subscriber, if the event is for it: the broker's patterns are wider than the hub's. */
function give(subscriber: Subscriber, event: Message): void {
  const parts = [event.channel, event.topic, ...event.subtopic.split(".")];
  while (parts.at(-1) === MISSING) parts.pop();
  if (isMatch(subscriber.name, parts)) call(subscriber, parts.join("."), event.data);
}

function toTriple(name: string): string | undefined {
  const [channel = "", topic = MISSING, ...rest] = name.split(".");
  const parts = [channel, topic, rest.join(".") || MISSING];
  return parts.every(isPart) && channel.toLowerCase() !== "broker" ? parts.join("/") : undefined;
}

/** Returns a pattern of the broker that matches all that a name with wildcards does. */
function toPattern(name: string): string | undefined {
  const parts = name.split(".");
  const isOpen = parts.at(-1) === "**";
  const named = isOpen ? parts.slice(0, -1) : parts;
  const [channel = "*", topic = isOpen ? "*" : MISSING, ...rest] = named;
  const isWide = isOpen || rest.includes("*");
  const subtopic = isWide ? "*" : rest.join(".") || MISSING;
  const found = [channel, topic, subtopic];
  return found.every((part) => part === "*" || isPart(part)) && channel.toLowerCase() !== "broker" ? found.join("/") : undefined;
}

function isPart(part: string): boolean {
  const { length } = new TextEncoder().encode(part);
  return length > 0 && length <= PART_BYTES_MAX && part !== "*" && !/[/\u0000-\u001f\u007f-\u009f]/.test(part);
}

function isJson(data: unknown): boolean {
  try {
    return data === undefined || JSON.stringify(data) !== undefined;
  } catch {
    return false;
  }
}
