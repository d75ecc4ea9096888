import { expect, test } from "vitest";
import { SwitchboardError } from "../src/index.js";
import { Broker } from "./support/broker.js";
import { desk, failing, next, until, within } from "./support/desk.js";

test("an event reaches every listener of its pattern once, and the receipt counts sessions", async () => {
  const broker = await Broker.start();
  const [phone, pop] = [desk(broker.url, { source: "phone" }), desk(broker.url, { source: "pop" })];
  const got: unknown[] = [];
  const one = pop.subscribe("Phone/Call/Ringing", (event) => got.push(["one", event.data, event.source]));
  pop.subscribe("Phone", (event) => got.push(["wide", event.triple]));
  expect(await one.ready).toMatchObject({ id: expect.any(String), narrowed: false });
  expect(await phone.publish("Phone/Call/Ringing", { from: "1" })).toEqual({ receivers: 1 });
  await phone.publish("Phone/Call/Ended", undefined, { fields: { note: "x" } });
  await until("three events", () => got.length === 3);
  expect(got).toEqual([["one", { from: "1" }, "phone"], ["wide", "Phone/Call/Ringing"], ["wide", "Phone/Call/Ended"]]);
  one.unsubscribe();
  await phone.publish("Phone/Call/Ringing", { from: "2" });
  await until("four events", () => got.length === 4);
  expect(got[3]).toEqual(["wide", "Phone/Call/Ringing"]);
});

test("each new listener is given the retained values, and the others are not again", async () => {
  const broker = await Broker.start();
  const [phone, pop] = [desk(broker.url, { source: "phone" }), desk(broker.url, { source: "pop" })];
  await phone.publish("Phone/State/Now", "ready", { retain: true });
  const got: string[] = [];
  await pop.subscribe("Phone/State/*", (event) => got.push(`a ${event.data} ${event.retained}`)).ready;
  await pop.subscribe("Phone/State/*", (event) => got.push(`b ${event.data} ${event.retained}`)).ready;
  await phone.publish("Phone/State/Now", "busy");
  await until("the live event", () => got.length === 4);
  expect(got).toEqual(["a ready true", "b ready true", "a busy undefined", "b busy undefined"]);
});

test("a request has one answer, with progress before it", async () => {
  const broker = await Broker.start();
  const [phone, crm] = [desk(broker.url, { source: "phone" }), desk(broker.url, { source: "crm" })];
  const dialled = phone.handle("Phone/Call/Dial", async (request) => {
    expect(request.deadline.getTime()).toBeGreaterThan(Date.now());
    request.progress("dialling");
    return { callId: `${request.source} ${request.data.number}` };
  });
  phone.handle("Phone/Call/*", (request) => request.answer("ok", { subtopic: "Done", payload: "message" }));
  await dialled.ready;
  const parts: unknown[] = [];
  const answer = crm.request("Phone/Call/Dial", { number: "110" }, { onProgress: (part) => parts.push(part) });
  expect(await answer).toEqual({ callId: "crm 110" });
  expect(parts).toEqual(["dialling"]);
  expect(await crm.request("Phone/Call/Hold")).toBe("ok");
});

test("a handler that throws refuses; only a SwitchboardError says why", async () => {
  const broker = await Broker.start();
  const [phone, crm] = [desk(broker.url, { source: "phone" }), desk(broker.url, { source: "crm" })];
  const cause = new Error("secret number 110");
  const reported = next(phone, "error");
  await phone.handle("Phone/Call/Dial", (request) => {
    if (!request.data) throw new SwitchboardError("BAD_NUMBER", "number is empty", { data: { hint: "give one" } });
    throw cause;
  }).ready;
  const refused = await failing(crm.request("Phone/Call/Dial"));
  expect(refused).toBeInstanceOf(SwitchboardError);
  expect(refused).toMatchObject({ code: "BAD_NUMBER", message: "number is empty", retryable: false, data: { hint: "give one" } });
  const failed = await failing(crm.request("Phone/Call/Dial", 1));
  expect(failed).toMatchObject({ code: "INTERNAL", retryable: true });
  expect(JSON.stringify(failed.data)).not.toContain("secret");
  expect(await reported).toMatchObject({ code: "INTERNAL", cause });
  expect(await failing(crm.request("Phone/Nobody/Home"))).toMatchObject({ code: "NO_HANDLER", retryable: true });
});

