// What the browsers of tests/it/browser have in common: the pages that they load, and the commands that they obey.

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const readline = require("node:readline");

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".cjs": "text/plain" };

/** A host that is not loopback for the broker, and leads here all the same. */
const ELSEWHERE = "crm.example.com";

/** Texts by path, in place of files. */
const texts = new Map();

/** Serves a folder on two ports of 127.0.0.1. The browser takes the second one for a server of the internet. */
async function serve(root) {
  const answer = (request, response) => {
    const { pathname, searchParams } = new URL(request.url, "http://here");
    const end = (status, body) => {
      const policy = searchParams.get("policy");
      const headers = { "content-type": TYPES[path.extname(pathname)] ?? "application/octet-stream" };
      response.writeHead(status, policy ? { ...headers, "content-security-policy": policy } : headers);
      response.end(body);
    };
    if (texts.has(pathname)) return end(200, texts.get(pathname));
    fs.readFile(path.join(root, path.normalize(pathname)), (error, body) => end(error ? 404 : 200, error ? "" : body));
  };
  const servers = [http.createServer(answer), http.createServer(answer)];
  for (const server of servers) await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const [port, publicPort] = servers.map((server) => server.address().port);
  return { servers, port, publicPort };
}

/** Says that it is ready, and does side by side what each line of standard input says, until that ends. */
async function obey(ready, commands) {
  const say = (outcome) => process.stdout.write(`${JSON.stringify(outcome)}\n`);
  say(ready);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    const { id } = command;
    commands[command.do](command).then((value = null) => say({ id, value }), ({ message }) => say({ id, error: message }));
  }
}

module.exports = { ELSEWHERE, obey, serve, texts, TYPES };
