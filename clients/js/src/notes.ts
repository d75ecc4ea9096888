/**
 * What tabs with one session tell each other. Tabs may have different versions of the client, so a change needs another name
 * of the channel.
 */
export type Note =
  /** A tab looks for the leader. */
  | { kind: "hello" }
  /** The leader is there, but has no session yet. */
  | { kind: "wait" }
  /** The leader has a session on a new connection, the line. The broker has taken `taken` messages of it. */
  | { kind: "open"; line: string; reply: Reply; last: number; taken: number }
  /** The line has ended. Without a line: the leader could not connect. */
  | { kind: "down"; line: string | undefined; code: number; reason: string }
  /** A tab wants to go on after the frame `from` of a session, or to begin. */
  | { kind: "join"; line: string; tab: string; session: string | undefined; from: number; subscriptions: string[] }
  /** With the frames after `from` the tab goes on; without `frames` it begins after the frame `last`. */
  | { kind: "joined"; line: string; tab: string; frames: string[] | undefined; last: number }
  /** The message number `at` of a tab. */
  | { kind: "send"; line: string; tab: string; at: number; text: string }
  /** It is the message `number` of the session. */
  | { kind: "sent"; line: string; tab: string; at: number; number: number }
  /** A message of the broker. */
  | { kind: "frame"; line: string; number: number; text: string }
  /** A tab has closed its desk. */
  | { kind: "leave"; tab: string }
  /** The subscriptions of a tab were ended, so it cannot go on. */
  | { kind: "forgot"; tab: string }
  /** A person wants to connect now. */
  | { kind: "retry" };

/** `data` of the broker's reply to Register. */
export type Reply = Record<string, any>;

/** The names under which tabs find each other. */
export interface Names {
  /** Of the channel, and of the lock that the leader holds. */
  shared: string;
  /** Of the lock that a tab holds while it lives. */
  tab(id: string): string;
}

/** Makes an id that no other tab makes. */
export function makeId(): string {
  return Math.random().toString(36).slice(2, 12);
}
