// An application for Node.js: prints each call of an agent, with the name that an adapter knows for the number.
//
//     npm install ws
//     SWITCHBOARD_USER=alice@example.com node examples/screen.js [ws://127.0.0.1:7420/ws]
//     switchboard pub Phone Call Ringing '{"from":"+49301234"}' --source softphone --user alice@example.com
//
// Node.js 22 and later have a WebSocket of their own; earlier versions need the package ws. examples/adapter.py answers the
// requests. A broker with auth.mode = "tokens" takes the user from a token: set SWITCHBOARD_TOKEN.

const WebSocket = globalThis.WebSocket ?? require("ws");

const url = process.argv[2] ?? "ws://127.0.0.1:7420/ws";
const { SWITCHBOARD_TOKEN: token, SWITCHBOARD_USER: user } = process.env;
// A person has to change something before this can connect again (docs/errors.md, close codes).
const FINAL = { 4401: "UNAUTHENTICATED", 4403: "FORBIDDEN", 4409: "REPLACED", 4410: "KICKED" };
let pause = 500;
let requests = 0;

function connect() {
  const socket = new WebSocket(url);
  const send = (triple, more) => {
    const [channel, topic, subtopic] = triple.split("/");
    socket.send(JSON.stringify({ channel, topic, subtopic, source: "screen", ...more }));
  };

  /** `ReconnectAfterMs` of a broker that restarts. */
  let restart;
  /** What to call with the answer, by the request's id. */
  const pending = new Map();
  /** Resolves with the answer's data. There is always one, because the request has a `timeout`. */
  const request = (triple, data) => new Promise((resolve) => {
    const id = `request-${++requests}`;
    pending.set(id, resolve);
    send(triple, { id, timeout: 5000, data });
  });

  const handlers = {
    "Broker/Application/Register": ({ User }) => {
      pause = 500;
      console.log(`registered as screen of ${User}`);
      send("Broker/Subscription/Subscribe", { data: { channel: "Phone", topic: "Call" } });
    },
    "Phone/Call/Ringing": async ({ from }) => {
      const found = await request("Crm/Contact/Find", from ?? null);
      console.log(`call from ${from ?? "unknown"}: ${found.Success ? found.Name : found.ErrorMessage}`);
    },
    "Broker/Connection/Draining": ({ ReconnectAfterMs }) => { restart = ReconnectAfterMs; },
  };

  const received = async (text) => {
    const message = JSON.parse(text);
    // A payload can be any JSON, or absent.
    const data = typeof message?.data === "object" && message.data !== null ? message.data : {};
    const waiting = pending.get(message?.inReplyTo);
    if (waiting) {
      pending.delete(message.inReplyTo);
      waiting(data);
    } else if (message?.channel === "Broker" && data.Success === false) {
      console.error(`${data.ErrorCode}: ${data.ErrorMessage}`);
    } else {
      await handlers[`${message?.channel}/${message?.topic}/${message?.subtopic}`]?.(data);
    }
  };

  socket.onopen = () => send("Broker/Application/Register", { data: { token, user } });
  // One message that this does not understand must not end the program.
  socket.onmessage = ({ data }) => received(data).catch((error) => console.error("ignored a message:", error.message));
  // What went wrong is in the close that follows.
  socket.onerror = () => {};
  socket.onclose = ({ code, reason }) => {
    const lost = { ErrorMessage: "the connection was lost" };
    for (const resolve of pending.values()) resolve(lost);
    if (FINAL[code]) return console.error(`stopped (${code} ${FINAL[code]}): ${reason}`);
    console.error(`not connected (${code}): ${reason}`);
    if (code === 1012 && Number.isFinite(restart)) {
      // The broker restarts, and has given each of its clients another time.
      setTimeout(connect, restart);
    } else {
      setTimeout(connect, pause * Math.random());
      pause = Math.min(pause * 2, 30_000);
    }
  };
}

connect();
