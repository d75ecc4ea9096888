import { expect, onTestFinished, test, vi } from "vitest";
import { Broker } from "./support/broker.js";
import { desk, failing, next, until, within } from "./support/desk.js";
import { Proxy } from "./support/proxy.js";

const numbers = (count: number) => Array.from({ length: count }, (_, at) => at + 1);

test("a session survives lost connections: nothing lost, nothing twice, both ways in order", async () => {
  const broker = await Broker.start();
  const proxy = await Proxy.start(() => broker.port);
  const [far, near] = [desk(broker.url, { source: "far" }), desk(proxy.url, { source: "near" })];
  const [down, up]: [number[], number[]] = [[], []];
  await near.subscribe("Phone/Call/Ringing", (event) => down.push(event.data)).ready;
  await far.subscribe("Phone/Call/Ended", (event) => up.push(event.data)).ready;
  for (const round of [0, 1, 2]) {
    const back = next(near, "back");
    const sending: Promise<unknown>[] = [];
    for (const number of numbers(100)) {
      // The connection is cut in the middle of a stream, not before or after all of it.
      await until("its turn", () => up.length >= 100 * round + number - 5);
      if (number === 50) proxy.cut();
      sending.push(
        far.publish("Phone/Call/Ringing", 100 * round + number),
        near.publish("Phone/Call/Ended", 100 * round + number),
      );
    }
    await within("all receipts", Promise.all(sending));
    expect(await back).toMatchObject({ how: "resumed", patterns: [] });
  }
  await until("all events", () => down.length === 300 && up.length === 300);
  expect(down).toEqual(numbers(300));
  expect(up).toEqual(numbers(300));
});

test("a request outlives the connection, at its requester and at its handler", async () => {
  const broker = await Broker.start();
  const proxy = await Proxy.start(() => broker.port);
  const [crm, phone] = [desk(proxy.url, { source: "crm" }), desk(proxy.url, { source: "phone" })];
  let answer = (_: string) => {};
  await phone.handle("Phone/Call/Dial", () => new Promise<string>((resolve) => (answer = resolve))).ready;
  const asking = crm.request("Phone/Call/Dial", 1);
  const begun = answer;
  await until("the handler begins", () => answer !== begun);
  proxy.cut();
  await next(phone, "state", ({ state }) => state === "connecting");
  answer("done");
  expect(await within("the answer", asking)).toBe("done");
});

test("what an iterator has not given yet is neither lost nor acknowledged", async () => {
  const broker = await Broker.start();
  const proxy = await Proxy.start(() => broker.port);
  const [far, near] = [desk(broker.url, { source: "far" }), desk(proxy.url, { source: "near" })];
  const events = near.events("Phone/Call/*");
  await events.ready;
  for (const number of numbers(100)) await far.publish("Phone/Call/Ringing", number);
  const got: number[] = [];
  const back = next(near, "back");
  proxy.cut();
  expect(await back).toMatchObject({ how: "resumed" });
  for await (const event of events) if (got.push(event.data) === 100) break;
  expect(got).toEqual(numbers(100));
});

test("after a restart, a channel with durable history is recovered and another one is lost", async () => {
  const broker = await Broker.start("[channels.Phone]\nhistory = { size = 100, ttl = \"10m\", durable = true }\n");
  const [far, near] = [desk(broker.url, { source: "far" }), desk(broker.url, { source: "near" })];
  const got: number[] = [];
  await near.subscribe("Phone/Call/*", (event) => got.push(event.data)).ready;
  await far.publish("Phone/Call/Ringing", 1);
  await until("the first", () => got.length === 1);
  const before = new Date();
  const recovered = next(near, "back");
  const away = next(near, "state", ({ state }) => state === "connecting");
  await broker.stop();
  await away;
  await broker.run();
  const { how, patterns, since } = await recovered;
  expect([how, patterns]).toEqual(["recovered", ["Phone/Call/*"]]);
  expect(Math.abs(since.getTime() - before.getTime())).toBeLessThan(1000);
  await within("the other desk", far.opened());
  await far.publish("Phone/Call/Ringing", 2);
  await until("the second", () => got.length === 2);
  await near.subscribe("Desktop/Note/*", () => {}).ready;
  const lost = next(near, "back");
  const awayAgain = next(near, "state", ({ state }) => state === "connecting");
  await broker.stop();
  await awayAgain;
  await broker.run();
  expect(await lost).toMatchObject({ how: "lost", patterns: ["Desktop/Note/*"] });
  expect(got).toEqual([1, 2]);
});

test("what was sent to a session that has ended is LOST, except events that the broker recognises", async () => {
  const broker = await Broker.start("[channels.Phone]\nhistory = { size = 100, ttl = \"10m\", durable = true }\n");
  const proxy = await Proxy.start(() => broker.port);
  const near = desk(proxy.url, { source: "near" });
  await near.opened();
  proxy.deafen();
  const lost = failing(near.publish("Desktop/Note/Add", 1));
  const once = near.publish("Phone/Call/Ringing", 1, { once: true, id: "call-1" });
  await broker.stop();
  await broker.run();
  proxy.cut();
  expect(await lost).toMatchObject({ code: "LOST", retryable: false });
  expect(await within("the receipt", once)).toMatchObject({ receivers: 0, offset: 1, epoch: expect.any(String) });
  expect(await near.publish("Phone/Call/Ringing", 1, { once: true, id: "call-1" })).toMatchObject({ duplicate: true });
});

