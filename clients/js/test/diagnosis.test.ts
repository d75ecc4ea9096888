// Each row of the diagnosis, with a browser that the test plays. tests/it/browser shows some of them in Chromium.

import { afterEach, expect, test, vi } from "vitest";
import { findReason } from "../src/diagnosis.js";

interface World {
  page?: string;
  secure?: boolean;
  online?: boolean;
  permission?: PermissionState;
  delegated?: boolean;
  blocked?: string[];
  webkit?: boolean;
  /** The answer to `GET /`: none, one that only `no-cors` gets, or a status and a body. */
  answer?: "none" | "opaque" | [number, unknown];
}

afterEach(() => vi.unstubAllGlobals());

async function found(world: World, url = "ws://127.0.0.1:7420/ws"): Promise<string> {
  const page = new URL(world.page ?? "https://crm.example.com/");
  vi.stubGlobal("location", { origin: page.origin, protocol: page.protocol, hostname: page.hostname });
  vi.stubGlobal("navigator", { onLine: world.online ?? true });
  vi.stubGlobal("isSecureContext", world.secure ?? true);
  vi.stubGlobal("window", world.webkit ? { GestureEvent: class {} } : {});
  const policy = { features: () => ["loopback-network"], allowsFeature: () => world.delegated ?? true };
  vi.stubGlobal("document", { permissionsPolicy: policy });
  const answer = world.answer ?? "none";
  vi.stubGlobal("fetch", async (address: string, { mode }: RequestInit) => {
    expect(address).toBe(`http://${new URL(url).host}/`);
    if (answer === "none" || (answer === "opaque" && mode === "cors")) throw new TypeError("failed");
    const [status, body] = answer === "opaque" ? [0, ""] : answer;
    return { status, ok: status === 200, json: async () => JSON.parse(JSON.stringify(body)) };
  });
  const known = { permission: async () => world.permission, blocked: new Set(world.blocked) };
  const { code, message, cure } = await findReason(url, known);
  expect(message.length * cure.length).toBeGreaterThan(0);
  return code;
}

const broker: [number, unknown] = [200, { server: "switchboard", version: "0.1.0", protocol: 1 }];
const page = "http://localhost:8000/";

test.each<[string, World, string?]>([
  ["CSP_BLOCKED", { blocked: ["ws://127.0.0.1:7420/ws"], answer: broker }],
  ["MIXED_CONTENT", { webkit: true, answer: broker }],
  ["OFFLINE", { online: false }, "ws://broker.example.com/ws"],
  ["BROKER_DOWN", { online: false, page }],
  ["LNA_NOT_DELEGATED", { permission: "denied", delegated: false }],
  ["LNA_DENIED", { permission: "denied" }],
  ["LNA_PROMPT", { permission: "prompt" }],
  ["BROKER_DOWN", { permission: "granted" }],
  ["BROKER_DOWN", { permission: "denied", page }],
  ["NOT_SECURE_CONTEXT", { secure: false, page: "http://crm.example.com/" }],
  ["BROKER_DOWN", { secure: false, page: "http://crm.example.com/" }, "ws://broker.example.com/ws"],
  ["ORIGIN_REFUSED", { answer: "opaque" }],
  ["HOST_REFUSED", { answer: [421, ""] }],
  ["NEIGHBOUR_REFUSED", { answer: [403, ""] }],
  ["BUSY", { answer: [503, ""] }],
  ["NOT_SWITCHBOARD", { answer: [200, { server: "nginx" }] }],
  ["NOT_SWITCHBOARD", { answer: [404, ""] }],
  ["UPGRADE_BLOCKED", { answer: broker }],
])("%s", async (code, world, url) => {
  expect(await found(world, url)).toBe(code);
});
