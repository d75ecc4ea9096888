// What is not well, and what to do about it.

import * as api from "./api.js";
import { badge, bytes, duration, empty, failure, h, milliseconds, name, number, repeat, replace } from "./dom.js";
import { of, one, samples } from "./metrics.js";
import { showCluster } from "./cluster.js";
import { showSalesforce } from "./salesforce.js";

export const title = "Health";

const EVERY = 10000;

/** The most logs that are listed. */
const LOGS_MAX = 200;

/** The checks of readiness: what each means when it fails, and what to do. */
const CHECKS = {
  starting: ["The broker has started.", "It is still starting. Wait for its listeners."],
  draining: ["The broker takes new sessions.", "It is draining, and its process will end."],
  listener: ["Its listeners accept connections.", "No listener accepts connections: file descriptors are used up. Raise the limit of open files."],
  store: ["The credential store can be read.", "The credential store cannot be read. Look at the data folder and its disk."],
  history: ["Events of durable channels are written.", "Events of durable channels cannot be written. Look at the free space of the data folder."],
  audit: ["Audit records are written.", "Audit records cannot be written. Look at the free space of the data folder."],
  nats: ["The cluster is reached.", "NATS is not connected, or this node is cut off from the others. Applications of this node go on. See below."],
  certificate: ["The certificate is good.", "The certificate expires soon or has expired, or its new files cannot be used. Replace the files of tls.certificate_file and tls.key_file."],
  salesforce: ["Salesforce answers.", "Calls to Salesforce have failed, and the broker makes none for a while. See below."],
};

export function show(main, { signal, info }) {
  const message = h("div", {});
  const readiness = h("section", { class: "card", "aria-labelledby": "readiness-title" });
  const certificates = h("section", { class: "card", "aria-labelledby": "certificates-title" });
  const salesforce = h("section", { class: "card", "aria-labelledby": "salesforce-title" });
  const cluster = h("section", { class: "card", "aria-labelledby": "cluster-title", hidden: true });
  const history = h("section", { class: "card", "aria-labelledby": "history-title" });
  main.append(
    h("div", { class: "heading" }, h("h1", {}, "Health")), message,
    h("div", { class: "packed" }, readiness, broker(info), cluster, certificates, salesforce, history));
  repeat(EVERY, signal, async () => {
    try {
      const [ready, metrics, logs, { keys }, nodes] = await Promise.all([
        api.call("GET", "/readyz", { signal, also: 503 }),
        api.text("/metrics", signal),
        api.get(`/v1/history?limit=${LOGS_MAX}`, signal),
        api.get("/v1/config", signal),
        api.get("/v1/cluster", signal),
      ]);
      message.replaceChildren();
      const read = samples(metrics);
      const key = (wanted) => keys.find((it) => it.key === wanted)?.value;
      showReadiness(readiness, ready, read);
      showCluster(cluster, nodes);
      showCertificates(certificates, read, key);
      showSalesforce(salesforce, keys, read, [...ready.warnings, ...ready.failing].includes("salesforce"));
      showHistory(history, logs, read, key);
    } catch (error) {
      if (!signal.aborted) message.replaceChildren(failure(error));
    }
  });
}

function showReadiness(place, { failing, warnings }, read) {
  // Checks of what this broker does not use are always well.
  const uses = {
    certificate: of(read, "switchboard_certificate_expiry_timestamp_seconds").length > 0,
    salesforce: of(read, "switchboard_salesforce_calls_total").some(({ value }) => value > 0),
    nats: one(read, "switchboard_cluster_nodes") > 0,
  };
  const isShown = (check) => failing.includes(check) || warnings.includes(check) || (uses[check] ?? true);
  const checks = of(read, "switchboard_ready").map(({ labels }) => labels.check).filter(isShown);
  const kind = (check) => (failing.includes(check) ? "bad" : warnings.includes(check) ? "warn" : "good");
  const word = { bad: "failing", warn: "warning", good: "good" };
  replace(place,
    h("h2", { id: "readiness-title" }, "Readiness"),
    h("ul", { class: "checks" }, checks.map((check) => {
      const [well, cure] = CHECKS[check] ?? [check, check];
      return h("li", {}, badge(word[kind(check)], kind(check)), h("span", {}, kind(check) === "good" ? well : cure));
    })));
}

