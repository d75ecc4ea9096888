import { type Data, type Envelope, fields, join, parse } from "./envelope.js";
import { makeId, type Names, type Note, type Reply } from "./notes.js";
import type { Window } from "./window.js";

/** How long a tab may be away, for a reload, before its subscriptions are ended: as long as a session by default. A late timer does no harm. */
const GRACE_MS = 30_000;

const REGISTER = "Broker/Application/Register";

/** The tab in which a leader runs. */
export interface Host {
  readonly names: Names;
  readonly tab: string;
  readonly session: string | undefined;
  readonly token: string | undefined;
  readonly window: Window;
  /** Tabs that cannot go on with this session. */
  readonly forgotten: Set<string>;
  /** Tells the other tabs and this one. */
  say(note: Note): void;
  /** The WebSocket is open. */
  opened(): void;
  /** The broker has refused Register. */
  refused(text: string): void;
}

interface Tab {
  state: string;
  watch: AbortController;
  timer?: ReturnType<typeof setTimeout>;
}

/**
 * The WebSocket that the tabs share, as long as it lasts. It passes on what the tabs and the broker send each other, and knows
 * which tab uses which subscription: equal ones of several tabs are one for the broker.
 *
 * The numbers that the broker gives the messages of the session are the numbers of the tabs too. So nothing is put between
 * those messages: a command of a tab that must not reach the broker goes there as a ping.
 */
export class Lead {
  readonly line = makeId();
  #reply: Reply | undefined;
  #taken = 0;
  readonly #host: Host;
  readonly #socket: WebSocket;
  #source = "";
  #sent = 0;
  #made = 0;
  readonly #tabs = new Map<string, Tab>();
  /** Subscribe commands without a reply, by id. */
  readonly #asked = new Map<string, string>();
  readonly #users = new Map<string, Set<string>>();
  #unused = new Set<string>();
  /** Tabs of the leader before this one may still join. */
  #isYoung = false;
  #young: ReturnType<typeof setTimeout> | undefined;
  #state: string | undefined;
  #hasEnded = false;

