import type { Connection } from "./connection.js";
import { type Data, matches, pick, split } from "./envelope.js";
import { SwitchboardError } from "./error.js";
import { advance, Group, type Listener } from "./listener.js";
import type { Session } from "./session.js";
import type { Message, SubscribeOptions } from "./switchboard.js";

/** What a reply to Subscribe can say of history. */
const SUBSCRIBED = ["Recovered", "RecoverReason", "Replayed", "Epoch", "Offset"];

/**
 * The subscriptions of a page, and which of them gets an event.
 *
 * The broker delivers an event once per session, however many patterns match. So the patterns are compared here again.
 * Events of a replay follow the reply to the Subscribe command that asked for it, so they are for the group that was
 * confirmed last.
 */
export class Subscriptions {
  readonly #groups = new Map<string, Group>();
  readonly #session: Session;
  readonly #connection: Connection;
  readonly #report: (error: SwitchboardError) => void;
  /** Called when all subscriptions of a new session are confirmed, with the patterns that may have missed events. */
  readonly #settled: (missed: string[], recovered: string[]) => void;
  #asked = 0;
  #replaying: Group | undefined;
  #missed: string[] = [];
  #recovered: string[] = [];
  user: string | undefined;

  constructor(
    session: Session,
    connection: Connection,
    report: (error: SwitchboardError) => void,
    settled: (missed: string[], recovered: string[]) => void,
  ) {
    this.#session = session;
    this.#connection = connection;
    this.#report = report;
    this.#settled = settled;
  }

  get #all(): Group[] {
    return [...this.#groups.values()];
  }

