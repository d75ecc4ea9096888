// @switchboard/client/testing 1.0

/** A broker in memory, for the tests of an application. It needs no network and no clock, and forgets everything with the test. */
export function fakeBroker(): FakeBroker;

export interface FakeBroker {
  /** The option `WebSocket` of `connect`. Every address leads here. */
  readonly WebSocket: new (url: string) => WebSocket;
  /** The envelopes that all desks have sent, commands included, in order. The oldest of more than 10,000 are dropped. */
  readonly sent: readonly Record<string, any>[];
  /** Publishes an event, as the application `test`. Returns how many sessions it reaches. `fields` are further fields of the envelope. */
  publish(triple: string, data?: unknown, fields?: Record<string, unknown>): number;
  /** Answers requests. What is thrown becomes a failure with its `code`. Returns a function that ends this. */
  handle(pattern: string, handler: (request: FakeRequest) => unknown): () => void;
  /** Ends all connections without a Close frame. Desks reconnect and continue their sessions. */
  drop(): void;
  /** Closes all connections with this code, and from now on each one that registers. 0 ends that. */
  refuse(code: number): void;
}

export interface FakeRequest {
  readonly triple: string;
  readonly data: any;
  readonly source: string;
  readonly envelope: Readonly<Record<string, unknown>>;
}
