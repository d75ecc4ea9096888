// A broker that a test plays: it registers whoever connects, and then does as the test says.

import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";
import { type WebSocket, WebSocketServer } from "ws";

type Envelope = Record<string, any>;

export class Script {
  readonly #server: WebSocketServer;
  url = "";
  /** The envelopes that arrived. */
  readonly got: Envelope[] = [];
  /** When each connection was opened. */
  readonly opened: number[] = [];
  /** What a connection does once it is registered. */
  act: (socket: WebSocket, send: (triple: string, fields: Envelope) => void) => void = () => {};
  /** `data` of the reply to Register. */
  reply: (register: Envelope) => Envelope = () => ({});

  private constructor(server: WebSocketServer) {
    this.#server = server;
    server.on("connection", (socket) => {
      this.opened.push(Date.now());
      const send = (triple: string, fields: Envelope) => {
        const [channel, topic, subtopic] = triple.split("/");
        socket.send(JSON.stringify({ channel, topic, subtopic, ...fields }));
      };
      socket.on("message", (text) => {
        const envelope = JSON.parse(String(text));
        this.got.push(envelope);
        const { channel, topic, subtopic, id } = envelope;
        if (id !== undefined) send(`${channel}/${topic}/${subtopic}`, { inReplyTo: id, data: { Success: true, ErrorMessage: null } });
        if (subtopic !== "Register") return;
        const data = { Success: true, ErrorMessage: null, SessionId: "s", Protocol: 1, Server: "script/1", ...this.reply(envelope) };
        send("Broker/Application/Register", { data });
        if (data.Success) this.act(socket, send);
      });
    });
  }

  get sockets(): Set<WebSocket> {
    return this.#server.clients;
  }

  static async start(): Promise<Script> {
    const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
    await new Promise((resolve) => server.once("listening", resolve));
    const script = new Script(server);
    script.url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}/ws`;
    onTestFinished(() => {
      for (const socket of server.clients) socket.terminate();
      server.close();
    });
    return script;
  }
}
