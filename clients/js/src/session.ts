import type { Connection } from "./connection.js";
import { type Data, type Envelope, fields, payload } from "./envelope.js";
import { failure, SwitchboardError } from "./error.js";
import { type Inbox, inbox } from "./inbox.js";
import { outbox, type Sent } from "./outbox.js";

/** How many handled messages are acknowledged together, and how long the first of them waits. */
const ACKNOWLEDGE_AFTER = 64;
const KEEP_UP_MS = 5_000;
/** What is kept while there is no connection: messages, and UTF-16 units of text. */
const WAITING_MAX = 1_000;
const WAITING_UNITS_MAX = 1 << 20;
/** For how long an event with `once` is sent again. By default, the broker knows its id for two minutes. */
const REPEAT_MS = 60_000;

/** What waits for the answers to an envelope with an id. */
export interface Pending {
  /** The id that its answers name. Another one, if it continues a request of the page before this one. */
  id?: string;
  /** Takes an answer. Returns whether it was the last. */
  answer(envelope: Envelope): boolean;
  fail(error: SwitchboardError): void;
  /** A retry of this text has no effect if the first one had one. */
  repeat?: string;
  /** A request that a reloaded page can take up. */
  key?: string | undefined;
  /** Nothing answers it. */
  isSilent?: boolean;
  /** A request, which is cancelled if nobody waits for it any more. */
  isRequest?: boolean;
}

interface Entry extends Pending {
  /** Absent until it is written. */
  sent?: Sent;
  since: number;
}

/** What a page before this one was waiting for. */
export interface Inherited {
  /** The id of a request, its number in the session, and its key. */
  pending: [id: string, number: number, key: string | null][];
}

