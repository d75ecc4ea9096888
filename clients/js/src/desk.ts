import { Connection } from "./connection.js";
import type { Finding } from "./diagnosis.js";
import { type Data, type Envelope, fields, message, payload, pick, split } from "./envelope.js";
import { failure, SwitchboardError } from "./error.js";
import { Handlers, isRequest } from "./handlers.js";
import { Events } from "./iterator.js";
import type { Listener } from "./listener.js";
import { Outcome } from "./outcome.js";
import { type Exchange, gathering, receiving, requesting } from "./requests.js";
import { isAnswer, Session } from "./session.js";
import { Subscriptions } from "./subscriptions.js";
import type * as api from "./switchboard.js";

/** The time limit of a request without `timeout`, in milliseconds. It is also the broker's default. */
const TIMEOUT_MS = 10_000;
/** How long a pending request waits beyond the grace of its session. The broker may notice a lost connection this late. */
const UNNOTICED_MS = 75_000;
/** How often the clock is looked at. A computer has slept if it went on this much further than it should have. */
const CLOCK_MS = 5_000;
/** How long leaving may take. */
const CLOSE_MS = 2_000;

type Listeners = { [E in keyof api.DeskEvents]: Set<(value: api.DeskEvents[E]) => void> };

/** The parts of a desk. `connect` wraps it in the public type. */
export class DeskCore {
  readonly connection: Connection;
  readonly wire: Session;
  readonly subscriptions: Subscriptions;
  readonly handlers: Handlers;
  readonly options: api.Options;
  session: { id: string; user?: string; server: string } | undefined;
  /** Messages that no listener takes are given to this. Returns whether it keeps them. */
  hold: ((envelope: Envelope, text: string, done: () => void) => boolean) | undefined;
  /** Called with the reply to a Register, when a session has begun or goes on. */
  onRegistered: ((reply: Data) => void) | undefined;
  /** Called when the session ends without a successor. */
  onForgotten: (() => void) | undefined;
  /** Called when a subscription or handler was added. */
  onAdded: (() => void) | undefined;
  readonly #listeners: Listeners = { state: new Set(), back: new Set(), error: new Set(), lagging: new Set(), dropped: new Set() };
  readonly #opened: { resolve(): void; reject(error: unknown): void }[] = [];
  #outage: Date | undefined;
  #heardAt = new Date();
  #grace: ReturnType<typeof setTimeout> | undefined;
  #renewal: ReturnType<typeof setTimeout> | undefined;
  readonly #clock: ReturnType<typeof setInterval>;
  #shown = "";

