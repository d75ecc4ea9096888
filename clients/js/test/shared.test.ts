// Several tabs with one session. Here a tab is a desk of this process; tests/it/browser/shared.rs has real ones.

import { beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { WebSocket } from "ws";
import type { Desk, Options } from "../src/index.js";
import { connectShared } from "../src/shared.js";
import { Broker } from "./support/broker.js";
import { desk, failing, next, until, within } from "./support/desk.js";
import { Locks } from "./support/locks.js";
import { Proxy } from "./support/proxy.js";

let locks: Locks;

beforeEach(() => {
  locks = new Locks();
  vi.stubGlobal("navigator", { locks });
});

function tab(url: string, options: Partial<Options> = {}): Desk<any> {
  const made = connectShared({ source: "page", url, WebSocket, log: () => {}, ...options }) as Desk<any>;
  onTestFinished(() => made.close());
  return made;
}

async function tabs(url: string, count: number): Promise<Desk<any>[]> {
  const made: Desk<any>[] = [];
  for (let at = 0; at < count; at += 1) made.push(await within("a tab", tab(url).opened()));
  return made;
}

/** Collects the events of each desk. */
async function collect(desks: Desk<any>[], pattern = "Phone/Call/*"): Promise<any[][]> {
  const ready = desks.map(async (made) => {
    const got: any[] = [];
    await made.subscribe(pattern, (event) => got.push(event.data)).ready;
    return got;
  });
  return within("the subscriptions", Promise.all(ready));
}

const numbers = (count: number) => Array.from({ length: count }, (_, at) => at + 1);

test("tabs have one session, and get each other's events but not their own", async () => {
  const broker = await Broker.start();
  const phone = desk(broker.url, { source: "phone" });
  const [first, second, third] = (await tabs(broker.url, 3)) as [Desk<any>, Desk<any>, Desk<any>];
  const pages = (await phone.applications()).filter(({ source }) => source === "page");
  expect(pages).toMatchObject([{ sessions: 1 }]);
  expect([second.session, third.session]).toEqual([first.session, first.session]);
  const got = await collect([first, second, third]);
  expect(await phone.publish("Phone/Call/Ringing", "phone")).toMatchObject({ receivers: 1 });
  for (const [at, made] of [first, second, third].entries()) await made.publish("Phone/Call/Ringing", at);
  await phone.publish("Phone/Call/Ringing", "last");
  await until("the last event", () => got.every((events) => events.at(-1) === "last"));
  expect(got).toEqual([["phone", 1, 2, "last"], ["phone", 0, 2, "last"], ["phone", 0, 1, "last"]]);
});

test("answers, refusals, retained values and replays are for the tab that asked", async () => {
  const broker = await Broker.start("[channels.Desk]\nhistory = { size = 100, ttl = \"10m\" }\n");
  const phone = desk(broker.url, { source: "phone" });
  await phone.handle("Phone/Call/Dial", (request) => (request.progress("dialling"), request.data)).ready;
  await phone.publish("Phone/State/Now", "ready", { retain: true });
  for (const number of numbers(3)) await phone.publish("Desk/Note/Add", number);
  const [first, second] = (await tabs(broker.url, 2)) as [Desk<any>, Desk<any>];
  const errors: string[] = [];
  first.on("error", ({ code }) => errors.push(code));
  const states = await collect([first], "Phone/State/*");
  const notes = await collect([first], "Desk/Note/*");
  const recovered: number[] = [];
  await second.subscribe("Desk/Note/*", (event) => recovered.push(event.data), { recover: { last: 2 } }).ready;
  states.push(...(await collect([second], "Phone/State/*")));
  const parts: unknown[] = [];
  expect(await second.request("Phone/Call/Dial", 110, { onProgress: (part) => parts.push(part) })).toBe(110);
  expect(parts).toEqual(["dialling"]);
  const { answers, expected } = await second.gather("Phone/Call/Dial", 5);
  expect([answers, expected]).toEqual([[{ data: 5, source: "phone" }], 1]);
  expect(await failing(second.request("Phone/Nobody/Home"))).toMatchObject({ code: "NO_HANDLER" });
  await failing(second.publish("broker/x/y"));
  await phone.publish("Desk/Note/Add", 4);
  await until("the last note", () => notes[0]?.length === 1 && recovered.length === 3);
  expect([states, notes, recovered, errors]).toEqual([[["ready"], ["ready"]], [[4]], [2, 3, 4], []]);
});

test("a subscription ends when its last tab ends it or closes", async () => {
  const broker = await Broker.start();
  const phone = desk(broker.url, { source: "phone" });
  const [first, second, third] = (await tabs(broker.url, 3)) as [Desk<any>, Desk<any>, Desk<any>];
  const one = first.subscribe("Phone/Call/*", () => {});
  const two = second.subscribe("Phone/Call/*", () => {});
  await Promise.all([one.ready, two.ready, third.subscribe("Phone/State/*", () => {}).ready]);
  const receivers = async (made: Desk<any>, triple: string) => {
    // What a tab has sent before, the broker has done when it answers this.
    await made.applications();
    return (await phone.publish(triple)).receivers;
  };
  one.unsubscribe();
  expect(await receivers(first, "Phone/Call/Ringing")).toBe(1);
  two.unsubscribe();
  expect(await receivers(second, "Phone/Call/Ringing")).toBe(0);
  await third.close();
  // The leader is told of it by another way than of the commands before.
  await within("the end of the subscription", (async () => {
    while ((await receivers(first, "Phone/State/Now")) !== 0) continue;
  })());
  const left = new Promise((resolve) => phone.subscribe("Broker/Application/Left", (event) => resolve(event.data)));
  await phone.applications();
  await second.close();
  await first.close();
  expect(await within("Left", left)).toMatchObject({ Source: "page" });
});

test.each(["closed", "deposed", "cut off"])("when the leader is %s in mid stream, nothing is lost and nothing arrives twice", async (what) => {
  const broker = await Broker.start();
  const proxy = await Proxy.start(() => broker.port);
  const far = desk(broker.url, { source: "far" });
  const made = await tabs(proxy.url, 3);
  const stay = made.slice(1) as [Desk<any>, Desk<any>];
  const [up] = (await collect([far], "Desk/Note/*")) as [any[]];
  const got = await collect(stay);
  const backs: string[] = [];
  for (const one of stay) one.on("back", ({ how }) => backs.push(how));
  const sending: Promise<unknown>[] = [];
  for (const number of numbers(200)) {
    await until("its turn", () => up.length >= number - 5);
    if (number === 100) {
      if (what === "closed") void made[0]?.close();
      if (what === "deposed") locks.depose();
      if (what === "cut off") proxy.cut();
    }
    sending.push(far.publish("Phone/Call/Ringing", number), (stay[number % 2] as Desk<any>).publish("Desk/Note/Add", number));
  }
  await within("all receipts", Promise.all(sending));
  await until("all events", () => got.every((events) => events.length >= 200) && up.length >= 200);
  expect(got).toEqual([numbers(200), numbers(200)]);
  expect([...up].sort((a, b) => a - b)).toEqual(numbers(200));
  expect(new Set(backs)).toEqual(new Set(["resumed"]));
});

test("a tab takes the place of a leader that does not answer", async () => {
  const broker = await Broker.start();
  const deaf = new Set<BroadcastChannel>();
  const channels: BroadcastChannel[] = [];
  vi.stubGlobal("BroadcastChannel", class extends BroadcastChannel {
    constructor(name: string) {
      super(name);
      channels.push(this);
    }
    override postMessage(message: unknown): void {
      if (!deaf.has(this)) super.postMessage(message);
    }
  });
  // The five seconds for an answer pass a hundred times as fast.
  const { setTimeout } = globalThis;
  vi.stubGlobal("setTimeout", (act: () => void, ms: number) => setTimeout(act, ms === 5_000 ? 50 : ms));
  onTestFinished(() => void vi.unstubAllGlobals());
  const far = desk(broker.url, { source: "far" });
  const [, second] = (await tabs(broker.url, 2)) as [Desk<any>, Desk<any>];
  const [up] = (await collect([far])) as [any[]];
  const session = second.session?.id;
  deaf.add(channels[0] as BroadcastChannel);
  Object.assign(channels[0] as BroadcastChannel, { onmessage: null });
  for (const number of numbers(5)) expect(await within("a receipt", second.publish("Phone/Call/Ringing", number))).toMatchObject({ receivers: 1 });
  await until("the last event", () => up.length >= 5);
  expect([up, second.session?.id]).toEqual([numbers(5), session]);
});

test("a handler has a connection of its own, and a tab that cannot go on says what is lost", async () => {
  const broker = await Broker.start();
  const phone = desk(broker.url, { source: "phone" });
  const [first, second] = (await tabs(broker.url, 2)) as [Desk<any>, Desk<any>];
  await second.handle("Desk/Page/Show", (request) => `shown ${request.data}`).ready;
  expect(await phone.request("Desk/Page/Show", 7)).toBe("shown 7");
  expect((await phone.applications()).find(({ source }) => source === "page")?.sessions).toBe(2);
  expect(await failing(first.credentials())).toMatchObject({ code: "CREDENTIALS_NOT_FOUND" });
  await collect([first, second]);
  const backs = [next(first, "back"), next(second, "back")];
  await broker.stop();
  await broker.run();
  for (const back of backs) expect(await back).toMatchObject({ how: "lost", patterns: ["Phone/Call/*"] });
  // The handler returns when its own connection does.
  let shown: unknown;
  await phone.opened();
  await within("the handler", (async () => {
    while (shown !== "shown 8") shown = await phone.request("Desk/Page/Show", 8).catch(({ code }) => code);
  })());
});

test("a refusal stops all tabs, and without locks each tab has a session of its own", async () => {
  const broker = await Broker.start(`[auth]
mode = "tokens"
[[applications]]
source = "page"
user = "alice"
token_sha256 = "66287db95eaa021fd07c0ff797b18f76a4dc3f21433157eaae29bbbf57e41889"
`);
  const wrong = [tab(broker.url, { token: "guess" }), tab(broker.url, { token: "guess" })];
  await Promise.all(wrong.map((made) => next(made, "state", ({ state }) => state === "closed")));
  expect(wrong.map(({ problem }) => problem?.code)).toEqual(["UNAUTHENTICATED", "UNAUTHENTICATED"]);
  vi.stubGlobal("navigator", {});
  const apart = [tab(broker.url, { token: "alice-phone" }), tab(broker.url, { token: "alice-phone" })];
  await Promise.all(apart.map((made) => made.opened()));
  expect(apart[0]?.session?.id).not.toBe(apart[1]?.session?.id);
});