function broker(info) {
  const row = (label, ...value) => h("div", {}, h("dt", {}, label), h("dd", {}, ...value));
  const { recorder } = info;
  const reach = (at) => (at ? `back to ${new Date(at).toLocaleString()}` : "back to the start");
  return h("section", { class: "card", "aria-labelledby": "broker-title" },
    h("h2", { id: "broker-title" }, "This broker"),
    h("dl", { class: "rows" },
      row("Node", name(info.node)),
      row("Version", info.version + (info.revision ? ` (${info.revision.slice(0, 12)})` : "")),
      row("Platform", info.platform),
      row("Running for", duration(info.uptimeSeconds)),
      row("Proof of identity", info.mode === "open" ? "open: any loopback application, without a token" : "tokens and certificates"),
      row("Applications at", ...info.listeners.flatMap((it) => [h("code", {}, it), h("br")])),
      row("Admin at", ...info.admin.flatMap((it) => [h("code", {}, it), h("br")])),
      row("Flight recorder", recorder ? `events ${reach(recorder.events)}, the rest ${reach(recorder.important)}` : "off"),
      row("Signed in with", name(info.token), ` (may ${info.may})`)));
}

/** The certificates that the metrics name: what each is, the key of its file, and what to do before it ends. */
const CERTIFICATES = {
  server: ["Certificate of the listeners", "tls.certificate_file", "Renew it: switchboard cert renew, or as the certificate authority says."],
  client_ca: ["Authority of client certificates", "tls.client_ca_file", "Put the next authority into the file, beside this one."],
};

function showCertificates(place, read, key) {
  const expiries = of(read, "switchboard_certificate_expiry_timestamp_seconds");
  replace(place,
    h("h2", { id: "certificates-title" }, "Certificates"),
    expiries.length === 0
      ? empty("The broker has no certificate: its listeners are on loopback, or behind a proxy that ends TLS. ", h("code", {}, "switchboard cert"), " makes one.")
      : h("ul", { class: "checks" }, expiries.map(({ labels, value }) => {
        const days = Math.floor((value - Date.now() / 1000) / 86400);
        const kind = days < 0 ? "bad" : days < 14 ? "warn" : "good";
        const left = days < 0 ? `expired ${-days} days ago` : `${number(days)} days left`;
        const [what, file, cure] = CERTIFICATES[labels.certificate] ?? [labels.certificate];
        const path = key(file);
        return h("li", {}, badge(left, kind), h("div", {},
          h("p", {}, `${what}, until ${new Date(value * 1000).toLocaleDateString()}`),
          path ? h("p", { class: "hint" }, h("code", {}, path)) : null,
          kind === "good" ? null : h("p", {}, cure)));
      })),
    expiries.length === 0 ? null : h("p", { class: "hint" }, h("a", { href: "#/doctor" }, "Doctor"), " says which names the certificate has."));
}

function showHistory(place, { items, next }, read, key) {
  const size = (file) => of(read, "switchboard_storage_bytes").find(({ labels }) => labels.file === file)?.value;
  const errors = of(read, "switchboard_storage_errors_total").filter(({ value }) => value > 0);
  const files = ["history", "retained", "credentials", "audit"].filter((file) => size(file) > 0);
  const kept = (metric, durable) => of(read, metric).find(({ labels }) => labels.durable === durable)?.value ?? 0;
  const inMemory = kept("switchboard_history_bytes", "false") + kept("switchboard_history_bytes", "true");
  const commits = one(read, "switchboard_storage_commit_duration_seconds_count");
  const row = (label, value, more) => h("div", {}, h("dt", {}, label), h("dd", {}, value, more ? h("small", {}, ` ${more}`) : null));
  const rows = h("dl", { class: "rows" },
    row("History in memory", bytes(inMemory), `of ${bytes(key("history.bytes"))} (history.bytes)`),
    files.map((file) => row(`On disk: ${file}`, bytes(size(file)), file === "history" ? `of ${bytes(key("history.disk_bytes"))} (history.disk_bytes)` : null)),
    commits > 0 ? row("A commit takes", milliseconds((one(read, "switchboard_storage_commit_duration_seconds_sum") / commits) * 1000), `on average, of ${number(commits)}`) : null);
  replace(place,
    h("h2", { id: "history-title" }, "History and disk"),
    items.length === 0
      ? empty("No channel with history has had an event. The key history of a channel turns it on.")
      : h("div", { class: "scroll", role: "region", "aria-label": "Logs", tabindex: "0" }, h("table", { class: "narrow" },
        h("thead", {}, h("tr", {}, ["Channel", "User", "Entries", "Size"].map((it, index) => h("th", { scope: "col", class: index > 1 ? "number" : null }, it)))),
        h("tbody", {}, items.map((log) => h("tr", {}, h("td", {}, name(log.channel)), h("td", {}, log.user ? name(log.user) : "all"),
          h("td", { class: "number" }, number(log.entries)), h("td", { class: "number" }, bytes(log.bytes))))))),
    next ? h("p", { class: "hint" }, `The first ${LOGS_MAX} logs are shown.`) : null,
    rows,
    errors.length === 0 ? null : h("p", { class: "notice bad" }, `Errors of the disk since the start: ${errors.map(({ labels, value }) => `${labels.file} ${number(value)}`).join(", ")}. Look at the free space of the data folder, and at the log.`));
}
