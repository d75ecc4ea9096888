import { type Envelope, fields, join, matches, message, parse, split, type Triple } from "./envelope.js";
import { FakeSocket, type Line } from "./fake-socket.js";
import type * as api from "./fake.js";

/** How many sent envelopes are kept, and how many groups a session can have with one pattern. */
const SENT_MAX = 10_000;
const GROUPS_MAX = 16;
/** The time limit of a request without `timeout`. */
const TIMEOUT_MS = 10_000;
/** Requests that are never events. */
const PROTECTED = /\/(User\/FetchCredentials|Agent\/SetUserInfo|Connection\/ReInit|Agent\/Login)$/;
/** Closes after which a session is not continued. */
const ENDING = [1000, 1002, 1005, 1007, 1008, 1009, 4401, 4403, 4410];

interface Subscription {
  id: string;
  key: string;
  pattern: Triple;
  role: string;
  answers: boolean;
}

interface Session {
  id: string;
  source: string;
  user: string;
  state: string;
  since: string;
  token?: string | undefined;
  socket?: FakeSocket | undefined;
  subscriptions: Subscription[];
  /** What was sent to it and not acknowledged, and how many messages came before. */
  window: string[];
  before: number;
  received: number;
}

/** A request that has no last answer yet. */
interface Open {
  asker: Session;
  envelope: Envelope;
  handler: Session | undefined;
  timer: ReturnType<typeof setTimeout>;
  answered: () => void;
}

/** See fake.d.ts. */
export function fakeBroker(): api.FakeBroker {
  const broker = new Broker();
  return {
    WebSocket: class extends FakeSocket {
      constructor(_url: string) {
        super(broker);
      }
    } as unknown as new (url: string) => WebSocket,
    sent: broker.sent,
    publish: (triple, data, more = {}) => broker.event({ ...more, ...split(triple), source: "test", data }),
    handle: (pattern, handler) => broker.handle(split(pattern), handler),
    drop: () => broker.each((socket) => socket.end(1006)),
    refuse: (code) => broker.refuse(code),
  };
}

class Broker implements Line {
  readonly sent: Envelope[] = [];
  readonly #sockets = new Map<FakeSocket, Session | undefined>();
  readonly #sessions = new Set<Session>();
  readonly #handlers = new Set<{ pattern: Triple; handler: (request: api.FakeRequest) => unknown }>();
  readonly #open = new Map<string, Open>();
  readonly #retained = new Map<string, Envelope>();
  #made = 0;
  #refused = 0;

