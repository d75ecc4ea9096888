import type { Triple } from "./envelope.js";
import type { SwitchboardError } from "./error.js";
import type { Message, Subscribed } from "./switchboard.js";

/** A place in the log of a channel with history. */
export interface Position {
  epoch: string;
  offset: number;
}

/** One subscription of the page. */
export interface Listener {
  /** Takes a message, and calls `done` when the application has handled it. */
  give(message: Message, done: () => void): void;
  /** Ends it, because the broker did. */
  end(error: SwitchboardError): void;
  /** Takes the outcome of the first Subscribe command. */
  ready?: ((outcome: Subscribed | SwitchboardError) => void) | undefined;
  /** The number of its latest Subscribe command. */
  asked: number;
  /** Whether retained values can be for it. */
  isFresh: boolean;
  /** Whether a replay is on its way, so that earlier live events of other patterns are not for it. */
  awaitsReplay: boolean;
  /** Whether its events are of one log. Logs of several users can have the same epoch. */
  hasLog: boolean;
  /** The last event of that log that it was given. */
  position?: Position | undefined;
  recover?: { epoch: string; offset: number } | { last: number } | undefined;
}

/** The equal subscriptions of a page, which are one subscription of the broker. */
export class Group {
  readonly listeners: Listener[] = [];
  id: string | undefined;
  /** Whether the broker ignores case in this channel. */
  folds = false;
  /** Whether it was made again, and is not confirmed yet. */
  isUnconfirmed = false;

  constructor(
    readonly key: string,
    readonly pattern: string,
    readonly triple: Triple,
    readonly group: string | undefined,
    readonly user: string | undefined,
  ) {}

  /** Whether the broker can have a log for it. */
  get hasLog(): boolean {
    return !this.group && this.user !== "*" && this.triple.channel !== "*";
  }

  /** Returns from where to replay, so that no listener misses an event. Each leaves out what it was given already. */
  get recover(): Position | undefined {
    let first: Position | undefined;
    for (const { position } of this.listeners) {
      if (position?.epoch === undefined || !this.hasLog) continue;
      if (!first || (position.epoch === first.epoch && position.offset < first.offset)) first = position;
    }
    return first;
  }

  /** Returns the options of Subscribe that identify it. */
  get identity(): Record<string, unknown> {
    return { ...this.triple, group: this.group, user: this.user };
  }

  isFor(user: unknown): boolean {
    return !this.user || this.user === "*" || this.user === user;
  }
}

/** Returns whether an event comes after what the listener was given, and moves its position if so. */
export function advance(listener: Listener, { epoch, offset }: Message): boolean {
  if (!listener.hasLog || epoch === undefined || offset === undefined) return true;
  const { position } = listener;
  if (position?.epoch === epoch && offset <= position.offset) return false;
  listener.position = { epoch, offset };
  return true;
}
