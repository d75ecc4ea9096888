import { expect, onTestFinished, test, vi } from "vitest";
import { connect } from "../src/index.js";
import { RECONNECT } from "../src/catalogue.js";
import { Broker } from "./support/broker.js";
import { desk, next, until, within } from "./support/desk.js";
import { Script } from "./support/script.js";

const CODES = [1001, 1002, 1005, 1007, 1008, 1009, 1011, 1012, 4401, 4403, 4404, 4406, 4408, 4409, 4410, 4413, 4999];

test.each(CODES)("after a close with %i, the desk does as the catalogue says", async (code) => {
  const script = await Script.start();
  script.act = (socket) => script.opened.length === 1 && (code === 1005 ? socket.close() : socket.close(code, "why"));
  const made = desk(script.url, { token: "fixed" });
  const stops = RECONNECT[code] === "stop" || RECONNECT[code] === "new-token";
  if (!stops) {
    await until("another connection", () => script.opened.length === 2);
    await until("it is open again", () => made.state === "open");
    expect(made.problem).toBeUndefined();
    return;
  }
  await next(made, "state", ({ state }) => state === "closed");
  const expected = { 4401: "UNAUTHENTICATED", 4403: "FORBIDDEN", 4409: "REPLACED", 4410: "KICKED" }[code];
  expect(made.problem).toMatchObject({ code: expected, message: expect.stringMatching(`${code}: why$`) });
  expect(script.opened).toHaveLength(1);
});

test("a broker that restarts says when to reconnect, counted from its close", async () => {
  const script = await Script.start();
  script.act = (_, send) => send("Broker/Connection/Draining", { data: { ReconnectAfterMs: 400 } });
  const made = desk(script.url);
  await within("open", made.opened());
  // The notice has arrived before this is answered.
  await made.setState("active");
  const timers = vi.spyOn(globalThis, "setTimeout");
  onTestFinished(() => void timers.mockRestore());
  const pauses = () => timers.mock.calls.filter(([, ms]) => ms === 400).length;
  const away = next(made, "state", ({ state }) => state === "connecting");
  expect(pauses()).toBe(0);
  const closed = Date.now();
  for (const socket of script.sockets) socket.close(1012);
  await away;
  expect(pauses()).toBe(1);
  await until("another connection", () => script.opened.length === 2);
  const pause = (script.opened[1] as number) - closed;
  expect(pause).toBeGreaterThan(350);
  expect(pause).toBeLessThan(1500);
  await within("open", made.opened());
});

test("the third message within a minute that closes the connection stops the desk", async () => {
  const script = await Script.start();
  script.act = (socket) => socket.close(1007, "not UTF-8");
  const made = desk(script.url);
  const reported: string[] = [];
  made.on("error", ({ code }) => reported.push(code));
  await next(made, "state", ({ state }) => state === "closed");
  expect([script.opened.length, made.problem?.code]).toEqual([3, "CLOSED"]);
  expect(made.problem?.message).toMatch(/1007: not UTF-8, three times in a minute$/);
  expect(reported).toEqual(["AWAY", "AWAY", "AWAY"]);
});

test("a provider is asked why, renews before the end, and replaces a refused token", async () => {
  const script = await Script.start();
  const asked: string[] = [];
  script.reply = ({ data }) => (data.token === "token 1" ? { Success: false, ErrorCode: "UNAUTHENTICATED", ErrorMessage: "wrong" } : {});
  script.act = (_, send) => send("Broker/Connection/Expiring", { data: { ExpiresInSeconds: 60 } });
  const made = desk(script.url, { token: (why: string) => `token ${asked.push(why)}` });
  // The broker closes after the refusal.
  await until("the first Register", () => script.got.length === 1);
  for (const socket of script.sockets) socket.close(4401, "unauthenticated");
  await until("Renew", () => script.got.some(({ subtopic }) => subtopic === "Renew"));
  expect(asked).toEqual(["register", "refused", "renew"]);
  expect(script.got.at(-1)).toMatchObject({ topic: "Application", subtopic: "Renew", data: { token: "token 3" } });
  expect(made.state).toBe("open");
});

test("a provider that fails is asked again, and the reason is shown", async () => {
  const script = await Script.start();
  let calls = 0;
  const made = desk(script.url, {
    token: () => {
      calls += 1;
      if (calls < 3) throw new Error("no session");
      return "good";
    },
  });
  const problems: (string | undefined)[] = [];
  made.on("state", ({ problem }) => problems.push(problem?.code));
  await within("open", made.opened());
  expect(calls).toBe(3);
  expect(problems).toContain("TOKEN_UNAVAILABLE");
});

test("a real broker refuses a wrong token for good, and an exclusive source until it is free", async () => {
  const broker = await Broker.start(`[auth]
mode = "tokens"
[[applications]]
source = "softphone"
user = "alice"
exclusive = true
token_sha256 = "66287db95eaa021fd07c0ff797b18f76a4dc3f21433157eaae29bbbf57e41889"
`);
  const wrong = desk(broker.url, { source: "softphone", token: "guess" });
  await next(wrong, "state", ({ state }) => state === "closed");
  expect(wrong.problem?.code).toBe("UNAUTHENTICATED");
  const one = desk(broker.url, { source: "softphone", token: "alice-phone" });
  await within("one", one.opened());
  const two = desk(broker.url, { source: "softphone", token: "alice-phone" });
  await next(two, "state", ({ problem }) => problem?.code === "SOURCE_IN_USE");
  await one.close();
  await within("two", two.opened());
});

test("an address where nothing listens is a problem, and the next address is tried", async () => {
  const script = await Script.start();
  const made = desk("", { url: ["ws://127.0.0.1:1/ws", script.url] });
  await next(made, "state", ({ problem }) => problem?.code === "BROKER_DOWN");
  await within("open", made.opened());
  const wrong = desk("http://[/");
  await until("it stops", () => wrong.state === "closed");
  expect(wrong.problem?.code).toBe("BAD_ADDRESS");
});

test("a socket that a policy of the page blocks is not a wrong address", async () => {
  const Blocked = class {
    constructor() {
      // As Firefox does.
      throw Object.assign(new Error("The load for this content was blocked."), { name: "NS_ERROR_CONTENT_BLOCKED" });
    }
  };
  const made = desk("ws://127.0.0.1:1/ws", { WebSocket: Blocked });
  await next(made, "state", ({ problem }) => problem?.code === "BROKER_DOWN");
  expect(made.state).toBe("connecting");
});

test("another version of the protocol is not spoken", async () => {
  const script = await Script.start();
  script.reply = () => ({ Protocol: 2 });
  const made = desk(script.url);
  await next(made, "state", ({ state }) => state === "closed");
  expect(made.problem?.code).toBe("VERSION");
});

test("wrong options throw, and nothing else does", () => {
  for (const options of [{}, { source: "" }]) expect(() => connect(options as any)).toThrow(TypeError);
});
