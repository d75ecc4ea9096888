// Why a message does not arrive: explain as a form.

import * as api from "./api.js";
import { badge, empty, failure, field, h, name, number, say, stateBadge, textInput, time } from "./dom.js";

export const title = "Why?";

/** What to do about each reason, in a sentence. */
const CURES = {
  NOT_REGISTERED: "No session of this source and user is connected.",
  ELSEWHERE: "It is connected to another broker.",
  IS_SENDER: "It is the sender. It gets its own events only if it registered with echo.",
  OTHER_USER: "The channel is user-scoped, and it belongs to another user.",
  TARGET: "The message names another source as its target.",
  NO_MATCH: "None of its subscriptions matches.",
  IS_REQUEST: "It only subscribes, and the message is a request, which goes to its handler.",
  IS_EVENT: "It only handles, and the message is an event.",
  PROTECTED: "The triple is protected, and it may not handle it.",
  PERMISSION: "Its pattern matches, but its permission does not cover the triple.",
  USER_FILTER: "It observes, or subscribed for, another user.",
  GROUP: "Another member of its group gets the message.",
  NOT_CHOSEN: "Another handler is chosen.",
};

const VERDICTS = {
  EVENT: "is an event", REQUEST: "is a request", COMMAND: "is a request that nobody answers", GATHER: "is a request to every handler",
  REPLY: "is a reply", DUPLICATE: "was delivered before", REFUSED: "is refused",
};

const DIFFERS = { CASE: "differs in letter case", SWAPPED: "has its parts in another order", SPELLING: "is spelt similarly" };

const EFFECTS = {
  QUEUED: ["is queued", "good"], DROPS_OLDEST: ["drops the oldest event of its full queue", "warn"],
  DROPPED: ["is dropped, because its queue is full", "bad"], CLOSES: ["overflows its queue and closes it", "bad"],
  WAITS: ["waits for its turn", "warn"],
};

