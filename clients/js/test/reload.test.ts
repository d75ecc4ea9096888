import { afterEach, expect, onTestFinished, test, vi } from "vitest";
import { WebSocket } from "ws";
import type { Desk } from "../src/index.js";
import { Broker } from "./support/broker.js";
import { desk, failing, until, within } from "./support/desk.js";
import { Tab } from "./support/page.js";

afterEach(() => void vi.unstubAllGlobals());

test("a request with a key is continued after a reload, whether it is made before the session is open or later", async () => {
  const broker = await Broker.start();
  const phone = desk(broker.url, { source: "phone" });
  const asked: { number: string; signal: AbortSignal; answer: (value: unknown) => void }[] = [];
  const dial = ({ data, signal }: any) => new Promise((answer) => asked.push({ number: data, signal, answer }));
  await phone.handle("Phone/Call/Dial", dial).ready;
  const tab = new Tab();
  const open = async (): Promise<Desk<any>> => {
    tab.begin();
    const { connect } = await import("../src/index.js");
    const made = connect({ source: "page", url: broker.url, WebSocket, log: () => {} }) as Desk<any>;
    onTestFinished(() => made.close());
    return made;
  };
  const request = (from: Desk<any>, key: string, options = {}) => from.request("Phone/Call/Dial", key, { key, ...options });

  const before = await open();
  // The page ends before these are answered.
  for (const key of ["early", "late"]) void request(before, key).catch(() => {});
  await until("the requests", () => asked.length === 2);
  tab.end();

  const after = await open();
  const early = request(after, "early");
  const other = request(after, "other");
  await within("open", after.opened());
  const controller = new AbortController();
  const late = request(after, "late", { signal: controller.signal });
  for (const { number, answer } of asked) if (number === "early") answer("answered");
  expect(await within("the answer", early)).toBe("answered");
  await until("the new request", () => asked.length === 3);
  expect(asked.map(({ number }) => number)).toEqual(["early", "late", "other"]);
  asked[2]?.answer("answered, too");
  expect(await within("the other answer", other)).toBe("answered, too");
  // A request that is continued can be cancelled.
  controller.abort(new Error("hung up"));
  expect(await failing(late)).toMatchObject({ message: "hung up" });
  await until("the cancellation", () => asked[1]?.signal.aborted === true);
});
