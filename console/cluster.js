// The nodes of the cluster, as the broker of this page knows them.

import { badge, bytes, duration, empty, h, name, replace } from "./dom.js";

/** What each state of a link means. */
const STATES = {
  linked: ["linked", "good"],
  joining: ["joining", "warn"],
  broken: ["broken", "bad"],
  lost: ["lost", "bad"],
};

export function showCluster(place, { cluster, node, nats, cutOff, nodes, topics }) {
  place.hidden = !cluster;
  if (!cluster) return;
  const row = (label, ...value) => h("div", {}, h("dt", {}, label), h("dd", {}, ...value));
  replace(place,
    h("h2", { id: "cluster-title" }, "Cluster"),
    h("dl", { class: "rows" },
      row("Cluster", name(cluster)),
      row("This node", name(node)),
      row("NATS", nats ? name(nats) : badge("not connected", "bad")),
      topics.map(({ topic, reader }) => row(topic, ...(reader ? ["read by ", name(reader)] : [badge("no node reads it", "warn")])))),
    cutOff ? h("p", { class: "notice bad" }, "This node does not receive its own messages: it is cut off. Look at NATS and at the network.") : null,
    nodes.length === 0
      ? empty("There is no other node. Start one with the same table [cluster] and a name of its own.")
      : h("div", { class: "scroll", role: "region", "aria-label": "Nodes", tabindex: "0" }, h("table", { class: "narrow" },
        h("thead", {}, h("tr", {}, ["Node", "Link", "Silent for", "Not acknowledged"].map((it, index) => h("th", { scope: "col", class: index > 1 ? "number" : null }, it)))),
        h("tbody", {}, nodes.map((other) => {
          const [word, kind] = STATES[other.state] ?? [other.state, "warn"];
          return h("tr", {}, h("td", {}, name(other.node)), h("td", {}, badge(other.live ? word : `${word}, starting`, kind)),
            h("td", { class: "number" }, duration(other.lastHeardMs / 1000)), h("td", { class: "number" }, bytes(other.windowBytes)));
        })))));
}
