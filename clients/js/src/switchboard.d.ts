// @switchboard/client 1.0
//
// A triple is written "Channel/Topic/Subtopic". In a pattern, any part can be "*", and parts can be left off at the end.

/**
 * The types of your messages:
 * `interface Mine { events: { "Phone/Call/Ringing": { from: string } }; requests: { "Phone/Call/Dial": { data: { number: string }; reply: { callId: string } } } }`.
 * They cost nothing at run time.
 */
export interface AnySchema { events: { [triple: string]: any }; requests: { [triple: string]: { data: any; reply: any } } }
type Part<A extends string> = A extends "*" ? string : A;
type Glob<P extends string> = P extends `${infer A}/${infer B}/${infer C}` ? `${Part<A>}/${Part<B>}/${Part<C>}`
  : P extends `${infer A}/${infer B}` ? `${Part<A>}/${Part<B>}/${string}` : `${Part<P>}/${string}/${string}`;
type Key<M> = keyof M & string;
type Hits<M, P extends string> = string extends keyof M ? string : Extract<Key<M>, Glob<P>>;
type EventOf<S extends Shape, P extends string> = { [K in Hits<S["events"], P>]: Message<K, S["events"][K]> }[Hits<S["events"], P>];
type Shape = { events: any; requests: any };

/** Returns at once. Throws only for wrong options. */
export function connect<S extends Shape = AnySchema>(options: Options): Desk<S>;

export interface Options {
  source: string;
  /** Default: "ws://localhost:7420/ws". Several addresses are tried in turn. */
  url?: string | string[];
  /** A provider is called before the socket is opened ("register", "refused") and when the broker sends `Expiring` ("renew"). */
  token?: string | ((why: "register" | "renew" | "refused") => string | Promise<string>);
  /** Open mode only. */
  user?: string;
  /** Default: true. Resumes over reloads if there is sessionStorage, otherwise over reconnections only. */
  resume?: boolean;
  /** `publish` and `request` while not open: "keep" (default) holds up to 1,000 messages or 1 MiB; "fail" refuses with AWAY. */
  whenAway?: "keep" | "fail";
  /** "wait": if the browser would show a prompt, connects only on `retry()`, called from a click. Default: "ask". */
  permission?: "ask" | "wait";
  will?: { triple: string; data?: unknown; retain?: boolean };
  /** Aborting it closes the desk. */
  signal?: AbortSignal;
  /** A WebSocket constructor, where there is no global one, or for tests. */
  WebSocket?: unknown;
  /** Never receives a payload or a token. */
  log?: (level: "debug" | "warn", text: string) => void;
}

export interface Desk<S extends Shape = AnySchema> {
  readonly state: "connecting" | "open" | "closed";
  /** Why it is not open now; LNA_PROMPT while the browser asks the person. */
  readonly problem?: SwitchboardError;
  readonly session?: { id: string; user?: string; server: string };
  /** Rejects only if the desk is closed for good or the signal is aborted. */
  opened(options?: { signal?: AbortSignal }): Promise<this>;
  /** Connects now. Call it from a click to let the browser show its prompt. */
  retry(): void;
  /** Ends the session, its resume token and its will. */
  close(): Promise<void>;
  /** Returns a function that removes the listener. */
  on<E extends keyof DeskEvents>(event: E, listener: (value: DeskEvents[E]) => void, options?: { signal?: AbortSignal }): () => void;

  subscribe<P extends string>(pattern: P, listener: (event: EventOf<S, P>) => unknown, options?: SubscribeOptions): Subscription;
  /** Leaving the loop unsubscribes. A full buffer (default: 1,024) ends the iterator with OVERFLOW. */
  events<P extends string>(pattern: P, options?: SubscribeOptions & { buffer?: number }): AsyncIterableIterator<EventOf<S, P>> & Subscription;
  publish<T extends Key<S["events"]>>(triple: T, data?: S["events"][T], options?: PublishOptions): Promise<Receipt>;
  request<T extends Key<S["requests"]>>(triple: T, data?: S["requests"][T]["data"], options?: RequestOptions): Promise<S["requests"][T]["reply"]>;
  gather<T extends Key<S["requests"]>>(triple: T, data?: S["requests"][T]["data"],
    options?: RequestOptions & { onAnswer?(answer: Answer<S["requests"][T]["reply"]>): void }): Promise<Gathered<S["requests"][T]["reply"]>>;
  handle<P extends string, K extends Hits<S["requests"], P> = Hits<S["requests"], P>>(pattern: P,
    handler: (request: Request<K, S["requests"][K]["data"]>) => S["requests"][K]["reply"] | Promise<S["requests"][K]["reply"]>, options?: HandleOptions): Subscription;
  /** Never cached, logged or shared with another tab. */
  credentials(options?: { signal?: AbortSignal }): Promise<Credentials>;
  /** `Application/List`. For changes: `subscribe("Broker/Application/Joined", …)` and `…/Left`. */
  applications(): Promise<Application[]>;
  /** `Broker/Message/Explain` (operate.md). */
  explain(triple: string, to?: { source: string }): Promise<unknown>;
  setState(state: "active" | "asleep"): Promise<void>;
}

