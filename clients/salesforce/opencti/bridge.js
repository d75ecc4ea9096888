// Open CTI on one side, the broker's channel Salesforce on the other. ../README.md says how to use it.
//
// Open CTI ends on 28 February 2028, and new Salesforce orgs do not get it any more: nothing new should depend on it.
//
// Open CTI                      message
// screenPop                  <- Salesforce/Call/OpenObject          event, data: { sfid }
// onNavigationChange         -> Salesforce/Call/ObjectFieldParams   event, message: { WhoId: [], WhatId: [] }
// onClickToDial              -> Salesforce/Call/ClickToDialPayload  event, message: { number, recordId, … }
// enable-, disableClickToDial <- Salesforce/Call/SetClickToDial     event, data: { enabled }
// saveLog                    <- Salesforce/Call/SaveLog             request, answered with { …, recordId, Success, … }
// an event that fails        -> Salesforce/Error/ApiError           event to its sender: { errorType, errorMessage, msg }

import { Leader } from "./leader.js";
import { clickToDialPayload, errorWords, isRecordId, logValue, objectFieldParams } from "./messages.js";
import { claim, saveOnce } from "./once.js";
// The client in clients/js, as `npm run build` there has put it here.
import { connect } from "./switchboard.js";

/** How long a tab remembers an event for another one, in case the tab that leads changes at that moment. */
const REMEMBERED_MS = 1_000;
const REMEMBERED_MAX = 100;
/** How long the other tabs leave alone a record that this one has opened. Longer than they remember the event. */
const OPENED_MS = 2_000;

/**
 * Events, all of them CustomEvent:
 *
 * - "state" { state }
 * - "error" { code, message, cause } and "cured" { cause }: an error holds until its cause is gone. A cause is "connection"
 *   (gone with the next registration), "subscription CHANNEL/TOPIC/SUBTOPIC" (gone when the broker accepts it), "message" (one
 *   message was refused, which nothing cures), "OpenObject", "SaveLog", "SetClickToDial", "click" (each until one succeeds) or
 *   "view"
 * - "pop" { sfid, source }, "dial" (what was published), "clicktodial" { enabled }
 * - "leads" { leads }: whether this tab is the one that opens records
 */
export class SalesforceBridge extends EventTarget {
  #opencti;
  #options;
  #writable;
  #state = "stopped";
  /** The desk of the client, which ends for ever when it is closed. */
  #desk = null;
  /** The subscriptions and the handler of the current session. */
  #subscriptions = [];
  /** The record that the agent looks at. */
  #focus = {};
  #leader = new Leader((leads) => this.#leadChanged(leads));
  /** Events OpenObject that arrived lately, while another tab led. */
  #remembered = [];

