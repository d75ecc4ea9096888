import { readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { fakeBroker } from "../src/testing.js";
import { desk, failing, next, until, within } from "./support/desk.js";
import { play } from "./support/player.js";
import { read, type Transcript } from "./support/transcript.js";

const url = "ws://fake/ws";

test("a desk subscribes, publishes and asks without a broker", async () => {
  const broker = fakeBroker();
  const { WebSocket } = broker;
  const [phone, pop] = [desk(url, { source: "phone", WebSocket }), desk(url, { source: "pop", WebSocket })];
  const got: unknown[] = [];
  await pop.subscribe("Phone/Call/*", ({ data, source }) => got.push([source, data])).ready;
  await phone.opened();
  expect(await phone.publish("Phone/Call/Ringing", 1, { retain: true })).toEqual({ receivers: 1 });
  expect(broker.publish("Phone/Call/Ended", 2)).toBe(1);
  await until("both events", () => got.length === 2);
  expect(got).toEqual([["phone", 1], ["test", 2]]);
  broker.handle("Crm/Contact/Find", ({ data, source }) => {
    if (!data) throw Object.assign(new Error("no number"), { code: "BAD_NUMBER" });
    return { name: `${source} ${data}` };
  });
  expect(await pop.request("Crm/Contact/Find", "110")).toEqual({ name: "pop 110" });
  expect(await failing(pop.request("Crm/Contact/Find"))).toMatchObject({ code: "BAD_NUMBER", message: "no number" });
  expect(await failing(pop.request("Crm/Nobody/Home"))).toMatchObject({ code: "NO_HANDLER" });
  await phone.handle("Phone/Call/Dial", (request) => (request.progress("dialling"), `to ${request.data}`)).ready;
  expect(await pop.request("Phone/Call/Dial", "110")).toBe("to 110");
  expect((await pop.gather("Phone/Call/Dial", "1")).answers).toEqual([{ source: "phone", data: "to 1" }]);
  expect(broker.sent.filter(({ topic, subtopic }) => `${topic}/${subtopic}` === "Call/Ringing")).toHaveLength(1);
  expect((await pop.applications()).map(({ source }) => source)).toEqual(["phone", "pop"]);
});

test("dropped connections resume, and refused ones stop", async () => {
  const broker = fakeBroker();
  const pop = desk(url, { source: "pop", WebSocket: broker.WebSocket });
  const got: unknown[] = [];
  await pop.subscribe("Phone/Call/*", ({ data }) => got.push(data)).ready;
  const [session, back] = [pop.session?.id, next(pop, "back")];
  broker.drop();
  await next(pop, "state", ({ state }) => state === "connecting");
  for (const number of [1, 2]) expect(broker.publish("Phone/Call/Ringing", number)).toBe(1);
  expect(await back).toMatchObject({ how: "resumed" });
  await until("what was published meanwhile", () => got.length === 2);
  expect([got, pop.session?.id]).toEqual([[1, 2], session]);
  broker.refuse(4410);
  await next(pop, "state", ({ state }) => state === "closed");
  expect(pop.problem?.code).toBe("KICKED");
  broker.refuse(0);
  await within("another desk", desk(url, { WebSocket: broker.WebSocket }).opened());
});

test.each(["errors-arrive-on.txt", "subscribe-too-many-groups.txt"])("%s", async (file) => {
  const folder = path.resolve(import.meta.dirname, "../../../tests/it/transcripts");
  const transcript = read(readFileSync(path.join(folder, file), "utf8"));
  await play(file, transcript as Transcript, url, fakeBroker().WebSocket);
});