  constructor(host: Host, socket: WebSocket) {
    this.#host = host;
    this.#socket = socket;
    socket.onopen = () => host.opened();
    socket.onmessage = ({ data }) => this.#received(String(data));
    socket.onclose = ({ code, reason }) => this.#end(code, reason);
    // Some runtimes have no close event for a socket that does not open.
    socket.onerror = () => setTimeout(() => socket.readyState === 3 && this.#end(1006, ""));
  }

  /** Whether other tabs are left. */
  get hasOthers(): boolean {
    return this.#tabs.size > 1;
  }

  /** What a tab needs to know that has just been opened. */
  get news(): Note {
    if (!this.#reply) return { kind: "wait" };
    return { kind: "open", line: this.line, reply: this.#reply, last: this.#host.window.last, taken: this.#taken };
  }

  /** Registers the session of all tabs, with the proof of this one. */
  register(envelope: Envelope): void {
    const { token, window } = this.#host;
    this.#source = envelope.source as string;
    const resume = token ? { token, received: window.last } : true;
    this.#socket.send(JSON.stringify({ ...envelope, data: { ...fields(envelope), echo: true, resume } }));
  }

  #registered(reply: Data, text: string): void {
    if (reply.Success !== true) return this.#host.refused(text);
    this.#reply = reply;
    const isResumed = reply.Resumed === true;
    this.#taken = this.#sent = isResumed ? reply.Received : 0;
    this.#isYoung = isResumed;
    if (isResumed) this.#young = setTimeout(() => this.#sweep(), GRACE_MS);
    this.#host.say({ kind: "open", line: this.line, reply, last: isResumed ? this.#host.window.last : 0, taken: this.#taken });
  }

  /** Ends the subscriptions of tabs that have not joined. */
  #sweep(): void {
    this.#isYoung = false;
    this.#command("Subscription", "List", {});
  }

  /** Lets a tab go on, or begin. */
  join({ tab, session, from, subscriptions }: Extract<Note, { kind: "join" }>): void {
    const { window, forgotten, names } = this.#host;
    const known = this.#tabs.get(tab);
    clearTimeout(known?.timer);
    known?.watch.abort();
    const mayGoOn = session === this.#host.session && !forgotten.has(tab) && (known !== undefined || this.#isYoung);
    const frames = mayGoOn ? window.after(from) : undefined;
    forgotten.delete(tab);
    if (!frames) this.#leaveAll(tab);
    else for (const id of subscriptions) this.#use(id, tab);
    const watch = new AbortController();
    this.#tabs.set(tab, { state: "active", watch });
    this.#host.say({ kind: "joined", line: this.line, tab, frames, last: window.last });
    this.#tidy();
    if (tab === this.#host.tab) return;
    // The tab holds this lock until it ends, whatever ends it.
    navigator.locks.request(names.tab(tab), { signal: watch.signal }, () => this.#gone(tab)).catch(() => {});
  }

  /** A tab is reloaded or has ended. */
  #gone(tab: string): void {
    const known = this.#tabs.get(tab);
    if (known && !this.#hasEnded) known.timer = setTimeout(() => this.forget(tab), GRACE_MS);
  }

  /** Ends what a tab has. */
  forget(tab: string): void {
    const known = this.#tabs.get(tab);
    if (!known || this.#hasEnded) return;
    known.watch.abort();
    this.#tabs.delete(tab);
    this.#leaveAll(tab);
    this.#tidy();
    this.#host.say({ kind: "forgot", tab });
    const state = this.#common;
    if (this.#tabs.size && this.#state && state !== this.#state) this.#command("Application", "SetState", { state });
    this.#state &&= state;
  }

  /** The session is asleep if all its tabs are. */
  get #common(): string {
    return [...this.#tabs.values()].every(({ state }) => state === "asleep") ? "asleep" : "active";
  }

  /** Writes the message `at` of a tab. */
  take(tab: string, at: number, text: string): void {
    if (!this.#reply || this.#hasEnded) return;
    const out = this.#instead(tab, parse(text)) ?? text;
    this.#sent += 1;
    // Before the message: a tab must not think that it was not written when it was.
    this.#host.say({ kind: "sent", line: this.line, tab, at, number: this.#sent });
    this.#socket.send(out);
    this.#tidy();
  }

  /** Looks at a command of a tab. Returns what is written in its place, if it is not for the broker. */
  #instead(tab: string, envelope: Envelope): string | undefined {
    const { id } = envelope;
    const ping = () => this.#text("Connection", "Ping", id);
    const data = fields(envelope);
    switch (join(envelope)) {
      case "Broker/Subscription/Subscribe":
        this.#asked.set(id as string, tab);
        return undefined;
      case "Broker/Subscription/Unsubscribe":
        this.#leave(data.SubscriptionId, tab);
        return ping();
      case "Broker/Application/Unregister":
        return ping();
      case "Broker/Application/SetState": {
        const known = this.#tabs.get(tab);
        if (known) known.state = data.state;
        const before = this.#state;
        this.#state = this.#common;
        return before === this.#state ? ping() : undefined;
      }
    }
    return undefined;
  }

  /** Tells the broker how many messages are handled. */
  acknowledge(received: number): void {
    if (!this.#reply || this.#hasEnded) return;
    this.#sent += 1;
    this.#socket.send(this.#text("Connection", "Acknowledge", undefined, { received }));
  }

  #command(topic: string, subtopic: string, data: Envelope): void {
    this.#made += 1;
    this.#sent += 1;
    this.#socket.send(this.#text(topic, subtopic, `~${this.line}-${this.#made}`, data));
  }

  #text(topic: string, subtopic: string, id: unknown, data?: Envelope): string {
    return JSON.stringify({ source: this.#source, id, channel: "Broker", topic, subtopic, data });
  }

  #received(text: string): void {
    const envelope = parse(text);
    const triple = join(envelope);
    if (!this.#reply) {
      if (triple === REGISTER) this.#registered(fields(envelope), text);
      return;
    }
    // These two are not counted.
    if (triple === REGISTER || triple === "Broker/Connection/Replaced") return;
    if (envelope.channel === "Broker" && typeof envelope.inReplyTo === "string") this.#look(triple, envelope);
    this.#host.say({ kind: "frame", line: this.line, number: this.#host.window.last + 1, text });
    this.#tidy();
  }

  /** Notes what a reply says of subscriptions. */
  #look(triple: string, envelope: Envelope): void {
    const { Success, SubscriptionId, Subscriptions } = fields(envelope);
    const id = envelope.inReplyTo as string;
    const tab = this.#asked.get(id);
    this.#asked.delete(id);
    if (tab !== undefined && Success) this.#use(SubscriptionId, tab);
    if (triple !== "Broker/Subscription/List" || !id.startsWith(`~${this.line}`)) return;
    for (const { SubscriptionId } of (Subscriptions ?? []) as Data[]) if (!this.#users.has(SubscriptionId)) this.#unused.add(SubscriptionId);
  }

  #use(id: string, tab: string): void {
    const users = this.#users.get(id) ?? new Set();
    this.#users.set(id, users.add(tab));
    this.#unused.delete(id);
  }

  #leave(id: string, tab: string): void {
    const users = this.#users.get(id);
    users?.delete(tab);
    if (users?.size) return;
    this.#users.delete(id);
    this.#unused.add(id);
  }

  #leaveAll(tab: string): void {
    for (const [id, users] of [...this.#users]) if (users.has(tab)) this.#leave(id, tab);
  }

  /** Ends subscriptions without a user, unless another tab may just be making or claiming them. */
  #tidy(): void {
    if (this.#asked.size || this.#isYoung || this.#hasEnded) return;
    const ended = this.#unused;
    this.#unused = new Set();
    for (const SubscriptionId of ended) this.#command("Subscription", "Unsubscribe", { SubscriptionId });
  }

  /** Closes the WebSocket from this side. After 4000, the next leader goes on with the session. */
  close(code: number): void {
    this.#socket.close(code);
    this.#end(1006, "another tab leads");
  }

  #end(code: number, reason: string): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    Object.assign(this.#socket, { onopen: null, onmessage: null, onclose: null, onerror: null });
    clearTimeout(this.#young);
    for (const { timer, watch } of this.#tabs.values()) {
      clearTimeout(timer);
      watch.abort();
    }
    // After 4409 another tab has the session; this one must not stop.
    this.#host.say({ kind: "down", line: this.#reply && this.line, code: code === 4409 ? 1006 : code, reason });
  }
}
