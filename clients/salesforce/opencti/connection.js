// One registered WebSocket to the broker, which comes back by itself. It knows nothing of Salesforce; docs/protocol.md of
// switchboard has the words. No dependency, no build step: a page imports this file as it stands.
//
// Events, all of them CustomEvent: "state" { state }, "message" (an envelope), "error" { code, message }.

/** The first pause before coming back; it doubles. */
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;

/** How long the broker may take to answer a ping. Asked only when the page becomes visible: then timers run. */
const PING_MS = 5_000;

export class Connection extends EventTarget {
  #options;
  #socket = null;
  #state = "stopped";
  #wait = FIRST_WAIT_MS;
  #timer;
  #drainWaitMs = null;
  /** A token that was refused is never sent again; a fresh one is asked for once. */
  #mayRetryToken = true;
  #frozen = false;
  /** Commands that wait for their reply. */
  #pending = new Map();
  #made = 0;
  /** Ends everything that listens on the page. */
  #listening = null;

  /**
   * @param {object} options
   * @param {string} options.url  `wss://HOST/ws`
   * @param {string} options.source  the name to register under
   * @param {string | (() => string | Promise<string>)} [options.token]  a function is asked anew for each registration
   * @param {string} [options.user]  in the broker's open development mode only
   * @param {object[]} [options.subscriptions]  `data` of Broker/Subscription/Subscribe, sent after each registration
   */
  constructor(options) {
    super();
    this.#options = { subscriptions: [], ...options };
  }

  /** "stopped", "connecting", "registered", or "waiting" before the next attempt. */
  get state() {
    return this.#state;
  }

