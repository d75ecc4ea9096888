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

import { Connection } from "./connection.js";
import { Leader } from "./leader.js";
import { clickToDialPayload, errorWords, isRecordId, logValue, objectFieldParams } from "./messages.js";

/** How many answers to SaveLog are kept for requests that are repeated. */
const ANSWERS_KEPT = 100;

/**
 * Events, all of them CustomEvent: "state" { state }, "error" { code, message }, "pop" { sfid, source },
 * "dial" (what was published), "clicktodial" { enabled }, "leads" { leads }: whether this tab is the one that opens records.
 */
export class SalesforceBridge extends EventTarget {
  #opencti;
  #connection;
  #writable;
  /** The record that the agent looks at. */
  #focus = {};
  /** Answers to SaveLog by who asked and under which id: a request that is repeated writes once. */
  #answers = new Map();
  #leader = new Leader((leads) => this.#tell("leads", { leads }));

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
    this.#connection = new Connection({ url, source, user, token: proof, subscriptions: this.#subscriptions() });
    this.#connection.addEventListener("state", ({ detail }) => this.#stateChanged(detail.state));
    this.#connection.addEventListener("error", ({ detail }) => this.#tell("error", detail));
    this.#connection.addEventListener("message", ({ detail }) => this.#hear(detail));
  }

  /** "stopped", "connecting", "registered" or "waiting". */
  get state() {
    return this.#connection.state;
  }

  /** Listens to Open CTI and connects. Once; after "stopped", `connect` tries again. */
  async start() {
    this.#leader.start();
    this.#opencti.onNavigationChange({ listener: (view) => this.#navigated(view) });
    this.#opencti.onClickToDial({ listener: (click) => this.#clicked(click) });
    try {
      // What is open already is no change.
      this.#focus = (await this.#call("getAppViewInfo")) ?? {};
    } catch (error) {
      this.#fail("OPENCTI_FAILED", error.message);
    }
    this.connect();
  }

  /** Connects, if it is stopped: for instance when the person has logged in again. */
  connect() {
    this.#connection.start();
  }

  stop() {
    this.#connection.stop();
    this.#leader.stop();
  }

  /** Makes the telephone numbers on Salesforce's pages clickable, or not. */
  async setClickToDial(enabled) {
    await this.#call(enabled ? "enableClickToDial" : "disableClickToDial");
    this.#tell("clicktodial", { enabled });
  }

  #subscriptions() {
    const on = (subtopic, more) => ({ channel: "Salesforce", topic: "Call", subtopic, ...more });
    const events = [on("OpenObject"), on("SetClickToDial")];
    return this.#writable.length > 0 ? [...events, on("SaveLog", { role: "handler" })] : events;
  }

  async #apexToken(apexClass) {
    // No parameters: "an empty object", says the manual, of what is a query string otherwise.
    const { runApex } = await this.#call("runApex", { apexClass, methodName: "issue", methodParams: {} });
    return runApex;
  }

  #stateChanged(state) {
    this.#tell("state", { state });
    // Whoever missed it while we were away learns what is open.
    if (state === "registered" && this.#focus.recordId) this.#publishFocus();
  }

  #hear(envelope) {
    switch (`${envelope.channel}/${envelope.topic}/${envelope.subtopic}`) {
      case "Salesforce/Call/OpenObject":
        return this.#open(envelope);
      case "Salesforce/Call/SetClickToDial":
        return this.#set(envelope);
      case "Salesforce/Call/SaveLog":
        return this.#save(envelope);
    }
  }

  #navigated(view) {
    this.#focus = view ?? {};
    this.#publishFocus();
  }

  #publishFocus() {
    this.#publish("ObjectFieldParams", objectFieldParams(this.#focus));
  }

  #clicked(click) {
    const message = clickToDialPayload(click, this.#focus);
    if (this.#publish("ClickToDialPayload", message)) this.#tell("dial", message);
    // Never kept for later: a call that begins a minute after the click would surprise everybody.
    else this.#fail("NOT_CONNECTED", "the click reached nobody: there is no connection to the broker");
  }

  /** A record pops in one tab, the one that the agent looked at last. */
  async #open(envelope) {
    if (!this.#leader.leads) return;
    const { sfid } = payload(envelope);
    if (!isRecordId(sfid)) {
      return this.#refuse(envelope, "OPEN_OBJECT_FAILED", "sfid is no record id", "The record cannot be opened.");
    }
    try {
      const type = this.#opencti.SCREENPOP_TYPE.SOBJECT;
      await this.#call("screenPop", { type, params: { recordId: sfid } });
      this.#tell("pop", { sfid, source: envelope.source });
    } catch (error) {
      this.#refuse(envelope, "OPEN_OBJECT_FAILED", error.message, "Salesforce did not open the record.");
    }
  }

  async #set(envelope) {
    const { enabled } = payload(envelope);
    if (typeof enabled !== "boolean") {
      return this.#refuse(envelope, "SET_CLICK_TO_DIAL_FAILED", "enabled has to be true or false", "");
    }
    try {
      await this.setClickToDial(enabled);
    } catch (error) {
      this.#refuse(envelope, "SET_CLICK_TO_DIAL_FAILED", error.message, "Salesforce did not switch click to dial.");
    }
  }

  async #save(request) {
    const key = request.requestId === undefined ? undefined : `${request.source}\n${request.requestId}`;
    const answer = this.#answers.get(key) ?? this.#log(payload(request));
    if (key !== undefined) this.#keepAnswer(key, answer);
    const data = await answer;
    // What was not written may be tried again.
    if (!data.Success) this.#answers.delete(key);
    const { channel, topic, subtopic, id } = request;
    this.#connection.send(channel, topic, subtopic, { inReplyTo: id, data });
  }

  #keepAnswer(key, answer) {
    this.#answers.set(key, answer);
    if (this.#answers.size > ANSWERS_KEPT) this.#answers.delete(this.#answers.keys().next().value);
  }

  async #log(asked) {
    const { callId, Name, OId, params } = asked;
    const same = { callId, Name, OId, params };
    try {
      const { recordId } = await this.#call("saveLog", { value: logValue(this.#writable, asked) });
      return { ...same, sfid: recordId, recordId, Success: true, ErrorMessage: null };
    } catch (error) {
      this.#fail("SAVE_LOG_FAILED", error.message);
      return { ...same, sfid: asked.sfid, Success: false, ErrorCode: "SAVE_LOG_FAILED", ErrorMessage: error.message };
    }
  }

  /** An event has no answer: its sender gets one of its own, in the shape that the other channels use. */
  #refuse({ source, id }, errorType, errorMessage, msg) {
    this.#fail(errorType, errorMessage);
    const data = { errorType, errorMessage, msg, ...(id === undefined ? {} : { id }) };
    this.#connection.send("Salesforce", "Error", "ApiError", { target: source, data });
  }

  #publish(subtopic, message) {
    return this.#connection.send("Salesforce", "Call", subtopic, { message });
  }

  /** One method of Open CTI: an object with a callback, which gets { success, returnValue, errors }. */
  #call(method, options = {}) {
    return new Promise((resolve, reject) => {
      const callback = ({ success, returnValue, errors }) =>
        success ? resolve(returnValue) : reject(new Error(`${method}: ${errorWords(errors)}`));
      this.#opencti[method]({ ...options, callback });
    });
  }

  #fail(code, message) {
    this.#tell("error", { code, message });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** The payload's key is `data` or `message`, and there may be none. */
function payload({ data, message }) {
  const value = data ?? message;
  return typeof value === "object" && value !== null ? value : {};
}
