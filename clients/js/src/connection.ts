import { backoff } from "./backoff.js";
import { RECONNECT } from "./catalogue.js";
import type { Finding } from "./diagnosis.js";
import { type Data, type Envelope, fields, join, parse, split } from "./envelope.js";
import { failure, SwitchboardError, unexpected } from "./error.js";
import type { Desk, Options } from "./switchboard.js";

/** How long opening a socket, registering, or asking a token provider may take. */
const ATTEMPT_MS = 20_000;
/** A connection that lasted this long resets the back-off. */
const STABLE_MS = 10_000;
/** How long the broker may take to answer a ping. */
const PING_MS = 2_000;
/** How long the Close frame may take that follows a refused Register. */
const CLOSE_MS = 1_000;
/** The client stops when a message of its own has closed the connection this often within the time. */
const DROPS_MAX = 3;
const DROPS_MS = 60_000;
/** The code with which the client gives up a connection. After 1000 or no code, the broker would end the session. */
const GIVEN_UP = 4000;

/** The codes that a desk has as `problem` when it stops after a close. */
const STOPPED: Record<number, string> = { 4401: "UNAUTHENTICATED", 4403: "FORBIDDEN", 4409: "REPLACED", 4410: "KICKED" };

const REGISTER = "Broker/Application/Register";

/** What a connection tells its owner, and asks it. */
export interface Owner {
  /** Returns `data` of Register, without the token. */
  registration(): Envelope;
  registered(reply: Data): void;
  /** A message of the session. */
  received(envelope: Envelope, text: string): void;
  /** A registered connection has ended. The broker closed it because of a message, if `dropsMessage`. */
  lost(dropsMessage: boolean): void;
  changed(): void;
  /** The desk stops. */
  stopped(error: SwitchboardError): void;
  report(error: SwitchboardError): void;
  /** Why a socket to this address does not open. Absent: nobody can find out. */
  diagnose?(url: string): Promise<Finding | undefined>;
  /** Whether the browser may be asking the person, so that no timer may end an attempt. */
  mayPrompt?(url: string): Promise<boolean>;
}

/** Makes one registered connection after the other. */
export class Connection {
  state: Desk["state"] = "connecting";
  problem: SwitchboardError | undefined;
  readonly #options: Options;
  readonly #urls: string[];
  readonly #owner: Owner;
  readonly #backoff = backoff();
  #socket: WebSocket | undefined;
  #hasOpened = false;
  #at = 0;
  /** The number of the attempt. One that is no longer the latest ends. */
  #attempt = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #limit: ReturnType<typeof setTimeout> | undefined;
  #ping: ReturnType<typeof setTimeout> | undefined;
  /** Whether a pause before the next attempt may be cut short. Not while a broker that restarts spreads its clients. */
  #mayHurry = false;
  #drainMs: number | undefined;
  #why: "register" | "refused" = "register";
  #refusal: SwitchboardError | undefined;
  #registeredAt = 0;
  #drops: number[] = [];

  constructor(options: Options, owner: Owner) {
    this.#options = options;
    this.#urls = [options.url ?? "ws://localhost:7420/ws"].flat();
    this.#owner = owner;
  }

