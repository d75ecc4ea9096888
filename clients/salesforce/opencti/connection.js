// One registered WebSocket to the broker, which reconnects by itself. It knows nothing of Salesforce. docs/protocol.md of
// switchboard describes the protocol. No dependency, no build step: a page imports this file as it is.
//
// Events, all of them CustomEvent: "state" { state }, "message" (an envelope), "error" { code, message, cause }, "cured" { cause }.
// A cause is "connection" (gone with the next registration), "subscription CHANNEL/TOPIC/SUBTOPIC" (gone when the broker accepts
// that subscription) or "message": one message was refused, which nothing cures.

/** The first pause before an attempt to reconnect. It doubles from attempt to attempt. */
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;

/** How long the broker may take to answer a ping. Pings are sent only while the page is visible, because then timers run. */
const PING_MS = 5_000;

// The table "Close codes" of docs/errors.md. After any other code, the connection backs off.
const RESTART = 1012;
const UNAUTHENTICATED = 4401;
/** The broker closed the connection because of a message, which must not be sent again. */
const MESSAGE_REFUSED = new Set([1002, 1007, 1009]);
/** The broker could not check the token. It lets the connection live, and the same Register may succeed later. */
const RETRY_REGISTER = new Set(["UPSTREAM_UNAVAILABLE", "STORAGE_UNAVAILABLE", "INTERNAL"]);
/** Reconnecting does not help until a person has changed something. */
const FINAL = new Map([[4403, "REFUSED"], [4409, "REPLACED"], [4410, "KICKED"]]);

export class Connection extends EventTarget {
  #options;
  #socket = null;
  #state = "stopped";
  #wait = FIRST_WAIT_MS;
  #timer;
  /** `ReconnectAfterMs` of the broker that is restarting. */
  #drainWaitMs = null;
  /** The connection was closed for a restart, and its pause is not over. */
  #restarting = false;
  #frozen = false;
  /** The number of the attempt to connect. An attempt that is no longer the latest ends. */
  #attempt = 0;
  /** Commands whose reply is pending. */
  #pending = new Map();
  #made = 0;
  #refused = [];
  /** Removes all listeners on the page. */
  #listening = null;

  /**
   * @param {object} options
   * @param {string} options.url  `wss://HOST/ws`
   * @param {string} options.source  the name to register
   * @param {string | (() => string | Promise<string>)} [options.token]  a function is called before each attempt to connect
   * @param {string} [options.user]  only for a broker in open mode
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

  /** The subscriptions of this session that the broker refused. */
  get refused() {
    return this.#refused;
  }

