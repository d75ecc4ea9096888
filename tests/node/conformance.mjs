// The JavaScript client as the application that `switchboard conformance` judges, once for each address.
//
// Usage: conformance.mjs URL...

import { createRequire } from "node:module";

import { connect, SwitchboardError } from "../../clients/js/bundle/switchboard.js";

const WebSocket = globalThis.WebSocket ?? createRequire(import.meta.url)("ws");
let tokens = 0;

/** Connects to one script. */
function play(url) {
  const desk = connect({ source: "javascript", url, WebSocket, token: () => `token-${++tokens}` });
  const done = (subtopic, data) => void desk.publish(`Conformance/Done/${subtopic}`, data);
  desk.on("error", (error) => console.error(`${url}: ${error.code}: ${error.message}`));
  if (url.includes("/handler/")) {
    desk.handle("Conformance/Ask/Echo", (request) => request.data);
    desk.handle("Conformance/Ask/Fail", () => { throw new SwitchboardError("BUSY", "try again later"); });
    desk.handle("Conformance/Ask/Progress", (request) => { request.progress("half"); return request.data; });
    desk.handle("Conformance/Ask/Wait", (request) => new Promise((_, reject) => {
      request.signal.addEventListener("abort", () => reject(request.signal.reason));
    }));
    return;
  }
  desk.subscribe("Conformance/Do/*", async ({ subtopic, data }) => {
    if (subtopic === "Publish") done("Publish", data);
    if (subtopic === "Leave") await desk.close();
    if (subtopic !== "Request") return;
    try {
      done("Request", await desk.request("Conformance/Ask/Echo", data));
    } catch (error) {
      done("Request", { ErrorCode: error.code });
    }
  });
}

process.argv.slice(2).forEach(play);