  /** Adds a listener, and returns the function that removes it. */
  add(pattern: string, options: SubscribeOptions, listener: Listener): () => void {
    const { group: name, user } = options;
    const key = JSON.stringify([pattern, name, user]);
    const group = this.#groups.get(key) ?? new Group(key, pattern, split(pattern), name, user);
    this.#groups.set(key, group);
    group.listeners.push(listener);
    listener.recover = options.recover;
    if (this.#connection.isOpen) this.#subscribe(group, [listener], options.recover);
    return () => this.#remove(group, listener);
  }

  #subscribe(group: Group, listeners: Listener[], recover: Listener["recover"]): void {
    this.#asked += 1;
    const asked = this.#asked;
    for (const listener of listeners) Object.assign(listener, { asked, isFresh: true, awaitsReplay: recover !== undefined });
    // Without `retained`, a second subscription to the same pattern would get no retained values.
    const data = { ...group.identity, retained: true, recover };
    this.#session.command("Subscription", "Subscribe", data, (reply, error) => {
      const asking = group.listeners.filter((listener) => listener.asked === asked);
      if (error?.code === "INVALID_ENVELOPE" && recover && asking.some((listener) => !listener.ready)) {
        // The channel has no history any more.
        this.#subscribe(group, asking, undefined);
      } else if (error) {
        this.#refused(group, asking, error);
      } else {
        this.#confirmed(group, asking, asked, reply);
      }
    });
  }

  #confirmed(group: Group, listeners: Listener[], asked: number, reply: Data): void {
    group.id = reply.SubscriptionId as string;
    for (const other of this.#all) {
      // The broker gives one id to patterns that differ only in case, if it ignores case in their channel.
      if (other !== group && other.id === group.id) other.folds = group.folds = true;
      for (const listener of other.listeners) if (listener.asked < asked) listener.isFresh = false;
    }
    const isAgain = group.isUnconfirmed;
    for (const listener of listeners) {
      listener.awaitsReplay = false;
      listener.hasLog = reply.Epoch !== undefined && group.hasLog;
      // The events of a replay come before the position in the reply.
      if (!reply.Replayed) listener.position = { epoch: reply.Epoch, offset: reply.Offset };
      else if (listener.position?.epoch !== reply.Epoch) listener.position = undefined;
      listener.ready?.({ id: group.id, narrowed: reply.Narrowed === true, ...pick(reply, ...SUBSCRIBED) });
      listener.ready = undefined;
    }
    this.#replaying = reply.Recovered ? group : undefined;
    if (isAgain) (reply.Recovered ? this.#recovered : this.#missed).push(group.pattern);
    this.#settle(group);
    if (!group.listeners.length) this.#leave(group);
  }

  #refused(group: Group, listeners: Listener[], error: SwitchboardError): void {
    for (const listener of listeners) {
      this.#drop(group, listener);
      const { ready } = listener;
      listener.ready = undefined;
      if (ready) ready(error);
      else this.#report(error);
      listener.end(error);
    }
    if (group.isUnconfirmed) this.#missed.push(group.pattern);
    this.#settle(group);
  }

  #settle(group: Group): void {
    group.isUnconfirmed = false;
    if (this.#all.some((other) => other.isUnconfirmed)) return;
    this.#settled(this.#missed, this.#recovered);
    this.#missed = [];
    this.#recovered = [];
  }

  #drop(group: Group, listener: Listener): boolean {
    const at = group.listeners.indexOf(listener);
    if (at >= 0) group.listeners.splice(at, 1);
    if (!group.listeners.length) this.#groups.delete(group.key);
    return at >= 0;
  }

  #remove(group: Group, listener: Listener): void {
    if (this.#drop(group, listener) && !group.listeners.length) {
      this.#leave(group);
      // One that was never confirmed must not delay the report of a reconnection.
      if (group.isUnconfirmed) this.#settle(group);
    }
  }

  #leave({ id, key }: Group): void {
    const isShared = this.#all.some((other) => other.id === id);
    if (id && !isShared && !this.#groups.has(key)) this.#session.unsubscribe(id);
  }

  /** Makes the subscriptions of a session that has just begun. */
  begin(isFirst: boolean): void {
    this.#replaying = undefined;
    for (const group of this.#all) {
      group.id = undefined;
      const isNew = group.listeners.every((listener) => listener.ready);
      group.isUnconfirmed = !isNew && !isFirst;
      this.#subscribe(group, [...group.listeners], group.recover ?? (isNew ? group.listeners[0]?.recover : undefined));
    }
    if (!this.#all.some((group) => group.isUnconfirmed)) this.#settled([], []);
  }

  /** Makes the subscriptions that were added while there was no connection. */
  resumed(): void {
    for (const group of this.#all) {
      const added = group.listeners.filter((listener) => !listener.asked);
      for (const listener of added) this.#subscribe(group, [listener], listener.recover);
    }
  }

  /** Ends the broker's subscriptions that a page before this one had, and this one does not have. */
  endInherited(ids: string[]): void {
    const ours = new Set(this.#all.map((group) => group.id));
    for (const id of ids) if (!ours.has(id)) this.#session.unsubscribe(id);
  }

  /** Ends what the broker has ended, because the rights of the session have changed. */
  ended(ids: string[]): void {
    for (const group of this.#all.filter(({ id }) => id && ids.includes(id))) {
      const error = new SwitchboardError("FORBIDDEN", `the broker ended ${group.pattern}: the rights of this session have changed`);
      group.id = undefined;
      for (const listener of [...group.listeners]) {
        this.#drop(group, listener);
        listener.end(error);
      }
      this.#report(error);
    }
  }

  /** Gives an event to every listener that it is for. Returns whether there was any. */
  deliver(message: Message, done: () => void): boolean {
    const listeners = this.#listeners(message);
    let open = listeners.length;
    // A listener may subscribe and unsubscribe, so the list is a copy.
    for (const listener of listeners) {
      listener.give(message, () => {
        open -= 1;
        if (open === 0) done();
      });
    }
    return listeners.length > 0;
  }

  #listeners(message: Message): Listener[] {
    if (message.replayed && this.#replaying) {
      return this.#replaying.listeners.filter((listener) => advance(listener, message));
    }
    let groups = this.#matching(message, false);
    if (!groups.length) groups = this.#matching(message, true);
    // The broker sent it for one of them, so a filter that leaves none is not applied.
    const narrowed = groups.filter((group) => group.isFor(message.user));
    if (narrowed.length) groups = narrowed;
    const all = groups.flatMap((group) => group.listeners);
    if (message.retained) {
      const fresh = all.filter((listener) => listener.isFresh);
      return fresh.length ? fresh : all;
    }
    // Beside an observing subscription, an event of another user need not be from the log of this user.
    const isForeign = message.user !== this.user && groups.some((group) => group.user);
    return groups.flatMap((group) =>
      group.listeners.filter((listener) => {
        if (isForeign && !group.user) return true;
        return !(listener.awaitsReplay && message.offset !== undefined) && advance(listener, message);
      }),
    );
  }

  #matching(message: Message, fold: boolean): Group[] {
    return this.#all.filter((group) => matches(group.triple, message, fold || group.folds));
  }

  /** Whether any pattern matches, so that a message without a taker is not for a later subscription. */
  isKnown(message: Message): boolean {
    return this.#matching(message, true).length > 0;
  }

  /** Ends all. */
  close(error: SwitchboardError): void {
    for (const listener of this.#all.flatMap((group) => group.listeners)) {
      listener.ready?.(error);
      listener.end(error);
    }
    this.#groups.clear();
  }
}