test("an aborted request is cancelled at its handler, and a late one at its time limit", async () => {
  const broker = await Broker.start();
  const [phone, crm] = [desk(broker.url, { source: "phone" }), desk(broker.url, { source: "crm" })];
  const aborted: string[] = [];
  let begun = 0;
  await phone.handle("Phone/Call/Dial", (request) => {
    begun += 1;
    return new Promise((resolve) => {
      request.signal.addEventListener("abort", () => {
        aborted.push(request.signal.reason.code);
        resolve("too late");
      });
    });
  }).ready;
  const abort = new AbortController();
  const asking = failing(crm.request("Phone/Call/Dial", 1, { signal: abort.signal }));
  await until("the handler begins", () => begun === 1);
  abort.abort(new Error("hung up"));
  expect((await asking).message).toBe("hung up");
  await until("the handler is told", () => aborted.length === 1);
  expect(await failing(crm.request("Phone/Call/Dial", 1, { timeout: 150 }))).toMatchObject({ code: "REQUEST_TIMEOUT" });
  await until("the handler is told again", () => aborted.length === 2);
  expect(aborted[0]).toBe("REQUEST_CANCELLED");
});

test("a handler runs as many calls at a time as it says", async () => {
  const broker = await Broker.start();
  const [phone, crm] = [desk(broker.url, { source: "phone" }), desk(broker.url, { source: "crm" })];
  const running: (() => void)[] = [];
  await phone.handle("Phone/Call/Dial", (request) => {
    return new Promise((resolve) => running.push(() => resolve(request.data)));
  }, { concurrency: 2 }).ready;
  const numbers = [1, 2, 3, 4, 5, 6];
  const answers = Promise.all(numbers.map((number) => crm.request("Phone/Call/Dial", number)));
  for (const left of [6, 5, 4, 3, 2, 1]) {
    await until("a call begins", () => running.length === Math.min(left, 2));
    // All requests have arrived, so no other call begins.
    await crm.applications();
    await phone.applications();
    expect(running).toHaveLength(Math.min(left, 2));
    running.shift()?.();
  }
  expect(await answers).toEqual(numbers);
});

test("a gather says who answered and who failed", async () => {
  const broker = await Broker.start();
  const crm = desk(broker.url, { source: "crm" });
  const finders = ["east", "west", "south"].map((source) => desk(broker.url, { source }));
  await Promise.all(finders.map((found, at) => found.handle("Desktop/Search/Find", (request) => {
    request.progress("not for a gather");
    if (at === 2) throw new SwitchboardError("NO_INDEX", "no index");
    return [request.data, at];
  }).ready));
  const early: unknown[] = [];
  const { answers, expected, failed } = await crm.gather("Desktop/Search/Find", "Smith", { onAnswer: (answer) => early.push(answer) });
  expect(expected).toBe(3);
  const sources = answers.map(({ source }) => source).sort();
  expect(sources.filter((source) => source !== "south")).toEqual(["east", "west"]);
  expect(early).toEqual(answers);
  expect(answers.length + failed.length).toBe(3);
  expect(await crm.gather("Desktop/Nobody/Home")).toEqual({ answers: [], expected: 0, failed: [] });
});

test("a command without answers is complete when it is delivered", async () => {
  const broker = await Broker.start();
  const [core, crm] = [desk(broker.url, { source: "core" }), desk(broker.url, { source: "crm" })];
  const got: unknown[] = [];
  await core.handle("Salesforce/Call/Pop", (request) => got.push(request.data), { answers: false }).ready;
  expect(await crm.request("Salesforce/Call/Pop", 1)).toBeUndefined();
  expect(await crm.publish("Salesforce/Call/Pop", 2)).toEqual({ receivers: 1 });
  await until("both arrive", () => got.length === 2);
});