  constructor(options: api.Options) {
    this.options = options;
    this.connection = new Connection(options, this);
    this.wire = new Session(this.connection, options.source);
    const report = (error: SwitchboardError) => this.report(error);
    this.subscriptions = new Subscriptions(this.wire, this.connection, report, (...lists) => this.#settled(...lists));
    this.handlers = new Handlers(this.wire, this.connection, options.source, report);
    let at = Date.now();
    this.#clock = setInterval(() => {
      const elapsed = Date.now() - at;
      at += elapsed;
      if (Math.abs(elapsed - CLOCK_MS) > CLOCK_MS) this.wake();
    }, CLOCK_MS);
    if (options.signal?.aborted) queueMicrotask(() => void this.close());
    options.signal?.addEventListener("abort", () => void this.close(), { once: true });
  }

  mayPrompt?: (url: string) => Promise<boolean>;
  diagnose?: (url: string) => Promise<Finding | undefined>;

  // What the connection asks and says.

  registration(): Envelope {
    const { user, will, resume = true } = this.options;
    const { token, inbox } = this.wire;
    return {
      user,
      resume: token ? { token, received: inbox.handled() } : resume,
      will: will && { ...split(will.triple), data: will.data, retain: will.retain },
    };
  }

  registered(reply: Data): void {
    clearTimeout(this.#grace);
    const { wire, subscriptions, handlers } = this;
    const isResumed = reply.Resumed === true;
    subscriptions.user = reply.User;
    this.session = { id: reply.SessionId, ...pick(reply, "User", "Server") };
    wire.bytesMax = reply.MaxMessageBytes ?? Infinity;
    wire.graceMs = (reply.GraceSeconds ?? 0) * 1000;
    if (isResumed) {
      wire.token = reply.ResumeToken;
      this.onRegistered?.(reply);
      wire.resumed(reply.Received);
      subscriptions.resumed();
      handlers.resumed();
      this.#settled([], [], "resumed");
    } else {
      wire.end(true);
      wire.begin(reply.ResumeToken);
      handlers.begin();
      subscriptions.begin(!this.#outage);
      this.onRegistered?.(reply);
    }
    wire.flush();
    for (const { resolve } of this.#opened.splice(0)) resolve();
  }

  /** Finds out whether the connection lives, or makes the next one at once. */
  wake(): void {
    this.connection.check(() => this.wire.ping());
  }

  /** Reports a reconnection, when all its subscriptions are confirmed. */
  #settled(missed: string[], recovered: string[], how: "resumed" | "recovered" | "lost" = missed.length ? "lost" : "recovered"): void {
    const since = this.#outage;
    if (!since || !this.connection.isOpen) return;
    this.#outage = undefined;
    this.emit("back", { how, since, patterns: how === "lost" ? missed : recovered });
  }

  received(envelope: Envelope, text: string): void {
    this.#heardAt = new Date();
    const { wire } = this;
    const { inbox } = wire;
    const number = inbox.take();
    if (!number) return;
    const done = () => wire.done(inbox, number);
    // An answer that nothing waits for is too late, or a refusal without a cause.
    if (isAnswer(envelope)) {
      if (!wire.answer(envelope)) this.#notice(envelope);
      return done();
    }
    if (this.#notice(envelope)) return done();
    if (this.give(envelope, text, done) || this.hold?.(envelope, text, done)) return;
    this.decline(envelope);
    done();
  }

  /** Gives a message to whom it is for. Returns whether there is anybody. */
  give(envelope: Envelope, text: string, done: () => void): boolean {
    if (isRequest(envelope)) return this.handlers.deliver(envelope, text, done);
    const found = message(envelope, text);
    if (this.subscriptions.deliver(found, done)) return true;
    // Its listeners have it already.
    const isKnown = this.subscriptions.isKnown(found);
    if (isKnown) done();
    return isKnown;
  }

  /** Answers a request that no handler takes. */
  decline(envelope: Envelope): void {
    if (isRequest(envelope)) this.handlers.decline(envelope);
  }

  /** Handles what the broker says of the connection and the session. Returns whether it is nobody else's. */
  #notice(envelope: Envelope): boolean {
    if (envelope.channel !== "Broker") return false;
    const data = fields(envelope);
    switch (`${envelope.topic}/${envelope.subtopic}`) {
      case "Application/Joined":
      case "Application/Left":
      case "Cluster/Gap":
        return false;
      case "Request/Cancelled":
        this.handlers.cancelled(String(envelope.inReplyTo));
        break;
      case "Connection/Expiring":
        void this.#renew(1_000);
        break;
      case "Connection/Lagging":
        this.emit("lagging", pick(data, "Messages", "MessagesMax", "Bytes", "BytesMax"));
        break;
      case "Message/Dropped":
        this.emit("dropped", pick(data, "Count"));
        break;
      case "Subscription/Ended":
        this.subscriptions.ended(data.SubscriptionIds ?? []);
        this.handlers.ended(data.SubscriptionIds ?? []);
        break;
      case "Message/Error": {
        const error = failure(payload(envelope), envelope.inReplyTo as string | undefined);
        // An answer was too late: its request had ended meanwhile.
        if (error && error.code !== "NO_SUCH_REQUEST") this.report(error);
      }
    }
    return true;
  }

  /** Gets a new proof before the old one ends. */
  async #renew(wait: number): Promise<void> {
    if (typeof this.options.token !== "function") return;
    const again = () => {
      clearTimeout(this.#renewal);
      this.#renewal = setTimeout(() => void this.#renew(Math.min(wait * 2, 30_000)), wait);
    };
    try {
      const token = await this.connection.token("renew");
      if (!this.connection.isOpen) return;
      this.wire.command("Application", "Renew", { token }, (_, error) => {
        if (!error) return;
        this.report(error);
        if (error.retryable) again();
      });
    } catch (cause) {
      this.report(new SwitchboardError("TOKEN_UNAVAILABLE", "the token provider failed", { cause }));
      if (this.connection.isOpen) again();
    }
  }

  lost(dropsMessage: boolean): void {
    clearTimeout(this.#renewal);
    this.#outage ??= this.#heardAt;
    if (!this.wire.token || dropsMessage) {
      this.wire.end(!dropsMessage);
      this.onForgotten?.();
      return;
    }
    clearTimeout(this.#grace);
    // Nobody waits for ever if the broker does not return. Otherwise the reply to Register decides.
    this.#grace = setTimeout(() => this.wire.end(true), this.wire.graceMs + UNNOTICED_MS);
  }

  changed(): void {
    const { state, problem } = this.connection;
    const shown = `${state} ${problem?.code} ${problem?.message}`;
    if (shown === this.#shown) return;
    this.#shown = shown;
    if (problem) this.options.log?.("warn", `${problem.code}: ${problem.message}`);
    else this.options.log?.("debug", state);
    this.emit("state", { state, ...(problem && { problem }) });
  }

  stopped(error: SwitchboardError): void {
    for (const timer of [this.#grace, this.#renewal, this.#clock]) clearTimeout(timer);
    this.onForgotten?.();
    this.wire.close(error);
    this.subscriptions.close(error);
    this.handlers.close(error);
    for (const { reject } of this.#opened.splice(0)) reject(error);
    if (error.code !== "CLOSED") this.report(error);
  }

  report(error: SwitchboardError): void {
    if (this.#listeners.error.size) this.emit("error", error);
    else (this.options.log ?? ((_, text) => console.warn(text)))("warn", `${error.code}: ${error.message}`);
  }

  emit<E extends keyof api.DeskEvents>(event: E, value: api.DeskEvents[E]): void {
    for (const listener of [...this.#listeners[event]]) {
      try {
        listener(value);
      } catch (error) {
        // Whoever wrote the listener finds it where the runtime reports uncaught errors.
        queueMicrotask(() => console.error(error));
      }
    }
  }

  // What the application calls.

  opened({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    if (this.connection.isOpen) return Promise.resolve();
    if (this.connection.state === "closed") return Promise.reject(this.connection.problem);
    if (signal?.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      this.#opened.push({ resolve, reject });
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  }

  async close(): Promise<void> {
    const { connection, wire } = this;
    if (connection.isOpen) {
      // Everything that was sent is taken in before the session ends.
      await new Promise<void>((resolve) => {
        wire.command("Application", "Unregister", {}, () => resolve());
        // The connection is lost meanwhile, and must not be made again.
        this.on("state", () => resolve());
        setTimeout(resolve, CLOSE_MS);
      });
    }
    connection.stop(new SwitchboardError("CLOSED", "the page closed the desk"));
  }

  on<E extends keyof api.DeskEvents>(event: E, listener: (value: api.DeskEvents[E]) => void, options: { signal?: AbortSignal } = {}): () => void {
    const listeners = this.#listeners[event];
    const remove = () => void listeners.delete(listener);
    if (!options.signal?.aborted) listeners.add(listener);
    options.signal?.addEventListener("abort", remove, { once: true });
    return remove;
  }

  subscribe(pattern: string, listener: (event: any) => unknown, options: api.SubscribeOptions = {}): api.Subscription {
    const give: Listener["give"] = (event, done) => {
      try {
        listener(event);
      } catch (cause) {
        this.report(new SwitchboardError("INTERNAL", `a listener of ${pattern} failed`, { cause }));
      }
      done();
    };
    return this.#subscription(pattern, options.signal, (ready) =>
      this.subscriptions.add(pattern, options, { give, end: () => {}, ready, ...NEW }),
    );
  }

  events(pattern: string, options: api.SubscribeOptions & { buffer?: number } = {}): Events {
    const events = new Events(pattern, options.buffer ?? 1024);
    const { ready, unsubscribe } = this.#subscription(pattern, undefined, (ready) => {
      const listener: Listener = { give: (event, done) => events.give(event, done), end: (error) => events.end(error), ready, ...NEW };
      return this.subscriptions.add(pattern, options, listener);
    });
    events.begin(ready, unsubscribe);
    options.signal?.addEventListener("abort", () => events.unsubscribe(), { once: true });
    if (options.signal?.aborted) events.unsubscribe();
    return events;
  }

  handle(pattern: string, handler: (request: any) => unknown, options: api.HandleOptions = {}): api.Subscription {
    return this.#subscription(pattern, options.signal, (ready) => this.handlers.add(pattern, handler, options, ready));
  }

  #subscription(
    pattern: string,
    signal: AbortSignal | undefined,
    add: (ready: (outcome: api.Subscribed | SwitchboardError) => void) => () => void,
  ): api.Subscription {
    if (this.connection.state === "closed") throw this.connection.problem;
    let unsubscribe = () => {};
    const ready = Outcome.of<api.Subscribed>(
      // A desk that is closed has said so.
      (error) => error.code === "CLOSED" || this.report(error),
      (resolve, reject) => {
        unsubscribe = add((outcome) => (outcome instanceof SwitchboardError ? reject(outcome) : resolve(outcome)));
      },
    );
    signal?.addEventListener("abort", unsubscribe, { once: true });
    if (signal?.aborted) unsubscribe();
    this.onAdded?.();
    return { pattern, ready, unsubscribe, [Symbol.dispose]: unsubscribe };
  }

  publish(triple: string, data?: unknown, options: api.PublishOptions = {}): Promise<api.Receipt> {
    const { receipt = true, once, retain } = options;
    const id = options.id ?? this.wire.nextId();
    const isSilent = !receipt && !once && options.id === undefined;
    // Nothing says what became of an event without an id.
    const more = { retain, once, ...(isSilent && { id: undefined }) };
    return this.#send(id, triple, data, options, more, (settle) => {
      if (isSilent) queueMicrotask(() => settle.resolve({ receivers: 0 }));
      return { ...receiving(settle), ...(once && { repeat: "" }), isSilent };
    });
  }

  request(triple: string, data?: unknown, options: api.RequestOptions = {}): Promise<any> {
    return this.#ask(triple, data, options, {}, (settle) => requesting(settle, options));
  }

  gather(triple: string, data?: unknown, options: api.RequestOptions & { onAnswer?(answer: any): void } = {}): Promise<any> {
    return this.#ask(triple, data, options, { gather: true }, (settle) => gathering(settle, options));
  }

  #ask(triple: string, data: unknown, options: api.RequestOptions, more: Envelope, exchange: (settle: Settle) => Exchange): Promise<any> {
    const { timeout = TIMEOUT_MS, idempotent, key } = options;
    return this.#send(this.wire.nextId(), triple, data, options, { timeout, idempotent, ...more }, (settle) => ({
      ...exchange(settle),
      isRequest: true,
      key,
    }));
  }

  #send(
    id: string,
    triple: string,
    data: unknown,
    options: api.PublishOptions & api.RequestOptions,
    more: Envelope,
    exchange: (settle: Settle) => Exchange,
  ): Promise<any> {
    return Outcome.of<any>((error) => error.code === "CLOSED" || this.report(error), (resolve, reject) => {
      const { signal, timeout = TIMEOUT_MS, target, user, payload: place = "data", fields: others } = options;
      if (this.connection.state === "closed") return reject(this.connection.problem);
      if (signal?.aborted) return reject(signal.reason);
      const end = new AbortController();
      let late: ReturnType<typeof setTimeout> | undefined;
      const then = (settle: (value: any) => void) => (value: unknown) => {
        clearTimeout(late);
        end.abort();
        settle(value);
      };
      const settle: Settle = { resolve: then(resolve), reject: then(reject) };
      const waits = exchange(settle);
      // What is undefined is not written.
      const envelope = { ...others, ...split(triple), target, user, ...more, [place]: data };
      const refused = this.wire.post(id, envelope, waits, this.options.whenAway ?? "keep");
      if (refused) return reject(refused);
      signal?.addEventListener("abort", () => (this.wire.forget(waits.id as string), settle.reject(signal.reason)), { signal: end.signal });
      if (!waits.isRequest || this.connection.isOpen) return;
      // A request that is sent late may do harm.
      late = setTimeout(() => {
        if (!this.wire.isWaiting(id)) return;
        this.wire.fail(id, new SwitchboardError("REQUEST_TIMEOUT", `not connected within ${timeout} ms`));
      }, timeout);
    });
  }

  async credentials({ signal }: { signal?: AbortSignal } = {}): Promise<api.Credentials> {
    const found = await this.request("Salesforce/User/FetchCredentials", undefined, signal ? { signal } : {});
    return { ...pick(found, "Username", "Password", "Extension"), adfsUsername: found.ADFSUsername };
  }

  async #command(triple: string, data?: Envelope): Promise<Data> {
    const id = this.wire.nextId();
    return this.#send(id, `Broker/${triple}`, data, {}, {}, (settle) => requesting(settle, {}));
  }

  async applications(): Promise<api.Application[]> {
    const { Applications } = await this.#command("Application/List");
    return (Applications as Data[]).map((found) => ({
      ...pick(found, "Source", "User", "Sessions", "State"),
      since: new Date(found.Since),
    }));
  }

  explain(triple: string, to?: { source: string }): Promise<unknown> {
    return this.#command("Message/Explain", { envelope: split(triple), ...(to && { to }) });
  }

  async setState(state: "active" | "asleep"): Promise<void> {
    await this.#command("Application/SetState", { state });
  }
}

/** What ends a promise. */
export interface Settle {
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** A listener that was not subscribed yet. */
const NEW = { asked: 0, isFresh: true, awaitsReplay: false, hasLog: false };
