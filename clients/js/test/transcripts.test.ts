// The transcripts of the protocol, played by desks against a real broker.

import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { WebSocket } from "ws";
import { Broker } from "./support/broker.js";
import { play } from "./support/player.js";
import { read, type Transcript } from "./support/transcript.js";

const folder = path.resolve(import.meta.dirname, "../../../tests/it/transcripts");
const files = readdirSync(folder).filter((file) => file.endsWith(".txt"));
const all = files.map((file) => [file, read(readFileSync(path.join(folder, file), "utf8"))] as const);

/** What a client does not send. */
const NOT_SENT = ["envelope-duplicate-keys.txt", "envelope-retain-and-once.txt", "envelope-timeout.txt"];

const playable = all.filter((entry): entry is [string, Transcript] => typeof entry[1] !== "string" && !NOT_SENT.includes(entry[0]));

test("most transcripts can be played by a client", () => {
  const others = all.flatMap(([file, found]) => (typeof found === "string" ? [`${file}: ${found}`] : []));
  expect(playable.length, others.join("\n")).toBeGreaterThanOrEqual(60);
});

test.each(playable)("%s", async (file, transcript) => {
  const broker = await Broker.start(transcript.config);
  await play(file, transcript, broker.url, WebSocket);
});