/** The messages of a session in both directions, over all its connections. */
export class Session {
  token: string | undefined;
  graceMs = 0;
  bytesMax = Infinity;
  inbox = inbox();
  /** Called before the broker forgets what it is told is handled. */
  beforeAcknowledge: () => void = () => {};
  /** Requests of a page before this one that have no call yet, by id, with their answers. */
  readonly inherited = new Map<string, { key: string | null; answers: Envelope[] }>();
  #outbox = outbox(false);
  readonly #pending = new Map<string, Entry>();
  /** Messages for the next connection, by the ids of their answers or a number. */
  readonly #waiting = new Map<string, { text: string; isOfSession: boolean }>();
  #waitingUnits = 0;
  /** Ids of subscriptions that were ended while there was no connection. */
  #left: string[] = [];
  #made = 0;
  readonly #prefix = Math.random().toString(36).slice(2, 10);
  readonly #connection: Connection;
  readonly #source: string;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(connection: Connection, source: string) {
    this.#connection = connection;
    this.#source = source;
  }

  /** Makes an id that no other page of the session uses. */
  nextId(): string {
    this.#made += 1;
    return `${this.#prefix}-${this.#made}`;
  }

  /** What a reloaded page needs of the pending requests. */
  get saved(): Inherited["pending"] {
    const entries = [...this.#pending].filter(([, entry]) => entry.isRequest && entry.sent);
    const own = entries.map(([id, { sent, key }]): Inherited["pending"][0] => [id, sent?.number ?? 0, key ?? null]);
    return [...own, ...[...this.inherited].map(([id, { key }]): Inherited["pending"][0] => [id, 0, key])];
  }

  /** Sends an envelope whose answers `pending` takes. Returns an error if that is not possible. */
  post(id: string, envelope: Envelope, pending: Pending, whenAway: "keep" | "fail"): SwitchboardError | undefined {
    const text = this.#text({ id, ...envelope });
    if (new TextEncoder().encode(text).length > this.bytesMax) {
      return new SwitchboardError("TOO_LARGE", `the message is longer than ${this.bytesMax} bytes`);
    }
    const isOpen = this.#connection.isOpen;
    if (!isOpen && whenAway === "fail") return new SwitchboardError("AWAY", "not connected");
    const hasRoom = this.#waiting.size < WAITING_MAX && this.#waitingUnits + text.length <= WAITING_UNITS_MAX;
    if (isOpen ? !this.#outbox.hasRoom() : !hasRoom) {
      return new SwitchboardError("OVERFLOW", "too many messages wait");
    }
    const entry: Entry = Object.assign(pending, { since: Date.now() });
    if (pending.repeat !== undefined) pending.repeat = text;
    pending.id = id;
    if (!pending.isSilent) this.#pending.set(id, entry);
    if (isOpen) this.#send(id, text);
    else this.#wait(id, text, false);
    return undefined;
  }

  /** Writes an envelope, unless it is a request that the page before this one has sent. */
  #send(id: string, text: string): void {
    const entry = this.#pending.get(id);
    if (entry && this.#takeUp(entry)) return;
    const sent = this.#write(text);
    if (entry) entry.sent = sent;
  }

  /** Sends a command now. There must be a connection. */
  command(topic: string, subtopic: string, data: Envelope, answer: (reply: Data, error?: SwitchboardError) => void): void {
    const id = this.nextId();
    const take = (envelope: Envelope) => {
      answer(fields(envelope), failure(payload(envelope), id));
      return true;
    };
    const text = this.#text({ id, ...broker(topic, subtopic, data) });
    // A command whose session has ended needs no answer: what it was for is made again.
    this.#pending.set(id, { answer: take, fail: () => {}, since: Date.now(), sent: this.#write(text) });
  }

  /** Sends what needs no answer, or keeps it for the time when the session goes on. */
  tell(envelope: Envelope): void {
    const text = this.#text(envelope);
    if (this.#connection.isOpen) this.#write(text);
    else if (this.token && this.#waiting.size < WAITING_MAX) this.#wait(this.nextId(), text, true);
  }

  #text(envelope: Envelope): string {
    return JSON.stringify({ source: this.#source, ...envelope });
  }

  #wait(id: string, text: string, isOfSession: boolean): void {
    this.#waiting.set(id, { text, isOfSession });
    this.#waitingUnits += text.length;
  }

  #write(text: string, isUpkeep = false): Sent {
    const sent = this.#outbox.add(text, isUpkeep);
    this.#connection.write(text);
    if (!isUpkeep) this.#plan();
    return sent;
  }

  /** Nobody waits for these answers any more. */
  forget(id: string): void {
    const entry = this.#pending.get(id);
    this.#pending.delete(id);
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    this.#waitingUnits -= waiting?.text.length ?? 0;
    if (entry?.isRequest && entry.sent) this.cancel(id);
  }

  cancel(id: string): void {
    this.tell(broker("Request", "Cancel", { id }));
  }

  /** Passes an answer to what waits for it. Returns whether anything did. */
  answer(envelope: Envelope): boolean {
    const id = envelope.inReplyTo as string;
    const entry = this.#pending.get(id);
    if (!entry) {
      const inherited = this.inherited.get(id);
      if (inherited && inherited.answers.length < ACKNOWLEDGE_AFTER) inherited.answers.push(envelope);
      return inherited !== undefined;
    }
    if (entry.sent) this.#outbox.prove(entry.sent);
    if (entry.answer(envelope)) this.#pending.delete(id);
    return true;
  }

  /** Continues a request of the page before this one. Returns whether there is one with this key. */
  #takeUp(entry: Entry): boolean {
    for (const [id, { key, answers }] of this.inherited) {
      if (key !== entry.key) continue;
      this.inherited.delete(id);
      this.#pending.delete(entry.id as string);
      entry.id = id;
      entry.sent = { number: 0, text: "", isUpkeep: false };
      this.#pending.set(id, entry);
      for (const envelope of answers) this.answer(envelope);
      return true;
    }
    return false;
  }

  /** Notes that a message is handled. */
  done(inbox: Inbox, number: number): void {
    inbox.done(number);
    if (inbox !== this.inbox) return;
    if (inbox.due() >= ACKNOWLEDGE_AFTER) this.#acknowledge();
    else this.#plan();
  }

  #acknowledge(): void {
    if (!this.token || !this.#connection.isOpen) return;
    this.beforeAcknowledge();
    this.#write(this.#text(broker("Connection", "Acknowledge", { received: this.inbox.acknowledge() })), true);
  }

  /** Plans to acknowledge, and to ask what the broker has taken. A timer that runs late does no harm. */
  #plan(): void {
    if (!this.token) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (this.inbox.due() > 0) this.#acknowledge();
      if (this.#outbox.isInDoubt() && this.#connection.isOpen) this.ping();
    }, KEEP_UP_MS);
  }

  /** Ends a subscription of the broker, now or when the session goes on. */
  unsubscribe(id: string): void {
    if (this.#connection.isOpen) this.command("Subscription", "Unsubscribe", { SubscriptionId: id }, () => {});
    else this.#left.push(id);
  }

  ping(): void {
    const id = this.nextId();
    const text = this.#text({ id, ...broker("Connection", "Ping") });
    this.#pending.set(id, { answer: () => true, fail: () => {}, since: Date.now(), sent: this.#write(text, true) });
  }

  /** Goes on with the session after the broker has taken `taken` messages of it. */
  resumed(taken: number): void {
    for (const [id, entry] of this.#pending) if (entry.sent?.isUpkeep) this.#pending.delete(id);
    for (const { text } of this.#outbox.resume(taken)) this.#connection.write(text);
    for (const id of this.#left.splice(0)) this.unsubscribe(id);
    this.inbox.resume();
    // The broker forgets the old token with this acknowledgement.
    this.#acknowledge();
  }

  /** Ends the session. What was sent fails with LOST, unless `repeats` and the broker recognises it. */
  end(repeats: boolean): void {
    clearTimeout(this.#timer);
    this.#timer = this.token = undefined;
    this.inbox = inbox();
    this.inherited.clear();
    this.#left = [];
    const lost = new SwitchboardError("LOST", "the session has ended; the outcome is unknown");
    const waiting = [...this.#waiting].filter(([, { isOfSession }]) => !isOfSession);
    this.#waiting.clear();
    this.#waitingUnits = 0;
    for (const [id, entry] of this.#pending) {
      if (!entry.sent) continue;
      delete entry.sent;
      if (repeats && entry.repeat && Date.now() - entry.since < REPEAT_MS) {
        this.#wait(id, entry.repeat, false);
      } else {
        this.#pending.delete(id);
        entry.fail(lost);
      }
    }
    for (const [id, { text }] of waiting) this.#wait(id, text, false);
  }

  /** Begins a session. */
  begin(token: string | undefined): void {
    this.token = token;
    this.#outbox = outbox(token !== undefined);
  }

  /** Writes what waited for a connection. */
  flush(): void {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    this.#waitingUnits = 0;
    for (const [id, { text }] of waiting) this.#send(id, text);
  }

  /** Fails everything that waits. */
  close(error: SwitchboardError): void {
    clearTimeout(this.#timer);
    for (const [id, entry] of this.#pending) {
      this.#pending.delete(id);
      entry.fail(error);
    }
    this.#waiting.clear();
  }

  /** Whether an envelope has not been sent yet. */
  isWaiting(id: string): boolean {
    return this.#waiting.has(id);
  }

  /** Fails what waits for this id. */
  fail(id: string, error: SwitchboardError): void {
    const entry = this.#pending.get(id);
    if (!entry) return;
    this.forget(id);
    entry.fail(error);
  }
}

/** Returns a command. */
function broker(topic: string, subtopic: string, data?: Envelope): Envelope {
  return { channel: "Broker", topic, subtopic, data };
}

/** Returns whether an envelope is an answer to something. */
export function isAnswer(envelope: Envelope): boolean {
  const isNotice = envelope.channel === "Broker" && envelope.topic === "Request";
  return typeof envelope.inReplyTo === "string" && !isNotice;
}
