import type { Connection } from "./connection.js";
import { type Envelope, matches, message, pick, split, type Triple, width } from "./envelope.js";
import { SwitchboardError } from "./error.js";
import type { Session } from "./session.js";
import type { HandleOptions, Request, Subscribed } from "./switchboard.js";

/** How many requests of a handler wait while `concurrency` of them run. */
const QUEUE_MAX = 1_000;

/** A handler of the page. */
interface Handler {
  pattern: string;
  triple: Triple;
  call(request: Request): unknown;
  answers: boolean;
  concurrency: number;
  running: number;
  queue: Work[];
  id?: string;
  ready: ((outcome: Subscribed | SwitchboardError) => void) | undefined;
}

/** A request that was given to this page. */
interface Work {
  request: Request;
  abort: AbortController;
  isAnswered: boolean;
  done(): void;
  timer?: ReturnType<typeof setTimeout>;
}

/** The handlers of a page, and the requests that they work on. */
export class Handlers {
  readonly #handlers: Handler[] = [];
  readonly #session: Session;
  readonly #connection: Connection;
  readonly #source: string;
  readonly #report: (error: SwitchboardError) => void;
  /** By the broker's id. */
  readonly #work = new Map<string, Work>();

  constructor(session: Session, connection: Connection, source: string, report: (error: SwitchboardError) => void) {
    this.#session = session;
    this.#connection = connection;
    this.#source = source;
    this.#report = report;
  }