export function show(main, { signal, query }) {
  const input = (id, properties) => textInput(id, { value: query.get(id) ?? "", ...properties });
  const inputs = {
    source: input("source", { required: true }), user: input("user"), channel: input("channel", { required: true }),
    topic: input("topic", { required: true }), subtopic: input("subtopic", { required: true }), target: input("target"),
    to: input("to"), toUser: input("toUser"),
  };
  const isRequest = h("input", { id: "request", type: "checkbox" });
  const gathers = h("input", { id: "gather", type: "checkbox" });
  const answer = h("section", { class: "answer", "aria-label": "Answer" }, empty("Say which message is meant. Nothing is sent: the broker only says what it would do at this moment."));
  const ask = async (event) => {
    event?.preventDefault();
    const value = (id) => inputs[id].value || undefined;
    const envelope = { channel: value("channel"), topic: value("topic"), subtopic: value("subtopic"), target: value("target"), user: value("user") };
    if (isRequest.checked || gathers.checked) Object.assign(envelope, { id: "explained", timeout: 10000 });
    if (gathers.checked) envelope.gather = true;
    const to = value("to") && { source: value("to"), user: value("toUser") };
    const body = { as: { source: value("source"), user: value("user") }, envelope, to };
    try {
      const found = await api.call("POST", "/v1/explain", { body, signal });
      answer.replaceChildren(...explained(envelope, found));
      say(answer.querySelector("h2").textContent);
    } catch (error) {
      if (!signal.aborted) answer.replaceChildren(failure(error));
    }
  };
  main.append(
    h("div", { class: "heading" }, h("h1", {}, "Why does it not arrive?")),
    h("form", { class: "card why", on: { submit: ask } },
      h("fieldset", {}, h("legend", {}, "Sender"),
        field("Source", inputs.source), field("User", inputs.user, "Of a service: the user that it names. May be empty if the source has sessions of one user.")),
      h("fieldset", {}, h("legend", {}, "Message"),
        field("Channel", inputs.channel), field("Topic", inputs.topic), field("Subtopic", inputs.subtopic), field("Target", inputs.target),
        h("div", { class: "options" },
          h("div", { class: "check" }, isRequest, h("label", { for: "request" }, "As a request")),
          h("div", { class: "check" }, gathers, h("label", { for: "gather" }, "To every handler (gather)")))),
      h("fieldset", {}, h("legend", {}, "Receiver in question"),
        field("Source of the receiver", inputs.to, "Empty: all sessions that the message could concern."), field("User of the receiver", inputs.toUser)),
      h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Explain"))),
    answer);
  if (inputs.source.value && inputs.channel.value && inputs.topic.value && inputs.subtopic.value) ask();
}

function who({ source, user }) {
  return user ? [name(source), " of ", name(user)] : [name(source)];
}

function explained(envelope, found) {
  const message = h("span", { class: "triple" }, name(envelope.channel), "/", name(envelope.topic), "/", name(envelope.subtopic));
  const parts = [h("div", { class: "card" },
    h("h2", {}, message, ` ${VERDICTS[found.verdict] ?? found.verdict}`),
    h("p", { class: "hint" }, `Rule ${found.rule} of docs/protocol.md.`),
    found.code ? h("p", { class: "notice bad" }, h("strong", {}, found.code), ` ${found.message ?? ""}`,
      found.decidedBy ? ` Decided by ${found.decidedBy}${found.right ? ` (right: ${found.right})` : ""}.` : "") : null,
    found.senderPaused ? h("p", { class: "notice warn" }, found.senderPaused === "RATE"
      ? "The sender is faster than its rate, so the broker is not reading it at this moment."
      : "A queue of the sender or of a receiver is over half full, so the broker is not reading the sender at this moment.") : null)];
  parts.push(h("section", { class: "card", "aria-labelledby": "receives-title" },
    h("h2", { id: "receives-title" }, `Receives it: ${number(found.receives.length + found.moreReceivers)}`),
    found.receives.length === 0 ? empty("No session would get it.") : h("ul", { class: "sessions" }, found.receives.map(receiver))));
  const more = Object.entries(found.moreOthers ?? {});
  parts.push(h("section", { class: "card", "aria-labelledby": "others-title" },
    h("h2", { id: "others-title" }, `Does not receive it: ${number(found.others.length + more.reduce((sum, [, count]) => sum + count, 0))}`),
    found.others.length === 0 ? empty("There are no other sessions to explain.") : h("ul", { class: "sessions" }, found.others.map(other)),
    found.partial ? h("p", { class: "notice warn" }, "A node of the cluster did not answer, so this may not be all.") : null,
    more.length === 0 ? null : h("p", { class: "hint" }, `And more: ${more.map(([reason, count]) => `${number(count)} ${reason}`).join(", ")}.`)));
  return parts;
}

function receiver(it) {
  const [effect, kind] = EFFECTS[it.effect] ?? [it.effect, "plain"];
  return h("li", {},
    h("strong", {}, ...who(it)), " ", stateBadge(it.state), " ", badge(effect, kind),
    h("p", { class: "hint" },
      it.pattern ? ["by ", name(it.pattern)] : null,
      it.since ? [" since ", time(it.since)] : null,
      it.group ? [", group ", name(it.group)] : null,
      it.node ? [", on the node ", name(it.node)] : null,
      `; ${number(it.queue.messages)} waiting`,
      it.chosen ? `; chosen by ${it.chosen}` : null));
}

function other(it) {
  const more = [];
  if (it.node) more.push(["The broker is the node ", name(it.node), "."]);
  if (it.receives) more.push(["It gets the message there", it.receives.pattern ? [", by ", name(it.receives.pattern)] : "", `: it ${(EFFECTS[it.receives.effect] ?? [it.receives.effect])[0]}; ${number(it.receives.queue.messages)} waiting.`]);
  if (it.nearest) more.push([name(it.nearest.name), ` ${DIFFERS[it.nearest.differs] ?? it.nearest.differs}.`]);
  if (it.left) more.push(["Its last session left at ", time(it.left.at), it.left.code ? ` with ${it.left.code}` : "", ": ", name(it.left.reason), "."]);
  for (const ended of it.ended ?? []) more.push(["Its subscription ", name(ended.pattern ?? ""), " ended", ended.at ? [" at ", time(ended.at)] : "", ": ", name(ended.reason ?? ""), "."]);
  if (it.handler) more.push(["The handler is ", ...who(it.handler), "."]);
  if (it.member) more.push(["The member is ", ...who(it.member), "."]);
  if (it.why) more.push([`Why: ${it.why}.`]);
  if (it.protected) more.push(["The protected pattern is ", name(it.protected), "."]);
  if (it.decidedBy) more.push([`Decided by ${it.decidedBy}${it.right ? ` (right: ${it.right})` : ""}.`]);
  if (it.named) more.push(["It named ", name(it.named), "."]);
  if (it.also.length > 0) more.push([`Also: ${it.also.join(", ")}.`]);
  return h("li", {},
    h("strong", {}, ...who(it)), " ", badge(it.reason, "warn"),
    h("p", {}, CURES[it.reason] ?? it.reason),
    more.map((line) => h("p", { class: "hint" }, line.flat(2))));
}
