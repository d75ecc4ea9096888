// Compiled, never run: the published types fit the code, and say what they should.

import { connect as implementation, SwitchboardError as Class } from "../src/index.js";
import type { Acqueon } from "../src/acqueon.d.ts";
import type { connect, Desk, SwitchboardError } from "../src/switchboard.js";

interface Mine {
  events: { "Phone/Call/Ringing": { from: string }; "Phone/Call/Ended": { callId: string } };
  requests: { "Phone/Call/Dial": { data: { number: string }; reply: { callId: string } } };
}

export const published: typeof connect = implementation;
export const error: SwitchboardError = new Class("CODE", "words");

export async function use(desk: Desk<Mine>): Promise<void> {
  desk.subscribe("Phone/Call/Ringing", (event) => event.data.from.length);
  desk.subscribe("Phone/*/*", (event) => event.triple === "Phone/Call/Ended" && event.data.callId.length);
  const { callId } = await desk.request("Phone/Call/Dial", { number: "110" });
  await desk.publish("Phone/Call/Ended", { callId });
  desk.handle("Phone/Call/Dial", async (request) => ({ callId: request.data.number }));
  // @ts-expect-error a key that the event does not have
  await desk.publish("Phone/Call/Ended", { id: "1" });
  // @ts-expect-error a request that the schema does not have
  await desk.request("Phone/Call/Hold");
}

/** The vendor's samples are of its types. */
export async function vendor(desk: Desk<Acqueon>): Promise<void> {
  const { Username, Extension } = await desk.request("Salesforce/User/FetchCredentials");
  await desk.request("Cisco/Agent/SetUserInfo", { username: Username, password: "pqsup1", extension: Extension });
  await desk.publish("Salesforce/Call/OpenObject", { sfid: "00T7F000027L43nUAC" });
  await desk.request("Amazon/InboundCall/SetMakeCall", "+16013261548");
  const saved = await desk.request("LCM/WebService/SetBusinessOutcomeWithComments", {
    callid: "12345", AccountNumber: "5|3|1|0|0|44|1", UserID: "testagent", AgentComments: "", LeadScore: 0, TargetAmount: 0, OutcomeId: 101,
  });
  if (!saved.response.success) return;
  desk.subscribe("Salesforce/Call/*", (event) => {
    if (event.triple === "Salesforce/Call/ObjectFieldParams") event.data.WhatId.map(({ sfid, value }) => sfid + value);
  });
  desk.handle("Salesforce/Call/SaveCustomVariables", ({ data }) => ({ ...data, Success: true, ErrorMessage: null }));
  // @ts-expect-error a number without its text
  await desk.request("Amazon/InboundCall/SetMakeCall", 16013261548);
  // @ts-expect-error a message that no page has
  await desk.publish("Amazon/InboundCall/Ringing", {});
}
