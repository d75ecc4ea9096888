// Plays a transcript with desks.

import { expect } from "vitest";
import type { WebSocket } from "ws";
import type { Desk } from "../../src/index.js";
import { desk, until, within } from "./desk.js";
import { Names, type Step, type Transcript } from "./transcript.js";

/** The ids of the client, in whose answers a transcript has no interest. */
const OWN_ID = /^[a-z0-9]{7,8}-\d+$/;
/** Plays a transcript against the broker at an address, by this kind of WebSocket. */
export async function play(file: string, { steps }: Transcript, url: string, socket: unknown): Promise<void> {
  const player = new Player(url, socket);
  for (const step of steps) {
    try {
      await player.play(step);
    } catch (error) {
      throw new Error(`${file}: line ${step.line}: ${(error as Error).message}`);
    }
  }
  await player.end();
}

/** A desk, and what arrives at its socket. */
class Peer {
  readonly desk: Desk<any>;
  readonly unread: any[] = [];
  closed: number | undefined;
  /** Events and requests that arrived, and those that were given to a listener or handler. */
  arrived: string[] = [];
  readonly given = new Set<string>();
  #socket: WebSocket | undefined;

  constructor(url: string, Socket: unknown, options: Record<string, unknown>) {
    const peer = this;
    class Tapped extends (Socket as typeof WebSocket) {
      constructor(address: string) {
        super(address);
        peer.#socket ??= this;
        if (peer.#socket !== this) return;
        this.addEventListener("message", ({ data }) => peer.#receive(String(data)));
        this.addEventListener("close", ({ code }) => (peer.closed = code));
      }
    }
    this.desk = desk(url, { ...options, resume: false, WebSocket: Tapped });
    this.desk.on("error", () => {});
  }

  #receive(text: string): void {
    const envelope = JSON.parse(text);
    const { channel, topic, subtopic, inReplyTo } = envelope;
    if (`${channel}/${topic}/${subtopic}` === "Broker/Application/Register" || OWN_ID.test(inReplyTo)) return;
    this.unread.push(envelope);
    // The broker adds the source of everything but an answer.
    const isAnswer = inReplyTo !== undefined || envelope.source === undefined;
    if (channel !== "Broker" && !isAnswer) this.arrived.push(text);
  }

  /** The answers to what was sent before are here when this returns. */
  async fence(): Promise<void> {
    if (this.desk.state === "open") await this.desk.applications().catch(() => {});
  }

  send({ channel, topic, subtopic, id, data, target, user, retain, once, ...fields }: any): void {
    // A handler's answer has no source.
    const others = fields.inReplyTo === undefined ? fields : { source: undefined, ...fields };
    // The promise is of no interest: an answer is expected where the transcript has it.
    const options = { id, target, user, retain, once, receipt: false, fields: others };
    void this.desk.publish(`${channel}/${topic}/${subtopic}`, data, options);
  }

  leave(): void {
    this.#socket?.terminate();
    void this.desk.close();
  }
}

class Player {
  readonly #names = new Names();
  readonly #peers = new Map<string, Peer>();
  readonly #url: string;
  readonly #socket: unknown;

  constructor(url: string, socket: unknown) {
    this.#url = url;
    this.#socket = socket;
  }

  #peer(name: string): Peer {
    return this.#peers.get(name) as Peer;
  }

  async fence(): Promise<void> {
    for (const _ of [1, 2]) for (const peer of this.#peers.values()) await peer.fence();
  }

  async play(step: Step): Promise<void> {
    switch (step.kind) {
      case "register": {
        const peer = new Peer(this.#url, this.#socket, { source: step.source, ...step.data });
        this.#peers.set(step.peer, peer);
        if (step.code) await until(step.code, () => peer.desk.problem?.code === step.code);
        else await within("Register", peer.desk.opened());
        return;
      }
      case "subscribe": {
        const peer = this.#peer(step.peer);
        const take = ({ text }: { text: string }) => peer.given.add(text);
        // Who answers is what the transcript says.
        const handle = (request: { text: string }) => (take(request), new Promise(() => {}));
        const { ready } = step.isHandler
          ? peer.desk.handle(step.pattern, handle, step.data)
          : peer.desk.subscribe(step.pattern, take, step.data);
        const outcome = await within("Subscribe", ready.then(() => undefined, ({ code }) => code));
        expect(outcome).toBe(step.code);
        return;
      }
      case "send":
        this.#peer(step.peer).send(this.#names.fill(step.envelope));
        return;
      case "leave":
        this.#peer(step.peer).leave();
        return;
      case "nothing":
        await this.fence();
        expect(this.#peer(step.peer).unread).toEqual([]);
        return;
      case "close":
        await until(`close ${step.code}`, () => this.#peer(step.peer).closed !== undefined);
        expect(this.#peer(step.peer).closed).toBe(step.code);
        return;
      case "expect":
        await this.#expect(step.peers.map((name) => this.#peer(name)), step.messages);
    }
  }

  async #expect(peers: Peer[], messages: any[]): Promise<void> {
    const left = [...messages];
    while (left.length) {
      await until(`a message like ${JSON.stringify(left)}`, () => peers.some((peer) => peer.unread.length));
      const found = peers.find((peer) => peer.unread.length)?.unread.shift();
      const reasons = left.map((message) => this.#names.compare(message, found));
      const at = reasons.indexOf(undefined);
      if (at < 0) throw new Error(`${reasons.join("; or ")} in ${JSON.stringify(found)}`);
      left.splice(at, 1);
    }
  }

  /** Nothing is left, and every event and request that arrived was given to a listener or handler. */
  async end(): Promise<void> {
    await this.fence();
    for (const [name, peer] of this.#peers) {
      expect(peer.unread, name).toEqual([]);
      expect(peer.arrived.filter((text) => !peer.given.has(text)), name).toEqual([]);
    }
  }
}