  get #url(): string {
    return this.#urls[this.#at % this.#urls.length] as string;
  }

  /** Whether messages can be written. */
  get isOpen(): boolean {
    return this.state === "open";
  }

  /** Connects now, unless it is connected or connecting. */
  start(): void {
    if (this.state === "closed" || this.#socket) return;
    clearTimeout(this.#retry);
    this.#mayHurry = false;
    this.#attempt += 1;
    void this.#connect(this.#attempt);
  }

  async #connect(attempt: number): Promise<void> {
    this.#drainMs = this.#refusal = undefined;
    let token: string | undefined;
    try {
      token = await this.token(this.#why);
    } catch (cause) {
      if (attempt === this.#attempt) this.#later(unexpected("TOKEN_UNAVAILABLE", "the token provider failed", cause));
      return;
    }
    if (attempt === this.#attempt && this.state !== "closed") this.#dial(attempt, token);
  }

  /** Asks the provider, or returns the fixed token. */
  async token(why: "register" | "renew" | "refused"): Promise<string | undefined> {
    const { token } = this.#options;
    if (typeof token !== "function") return token;
    let timer;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error("no token within 20 s")), ATTEMPT_MS);
    });
    try {
      return await Promise.race([token(why), late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #dial(attempt: number, token: string | undefined): void {
    const Socket = (this.#options.WebSocket ?? globalThis.WebSocket) as typeof WebSocket;
    const url = this.#url;
    let socket: WebSocket;
    this.#hasOpened = false;
    try {
      socket = new Socket(url);
    } catch (cause) {
      const { name } = cause as Error;
      // Firefox throws NS_ERROR_CONTENT_BLOCKED if a policy of the page blocks the address; the diagnosis finds that out.
      if (/^NS/.test(name)) return this.#closed(1006, name);
      const code = name === "SecurityError" ? "MIXED_CONTENT" : "BAD_ADDRESS";
      return this.stop(new SwitchboardError(code, `no WebSocket to ${url}`, { cause }));
    }
    this.#socket = socket;
    void this.#limitOpening(attempt, url);
    socket.onopen = () => {
      this.#hasOpened = true;
      this.#limitAttempt();
      this.#write(socket, { token, ...this.#owner.registration() });
    };
    socket.onmessage = ({ data }) => this.#socket === socket && this.#received(String(data));
    const closed = ({ code, reason }: { code: number; reason: string }) => this.#socket === socket && this.#closed(code, reason);
    socket.onclose = closed;
    // Some runtimes have no close event for a socket that does not open.
    socket.onerror = () => setTimeout(() => socket.readyState === 3 && closed({ code: 1006, reason: "" }));
  }

  async #limitOpening(attempt: number, url: string): Promise<void> {
    const mayPrompt = (await this.#owner.mayPrompt?.(url)) ?? false;
    if (!mayPrompt && attempt === this.#attempt && this.#socket?.readyState === 0) this.#limitAttempt();
  }

  #limitAttempt(): void {
    clearTimeout(this.#limit);
    this.#limit = setTimeout(() => this.abandon("no answer within 20 s"), ATTEMPT_MS);
  }

  #write(socket: WebSocket, data: Envelope): void {
    socket.send(JSON.stringify({ ...split(REGISTER), source: this.#options.source, data }));
  }

  /** Writes a message of the session. */
  write(text: string): void {
    this.#socket?.send(text);
  }

  #received(text: string): void {
    // An answer to whatever was sent last shows that the socket lives.
    clearTimeout(this.#ping);
    const envelope = parse(text);
    const triple = join(envelope);
    if (!this.isOpen) {
      if (triple === REGISTER) this.#replied(fields(envelope));
      return;
    }
    const { ReconnectAfterMs } = fields(envelope);
    if (triple === "Broker/Connection/Draining" && ReconnectAfterMs >= 0) this.#drainMs = ReconnectAfterMs;
    // These two are not counted.
    if (triple !== REGISTER && triple !== "Broker/Connection/Replaced") this.#owner.received(envelope, text);
  }

  #replied(reply: Data): void {
    const refusal = failure(reply);
    if (refusal) {
      this.#refusal = refusal;
      // After most refusals the broker closes, and the code says what to do. Otherwise the connection is of no use.
      clearTimeout(this.#limit);
      this.#limit = setTimeout(() => (refusal.retryable ? this.abandon(refusal.message) : this.stop(refusal)), CLOSE_MS);
      return;
    }
    if (reply.Protocol !== 1) {
      this.stop(new SwitchboardError("VERSION", `${reply.Server} speaks protocol ${reply.Protocol}, this client 1`));
      return;
    }
    clearTimeout(this.#limit);
    this.#why = "register";
    this.#registeredAt = Date.now();
    this.state = "open";
    this.problem = undefined;
    this.#owner.registered(reply);
    this.#owner.changed();
  }

  #closed(code: number, reason: string): void {
    this.#socket = undefined;
    clearTimeout(this.#limit);
    clearTimeout(this.#ping);
    const wasOpen = this.isOpen;
    const advice = RECONNECT[code];
    if (wasOpen && Date.now() - this.#registeredAt >= STABLE_MS) this.#backoff.reset();
    const url = this.#url;
    const words = `the connection to ${url} ended with ${code}${reason && `: ${reason}`}`;
    if (wasOpen) {
      this.state = "connecting";
      this.#owner.lost(advice === "drop-message");
    }
    const canRenew = typeof this.#options.token === "function";
    if (advice === "stop" || (advice === "new-token" && !canRenew)) {
      this.stop(new SwitchboardError(STOPPED[code] as string, this.#refusal?.message ?? words));
      return;
    }
    if (advice === "new-token") this.#why = "refused";
    // What was found out about an earlier attempt holds until more is known.
    const known = this.#hasOpened || !this.problem?.cure ? undefined : this.problem;
    const problem = this.#refusal ?? known ?? new SwitchboardError(this.#hasOpened ? "AWAY" : "BROKER_DOWN", words);
    if (advice === "drop-message" && this.#dropped(problem)) return;
    const drain = code === 1012 ? this.#drainMs : undefined;
    if (!wasOpen) this.#at += 1;
    this.#later(problem, drain);
    if (!this.#hasOpened) void this.#diagnose(url);
  }

  /** Reports a close because of a message. Returns whether the desk has stopped. */
  #dropped(problem: SwitchboardError): boolean {
    this.#owner.report(problem);
    const now = Date.now();
    this.#drops = [...this.#drops.filter((at) => now - at < DROPS_MS), now];
    if (this.#drops.length >= DROPS_MAX) {
      this.stop(new SwitchboardError("CLOSED", `${problem.message}, three times in a minute`));
      return true;
    }
    return false;
  }

  async #diagnose(url: string): Promise<void> {
    const found = await this.#owner.diagnose?.(url).catch(() => undefined);
    // It is of interest until a connection is registered; what a later attempt finds replaces it.
    if (found && this.state === "connecting") this.show(found);
  }

  /** Shows why there is no connection. */
  show({ code, message, cure }: Finding): void {
    this.#become("connecting", new SwitchboardError(code, message, { cure }));
  }

  #later(problem: SwitchboardError, drainMs?: number): void {
    this.#mayHurry = drainMs === undefined;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.start(), drainMs ?? this.#backoff.next());
    this.#become("connecting", problem);
  }

  #become(state: Desk["state"], problem?: SwitchboardError): void {
    this.state = state;
    this.problem = problem;
    this.#owner.changed();
  }

  /** Gives up a connection without waiting for the other end, which may not answer any more. */
  abandon(why: string): void {
    if (this.#release(GIVEN_UP)) this.#closed(1006, why);
  }

  /** Closes the socket and listens to it no more. Returns whether there was one. */
  #release(code: number): boolean {
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return false;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(code);
    return true;
  }

  /** Gives up the connection because the page is left; `start` makes the next one. */
  suspend(): void {
    this.#attempt += 1;
    this.abandon("the page was left");
    clearTimeout(this.#retry);
  }

  /** Asks for an answer within 2 s; `ask` sends the ping. Without a connection, connects now. */
  check(ask: () => void): void {
    if (!this.isOpen) {
      if (this.#mayHurry) this.start();
      return;
    }
    clearTimeout(this.#ping);
    this.#ping = setTimeout(() => {
      this.abandon("no answer to a ping");
      this.start();
    }, PING_MS);
    ask();
  }

  /** Ends everything. The code 1000 tells the broker that the session is not continued. */
  stop(error: SwitchboardError): void {
    if (this.state === "closed") return;
    this.#attempt += 1;
    for (const timer of [this.#retry, this.#limit, this.#ping]) clearTimeout(timer);
    this.#release(1000);
    this.#become("closed", error);
    this.#owner.stopped(error);
  }
}