test("what is published without a connection is kept up to a bound, or refused", async () => {
  const broker = await Broker.start();
  const proxy = await Proxy.start(() => broker.port);
  proxy.refuses = true;
  const keeps = desk(proxy.url, { source: "keeps" });
  const fails = desk(proxy.url, { source: "fails", whenAway: "fail" });
  const other = desk(broker.url, { source: "other" });
  const got: number[] = [];
  await other.subscribe("Phone/Call/*", (event) => got.push(event.data)).ready;
  expect(await failing(fails.publish("Phone/Call/Ringing", 0))).toMatchObject({ code: "AWAY", retryable: true });
  const kept = numbers(1000).map((number) => keeps.publish("Phone/Call/Ringing", number));
  expect(await failing(keeps.publish("Phone/Call/Ringing", 1001))).toMatchObject({ code: "OVERFLOW" });
  // A request that is sent late may do harm.
  expect(await failing(desk(proxy.url).request("Phone/Call/Dial", 1, { timeout: 20 }))).toMatchObject({ code: "REQUEST_TIMEOUT" });
  proxy.refuses = false;
  keeps.retry();
  await within("the receipts", Promise.all(kept));
  await until("the events", () => got.length === 1000);
  expect(got).toEqual(numbers(1000));
});

test("what is subscribed and unsubscribed without a connection holds when the session goes on", async () => {
  const broker = await Broker.start();
  const proxy = await Proxy.start(() => broker.port);
  const [far, near] = [desk(broker.url, { source: "far" }), desk(proxy.url, { source: "near" })];
  const got: string[] = [];
  const old = near.subscribe("Phone/Call/Ringing", () => got.push("old"));
  await old.ready;
  proxy.refuses = true;
  proxy.cut();
  await next(near, "state", ({ state }) => state === "connecting");
  old.unsubscribe();
  const fresh = near.subscribe("Phone/Call/Ended", () => got.push("fresh"));
  const back = next(near, "back");
  proxy.refuses = false;
  near.retry();
  expect(await back).toMatchObject({ how: "resumed" });
  await fresh.ready;
  expect(await far.publish("Phone/Call/Ringing")).toMatchObject({ receivers: 0 });
  expect(await far.publish("Phone/Call/Ended")).toMatchObject({ receivers: 1 });
  await until("the event", () => got.length > 0);
  expect(got).toEqual(["fresh"]);
});

test("a dead connection is found by a ping when the clock has jumped", async () => {
  const broker = await Broker.start();
  const proxy = await Proxy.start(() => broker.port);
  const near = desk(proxy.url, { source: "near" });
  await near.opened();
  proxy.deafen();
  const back = next(near, "back");
  vi.spyOn(Date, "now").mockReturnValue(Date.now() + 3_600_000);
  onTestFinished(() => void vi.restoreAllMocks());
  expect(await back).toMatchObject({ how: "resumed" });
});

test("a desk that is closed while its connection is lost does not connect again", async () => {
  const broker = await Broker.start();
  const proxy = await Proxy.start(() => broker.port);
  const near = desk(proxy.url, { source: "near" });
  await near.opened();
  proxy.deafen();
  const closing = near.close();
  proxy.cut();
  await within("the close", closing);
  expect([near.state, proxy.accepted]).toEqual(["closed", 1]);
});

test("a will is published when the session ends without leaving", async () => {
  const broker = await Broker.start("[resume]\ngrace = \"0s\"\n");
  const proxy = await Proxy.start(() => broker.port);
  const other = desk(broker.url, { source: "other" });
  const got: unknown[] = [];
  await other.subscribe("Phone/State/*", (event) => got.push(event.data)).ready;
  await desk(proxy.url, { source: "near", will: { triple: "Phone/State/Gone", data: { why: "died" } } }).opened();
  proxy.cut();
  await until("the will", () => got.length === 1);
  expect(got).toEqual([{ why: "died" }]);
});

test("ten thousand events leave nothing behind", async () => {
  const broker = await Broker.start("[limits]\nrate = 100000\nburst = 100000\n");
  const [far, near] = [desk(broker.url, { source: "far" }), desk(broker.url, { source: "near" })];
  let got = 0;
  await near.subscribe("Phone/Call/*", () => (got += 1)).ready;
  const send = async (count: number) => {
    const end = got + count;
    for (let sent = 0; sent < count; sent += 100) {
      await Promise.all(numbers(100).map((number) => far.publish("Phone/Call/Ringing", { number, text: "x".repeat(200) })));
    }
    await until("the events", () => got === end);
    globalThis.gc?.();
    return process.memoryUsage().heapUsed;
  };
  const before = await send(2_000);
  const after = await send(10_000);
  // One kept message takes about 1 KB, so 10,000 would take 10 MB.
  expect(after - before).toBeLessThan(2_000_000);
});
