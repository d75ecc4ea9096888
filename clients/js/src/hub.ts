import { type Envelope, fields, join, parse } from "./envelope.js";
import { type Host, Lead } from "./lead.js";
import { makeId, type Names, type Note, type Reply } from "./notes.js";
import type { End, Pipe } from "./pipe.js";
import { type Saved, Sent } from "./sent.js";
import { Turn } from "./turn.js";
import { Window } from "./window.js";

/** How long the leader may take to answer before this tab takes its place. */
const SILENT_MS = 5_000;
/** How long a desk may wait for the leader without taking it for a socket that does not open. It gives up after 20 s. */
const OPENING_MS = 15_000;
/** How many requests and commands wait for an answer, and how many of them are stored for the next page. */
const IDS_MAX = 16_384;
const STORED_MAX = 1_024;
const FORGOTTEN_MAX = 1_000;
/** What a message grows by its field `tab`, and more. */
const TAB_BYTES = 64;

const REGISTER = "Broker/Application/Register";
/** What a desk is given in place of a message for another tab. It counts as a message, and is for nobody. */
const SKIPPED = JSON.stringify({ channel: "Broker", topic: "Tab", subtopic: "Skipped" });

/** What a desk has as its resume token: its tab, the session, that session's token, and how many messages preceded the tab. */
type Held = [tab: string, session: string, token: string, base: number];

/** What a desk has asked for in Register. */
interface Asked {
  held: Held | undefined;
  from: number;
  resumes: boolean;
}

/** This tab's part of a session that all tabs share: it gives the desk what is for it, and leads when it is its turn. */
export class Hub implements End, Host {
  readonly names: Names;
  tab = makeId();
  session: string | undefined;
  token: string | undefined;
  readonly window = new Window();
  readonly forgotten = new Set<string>();
  readonly #Socket: typeof WebSocket;
  /** Has the desk connect now. */
  readonly #retry: () => void;
  #channel: BroadcastChannel | undefined;
  readonly #turn: Turn;
  #lead: Lead | undefined;
  #isFrozen = false;
  /** Gives the lock of this tab back. */
  #end: { tab: string; release: () => void } | undefined;
  #silent: ReturnType<typeof setTimeout> | undefined;
  #pipe: Pipe | undefined;
  #line: string | undefined;
  #reply: Reply = {};
  /** How many messages of the session the broker had taken when the line began. */
  #taken = 0;
  /** What the desk has asked for in Register, until it has joined. */
  #asked: Asked | undefined;
  #hasJoined = false;
  #base = 0;
  /** The number of the next message for the desk. */
  #next = 0;
  /** Up to this one, messages have been looked at. The desk knows those that it gets again. */
  #seen = 0;
  readonly #sent = new Sent();
  /** Ids of this tab that have no answer yet. */
  #ids = new Set<string>();
  readonly #subscriptions = new Set<string>();
  /** Whether retained values and replays are for this tab: they follow the reply to its Subscribe. */
  #isReplayOurs = true;

  constructor(shared: string, Socket: typeof WebSocket, retry: () => void) {
    this.names = { shared, tab: (id) => `${shared} ${id}` };
    this.#Socket = Socket;
    this.#retry = retry;
    this.#turn = new Turn(shared, () => this.#begin(), () => this.#lose());
  }