export interface DeskEvents {
  state: { state: Desk["state"]; problem?: SwitchboardError };
  /** Once after each reconnection. */
  back: { how: "resumed" | "recovered" | "lost"; since: Date; patterns: string[] };
  /** An error that no promise reports, or whose promise nobody awaits. */
  error: SwitchboardError;
  lagging: { messages: number; messagesMax: number; bytes: number; bytesMax: number };
  dropped: { count: number };
}
export interface Message<T extends string = string, D = unknown> {
  readonly triple: T; readonly channel: string; readonly topic: string; readonly subtopic: string;
  /** `data`, or `message` if there is no `data`. */
  readonly data: D;
  readonly source?: string; readonly user?: string; readonly id?: string;
  readonly retained?: boolean; readonly replayed?: boolean; readonly offset?: number; readonly epoch?: string;
  /** All fields, unknown ones included. */
  readonly envelope: Readonly<Record<string, unknown>>;
  /** The text as received, for numbers that JavaScript cannot represent. */
  readonly text: string;
}
export interface Request<T extends string = string, D = unknown> extends Message<T, D> {
  /** The requester's own id. */
  readonly requestId?: string;
  /** Moves with each `progress()`. */
  readonly deadline: Date;
  readonly gather: boolean;
  /** Aborted when the requester cancels or leaves, and at `deadline`. */
  readonly signal: AbortSignal;
  /** Sends a reply with `more:true`. */
  progress(data: unknown): void;
  /** Replies in place of the handler's return value, for vendor clients that expect another topic, subtopic or payload field. */
  answer(data: unknown, as?: { topic?: string; subtopic?: string; payload?: "data" | "message" }): void;
}
export interface Subscription { readonly pattern: string; readonly ready: Promise<Subscribed>; unsubscribe(): void; [Symbol.dispose](): void }
export interface Subscribed { id: string; narrowed: boolean; recovered?: boolean; recoverReason?: string; replayed?: number; epoch?: string; offset?: number }
export interface SubscribeOptions { group?: string; user?: string; recover?: { epoch: string; offset: number } | { last: number }; signal?: AbortSignal }
/** `answers: false` takes reply-less commands. `concurrency`: handler calls at a time; default: no limit. */
export interface HandleOptions { answers?: false; concurrency?: number; signal?: AbortSignal }
interface Sending { target?: string; user?: string; payload?: "data" | "message"; fields?: Record<string, unknown> }
/** `receipt` defaults to true: a refusal of an event without `id` cannot be matched to its cause. */
export interface PublishOptions extends Sending {
  id?: string; receipt?: boolean; retain?: boolean;
  /** Channels with history only. The event is delivered at most once, even if it is sent again with the same `id` within two minutes. If `id` is absent, the client makes one. */
  once?: boolean;
}
export interface RequestOptions extends Sending {
  /** Milliseconds. */
  timeout?: number; signal?: AbortSignal; idempotent?: boolean; onProgress?(data: any): void;
  /** After a reload, a call with the same key continues the pending request instead of sending another. */
  key?: string;
}
export interface Receipt { receivers: number; duplicate?: boolean; offset?: number; epoch?: string; hint?: string; cluster?: boolean }
export interface Answer<R> { source?: string; data: R }
export interface Gathered<R> { answers: Answer<R>[]; expected: number; failed: { source: string; code: string }[] }
export interface Credentials { username: string; password: string; extension: string; adfsUsername: string }
export interface Application { source: string; user?: string; since: Date; sessions: number; state: "active" | "asleep" | "away" }

export class SwitchboardError extends Error {
  /** A handler throws it to refuse a request. */
  constructor(code: string, message: string, options?: { data?: unknown; cause?: unknown });
  readonly code: BrokerCode | ConnectionCode | ClientCode | (string & {});
  readonly retryable: boolean; readonly inReplyTo?: string;
  /** Of a refused request: the whole answer. */
  readonly data?: unknown;
  /** Of a ConnectionCode: the one thing to do, in words for a person. */
  readonly cure?: string;
}
/** Generated from the broker's catalogue; a test compares them. */
export type BrokerCode = "INVALID_JSON" | "INVALID_ENVELOPE" | "NOT_REGISTERED" | "ALREADY_REGISTERED" | "UNAUTHENTICATED" | "FORBIDDEN" | "SOURCE_MISMATCH"
  | "SOURCE_IN_USE" | "USER_REQUIRED" | "RESERVED_CHANNEL" | "UNKNOWN_COMMAND" | "NO_SUCH_SUBSCRIPTION" | "NO_SUCH_REQUEST" | "NO_HANDLER" | "HANDLER_GONE"
  | "REQUEST_TIMEOUT" | "REQUEST_CANCELLED" | "TOO_LARGE" | "TOO_MANY_SUBSCRIPTIONS" | "TOO_MANY_REQUESTS" | "RATE_LIMITED" | "UPSTREAM_UNAVAILABLE"
  | "UPSTREAM_REJECTED" | "CREDENTIALS_NOT_FOUND" | "TOO_MANY_SESSIONS" | "STORAGE_UNAVAILABLE" | "INTERNAL";
export type ConnectionCode = "LNA_PROMPT" | "LNA_DENIED" | "LNA_NOT_DELEGATED" | "NOT_SECURE_CONTEXT" | "MIXED_CONTENT" | "CSP_BLOCKED" | "ORIGIN_REFUSED"
  | "HOST_REFUSED" | "NEIGHBOUR_REFUSED" | "BUSY" | "UPGRADE_BLOCKED" | "NOT_SWITCHBOARD" | "BROKER_DOWN" | "OFFLINE" | "BAD_ADDRESS" | "VERSION";
export type ClientCode = "AWAY" | "LOST" | "CLOSED" | "REPLACED" | "KICKED" | "OVERFLOW" | "TOKEN_UNAVAILABLE" | "HANDLER_FAILED";
