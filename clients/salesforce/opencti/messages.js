// What Open CTI says, in the words of the channel Salesforce, and back. Pure functions: nothing here calls anybody.

/** Objects of people, by the first three characters of an id: they go to WhoId, all others to WhatId. */
const PEOPLE = { "003": "Contact", "00Q": "Lead" };

const SUFFIX_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";

/**
 * Whether a text is a record's id: 15 letters and digits, or 18, of which the last three say the case of the others.
 * So an id that lost its case on the way opens nothing, rather than another record.
 */
export function isRecordId(text) {
  if (typeof text !== "string" || !/^[A-Za-z0-9]{15}([A-Z0-5]{3})?$/.test(text)) return false;
  return text.length === 15 || text.slice(15) === suffix(text.slice(0, 15));
}

/** One digit for each five characters: which of them are capitals. */
function suffix(id) {
  const digit = (five) =>
    SUFFIX_DIGITS[[...five].reduce((bits, it, at) => bits + (/[A-Z]/.test(it) ? 1 << at : 0), 0)];
  return [0, 5, 10].map((at) => digit(id.slice(at, at + 5))).join("");
}

/** `message` of ObjectFieldParams for the record in view; both lists are empty where there is none. */
export function objectFieldParams({ recordId, recordName = "", objectType, contactId }) {
  const item = { sfid: recordId, value: recordName };
  const isPerson = recordId && (PEOPLE[recordId.slice(0, 3)] || Object.values(PEOPLE).includes(objectType));
  const WhoId = isPerson ? [item] : [];
  // A person account is an account, and a contact too.
  if (!isPerson && contactId) WhoId.push({ sfid: contactId, value: recordName });
  return { WhoId, WhatId: recordId && !isPerson ? [item] : [] };
}

/** `message` of ClickToDialPayload; the focused fields are of the record in view, and empty where there is none. */
export function clickToDialPayload(click, focus) {
  const text = (value) => (value === undefined || value === null ? "" : String(value));
  return {
    number: text(click.number),
    recordId: text(click.recordId),
    recordName: text(click.recordName),
    recordObjectType: text(click.objectType),
    focusedObjectId: text(focus.recordId),
    focusedObjectName: text(focus.recordName),
    focusedObjectType: text(focus.objectType),
    focusedObjectURL: focus.recordId ? text(focus.url) : "",
  };
}

/**
 * `value` of saveLog for the payload of a SaveLog request: `{ Name, params }` creates, `{ Name, sfid, params }` changes.
 * Throws what is wrong, in words for the asker.
 *
 * @param {{object: string, prefix: string, fields: string[]}[]} writable
 */
export function logValue(writable, { Name, sfid, params } = {}) {
  const allowed = writable.find((it) => it.object === Name);
  if (!allowed) throw new Error("this page writes no such object: Name has to be one that its settings list");
  if (typeof params !== "object" || params === null || Array.isArray(params)) {
    throw new Error("params has to be an object of fields");
  }
  for (const [field, value] of Object.entries(params)) {
    if (!allowed.fields.includes(field)) throw new Error(`this page does not write the field ${field.slice(0, 80)}`);
    if (typeof value === "object" && value !== null) throw new Error(`${field} has to be a plain value`);
  }
  if (sfid === undefined || sfid === null || sfid === "") return { entityApiName: Name, ...params };
  if (!isRecordId(sfid)) throw new Error("sfid is not a record id");
  // Open CTI takes the id's word for the object.
  if (!sfid.startsWith(allowed.prefix)) throw new Error(`sfid is not the id of a ${Name}`);
  return { Id: sfid, ...params };
}

/** The words of Open CTI's errors: an array of objects with code and description, of texts in older versions. */
export function errorWords(errors) {
  const words = (Array.isArray(errors) ? errors : [errors]).map((it) => it?.description ?? it?.code ?? it);
  return words.filter((it) => typeof it === "string").join("; ") || "no reason was given";
}