  get #leads(): boolean {
    return this.#turn.isOurs;
  }

  // What the desk does.

  made(pipe: Pipe): void {
    this.#pipe = pipe;
    if (!this.#channel) this.#enter();
    if (this.#leads) this.#dial(pipe);
    else if (this.#line) pipe.open();
    else {
      this.#post({ kind: "hello" });
      this.#watch();
      setTimeout(() => this.#leads || pipe.open(), OPENING_MS);
    }
  }

  sent(pipe: Pipe, text: string): void {
    if (pipe !== this.#pipe) return;
    const envelope = parse(text);
    const { id, channel, inReplyTo } = envelope;
    const triple = join(envelope);
    if (triple === REGISTER) return void this.#register(pipe, envelope);
    if (!this.#hasJoined) return;
    if (triple === "Broker/Connection/Acknowledge") {
      this.#sent.add(false);
      this.#lead?.acknowledge(this.#base + fields(envelope).received);
      return;
    }
    if (typeof id === "string" && inReplyTo === undefined) keep(this.#ids, id, IDS_MAX);
    if (triple === "Broker/Subscription/Unsubscribe") this.#subscriptions.delete(fields(envelope).SubscriptionId);
    // The last one counts, if the application has given another.
    const marked = channel === "Broker" ? text : `${text.slice(0, -1)},"tab":${JSON.stringify(this.tab)}}`;
    const at = this.#sent.add(true);
    if (this.#lead) return this.#lead.take(this.tab, at, marked);
    this.#post({ kind: "send", line: this.#line as string, tab: this.tab, at, text: marked });
    this.#watch();
  }

  closed(pipe: Pipe, code: number): void {
    if (pipe !== this.#pipe) return;
    this.#pipe = this.#asked = undefined;
    this.#hasJoined = false;
    const lead = this.#lead;
    if (code === 1000) {
      // The session goes on without this tab.
      if (lead) lead.close(lead.hasOthers ? 4000 : 1000);
      else this.#post({ kind: "leave", tab: this.tab });
      this.leave(true);
    } else {
      lead?.close(code);
    }
  }

  /** Has the leader connect now. */
  retry(): void {
    if (!this.#leads) this.#post({ kind: "retry" });
  }

  // The life of the tab.

  #enter(): void {
    this.#channel = new BroadcastChannel(this.names.shared);
    this.#channel.onmessage = ({ data }) => this.#heard(data);
    this.elect();
  }

  /** Waits for its turn to lead, from the beginning and after a sleep. */
  elect(): void {
    this.#isFrozen = false;
    if (this.#channel) this.#turn.wait();
  }

  /** Leads from now on. */
  #begin(): void {
    clearTimeout(this.#silent);
    const reason = "the tab that led is gone";
    if (this.#line) this.say({ kind: "down", line: this.#line, code: 1006, reason });
    if (this.#pipe?.readyState === 0) return this.#dial(this.#pipe);
    this.#fail(1006, reason);
    this.#retry();
  }

  /** Another tab leads, because this one did not answer. */
  #lose(): void {
    this.#lead?.close(4000);
    this.elect();
  }

  #dial(pipe: Pipe): void {
    try {
      this.#lead = new Lead(this, new this.#Socket(pipe.url));
    } catch (error) {
      pipe.fail(1006, String(error));
    }
  }

  /** Takes the place of a leader that does not answer. */
  #watch(): void {
    this.#silent ??= setTimeout(() => {
      this.#silent = undefined;
      this.#turn.steal();
    }, SILENT_MS);
  }

  /** The page is being frozen. Another tab has to lead; if there is none, the session waits for this one. */
  freeze(): void {
    this.#isFrozen = true;
    if (!this.#lead || this.#lead.hasOthers) this.#resignNow();
  }

  /** Leaves the lead to another tab. */
  #resignNow(): void {
    clearTimeout(this.#silent);
    this.#silent = undefined;
    this.#lead?.close(4000);
    this.#turn.leave();
  }

  /** Ends what this page has with others, because it is left. A desk that connects again enters again. */
  leave(isOver = false): void {
    if (isOver) forgetStored(this.names.tab(this.tab));
    else this.#store();
    this.#resignNow();
    const pipe = this.#pipe;
    this.#pipe = this.#line = undefined;
    this.#hasJoined = false;
    this.#channel?.close();
    this.#channel = undefined;
    this.#end?.release();
    this.#end = undefined;
    pipe?.fail(1006, "the page was left");
  }

  /** Holds the lock that shows that this tab lives. */
  async #live(): Promise<void> {
    if (this.#end?.tab === this.tab) return;
    this.#end?.release();
    await new Promise<void>((resolve) => {
      const hold = () => {
        resolve();
        if (!this.#channel) return undefined;
        return new Promise<void>((release) => (this.#end = { tab: this.tab, release }));
      };
      navigator.locks.request(this.names.tab(this.tab), hold).catch(() => resolve());
    });
  }

  // Joining the session.

  async #register(pipe: Pipe, envelope: Envelope): Promise<void> {
    const { resume } = fields(envelope);
    const held = read(resume?.token);
    const isNewPage = held !== undefined && held[0] !== this.tab;
    if (held && isNewPage) this.tab = held[0];
    await this.#live();
    if (pipe !== this.#pipe) return;
    const from = held ? held[3] + resume.received : 0;
    if (held && isNewPage) {
      this.#restore();
      this.#seen = from;
      if (!this.session) {
        [, this.session, this.token] = held;
        this.window.clear(from);
      }
    }
    this.#asked = { held, from, resumes: Boolean(resume) };
    if (this.#lead) this.#lead.register(envelope);
    else this.#join();
  }

  #join(): void {
    if (!this.#asked || !this.#line) return;
    const { held, from } = this.#asked;
    const subscriptions = [...this.#subscriptions];
    const note = { kind: "join", line: this.#line, tab: this.tab, session: held?.[1], from, subscriptions } as const;
    if (this.#lead) return this.#lead.join(note);
    this.#post(note);
    this.#watch();
  }

  #joined(frames: string[] | undefined, last: number): void {
    const { held, from, resumes } = this.#asked as Asked;
    this.#asked = undefined;
    if (held && frames) {
      this.#base = held[3];
      this.#next = from + 1;
    } else {
      this.#sent.clear();
      this.#ids.clear();
      this.#subscriptions.clear();
      this.#isReplayOurs = false;
      this.#base = this.#seen = last;
      this.#next = last + 1;
    }
    const { Resumed: _, ResumeToken, Received, ResumeReason, MaxMessageBytes, ...reply } = this.#reply;
    const token: Held = [this.tab, this.session as string, ResumeToken, this.#base];
    const data = {
      ...reply,
      ...(MaxMessageBytes && { MaxMessageBytes: MaxMessageBytes - TAB_BYTES }),
      ...(resumes && ResumeToken && { Resumed: frames !== undefined, ResumeToken: JSON.stringify(token) }),
      ...(frames ? { Received: this.#sent.count(), Replayed: frames.length } : held && { ResumeReason: ResumeReason ?? "UNKNOWN" }),
    };
    const [channel, topic, subtopic] = REGISTER.split("/");
    this.#hasJoined = true;
    this.#pipe?.deliver(JSON.stringify({ channel, topic, subtopic, data }));
    for (const text of frames ?? []) this.#deliver(this.#next, text);
  }

  // What the tabs tell each other.

  #post(note: Note): void {
    this.#channel?.postMessage(note);
  }

  say(note: Note): void {
    this.#post(note);
    this.#heard(note);
  }

  opened(): void {
    this.#pipe?.open();
  }

  refused(text: string): void {
    this.#pipe?.deliver(text);
  }

  #heard(note: Note): void {
    switch (note.kind) {
      case "hello":
        if (this.#leads) this.#post(this.#lead?.news ?? { kind: "wait" });
        // A frozen page may still get what other tabs say, and nothing of its WebSocket. The new tab knows the session now.
        if (this.#leads && this.#isFrozen) this.#resignNow();
        return;
      case "join":
        if (note.line === this.#lead?.line) this.#lead.join(note);
        return;
      case "send":
        if (note.line === this.#lead?.line) this.#lead.take(note.tab, note.at, note.text);
        return;
      case "leave":
        return this.#lead?.forget(note.tab);
      case "retry":
        if (this.#leads) this.#retry();
        return;
    }
    // The others are from the leader.
    clearTimeout(this.#silent);
    this.#silent = undefined;
    switch (note.kind) {
      case "wait":
        return;
      case "open":
        return this.#changeLine(note);
      case "down":
        return this.#down(note);
      case "forgot":
        return keep(this.forgotten, note.tab, FORGOTTEN_MAX);
      case "joined":
        if (note.line === this.#line && note.tab === this.tab && this.#asked) this.#joined(note.frames, note.last);
        return;
      case "sent":
        if (note.line === this.#line && note.tab === this.tab) this.#sent.note(note.at, note.number);
        return;
      case "frame":
        return this.#frame(note.line, note.number, note.text);
    }
  }

  #changeLine({ line, reply, last, taken }: Extract<Note, { kind: "open" }>): void {
    if (line === this.#line) return;
    const goesOn = reply.Resumed === true && reply.SessionId === this.session;
    this.#taken = taken;
    this.#line = line;
    this.#sent.settle(line, taken);
    if (!goesOn || this.window.last < last) this.window.clear(last);
    if (!goesOn) this.forgotten.clear();
    this.#reply = reply;
    this.session = reply.SessionId;
    this.token = reply.ResumeToken;
    if (this.#lead) return this.#join();
    // The desk registers on the new line.
    if (this.#pipe?.readyState === 0) return this.#pipe.open();
    this.#fail(1006, "another tab leads");
    this.#retry();
  }

  #down({ line, code, reason }: Extract<Note, { kind: "down" }>): void {
    if (line !== this.#line) return;
    this.#line = this.#lead = undefined;
    this.#fail(code, reason);
  }

  #fail(code: number, reason: string): void {
    const pipe = this.#pipe;
    this.#pipe = this.#asked = undefined;
    this.#hasJoined = false;
    pipe?.fail(code, reason);
  }

  #frame(line: string, number: number, text: string): void {
    if (line !== this.#line) return;
    if (number === this.window.last + 1) this.window.push(text);
    if (number > this.window.last) return this.#restart();
    if (this.#hasJoined) this.#deliver(number, text);
  }

  /** Messages are missing, as after a long sleep. The desk joins again; the leader has what it missed, or says that it is lost. */
  #restart(): void {
    this.#line = this.session = this.token = undefined;
    this.#fail(1006, "messages are missing");
    this.#retry();
  }

  #deliver(number: number, text: string): void {
    if (number < this.#next) return;
    if (number > this.#next) return this.#restart();
    this.#next += 1;
    const isAgain = number <= this.#seen;
    this.#seen = Math.max(this.#seen, number);
    this.#pipe?.deliver(isAgain || this.#isOurs(parse(text)) ? text : SKIPPED);
  }

  /** Returns whether a message is for this tab too. */
  #isOurs(envelope: Envelope): boolean {
    const { channel, inReplyTo, more, retained, replayed, tab } = envelope;
    const triple = join(envelope);
    const isAnswer = typeof inReplyTo === "string" && this.#ids.has(inReplyTo);
    if (isAnswer && more !== true) this.#ids.delete(inReplyTo);
    switch (triple) {
      case "Broker/Subscription/Subscribe":
        this.#isReplayOurs = isAnswer;
        if (isAnswer && fields(envelope).Success) this.#subscriptions.add(fields(envelope).SubscriptionId);
        return true;
      case "Broker/Message/Error":
        return isAnswer || inReplyTo === undefined;
      case "Broker/Connection/Expiring":
        return this.#leads;
    }
    if (retained === true || replayed === true) return this.#isReplayOurs;
    // A session does not get its own events.
    return channel === "Broker" || inReplyTo !== undefined || tab !== this.tab;
  }

  // Reloads.

  /** Stores what the next page needs to know of what this one has sent. */
  #store(): void {
    try {
      const ids = [...this.#ids].slice(-STORED_MAX);
      sessionStorage.setItem(this.names.tab(this.tab), JSON.stringify({ sent: this.#sent.save(), ids }));
    } catch {
      // No storage: the next page begins anew.
    }
  }

  #restore(): void {
    const name = this.names.tab(this.tab);
    let stored: { sent?: Saved; ids?: string[] } = {};
    try {
      stored = JSON.parse(sessionStorage.getItem(name) ?? "{}");
    } catch {
      // As above.
    }
    forgetStored(name);
    this.#ids = new Set(stored.ids);
    this.#sent.restore(stored.sent ?? {});
    if (this.#line) this.#sent.settle(this.#line, this.#taken);
  }
}

/** Reads a resume token. One that a desk got from a broker directly is of no use here. */
function read(token: unknown): Held | undefined {
  try {
    const held = JSON.parse(String(token));
    return Array.isArray(held) ? (held as Held) : undefined;
  } catch {
    return undefined;
  }
}

function forgetStored(name: string): void {
  try {
    sessionStorage.removeItem(name);
  } catch {
    // There is no storage.
  }
}

/** Adds to a set, of which it drops the oldest beyond a bound. */
function keep(set: Set<string>, value: string, max: number): void {
  set.add(value);
  if (set.size <= max) return;
  for (const oldest of set) {
    set.delete(oldest);
    return;
  }
}
