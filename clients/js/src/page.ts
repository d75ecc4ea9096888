import type { DeskCore } from "./desk.js";
import type { Data, Envelope } from "./envelope.js";

/** How long the subscriptions and requests of the page before this one wait for this one to make them. */
const TAKE_UP_MS = 5_000;
/** How long the page before this one may take to give its lock back. A busy computer takes long, and a copy of a tab can wait. */
const LOCK_MS = 2_000;
/** How many messages without a listener are kept. The broker keeps no more for a session that is away. */
const HELD_MAX = 16_384;

/** How long a socket may take to open before the person is told that the browser may be asking. */
const PROMPT_MS = 1_000;

/** How many addresses are kept that a policy of the page has blocked. */
const BLOCKED_MAX = 16;
const LOOPBACK = /^(localhost|127\.[\d.]+|\[::1\])$/;

/** What is stored for the next page: nothing that an application has sent or received. */
interface Stored {
  /** Names the window, and its lock. */
  window: string;
  token: string;
  inbox: { arrived: number; open: number[] };
  pending: [id: string, number: number, key: string | null][];
  at: number;
}

/** How many desks of this page have each source. */
const desks = new Map<string, number>();

/** Lets the session of a desk survive reloads of its page, and connects it. */
export async function attach(core: DeskCore): Promise<void> {
  const page = new Page(core);
  page.listen();
  explain(core);
  if (core.options.resume !== false) await page.restore();
  const url = [core.options.url ?? "ws://localhost:7420/ws"].flat()[0] as string;
  if (core.options.permission === "wait" && (await asks(url))?.state === "prompt") {
    // `retry()` connects.
    const problem = await core.diagnose?.(url);
    if (problem) core.connection.show(problem);
  } else {
    core.connection.start();
  }
}

/** Lets a desk find out why a socket does not open. */
function explain(core: DeskCore): void {
  const blocked = new Set<string>();
  document.addEventListener("securitypolicyviolation", ({ blockedURI }) => {
    if (blocked.size < BLOCKED_MAX) blocked.add(blockedURI);
    // Chromium leaves a socket that it has blocked in CONNECTING.
    const isOurs = [core.options.url ?? "ws://localhost:7420/ws"].flat().some((url) => url.startsWith(blockedURI));
    if (isOurs && !core.connection.isOpen) core.connection.abandon("blocked by the Content Security Policy");
  });
  core.diagnose = async (url) => {
    const { findReason } = await import("./diagnosis.js");
    const asked = await asks(url);
    // The person may answer at any time.
    if (asked) asked.onchange = () => core.connection.start();
    return findReason(url, { permission: async () => asked?.state, blocked });
  };
  core.mayPrompt = async (url) => {
    if (LOOPBACK.test(location.hostname)) return false;
    const state = (await asks(url))?.state ?? "prompt";
    // Firefox leaves the socket in CONNECTING until the person has answered.
    if (state === "prompt") setTimeout(() => void tellOfPrompt(core, url), PROMPT_MS);
    return state === "prompt";
  };
}

/** Says that the browser asks the person, if that is why there is no connection yet. */
async function tellOfPrompt(core: DeskCore, url: string): Promise<void> {
  const { connection } = core;
  const isWaiting = () => connection.state === "connecting" && !connection.problem;
  const found = isWaiting() && (await asks(url))?.state === "prompt" && (await core.diagnose?.(url));
  if (found && isWaiting()) connection.show(found);
}

/** Returns the permission to reach an address. `undefined`: this browser cannot be asked for it. */
async function asks(url: string): Promise<PermissionStatus | undefined> {
  const names = [URL.canParse(url) && LOOPBACK.test(new URL(url).hostname) ? "loopback-network" : "local-network", "local-network-access"];
  for (const name of names) {
    try {
      return await navigator.permissions.query({ name: name as PermissionName });
    } catch {
      // A name that the browser does not know. Chrome 142 to 144 have the second.
    }
  }
  return undefined;
}

/** Not where there is no secure context. */
const locks = globalThis.navigator?.locks as LockManager | undefined;

class Page {
  readonly #core: DeskCore;
  readonly #key: string;
  readonly #storage = storage();
  #window = "";
  #release: (() => void) | undefined;
  #held: { envelope: Envelope; text: string; done: () => void }[] = [];

  constructor(core: DeskCore) {
    this.#core = core;
    const { source } = core.options;
    const before = desks.get(source) ?? 0;
    desks.set(source, before + 1);
    this.#key = `switchboard ${source}${before ? ` ${before}` : ""}`;
  }

