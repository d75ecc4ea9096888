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
import { claim, saveOnce } from "./once.js";

/** How long a tab remembers an event for another one, in case the tab that leads changes at that moment. */
const REMEMBERED_MS = 1_000;
const REMEMBERED_MAX = 100;
/** How long the other tabs leave alone a record that this one has opened. Longer than they remember the event. */
const OPENED_MS = 2_000;

/**
 * Events, all of them CustomEvent:
 *
 * - "state" { state }
 * - "error" { code, message, cause } and "cured" { cause }: an error holds until its cause is gone. A cause is one of
 *   connection.js, "OpenObject", "SaveLog", "SetClickToDial", "click" (each until one succeeds) or "view"
 * - "pop" { sfid, source }, "dial" (what was published), "clicktodial" { enabled }
 * - "leads" { leads }: whether this tab is the one that opens records
 */
export class SalesforceBridge extends EventTarget {
  #opencti;
  #connection;
  #writable;
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
    this.#connection = new Connection({ url, source, user, token: proof, subscriptions: this.#subscriptions() });
    this.#connection.addEventListener("state", ({ detail }) => this.#stateChanged(detail.state));
    this.#connection.addEventListener("error", ({ detail }) => this.#tell("error", detail));
    this.#connection.addEventListener("cured", ({ detail }) => this.#tell("cured", detail));
    this.#connection.addEventListener("message", ({ detail }) => this.#receive(detail));
  }

  /** "stopped", "connecting", "registered" or "waiting". */
  get state() {
    return this.#connection.state;
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

  /** Connects, if it is stopped: for instance when the person has logged in again. */
  connect() {
    this.#connection.start();
  }

  stop() {
    this.#connection.stop();
  }

  /** Makes the telephone numbers on Salesforce's pages clickable, or not. */
  async setClickToDial(enabled) {
    await this.#call(enabled ? "enableClickToDial" : "disableClickToDial");
    this.#cure("SetClickToDial");
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
    // A tab that receives no events must not keep the others from opening records.
    const opens = state === "registered" && !this.#connection.refused.some((it) => it.subtopic === "OpenObject");
    if (opens) this.#leader.start();
    else this.#leader.stop();
    this.#tell("state", { state });
    // For applications that missed it while this page was not connected.
    if (state === "registered" && this.#focus.recordId) this.#publishFocus();
  }

  #leadChanged(leads) {
    this.#tell("leads", { leads });
    if (!leads) return;
    const now = Date.now();
    const lately = this.#remembered.splice(0).filter(({ at }) => now - at < REMEMBERED_MS);
    for (const { envelope } of lately) this.#open(envelope);
  }

  #receive(envelope) {
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
  async #open(envelope) {
    if (!this.#leader.leads) return this.#remember(envelope);
    const { sfid } = payload(envelope);
    if (!isRecordId(sfid)) {
      return this.#refuse(envelope, "OPEN_OBJECT_FAILED", "sfid is not a record id", "The record cannot be opened.");
    }
    try {
      // Another tab has opened this record in the last moments.
      if (!(await claim(`switchboard-open:${sfid}`, OPENED_MS))) return;
      const type = this.#opencti.SCREENPOP_TYPE.SOBJECT;
      await this.#call("screenPop", { type, params: { recordId: sfid } });
      this.#cure("OpenObject");
      this.#tell("pop", { sfid, source: envelope.source });
    } catch (error) {
      this.#refuse(envelope, "OPEN_OBJECT_FAILED", error.message, "Salesforce did not open the record.");
    }
  }

  #remember(envelope) {
    const now = Date.now();
    const lately = this.#remembered.filter(({ at }) => now - at < REMEMBERED_MS);
    this.#remembered = [...lately, { at: now, envelope }].slice(-REMEMBERED_MAX);
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
    const data = await this.#log(request, payload(request));
    const { channel, topic, subtopic, id } = request;
    this.#connection.send(channel, topic, subtopic, { inReplyTo: id, data });
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

/** The payload's key is `data` or `message`, and there may be none. */
function payload({ data, message }) {
  const value = data ?? message;
  return typeof value === "object" && value !== null ? value : {};
}
