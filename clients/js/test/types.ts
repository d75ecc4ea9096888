// Compiled, never run: the published types fit the code, and say what they should.

import { connect as implementation, SwitchboardError as Class } from "../src/index.js";
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