  /** Connects. While it waits for the next attempt, makes that attempt now. */
  start() {
    if (this.#state === "waiting") this.#connect();
    if (this.#state !== "stopped") return;
    this.#wait = FIRST_WAIT_MS;
    this.#listen();
    this.#connect();
  }

  stop() {
    this.#listening?.abort();
    clearTimeout(this.#timer);
    this.#attempt += 1;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
    this.#forget();
    this.#become("stopped");
  }

  /** Sends an envelope. Returns `false` if this is not registered; the envelope is not kept for later. */
  send(channel, topic, subtopic, fields) {
    if (this.#state !== "registered") return false;
    this.#write({ channel, topic, subtopic, ...fields });
    return true;
  }

  async #connect() {
    clearTimeout(this.#timer);
    this.#drainWaitMs = null;
    this.#restarting = false;
    this.#become("connecting");
    this.#attempt += 1;
    const attempt = this.#attempt;
    const { token } = this.#options;
    let proof;
    try {
      // Before dialling, because the broker waits only 10 s for a registration.
      proof = typeof token === "function" ? await token() : token;
    } catch (error) {
      if (attempt !== this.#attempt) return;
      this.#fail("TOKEN_UNAVAILABLE", `no token to register with: ${error.message}`);
      this.#reconnect(null);
      return;
    }
    if (attempt === this.#attempt) this.#dial(proof);
  }

  #dial(proof) {
    let socket;
    try {
      socket = new WebSocket(this.#options.url);
    } catch (error) {
      this.#end("BAD_ADDRESS", `no WebSocket to ${this.#options.url}: ${error.message}`);
      return;
    }
    this.#socket = socket;
    let opened = false;
    // There is no time limit, because the browser may be asking a person for permission.
    socket.onopen = () => {
      opened = true;
      this.#register(socket, proof);
    };
    socket.onmessage = ({ data }) => socket === this.#socket && this.#received(JSON.parse(data));
    socket.onclose = ({ code, reason }) => socket === this.#socket && this.#closed(code, reason, opened);
  }

  async #register(socket, token) {
    const { user } = this.#options;
    const reply = await this.#command("Application", "Register", { token, user });
    if (!reply || socket !== this.#socket) return;
    if (!reply.data.Success) {
      this.#fail(reply.data.ErrorCode, reply.data.ErrorMessage);
      if (RETRY_REGISTER.has(reply.data.ErrorCode)) this.#abandon(socket);
      return;
    }
    this.#wait = FIRST_WAIT_MS;
    await this.#subscribe(socket);
  }

  /** Closes a connection without waiting for the other end, and connects again later. */
  #abandon(socket, code = 1006, reason = "") {
    socket.onclose = null;
    socket.close();
    this.#closed(code, reason, true);
  }

  async #subscribe(socket) {
    const { subscriptions } = this.#options;
    const replies = await Promise.all(subscriptions.map((data) => this.#command("Subscription", "Subscribe", data)));
    if (replies.includes(null) || socket !== this.#socket) return;
    this.#refused = subscriptions.filter((_, at) => !replies[at].data.Success);
    replies.forEach(({ data }, at) => {
      const { channel, topic, subtopic } = subscriptions[at];
      const cause = `subscription ${channel}/${topic}/${subtopic}`;
      if (data.Success) this.#cure(cause);
      else this.#fail(data.ErrorCode, `${channel}/${topic}/${subtopic}: ${data.ErrorMessage}`, cause);
    });
    this.#cure("connection");
    this.#become("registered");
    if (document.hidden || this.#frozen) this.#tellState();
  }

  #received(envelope) {
    const { channel, topic, subtopic, inReplyTo, data } = envelope;
    const resolve = this.#pending.get(inReplyTo);
    if (channel === "Broker" && resolve) {
      this.#pending.delete(inReplyTo);
      resolve(envelope);
    } else if (channel === "Broker" && topic === "Connection" && subtopic === "Draining") {
      this.#drainWaitMs = data.ReconnectAfterMs;
    } else if (channel === "Broker" && topic === "Message" && subtopic === "Error") {
      this.#fail(data.ErrorCode, data.ErrorMessage, "message");
    } else {
      this.dispatchEvent(new CustomEvent("message", { detail: envelope }));
    }
  }

  #closed(code, reason, opened) {
    this.#socket = null;
    this.#forget();
    const closed = `the broker closed the connection with ${code}${reason ? `: ${reason}` : ""}`;
    if (FINAL.has(code)) {
      this.#end(FINAL.get(code), closed);
    } else if (this.#refusesRegistration(code) && typeof this.#options.token !== "function") {
      this.#end("REFUSED", `${closed}; the same registration is not sent again`);
    } else {
      if (MESSAGE_REFUSED.has(code)) {
        this.#fail("MESSAGE_REFUSED", `${closed}; do not send the last message again`, "message");
      }
      // Only the first failure in a row is diagnosed; the others have the same cause.
      if (!opened && this.#wait === FIRST_WAIT_MS) this.#diagnose();
      this.#reconnect(code);
    }
  }

  #refusesRegistration(code) {
    return code === UNAUTHENTICATED || (this.#state === "connecting" && MESSAGE_REFUSED.has(code));
  }

  #reconnect(code) {
    this.#restarting = code === RESTART && this.#drainWaitMs !== null;
    let wait = this.#drainWaitMs;
    // A broker that restarts has spread its clients already.
    if (!this.#restarting) {
      wait = this.#wait * (0.5 + Math.random() / 2);
      this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
    }
    this.#timer = setTimeout(() => this.#connect(), wait);
    this.#become("waiting");
  }

  async #diagnose() {
    const { code, message } = await diagnose(this.#options.url);
    if (this.#state === "waiting" || this.#state === "connecting") this.#fail(code, message);
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

  /** Listens for what happens to a page: hidden, frozen, back from sleep, offline. */
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

  /** Tells the broker that this page is hidden or frozen, so that requests go to another one first. */
  #tellState() {
    const state = document.hidden || this.#frozen ? "asleep" : "active";
    if (this.#state === "registered") this.#command("Application", "SetState", { state });
  }

  /** Checks the connection: after a computer's sleep, a dead socket looks open for minutes. */
  async #woken() {
    if (this.#state === "waiting" && !this.#restarting) return this.#connect();
    const socket = this.#socket;
    if (this.#state !== "registered") return;
    const late = setTimeout(() => {
      if (socket === this.#socket) this.#abandon(socket, 1006, "no answer to a ping");
    }, PING_MS);
    await this.#command("Connection", "Ping", {});
    clearTimeout(late);
  }

  #become(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state } }));
  }

  #fail(code, message, cause = "connection") {
    this.dispatchEvent(new CustomEvent("error", { detail: { code, message, cause } }));
  }

  #cure(cause) {
    this.dispatchEvent(new CustomEvent("cured", { detail: { cause } }));
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