  /** Takes over what the page before this one has stored, unless this is a duplicate of a page that lives. */
  async restore(): Promise<void> {
    const core = this.#core;
    let found = this.#load();
    if (found && locks && !(await this.#lock(found.window))) found = undefined;
    if (!found && locks) await this.#lock(crypto.randomUUID());
    // Without locks, a duplicate must not find it while this page lives. With them, this is what a crash leaves.
    if (!locks || !found) this.#storage?.removeItem(this.#key);
    if (locks) core.wire.beforeAcknowledge = () => this.#save();
    core.onForgotten = () => this.#storage?.removeItem(this.#key);
    if (found) this.#takeOver(found);
  }

  #takeOver({ token, inbox, pending, at }: Stored): void {
    const core = this.#core;
    core.wire.token = token;
    core.wire.inbox.restore(inbox);
    core.hold = (envelope, text, done) => this.#held.length < HELD_MAX && this.#held.push({ envelope, text, done }) > 0;
    core.onAdded = () => queueMicrotask(() => this.#give());
    core.onRegistered = (reply) => {
      core.onRegistered = undefined;
      if (reply.Resumed !== true) {
        this.#settle();
        core.emit("back", { how: "lost", since: new Date(at), patterns: [] });
        return;
      }
      for (const [id, number, key] of pending) {
        // The broker never saw a later one.
        if (number <= reply.Received) core.wire.inherited.set(id, { key, answers: [] });
      }
      setTimeout(() => this.#end(), TAKE_UP_MS);
    };
  }

  /** Gives what is held to the listeners that there are now. */
  #give(): void {
    this.#held = this.#held.filter(({ envelope, text, done }) => !this.#core.give(envelope, text, done));
  }

  /** Ends what the page before this one had, and this one has not made. */
  #end(): void {
    const core = this.#core;
    this.#settle();
    for (const id of core.wire.inherited.keys()) core.wire.cancel(id);
    core.wire.inherited.clear();
    if (!core.connection.isOpen) return;
    core.wire.command("Subscription", "List", {}, ({ Subscriptions = [] }: Data) => {
      const ids = (Subscriptions as Data[]).map(({ SubscriptionId }) => SubscriptionId as string);
      core.subscriptions.endInherited(ids.filter((id) => !core.handlers.ids.includes(id)));
    });
  }

  #settle(): void {
    const core = this.#core;
    core.hold = core.onAdded = undefined;
    for (const { envelope, done } of this.#held.splice(0)) {
      core.decline(envelope);
      done();
    }
  }

  #load(): Stored | undefined {
    try {
      return JSON.parse(this.#storage?.getItem(this.#key) ?? "null") ?? undefined;
    } catch {
      return undefined;
    }
  }

  #save(): void {
    const { token, inbox, saved } = this.#core.wire;
    if (!token) return;
    const stored: Stored = { window: this.#window, token, inbox: inbox.save(), pending: saved, at: Date.now() };
    try {
      this.#storage?.setItem(this.#key, JSON.stringify(stored));
    } catch {
      this.#core.options.log?.("warn", "the storage of this tab is full, so a reload will begin a new session");
    }
  }

  /** Waits a moment for a lock, and holds it until `#release`. Returns whether this page has it. */
  #lock(name: string): Promise<boolean> {
    this.#window = name;
    return new Promise((resolve) => {
      const holding = (locks as LockManager).request(`switchboard ${name}`, { signal: AbortSignal.timeout(LOCK_MS) }, () => {
        resolve(true);
        return new Promise<void>((release) => (this.#release = release));
      });
      holding.catch(() => resolve(false));
    });
  }

  /** Listens to what happens to the page. */
  listen(): void {
    const core = this.#core;
    const wake = () => core.wake();
    const on = (target: EventTarget, event: string, listener: (event: any) => void) => {
      target.addEventListener(event, (value) => core.connection.state !== "closed" && listener(value));
    };
    const say = (state: "active" | "asleep") => core.connection.isOpen && core.setState(state).catch(() => {});
    on(window, "online", wake);
    on(document, "visibilitychange", () => document.hidden || wake());
    on(document, "freeze", () => say("asleep"));
    on(document, "resume", () => (say("active"), wake()));
    on(window, "pagehide", () => {
      core.handlers.gone();
      this.#save();
      // A page with an open socket or a lock is not kept for the back button. 4000 says that the session goes on.
      core.connection.suspend();
      this.#release?.();
    });
    on(window, "pageshow", async ({ persisted }: PageTransitionEvent) => {
      if (!persisted) return wake();
      if (this.#window) await this.#lock(this.#window);
      core.connection.start();
    });
  }
}

function storage(): Storage | undefined {
  try {
    return globalThis.sessionStorage;
  } catch {
    // The person has forbidden it.
    return undefined;
  }
}