  /** Adds a handler, and returns the function that removes it. */
  add(pattern: string, call: Handler["call"], options: HandleOptions, ready: Handler["ready"]): () => void {
    const { answers = true, concurrency = Infinity } = options;
    const handler: Handler = { pattern, triple: split(pattern), call, answers, concurrency, running: 0, queue: [], ready };
    this.#handlers.push(handler);
    if (this.#connection.isOpen) this.#subscribe(handler);
    return () => this.#remove(handler);
  }

  #subscribe(handler: Handler): void {
    const data = { ...handler.triple, role: "handler", answers: handler.answers ? undefined : false };
    this.#session.command("Subscription", "Subscribe", data, (reply, error) => {
      const { ready } = handler;
      handler.ready = undefined;
      if (error) {
        this.#drop(handler);
        if (ready) ready(error);
        else this.#report(error);
        return;
      }
      handler.id = reply.SubscriptionId as string;
      if (this.#handlers.includes(handler)) ready?.({ id: handler.id, narrowed: reply.Narrowed === true });
      else this.#leave(handler);
    });
  }

  #drop(handler: Handler): void {
    const at = this.#handlers.indexOf(handler);
    if (at >= 0) this.#handlers.splice(at, 1);
    for (const work of handler.queue.splice(0)) this.#refuse(work);
  }

  #remove(handler: Handler): void {
    if (!this.#handlers.includes(handler)) return;
    this.#drop(handler);
    this.#leave(handler);
  }

  #leave({ id }: Handler): void {
    if (id && !this.#handlers.some((other) => other.id === id)) this.#session.unsubscribe(id);
  }

  /** Makes the subscriptions of a session that has just begun. */
  begin(): void {
    this.#abort(new SwitchboardError("LOST", "the session has ended"));
    for (const handler of this.#handlers) this.#subscribe(handler);
  }

  /** Makes what was added while there was no connection. */
  resumed(): void {
    for (const handler of this.#handlers) if (handler.id === undefined) this.#subscribe(handler);
  }

  /** The broker's ids of the handlers. */
  get ids(): string[] {
    return this.#handlers.flatMap(({ id }) => id ?? []);
  }

  /** Ends what the broker has ended. */
  ended(ids: string[]): void {
    for (const handler of this.#handlers.filter(({ id }) => id && ids.includes(id))) {
      delete handler.id;
      this.#drop(handler);
      const words = `the broker ended ${handler.pattern}: the rights of this session have changed`;
      this.#report(new SwitchboardError("FORBIDDEN", words));
    }
  }

  /** Gives a request to the handler with the narrowest pattern. Returns whether there is one. */
  deliver(envelope: Envelope, text: string, done: () => void): boolean {
    const triple = envelope as unknown as Triple;
    const found = (fold: boolean) => this.#handlers.filter((handler) => matches(handler.triple, triple, fold));
    const exact = found(false);
    const candidates = (exact.length ? exact : found(true)).sort((a, b) => width(a.triple) - width(b.triple));
    const handler = candidates[0];
    if (!handler) return false;
    const work = this.#begin(handler, envelope, text, done);
    if (handler.running < handler.concurrency) this.#run(handler, work);
    else if (handler.queue.length < QUEUE_MAX) handler.queue.push(work);
    else this.#fail(work, "TOO_MANY_REQUESTS", "too many requests wait");
    return true;
  }

  /** Answers a request that no handler of this page takes. */
  decline(envelope: Envelope): void {
    this.#send(envelope, { data: refusal("HANDLER_GONE", "the handler has stopped") });
  }

  #begin(handler: Handler, envelope: Envelope, text: string, done: () => void): Work {
    const abort = new AbortController();
    const ms = Number(envelope.timeout) || 0;
    const request = Object.assign(message(envelope, text), {
      ...pick(envelope, "requestId"),
      deadline: new Date(Date.now() + ms),
      gather: envelope.gather === true,
      signal: abort.signal,
      progress: (data: unknown) => {
        // In a gather, the broker marks every answer in this way, so that parts could not be told from answers.
        if (work.isAnswered || !handler.answers || request.gather) return;
        this.#send(envelope, { more: true, data });
        limit();
      },
      answer: (data: unknown, as: { topic?: string; subtopic?: string; payload?: "data" | "message" } = {}) => {
        const { payload = "data", ...others } = as;
        this.#answer(work, { ...others, [payload]: data });
      },
    }) as Request & { deadline: Date };
    const work: Work = { request, abort, isAnswered: !handler.answers, done };
    const limit = () => {
      clearTimeout(work.timer);
      request.deadline = new Date(Date.now() + ms);
      work.timer = setTimeout(() => {
        work.isAnswered = true;
        this.#end(work);
        abort.abort(new SwitchboardError("REQUEST_TIMEOUT", "the time limit is over"));
      }, ms);
    };
    if (handler.answers) limit();
    this.#work.set(envelope.id as string, work);
    return work;
  }

  #run(handler: Handler, work: Work): void {
    handler.running += 1;
    const finish = (send: () => void) => {
      send();
      this.#end(work);
      handler.running -= 1;
      let next = handler.queue.shift();
      // Its time limit was over before it began.
      for (; next?.abort.signal.aborted; next = handler.queue.shift()) next.done();
      if (next) this.#run(handler, next);
    };
    const thrown = (error: unknown) => finish(() => this.#threw(work, error));
    try {
      const returned = handler.call(work.request);
      // The request is handled when the call has returned; its answer may take longer.
      work.done();
      Promise.resolve(returned).then((data) => finish(() => this.#answer(work, { data })), thrown);
    } catch (error) {
      work.done();
      thrown(error);
    }
  }

  #threw(work: Work, error: unknown): void {
    if (error instanceof SwitchboardError) {
      this.#answer(work, { data: { ...(error.data as object), ...refusal(error.code, error.message) } });
      return;
    }
    // What was thrown may quote a payload, so the requester is not told.
    this.#answer(work, { data: refusal("INTERNAL", "the handler failed") });
    if (work.abort.signal.aborted) return;
    this.#report(new SwitchboardError("INTERNAL", `the handler of ${work.request.triple} failed`, { cause: error }));
  }

  #answer(work: Work, fields: Envelope): void {
    if (work.isAnswered) return;
    work.isAnswered = true;
    this.#send(work.request.envelope, fields);
    this.#end(work);
  }

  #fail(work: Work, code: string, words: string): void {
    this.#answer(work, { data: refusal(code, words) });
    work.isAnswered = true;
    this.#end(work);
    work.done();
  }

  #refuse(work: Work): void {
    this.#fail(work, "HANDLER_GONE", "the handler has stopped");
  }

  #send({ channel, topic, subtopic, id, gather }: Envelope, fields: Envelope): void {
    // The broker adds no source to an answer. In a gather, the requester needs it to tell who answered.
    const source = gather === true ? this.#source : undefined;
    this.#session.tell({ source, channel, topic, subtopic, inReplyTo: id, ...fields });
  }

  #end(work: Work): void {
    clearTimeout(work.timer);
    this.#work.delete(work.request.id as string);
  }

  /** Handles `Broker/Request/Cancelled`. */
  cancelled(id: string): void {
    const work = this.#work.get(id);
    if (!work) return;
    work.isAnswered = true;
    this.#end(work);
    for (const handler of this.#handlers) {
      const at = handler.queue.indexOf(work);
      if (at >= 0) {
        handler.queue.splice(at, 1);
        work.done();
      }
    }
    work.abort.abort(new SwitchboardError("REQUEST_CANCELLED", "the requester cancelled or left"));
  }

  /** Answers everything, because the page is left. */
  gone(): void {
    for (const work of [...this.#work.values()]) {
      this.#fail(work, "HANDLER_GONE", "the page was left");
      work.abort.abort(new SwitchboardError("HANDLER_GONE", "the page was left"));
    }
  }

  #abort(error: SwitchboardError): void {
    for (const work of [...this.#work.values()]) {
      work.isAnswered = true;
      this.#end(work);
      work.abort.abort(error);
    }
    for (const handler of this.#handlers) handler.queue = [];
  }

  /** Ends all. */
  close(error: SwitchboardError): void {
    this.#abort(error);
    for (const { ready } of this.#handlers.splice(0)) ready?.(error);
  }
}

function refusal(ErrorCode: string, ErrorMessage: string): Envelope {
  return { Success: false, ErrorCode, ErrorMessage };
}

/** Returns whether an envelope is a request for a handler. Only those have a time limit. */
export function isRequest(envelope: Envelope): boolean {
  return typeof envelope.timeout === "number" && typeof envelope.id === "string";
}