  /**
   * @param {object} options
   * @param {string} options.url  the broker's address, `wss://HOST/ws`
   * @param {string} [options.source]  the name to register under
   * @param {string | (() => string | Promise<string>)} [options.token]  default: from the Apex class
   * @param {string} [options.user]  in place of a token, in the broker's open development mode only
   * @param {string} [options.apexClass]
   * @param {{object: string, prefix: string, fields: string[]}[]} [options.writable]  what SaveLog may write; default: nothing
   * @param {object} [options.opencti]  default: `sforce.opencti`
   */
  constructor({ url, source = "salesforce", token, user, apexClass = "SwitchboardToken", writable = [], opencti }) {
    super();
    this.#opencti = opencti ?? globalThis.sforce?.opencti;
    if (!this.#opencti) throw new Error("sforce.opencti is missing: load opencti_min.js before this script");
    this.#writable = writable;
    const proof = token ?? (user ? undefined : () => this.#apexToken(apexClass));
    // A session that continues would open records again that another tab has opened meanwhile. What arrives while this page
    // has no connection is left to the other tabs.
    this.#options = { url, source, user, token: proof, resume: false, whenAway: "fail" };
    document.addEventListener("visibilitychange", () => this.#tellState());
    // The client has said that the page is awake, which a hidden page is not. This runs after the client's listener.
    document.addEventListener("resume", () => setTimeout(() => document.hidden && this.#tellState()));
  }

  /** "stopped", "connecting", "registered" or "waiting". */
  get state() {
    return this.#state;
  }

  /** Listens to Open CTI and connects. Once; after "stopped", `connect` tries again. */
  async start() {
    this.#opencti.onNavigationChange({ listener: (view) => this.#navigated(view) });
    this.#opencti.onClickToDial({ listener: (click) => this.#clicked(click) });
    try {
      // onNavigationChange does not report what is open already.
      this.#focus = (await this.#call("getAppViewInfo")) ?? {};
    } catch (error) {
      this.#fail("OPENCTI_FAILED", error.message, "view");
    }
    this.connect();
  }

  /** Connects, if it is stopped: for instance when the person has logged in again. While it waits, tries again now. */
  connect() {
    if (this.#desk) return this.#desk.retry();
    const desk = connect(this.#options);
    this.#desk = desk;
    this.#become("connecting");
    desk.on("state", (change) => desk === this.#desk && this.#changed(desk, change));
    desk.on("error", (error) => desk === this.#desk && this.#reported(desk, error));
  }

  stop() {
    const desk = this.#desk;
    this.#desk = null;
    this.#leave();
    this.#become("stopped");
    desk?.close();
  }

  /** Makes the telephone numbers on Salesforce's pages clickable, or not. */
  async setClickToDial(enabled) {
    await this.#call(enabled ? "enableClickToDial" : "disableClickToDial");
    this.#cure("SetClickToDial");
    this.#tell("clicktodial", { enabled });
  }

  #changed(desk, { state, problem }) {
    if (state === "open") return this.#subscribe(desk);
    this.#leave();
    if (problem) this.#fail(problem.code, words(problem), "connection");
    // The client connects again by itself, but not after a close that needs a person.
    if (state === "closed") this.#desk = null;
    this.#become(state === "closed" ? "stopped" : problem ? "waiting" : "connecting");
  }

  /** An error that is not why the desk is not open. */
  #reported(desk, error) {
    if (error === desk.problem) return;
    // The client reports the close because of a message with the code of a lost connection.
    this.#fail(error.code === "AWAY" ? "MESSAGE_REFUSED" : error.code, words(error), "message");
  }

  /** Subscribes in a session that has just begun. One that the broker refuses now may be accepted in a later session. */
  async #subscribe(desk) {
    const call = (subtopic) => `Salesforce/Call/${subtopic}`;
    const made = [
      desk.subscribe(call("OpenObject"), (event) => this.#open(event)),
      desk.subscribe(call("SetClickToDial"), (event) => this.#set(event)),
    ];
    if (this.#writable.length > 0) made.push(desk.handle(call("SaveLog"), (request) => this.#log(request, fields(request.data))));
    this.#subscriptions = made;
    const outcomes = await Promise.allSettled(made.map(({ ready }) => ready));
    if (made !== this.#subscriptions) return;
    const cause = ({ pattern }) => `subscription ${pattern}`;
    made.forEach((it, at) => {
      const { reason } = outcomes[at];
      if (reason) this.#fail(reason.code, `${it.pattern}: ${reason.message}`, cause(it));
      else this.#cure(cause(it));
    });
    this.#cure("connection");
    // A tab that receives no events must not keep the others from opening records.
    if (outcomes[0].status === "fulfilled") this.#leader.start();
    this.#become("registered");
    if (document.hidden) this.#tellState();
    // For applications that missed it while this page was not connected.
    if (this.#focus.recordId) this.#publishFocus();
  }

  /** Ends what belongs to a session that has ended. */
  #leave() {
    for (const subscription of this.#subscriptions) subscription.unsubscribe();
    this.#subscriptions = [];
    this.#leader.stop();
  }

  /** Tells the broker whether this page is hidden, so that requests go to another one first. */
  #tellState() {
    if (this.#state === "registered") this.#desk.setState(document.hidden ? "asleep" : "active").catch(() => {});
  }

  #become(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#tell("state", { state });
  }

  async #apexToken(apexClass) {
    // No parameters: "an empty object", says the manual, of what is a query string otherwise.
    const { runApex } = await this.#call("runApex", { apexClass, methodName: "issue", methodParams: {} });
    return runApex;
  }

  #leadChanged(leads) {
    this.#tell("leads", { leads });
    if (!leads) return;
    const now = Date.now();
    const lately = this.#remembered.splice(0).filter(({ at }) => now - at < REMEMBERED_MS);
    for (const { event } of lately) this.#open(event);
  }

  #navigated(view) {
    this.#focus = view ?? {};
    this.#cure("view");
    this.#publishFocus();
  }

  #publishFocus() {
    this.#publish("ObjectFieldParams", objectFieldParams(this.#focus));
  }

  #clicked(click) {
    const message = clickToDialPayload(click, this.#focus);
    if (this.#publish("ClickToDialPayload", message)) {
      this.#cure("click");
      this.#tell("dial", message);
    } else {
      // Not kept for later: nobody expects a call to begin a minute after the click.
      this.#fail("NOT_CONNECTED", "the click reached nobody: there is no connection to the broker", "click");
    }
  }

  /** Opens a record in the tab that leads. Every tab receives the event. */
  async #open(event) {
    if (!this.#leader.leads) return this.#remember(event);
    const { sfid } = fields(event.data);
    if (!isRecordId(sfid)) {
      return this.#refuse(event, "OPEN_OBJECT_FAILED", "sfid is not a record id", "The record cannot be opened.");
    }
    try {
      // Another tab has opened this record in the last moments.
      if (!(await claim(`switchboard-open:${sfid}`, OPENED_MS))) return;
      const type = this.#opencti.SCREENPOP_TYPE.SOBJECT;
      await this.#call("screenPop", { type, params: { recordId: sfid } });
      this.#cure("OpenObject");
      this.#tell("pop", { sfid, source: event.source });
    } catch (error) {
      this.#refuse(event, "OPEN_OBJECT_FAILED", error.message, "Salesforce did not open the record.");
    }
  }

  #remember(event) {
    const now = Date.now();
    const lately = this.#remembered.filter(({ at }) => now - at < REMEMBERED_MS);
    this.#remembered = [...lately, { at: now, event }].slice(-REMEMBERED_MAX);
  }

  async #set(event) {
    const { enabled } = fields(event.data);
    if (typeof enabled !== "boolean") {
      return this.#refuse(event, "SET_CLICK_TO_DIAL_FAILED", "enabled has to be true or false", "");
    }
    try {
      await this.setClickToDial(enabled);
    } catch (error) {
      this.#refuse(event, "SET_CLICK_TO_DIAL_FAILED", error.message, "Salesforce did not switch click to dial.");
    }
  }

  /** Resolves with the answer to a SaveLog. A repeated request is saved once, whichever tab receives it. */
  async #log(request, asked) {
    const { callId, Name, OId, params } = asked;
    const same = { callId, Name, OId, params };
    const save = async () => (await this.#call("saveLog", { value: logValue(this.#writable, asked) })).recordId;
    try {
      const recordId = await this.#saveOnce(request, asked, save);
      this.#cure("SaveLog");
      return { ...same, sfid: recordId, recordId, Success: true, ErrorMessage: null };
    } catch (error) {
      this.#fail("SAVE_LOG_FAILED", error.message, "SaveLog");
      return { ...same, sfid: asked.sfid, Success: false, ErrorCode: "SAVE_LOG_FAILED", ErrorMessage: error.message };
    }
  }

  #saveOnce({ user, source, requestId, gather }, asked, save) {
    // Some applications count their ids from 1 after each start, so the values are part of the key.
    if (requestId !== undefined) return saveOnce(JSON.stringify([user, source, requestId, asked]), save);
    if (gather && !this.#leader.leads) throw new Error("another tab saves this request");
    return save();
  }

  /** Tells the sender of an event why it failed, by an event in the form that the other channels use. */
  #refuse({ source, id, subtopic }, errorType, errorMessage, msg) {
    this.#fail(errorType, errorMessage, subtopic);
    const data = { errorType, errorMessage, msg, ...(id === undefined ? {} : { id }) };
    this.#send("Error/ApiError", data, { target: source });
  }

  /** Publishes, unless there is no connection. Returns whether there is one. */
  #publish(subtopic, message) {
    return this.#send(`Call/${subtopic}`, message, { payload: "message" });
  }

  #send(event, payload, options) {
    if (this.#desk?.state !== "open") return false;
    // Open CTI waits for nothing, so a refusal is reported like that of any other message.
    void this.#desk.publish(`Salesforce/${event}`, payload, { ...options, receipt: false });
    return true;
  }

  /** One method of Open CTI: an object with a callback, which gets { success, returnValue, errors }. */
  #call(method, options = {}) {
    return new Promise((resolve, reject) => {
      const callback = ({ success, returnValue, errors }) =>
        success ? resolve(returnValue) : reject(new Error(`${method}: ${errorWords(errors)}`));
      this.#opencti[method]({ ...options, callback });
    });
  }

  #fail(code, message, cause) {
    this.#tell("error", { code, message, cause });
  }

  #cure(cause) {
    this.#tell("cured", { cause });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Returns the fields of a payload, of which there are none if it is not an object. */
function fields(payload) {
  return typeof payload === "object" && payload !== null ? payload : {};
}

/** Returns what a person needs to know of an error. */
function words({ message, cure }) {
  return cure ? `${message}. ${cure}` : message;
}