  #id(kind: string): string {
    this.#made += 1;
    return `${kind}${this.#made}`;
  }

  each(act: (socket: FakeSocket) => void): void {
    for (const socket of [...this.#sockets.keys()]) act(socket);
  }

  refuse(code: number): void {
    this.#refused = code;
    if (code) this.each((socket) => socket.end(code, "refused by the test"));
  }

  handle(pattern: Triple, handler: (request: api.FakeRequest) => unknown): () => void {
    const entry = { pattern, handler };
    this.#handlers.add(entry);
    return () => void this.#handlers.delete(entry);
  }

  opened(socket: FakeSocket): void {
    this.#sockets.set(socket, undefined);
  }

  closed(socket: FakeSocket, code: number): void {
    const session = this.#sockets.get(socket);
    this.#sockets.delete(socket);
    if (session?.socket !== socket) return;
    session.socket = undefined;
    if (!session.token || ENDING.includes(code)) this.#end(session);
  }

  #end(session: Session): void {
    this.#sessions.delete(session);
    for (const [id, { asker, handler, envelope }] of this.#open) {
      if (asker === session) this.#finish(id, undefined);
      else if (handler === session) this.#finish(id, refusal("HANDLER_GONE", `'${session.source}' left before it answered`), envelope);
    }
  }

  received(socket: FakeSocket, text: string): void {
    const envelope = parse(text);
    this.sent.push(envelope);
    if (this.sent.length > SENT_MAX) this.sent.shift();
    const session = this.#sockets.get(socket);
    if (join(envelope) === "Broker/Application/Register") return this.#register(socket, envelope);
    if (!session) return socket.deliver(JSON.stringify(error(envelope, "NOT_REGISTERED", "register first")));
    session.received += 1;
    if (envelope.channel === "Broker") this.#command(session, envelope);
    else this.#route(session, envelope);
  }

  #register(socket: FakeSocket, envelope: Envelope): void {
    if (this.#refused) return socket.end(this.#refused, "refused by the test");
    const { resume, user = "local" } = fields(envelope);
    const found = resume?.token && [...this.#sessions].find(({ token }) => token === resume.token);
    const session: Session = found || {
      id: crypto.randomUUID(), source: envelope.source as string, user, state: "active", since: new Date().toISOString(),
      subscriptions: [], window: [], before: 0, received: 0,
    };
    if (session.socket) session.socket.end(4409, "another connection resumed the session");
    session.socket = socket;
    session.token = resume ? this.#id("token") : undefined;
    this.#sessions.add(session);
    this.#sockets.set(socket, session);
    const again = found ? session.window.slice(resume.received - session.before) : [];
    const reply = {
      Success: true, ErrorMessage: null, SessionId: session.id, User: user, Protocol: 1, Server: "switchboard/fake",
      HeartbeatSeconds: 25, MaxMessageBytes: 1 << 20, ExpiresInSeconds: null,
      ...(resume && { Resumed: Boolean(found), ResumeToken: session.token, GraceSeconds: 30 }),
      ...(found ? { Replayed: again.length, Received: session.received } : resume?.token && { ResumeReason: "UNKNOWN" }),
    };
    socket.deliver(JSON.stringify({ ...split("Broker/Application/Register"), data: reply }));
    for (const text of again) socket.deliver(text);
  }

  #push(session: Session, envelope: Envelope): void {
    const text = JSON.stringify(envelope);
    if (session.token) session.window.push(text);
    session.socket?.deliver(text);
  }

  #command(session: Session, envelope: Envelope): void {
    const { topic, subtopic, id } = envelope;
    const data = fields(envelope);
    const reply = (more: Envelope) => this.#push(session, { ...split(join(envelope)), inReplyTo: id, data: more });
    const succeed = (more: Envelope = {}) => reply({ Success: true, ErrorMessage: null, ...more });
    switch (`${topic}/${subtopic}`) {
      case "Connection/Acknowledge":
        session.window.splice(0, data.received - session.before);
        session.before = data.received;
        return id === undefined ? undefined : succeed();
      case "Connection/Ping":
        return succeed();
      case "Application/Renew":
        return succeed({ ExpiresInSeconds: null });
      case "Application/Unregister":
        succeed();
        return this.#end(session);
      case "Application/SetState":
        if (!["active", "asleep"].includes(data.state)) return reply(refusal("INVALID_ENVELOPE", "state is active or asleep"));
        session.state = data.state;
        return succeed();
      case "Application/List":
        return succeed({ Applications: [...this.#sessions].map(({ source, user, since, state, socket }) => (
          { Source: source, User: user, Since: since, Sessions: 1, State: socket ? state : "away" })) });
      case "Subscription/Subscribe":
        return this.#subscribe(session, data, reply, succeed);
      case "Subscription/Unsubscribe":
        session.subscriptions = session.subscriptions.filter((held) => held.id !== data.SubscriptionId);
        return succeed();
      case "Subscription/List":
        return succeed({ Subscriptions: session.subscriptions.map((held) => ({ SubscriptionId: held.id, Role: held.role })) });
      case "Request/Cancel":
        for (const [open, { asker, envelope: asked }] of this.#open) {
          if (asker === session && asked.id === data.id) this.#finish(open, refusal("REQUEST_CANCELLED", "cancelled by the requester"), asked);
        }
        return id === undefined ? undefined : succeed();
    }
    this.#push(session, error(envelope, "UNKNOWN_COMMAND", `there is no command ${topic}/${subtopic}`));
  }

  #subscribe(session: Session, data: Envelope, reply: (data: Envelope) => void, succeed: (more: Envelope) => void): void {
    const { channel = "*", topic = "*", subtopic = "*", role = "subscriber", group, user, answers = true } = data as any;
    const pattern: Triple = { channel, topic, subtopic };
    const key = JSON.stringify([pattern, role, group, user]);
    let held = session.subscriptions.find((other) => other.key === key);
    if (!held) {
      const sharing = session.subscriptions.filter((other) => group && join(other.pattern) === join(pattern));
      if (sharing.length >= GROUPS_MAX) return reply(refusal("TOO_MANY_SUBSCRIPTIONS", "at most 16 groups with one pattern"));
      held = { id: this.#id("subscription"), key, pattern, role, answers };
      session.subscriptions.push(held);
    }
    succeed({ SubscriptionId: held.id });
    if (role === "handler") return;
    for (const value of this.#retained.values()) {
      if (matches(pattern, value as unknown as Triple, false)) this.#push(session, { ...value, retained: true });
    }
  }

  #route(session: Session, envelope: Envelope): void {
    const { source = session.source, id, retain, timeout, gather, idempotent, inReplyTo } = envelope as any;
    if (source !== session.source) return this.#push(session, error(envelope, "SOURCE_MISMATCH", `this session is '${session.source}'`));
    if (inReplyTo !== undefined) return this.#reply(session, envelope);
    const found = [...this.#sessions].flatMap((other) => {
      const held = other.subscriptions.find((one) => one.role === "handler" && matches(one.pattern, envelope as any, false));
      return held && other !== session ? [{ session: other, answers: held.answers }] : [];
    });
    const own = [...this.#handlers].filter(({ pattern }) => matches(pattern, envelope as any, false));
    if (timeout || gather || idempotent || found.length || own.length || PROTECTED.test(join(envelope))) {
      return this.#request(session, { ...envelope, source }, found, own);
    }
    const receivers = this.event({ ...envelope, source, ...(retain && { retain }) }, session);
    if (id !== undefined) this.#receipt(session, id, receivers);
  }

  #receipt(session: Session, inReplyTo: unknown, Receivers: number): void {
    this.#push(session, { ...split("Broker/Message/Receipt"), inReplyTo, data: { Success: true, ErrorMessage: null, Receivers } });
  }

  /** Delivers an event, and returns to how many sessions. */
  event(envelope: Envelope, sender?: Session): number {
    if (envelope.retain) {
      if (envelope.data === null) this.#retained.delete(join(envelope));
      else this.#retained.set(join(envelope), envelope);
    }
    const isFor = (session: Session) =>
      session !== sender && session.subscriptions.some((held) => held.role !== "handler" && matches(held.pattern, envelope as any, false));
    const receivers = [...this.#sessions].filter(isFor);
    for (const session of receivers) this.#push(session, envelope);
    return receivers.length;
  }

  #request(
    asker: Session,
    envelope: Envelope,
    found: { session: Session; answers: boolean }[],
    own: { handler: (request: api.FakeRequest) => unknown }[],
  ): void {
    const { gather, id } = envelope;
    const triple = split(join(envelope));
    const commands = found.filter(({ answers }) => !answers);
    const handlers = [...own, ...found.filter(({ answers }) => answers)].slice(0, gather ? undefined : 1);
    let left = handlers.length;
    const end = () => {
      const data = { Success: true, ErrorMessage: null, Expected: handlers.length, Answered: handlers.length, Failed: [] };
      this.#push(asker, { ...triple, inReplyTo: id, data });
    };
    if (gather && !left) return end();
    if (!left && commands[0]) {
      this.#push(commands[0].session, { ...envelope, id: this.#id("request"), requestId: id, user: asker.user, timeout: TIMEOUT_MS });
      return id === undefined ? undefined : this.#receipt(asker, id, 1);
    }
    if (!left) return this.#push(asker, { ...triple, inReplyTo: id, data: refusal("NO_HANDLER", "no handler of this triple is connected") });
    const ms = Number(envelope.timeout) || TIMEOUT_MS;
    for (const handler of handlers) {
      const request = this.#id("request");
      const session = "session" in handler ? handler.session : undefined;
      const late = refusal("REQUEST_TIMEOUT", `'${session?.source ?? "test"}' did not answer within ${ms} ms`);
      const timer = setTimeout(() => this.#finish(request, late, envelope), ms);
      const answered = () => {
        left -= 1;
        if (gather && !left) end();
      };
      this.#open.set(request, { asker, envelope, handler: session, timer, answered });
      const delivered = { ...envelope, id: request, requestId: id, user: asker.user, timeout: ms };
      if (session) this.#push(session, delivered);
      else void this.#serve(request, delivered, (handler as { handler: (request: api.FakeRequest) => unknown }).handler);
    }
  }

  async #serve(id: string, envelope: Envelope, handler: (request: api.FakeRequest) => unknown): Promise<void> {
    try {
      const { triple, data, source = "" } = message(envelope, "");
      this.#finish(id, await handler({ triple, data, source, envelope }), envelope);
    } catch (thrown) {
      const { code = "INTERNAL", message: words = "the handler failed" } = (thrown ?? {}) as { code?: string; message?: string };
      this.#finish(id, refusal(code, words), envelope);
    }
  }

  /** Ends a request with an answer of the broker or of the test. Without a requester, there is none. */
  #finish(id: string, data: unknown, envelope?: Envelope): void {
    const open = this.#open.get(id);
    if (!open) return;
    this.#open.delete(id);
    clearTimeout(open.timer);
    const { inReplyTo, gather } = { inReplyTo: open.envelope.id, gather: open.envelope.gather };
    if (envelope) this.#push(open.asker, { ...split(join(envelope)), inReplyTo, ...(gather ? { more: true, source: "test" } : {}), data });
    if (open.handler) this.#push(open.handler, { ...split("Broker/Request/Cancelled"), inReplyTo: id });
    open.answered();
  }

  #reply(session: Session, envelope: Envelope): void {
    const id = envelope.inReplyTo as string;
    const open = this.#open.get(id);
    if (open?.handler !== session) return this.#push(session, error(envelope, "NO_SUCH_REQUEST", "no open request fits"));
    const isLast = envelope.more !== true;
    this.#push(open.asker, { ...envelope, inReplyTo: open.envelope.id, ...(open.envelope.gather ? { more: true } : {}) });
    if (!isLast) return;
    this.#open.delete(id);
    clearTimeout(open.timer);
    open.answered();
  }
}

function refusal(ErrorCode: string, ErrorMessage: string): Envelope {
  return { Success: false, ErrorCode, ErrorMessage };
}

function error({ id }: Envelope, code: string, words: string): Envelope {
  return { ...split("Broker/Message/Error"), inReplyTo: id, data: refusal(code, words) };
}
