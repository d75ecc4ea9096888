// The steps of `switchboard check --salesforce`, and what the broker's own calls say about each.

import { badge, empty, h, number, replace, since } from "./dom.js";
import { of, one } from "./metrics.js";

/** The steps in their order, what each finds, and the operations of the broker's calls that take it. */
const STEPS = [
  ["network, tls", "Name resolution, firewall, proxy, a certificate that is not trusted."],
  ["clock", "A clock that is too wrong for the login."],
  ["login", "Certificate, consumer key, approval, audience, locked or inactive user.", ["token"]],
  ["api_version", "A version that the org does not have."],
  ["object, fields, keys, mask", "The object of the credentials, its permissions, rows that nobody finds, masked passwords."],
  ["limits", "The used share of the API calls of the day."],
  ["lookup", "The row of one user.", ["query"]],
  ["records", "The objects and fields that the broker writes.", ["create", "update"]],
  ["events", "The Pub/Sub API and its topics.", ["events"]],
  ["introspection, userinfo", "The org that proves who an agent is.", ["introspect"]],
];

/** The outcomes that are failures, in words. */
const FAILURES = { rejected: "rejected", limit: "over the limit", server_error: "server errors", timeout: "timed out", network: "not reached", shed: "not made" };

/** Returns whether the configuration names an org. */
function isConfigured(keys) {
  const value = (wanted) => keys.find(({ key }) => key === wanted)?.value;
  return ["salesforce.client_id", "auth.salesforce_introspection.host", "auth.salesforce_userinfo.host"].some((key) => value(key));
}

/** Shows the section. `isOpen`: the broker makes no calls for a while. */
export function showSalesforce(place, keys, read, isOpen) {
  const calls = of(read, "switchboard_salesforce_calls_total");
  const rows = STEPS.map(([step, finds, operations]) => h("li", {},
    h("p", {}, h("code", {}, step), " ", step === "limits" ? left(read) : seen(calls, operations)),
    h("p", { class: "hint" }, finds)));
  const token = one(read, "switchboard_salesforce_token_timestamp_seconds");
  replace(place,
    h("h2", { id: "salesforce-title" }, "Salesforce"),
    isOpen ? h("p", { class: "notice warn" }, "Calls to Salesforce have failed, and the broker makes none for a while. The command here says what to change.") : null,
    isConfigured(keys)
      ? [
        h("p", {}, h("code", {}, "switchboard check --salesforce --config FILE"), " tries each step and says what to change. The badges count the calls of this broker since its start."),
        h("ul", { class: "steps" }, rows),
        token > 0 ? h("p", { class: "hint" }, "The broker logged in ", since(new Date(token * 1000).toISOString()), " ago.") : null,
      ]
      : empty("The configuration names no org. ", h("code", {}, "switchboard simulate salesforce"), " starts one to try it with."));
}

/** What the calls of these operations came to. */
function seen(calls, operations) {
  if (!operations) return badge("not tried here");
  const counted = calls.filter(({ labels, value }) => value > 0 && operations.includes(labels.operation));
  if (counted.length === 0) return badge("no calls");
  const sum = (wanted) => wanted.reduce((total, { value }) => total + value, 0);
  const good = sum(counted.filter(({ labels }) => labels.outcome === "ok"));
  const failures = Object.entries(FAILURES)
    .map(([outcome, words]) => [sum(counted.filter(({ labels }) => labels.outcome === outcome)), words])
    .filter(([count]) => count > 0);
  return [
    good > 0 ? badge(`${number(good)} worked`, "good") : null,
    ...failures.map(([count, words]) => badge(`${number(count)} ${words}`, good > 0 ? "warn" : "bad")),
  ].filter(Boolean).flatMap((it) => [it, " "]);
}

/** How many calls of the day are left. */
function left(read) {
  const remaining = one(read, "switchboard_salesforce_api_calls_remaining");
  const limit = one(read, "switchboard_salesforce_api_calls_limit");
  if (!(limit > 0)) return badge("not known yet");
  return badge(`${number(remaining)} of ${number(limit)} left`, remaining / limit < 0.1 ? "warn" : "good");
}