test("an iterator gives events in order, ends with its loop, and fails when its buffer is full", async () => {
  const broker = await Broker.start();
  const [phone, pop] = [desk(broker.url, { source: "phone" }), desk(broker.url, { source: "pop" })];
  const events = pop.events("Phone/Call/*");
  const small = pop.events("Phone/Call/*", { buffer: 2 });
  await Promise.all([events.ready, small.ready]);
  for (const number of [1, 2, 3, 4]) await phone.publish("Phone/Call/Ringing", number);
  const got: unknown[] = [];
  for await (const event of events) if (got.push(event.data) === 4) break;
  expect(got).toEqual([1, 2, 3, 4]);
  const kept: unknown[] = [];
  const overflow = await failing((async () => {
    for await (const event of small) kept.push(event.data);
  })());
  expect([kept, overflow.code]).toEqual([[1, 2], "OVERFLOW"]);
  // Both have unsubscribed, which the broker has done when it answers the next command.
  await pop.applications();
  expect(await phone.publish("Phone/Call/Ringing", 5)).toMatchObject({ receivers: 0 });
});

test("a promise that nobody awaits becomes an error event, and an awaited one does not", async () => {
  const broker = await Broker.start();
  const crm = desk(broker.url, { source: "crm" });
  const errors: string[] = [];
  crm.on("error", (error) => errors.push(error.code));
  await crm.opened();
  await failing(crm.request("Phone/Nobody/Home"));
  expect(errors).toEqual([]);
  const reported = next(crm, "error");
  void crm.request("Phone/Nobody/Home");
  await reported;
  void crm.subscribe("Phone/Ca*/x", () => {});
  await until("both are reported", () => errors.length === 2);
  expect(errors).toEqual(["NO_HANDLER", "INVALID_ENVELOPE"]);
});

test("a listener that throws is reported, and the others still get the event", async () => {
  const broker = await Broker.start();
  const [phone, pop] = [desk(broker.url, { source: "phone" }), desk(broker.url, { source: "pop" })];
  const got: unknown[] = [];
  pop.subscribe("Phone/Call/*", () => {
    throw new Error("a bug");
  });
  await pop.subscribe("Phone/Call/Ringing", (event) => got.push(event.data)).ready;
  const reported = next(pop, "error");
  await phone.publish("Phone/Call/Ringing", 1);
  expect(await reported).toMatchObject({ code: "INTERNAL", cause: { message: "a bug" } });
  await until("the event", () => got.length === 1);
});

test("the desk lists applications, sets its state, explains, and fetches credentials", async () => {
  const broker = await Broker.start();
  const crm = desk(broker.url, { source: "crm", user: "alice" });
  await crm.opened();
  expect(crm.session).toMatchObject({ id: expect.any(String), user: "alice", server: expect.stringContaining("switchboard/") });
  await crm.setState("asleep");
  const [only] = await crm.applications();
  expect(only).toEqual({ source: "crm", user: "alice", since: expect.any(Date), sessions: 1, state: "asleep" });
  expect(await crm.explain("Phone/Call/Ringing")).toMatchObject({ Verdict: "EVENT" });
  expect(await failing(crm.credentials())).toMatchObject({ code: "CREDENTIALS_NOT_FOUND" });
});

test("a closed desk ends everything and leaves at once", async () => {
  const broker = await Broker.start();
  const [crm, other] = [desk(broker.url, { source: "crm" }), desk(broker.url, { source: "other" })];
  const left = new Promise((resolve) => other.subscribe("Broker/Application/Left", (event) => resolve(event.data)));
  await Promise.all([crm.opened(), other.opened()]);
  await crm.handle("Phone/Call/Dial", () => new Promise(() => {})).ready;
  const asking = failing(crm.request("Phone/Nobody/Home"));
  const loop = failing((async () => {
    for await (const _ of crm.events("Phone")) continue;
  })());
  await asking;
  await crm.close();
  expect(await loop).toMatchObject({ code: "CLOSED" });
  expect([crm.state, crm.problem?.code]).toEqual(["closed", "CLOSED"]);
  expect(await within("Left", left)).toMatchObject({ Source: "crm" });
  expect(await failing(crm.publish("Phone/Call/Ringing"))).toMatchObject({ code: "CLOSED" });
});

test("a message over the broker's limit is refused before it closes the connection", async () => {
  const broker = await Broker.start('[limits]\nmessage_bytes = 65536\n');
  const crm = desk(broker.url);
  await crm.opened();
  expect(await failing(crm.publish("Phone/Call/Ringing", "é".repeat(40_000)))).toMatchObject({ code: "TOO_LARGE" });
  expect(crm.state).toBe("open");
});
