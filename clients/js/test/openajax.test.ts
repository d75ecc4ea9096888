import { expect, test, vi } from "vitest";
import { attachOpenAjax } from "../src/openajax.js";
import { Broker } from "./support/broker.js";
import { desk, failing, until } from "./support/desk.js";

/** A page that has what a browser gives it, and a hub. */
async function page(broker: Broker, source: string, own: Record<string, any> = {}) {
  const made = desk(broker.url, { source });
  await made.opened();
  const end = attachOpenAjax(made, own);
  return { desk: made, hub: own.OpenAjax.hub, end };
}

test("pages with a hub exchange messages, with each other and with applications that have none", async () => {
  const broker = await Broker.start();
  const [one, other] = [await page(broker, "one"), await page(broker, "other")];
  const phone = desk(broker.url, { source: "phone" });
  const got: unknown[] = [];
  const take = (name: string, data: unknown, mine: unknown) => got.push([name, data, mine]);
  other.hub.subscribe("finesse.api.*.*", take, null, "mine");
  one.hub.subscribe("finesse.**", (name: string, data: unknown) => got.push(["here", name, data]));
  const heard: string[] = [];
  await phone.subscribe("finesse/api/*", (event) => heard.push(`${event.triple} ${event.data.state}`)).ready;
  // Each page has made its subscriptions when a later command is answered.
  await Promise.all([one.desk.applications(), other.desk.applications()]);
  one.hub.publish("finesse.api.Dialog.12", { state: "ACTIVE" });
  expect(got).toEqual([["here", "finesse.api.Dialog.12", { state: "ACTIVE" }]]);
  await until("both get it", () => got.length === 2 && heard.length === 1);
  expect([got[1], heard]).toEqual([["finesse.api.Dialog.12", { state: "ACTIVE" }, "mine"], ["finesse/api/Dialog.12 ACTIVE"]]);
  await phone.publish("finesse/api/Dialog.7", 7);
  await until("from an application", () => got.length === 4);
  expect(got.slice(2)).toEqual(expect.arrayContaining([["finesse.api.Dialog.7", 7, "mine"], ["here", "finesse.api.Dialog.7", 7]]));
});

const MATCHES: Record<string, string[]> = {
  "Phone.Call.Ringing": ["Phone.Call.Ringing"],
  "Phone.*.Ringing": ["Phone.Call.Ringing"],
  "Phone.Call.*": ["Phone.Call.Ringing"],
  "Phone.Call.*.1": ["Phone.Call.Leg.1"],
  "Phone.**": ["Phone.Call", "Phone.Call.Ringing", "Phone.Call.Leg.1"],
  "**": ["Phone", "Phone.Call", "Phone.Call.Ringing", "Phone.Call.Leg.1"],
  "*": ["Phone"],
  Phone: ["Phone"],
};

test("wildcards stand for one part, or for any at the end", async () => {
  const broker = await Broker.start();
  const [one, other] = [await page(broker, "one"), await page(broker, "other")];
  const got: Record<string, string[]> = {};
  for (const pattern of Object.keys(MATCHES)) {
    got[pattern] = [];
    for (const { hub } of [one, other]) hub.subscribe(pattern, (name: string) => got[pattern]?.push(name));
  }
  await other.desk.applications();
  for (const name of MATCHES["**"] as string[]) one.hub.publish(name);
  await until("the last one", () => got["**"]?.length === 8);
  // Each is given once in the page that publishes, and once in the other one.
  const twice = Object.entries(MATCHES).map(([pattern, names]) => [pattern, [...names, ...names].sort()]);
  for (const names of Object.values(got)) names.sort();
  expect(got).toEqual(Object.fromEntries(twice));
});

test("the hub does what the specification says", async () => {
  const broker = await Broker.start();
  const { hub, desk: made, end } = await page(broker, "page");
  const got: unknown[] = [];
  const owner = { take: (...given: unknown[]) => got.push(given) };
  const id = hub.subscribe("a.*", "take", owner, "mine", (_: string, data: number) => data > 1);
  const said = vi.spyOn(console, "error").mockImplementation(() => {});
  const bad = hub.subscribe("a.b", () => {
    throw new Error("a bug");
  });
  hub.subscribe("a.b", (_: string, data: unknown) => got.push(data));
  hub.publish("a.b", 1);
  hub.publish("a.b", 2);
  expect(got).toEqual([1, ["a.b", 2, "mine"], 2]);
  expect(said).toHaveBeenCalledTimes(2);
  said.mockRestore();
  hub.unsubscribe(bad);
  hub.unsubscribe(id);
  expect(() => hub.unsubscribe(id)).toThrow("OpenAjax.hub.Error.NoSubscription");
  for (const name of ["", "a..b", "a.*", "a.**"]) expect(() => hub.publish(name), name).toThrow("OpenAjax.hub.Error.BadParameters");
  for (const name of ["", "a.**.b"]) expect(() => hub.subscribe(name, () => {}), name).toThrow(hub.Error.BadParameters);
  hub.registerLibrary("lib", "http://example.com", "1.0");
  expect(hub.libraries.lib).toMatchObject({ prefix: "lib", version: "1.0" });
  // What is not a triple, or not JSON, stays in the page; nothing of it is refused by the broker.
  const errors: string[] = [];
  made.on("error", ({ code }) => errors.push(code));
  hub.subscribe("Broker.Application.Left", () => {});
  for (const name of ["with/slash.a.b", "Broker.Application.Left"]) hub.publish(name, 1);
  const endless: any = {};
  endless.self = endless;
  hub.publish("a.b", endless);
  expect(await failing(made.request("Nobody/at/home"))).toMatchObject({ code: "NO_HANDLER" });
  expect(errors).toEqual([]);
  end();
  hub.publish("a.b", 3);
  expect(got.at(-1)).toBe(3);
});

test("a page that has a hub keeps it", async () => {
  const broker = await Broker.start();
  const phone = desk(broker.url, { source: "phone" });
  const calls: unknown[] = [];
  const theirs = {
    publish: (...given: unknown[]) => void calls.push(["publish", ...given]),
    subscribe: (name: string) => (calls.push(["subscribe", name]), "theirs"),
    unsubscribe: (id: string) => void calls.push(["unsubscribe", id]),
  };
  const { hub, desk: made } = await page(broker, "page", { OpenAjax: { hub: theirs } });
  const got: unknown[] = [];
  const id = hub.subscribe("Phone.Call.*", (_: string, data: unknown) => got.push(data));
  await made.applications();
  expect(await phone.publish("Phone/Call/Ringing", 1)).toMatchObject({ receivers: 1 });
  await until("the event", () => got.length === 1);
  hub.publish("Phone.Call.Ended", 2);
  hub.unsubscribe(id);
  await made.applications();
  expect(await phone.publish("Phone/Call/Ringing", 3)).toMatchObject({ receivers: 0 });
  expect(calls).toEqual([["subscribe", "Phone.Call.*"], ["publish", "Phone.Call.Ended", 2], ["unsubscribe", "theirs"]]);
});
