/** The part of `OpenAjax.hub` that applications use: OpenAjax Hub 2.0 without managed hubs, and the filters of 1.0. */
export interface Hub {
  publish(name: string, data?: unknown): void;
  subscribe(name: string, callback: Callback, scope?: object | null, subscriberData?: unknown, filter?: Filter): unknown;
  unsubscribe(id: unknown): unknown;
}

type Callback = string | ((name: string, data: unknown, subscriberData: unknown) => void);
type Filter = (name: string, data: unknown, subscriberData: unknown) => boolean;

/** A subscription. */
export interface Subscriber {
  name: string[];
  callback: Callback;
  scope?: object | null | undefined;
  subscriberData?: unknown;
  filter?: Filter | undefined;
}

/** The names of errors that the specification has. */
const ERRORS = [
  "BadParameters", "Disconnected", "Duplicate", "NoContainer", "NoSubscription", "NotAllowed", "WrongProtocol", "IncompatBrowser",
];
const ERROR = "OpenAjax.hub.Error.";

/** Makes a hub for a page that has none. */
export function makeHub(): Hub {
  const subscribers = new Map<string, Subscriber>();
  const libraries: Record<string, object> = {};
  let made = 0;
  const fail = (name: string) => new Error(`${ERROR}${name}`);
  const hub = {
    implementer: "switchboard",
    implVersion: "1.0",
    specVersion: "2.0",
    implExtraData: {},
    libraries,
    Error: Object.fromEntries(ERRORS.map((name) => [name, `${ERROR}${name}`])),

    registerLibrary(prefix: string, namespaceURI: string, version: string, extraData?: unknown) {
      libraries[prefix] = { prefix, namespaceURI, version, extraData };
      hub.publish("org.openajax.hub.registerLibrary", libraries[prefix]);
    },

    unregisterLibrary(prefix: string) {
      hub.publish("org.openajax.hub.unregisterLibrary", libraries[prefix]);
      delete libraries[prefix];
    },

    publish(name: string, data?: unknown) {
      const parts = split(name);
      if (!parts || parts.some((part) => part.includes("*"))) throw fail("BadParameters");
      for (const subscriber of [...subscribers.values()]) {
        if (isMatch(subscriber.name, parts)) call(subscriber, name, data);
      }
    },

    subscribe(name: string, callback: Callback, scope?: object | null, subscriberData?: unknown, filter?: Filter) {
      const parts = split(name);
      const call = typeof callback === "string" ? ((scope ?? globalThis) as any)[callback] : callback;
      if (!parts || parts.slice(0, -1).includes("**") || typeof call !== "function") throw fail("BadParameters");
      made += 1;
      subscribers.set(String(made), { name: parts, callback: call, scope, subscriberData, filter });
      return String(made);
    },

    unsubscribe(id: string) {
      if (!subscribers.delete(id)) throw fail("NoSubscription");
    },
  };
  return hub as Hub;
}

/** Calls a subscriber. One that throws does not keep an event from the others. */
export function call({ callback, scope, subscriberData, filter }: Subscriber, name: string, data: unknown): void {
  const owner = scope ?? globalThis;
  const found = typeof callback === "string" ? (owner as any)[callback] : callback;
  try {
    if (!filter || filter.call(owner, name, data, subscriberData)) found.call(owner, name, data, subscriberData);
  } catch (error) {
    console.error(error);
  }
}

/** Returns the parts of a name. `undefined`: one of them is empty. */
function split(name: unknown): string[] | undefined {
  const parts = String(name).split(".");
  return typeof name === "string" && parts.every(Boolean) ? parts : undefined;
}

/** Whether a name with wildcards matches another one. */
export function isMatch(wanted: string[], parts: string[]): boolean {
  const isOpen = wanted.at(-1) === "**";
  const named = isOpen ? wanted.slice(0, -1) : wanted;
  // `**` stands for at least one part.
  if (isOpen ? parts.length <= named.length : parts.length !== named.length) return false;
  return named.every((part, at) => part === "*" || part === parts[at]);
}