  start() {
    if (this.#state !== "stopped") return;
    this.#mayRetryToken = true;
    this.#wait = FIRST_WAIT_MS;
    this.#listen();
    this.#connect();
  }

  stop() {
    this.#listening?.abort();
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
    this.#forget();
    this.#become("stopped");
  }

  /** Sends an envelope; `false`: not registered, and it is not kept for later. */
  send(channel, topic, subtopic, fields) {
    if (this.#state !== "registered") return false;
    this.#write({ channel, topic, subtopic, ...fields });
    return true;
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#drainWaitMs = null;
    this.#become("connecting");
    let socket;
    try {
      socket = new WebSocket(this.#options.url);
    } catch (error) {
      this.#end("BAD_ADDRESS", `no WebSocket to ${this.#options.url}: ${error.message}`);
      return;
    }
    this.#socket = socket;
    let opened = false;
    // No limit on the time to connect: a browser may be asking the person at the screen for permission.
    socket.onopen = () => {
      opened = true;
      this.#register(socket);
    };
    socket.onmessage = ({ data }) => socket === this.#socket && this.#hear(JSON.parse(data));
    socket.onclose = ({ code }) => socket === this.#socket && this.#closed(code, opened);
  }

  async #register(socket) {
    const { token, user } = this.#options;
    let proof;
    try {
      // Asked for only now, since it lives for a minute and a connection may take longer.
      proof = typeof token === "function" ? await token() : token;
    } catch (error) {
      this.#fail("TOKEN_UNAVAILABLE", `no token to register with: ${error.message}`);
      socket.close(1000);
      return;
    }
    if (socket !== this.#socket || socket.readyState !== WebSocket.OPEN) return;
    const reply = await this.#command("Application", "Register", { token: proof, user });
    if (!reply || socket !== this.#socket) return;
    if (!reply.data.Success) {
      this.#fail(reply.data.ErrorCode, reply.data.ErrorMessage);
      return;
    }
    this.#wait = FIRST_WAIT_MS;
    this.#mayRetryToken = true;
    await this.#subscribe(socket);
  }

  async #subscribe(socket) {
    const replies = this.#options.subscriptions.map((data) => this.#command("Subscription", "Subscribe", data));
    for (const reply of await Promise.all(replies)) {
      if (!reply || socket !== this.#socket) return;
      if (!reply.data.Success) this.#fail(reply.data.ErrorCode, reply.data.ErrorMessage);
    }
    this.#become("registered");
    if (document.hidden || this.#frozen) this.#tellState();
  }

  #hear(envelope) {
    const { channel, topic, subtopic, inReplyTo, data } = envelope;
    const waiting = this.#pending.get(inReplyTo);
    if (channel === "Broker" && waiting) {
      this.#pending.delete(inReplyTo);
      waiting(envelope);
    } else if (channel === "Broker" && topic === "Connection" && subtopic === "Draining") {
      this.#drainWaitMs = data.ReconnectAfterMs;
    } else if (channel === "Broker" && topic === "Message" && subtopic === "Error") {
      this.#fail(data.ErrorCode, data.ErrorMessage);
    } else {
      this.dispatchEvent(new CustomEvent("message", { detail: envelope }));
    }
  }

  #closed(code, opened) {
    this.#socket = null;
    this.#forget();
    if (code === 4409) {
      this.#end("REPLACED", "another connection took this session over");
    } else if (code === 4401 || code === 4403) {
      if (typeof this.#options.token === "function" && this.#mayRetryToken) {
        this.#mayRetryToken = false;
        this.#connect();
      } else {
        this.#end("REFUSED", `the broker does not take this registration (${code}); it is not tried again`);
      }
    } else {
      // The first failure in a row is looked into; the others have the same cause.
      if (!opened && this.#wait === FIRST_WAIT_MS) this.#diagnose();
      this.#comeBack();
    }
  }

  #comeBack() {
    const drained = this.#drainWaitMs !== null;
    // The broker has spread its sessions already; otherwise we spread ourselves.
    const wait = drained ? this.#drainWaitMs : this.#wait * (0.5 + Math.random() / 2);
    if (!drained) this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
    this.#timer = setTimeout(() => this.#connect(), wait);
    this.#become("waiting");
  }

  async #diagnose() {
    const { code, message } = await diagnose(this.#options.url);
    if (this.#state !== "stopped") this.#fail(code, message);
  }

  /** Resolves with the reply, or with `null` when the connection ends first. */
  #command(topic, subtopic, data) {
    this.#made += 1;
    const id = `command-${this.#made}`;
    return new Promise((resolve) => {
      this.#pending.set(id, resolve);
      this.#write({ channel: "Broker", topic, subtopic, id, data });
    });
  }

  #write(envelope) {
    this.#socket.send(JSON.stringify({ source: this.#options.source, ...envelope }));
  }

  #forget() {
    for (const resolve of this.#pending.values()) resolve(null);
    this.#pending.clear();
  }

  /** What a page goes through: hidden, frozen, back from sleep, offline. */
  #listen() {
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    const woken = () => this.#woken();
    document.addEventListener("visibilitychange", () => (this.#tellState(), document.hidden || woken()), { signal });
    document.addEventListener("freeze", () => ((this.#frozen = true), this.#tellState()), { signal });
    document.addEventListener("resume", () => ((this.#frozen = false), this.#tellState(), woken()), { signal });
    window.addEventListener("online", woken, { signal });
    window.addEventListener("pageshow", woken, { signal });
  }

  /** A page that is hidden or frozen may not answer in time: the broker then asks another one first. */
  #tellState() {
    const state = document.hidden || this.#frozen ? "asleep" : "active";
    if (this.#state === "registered") this.#command("Application", "SetState", { state });
  }

  /** A socket may be dead without having been told: after a computer's sleep it looks open for minutes. */
  async #woken() {
    if (this.#state === "waiting" && this.#drainWaitMs === null) return this.#connect();
    const socket = this.#socket;
    if (this.#state !== "registered") return;
    const late = setTimeout(() => {
      if (socket !== this.#socket) return;
      socket.onclose = null;
      socket.close();
      this.#closed(1006, true);
    }, PING_MS);
    await this.#command("Connection", "Ping", {});
    clearTimeout(late);
  }

  #become(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state } }));
  }

  #fail(code, message) {
    this.dispatchEvent(new CustomEvent("error", { detail: { code, message } }));
  }

  #end(code, message) {
    this.#fail(code, message);
    this.stop();
  }
}

/**
 * Why a WebSocket does not open. A browser does not say: the broker's plain `GET /` tells the cases apart.
 *
 * @returns {Promise<{code: string, message: string}>}
 */
export async function diagnose(url) {
  const probe = new URL(url);
  probe.protocol = probe.protocol === "wss:" ? "https:" : "http:";
  probe.pathname = "/";
  const answers = (mode) =>
    fetch(probe, { mode, cache: "no-store", credentials: "omit" }).then(() => true, () => false);
  if (await answers("cors")) {
    const message = `${probe} answers this page, but the WebSocket does not open: does a proxy pass it on?`;
    return { code: "SOCKET_BLOCKED", message };
  }
  if (await answers("no-cors")) {
    const message =
      `${probe} answers, but not to pages of ${location.origin}. List that origin in the broker's ` +
      `http.allowed_origins; open ${probe} in a tab to see whether the broker knows its own name (http.allowed_hosts).`;
    return { code: "ORIGIN_REFUSED", message };
  }
  const permission = await loopbackPermission();
  if (permission === "denied" || permission === "prompt") {
    const message =
      `this browser wants a permission before a page may reach ${probe.host} (now: ${permission}). Allow it in the ` +
      `site's settings, or by the policy LoopbackNetworkAllowedForUrls; or the broker is not running: open ${probe}.`;
    return { code: "PERMISSION_OR_DOWN", message };
  }
  return { code: "UNREACHABLE", message: `nothing answers at ${probe}: open it in a tab to see whether the broker runs` };
}

/** What the browser says of connections to this computer: Chrome's own permission, which pages of this computer need not. */
async function loopbackPermission() {
  if (/^(localhost|127\..*|\[::1\])$/.test(location.hostname)) return "not needed";
  try {
    return (await navigator.permissions.query({ name: "loopback-network" })).state;
  } catch {
    return "unknown";
  }
}
