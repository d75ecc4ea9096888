// What the tabs of one browser must do once, though several of them are asked.
//
// Outcomes are kept in localStorage, which the tabs share. Each tab keeps its own in memory where localStorage is full or is
// kept from the page, and without a secure context, where there are neither locks nor hashes.

const PREFIX = "switchboard-save-log:";

/** Limits of what is kept. */
const KEPT_MS = 24 * 60 * 60 * 1000;
const KEPT_MAX = 100;

const UNKNOWN =
  "an earlier attempt to save this request left no result, because its tab was closed or the browser's storage is full, so " +
  "the record may exist: look in Salesforce before you send it again with another id";

/**
 * Calls `save`, which resolves with a record's id, unless a tab has saved under the same key before. Resolves with the
 * record's id. Rejects if `save` does (it may be tried again), or if nobody knows whether an earlier one succeeded.
 *
 * @param {string} key
 * @param {() => Promise<string>} save
 * @returns {Promise<string>}
 */
export async function saveOnce(key, save) {
  const name = PREFIX + (await digest(key));
  return exclusively(name, async () => {
    const earlier = find(name);
    if (earlier?.recordId) return earlier.recordId;
    if (earlier) throw new Error(UNKNOWN);
    forgetOld();
    keep(name, { at: Date.now() });
    let recordId;
    try {
      recordId = await save();
    } catch (error) {
      forget(name);
      throw error;
    }
    // The record exists, so this must not fail.
    keep(name, { at: Date.now(), recordId });
    return recordId;
  });
}

/** This tab's claims by name, as promises of whether it was the first. Each is removed when its lock has been released. */
const claims = new Map();

/**
 * Resolves with whether this tab is the first to claim a name. A claim ends after `ms`, or later in a hidden tab, whose
 * timers are slow. Until then this tab may claim the name again. Rejects if the browser refuses locks to the page.
 *
 * @param {string} name
 * @param {number} ms
 * @returns {Promise<boolean>}
 */
export function claim(name, ms) {
  if (!navigator.locks) return Promise.resolve(true);
  const earlier = claims.get(name);
  if (earlier) return earlier;
  const first = new Promise((resolve, reject) => {
    const held = (lock) => {
      resolve(lock !== null);
      return lock && new Promise((end) => setTimeout(end, ms));
    };
    const released = navigator.locks.request(name, { ifAvailable: true }, held);
    released.catch(reject).finally(() => claims.delete(name));
  });
  claims.set(name, first);
  return first;
}

/** Storage of this tab alone. */
const memory = {
  getItem: (name) => memory.items[name] ?? null,
  setItem: (name, value) => void (memory.items[name] = value),
  removeItem: (name) => void delete memory.items[name],
  items: {},
};

/** Where outcomes are: this tab's own come first. */
function stores() {
  try {
    return navigator.locks && localStorage ? [memory, localStorage] : [memory];
  } catch {
    return [memory];
  }
}

/** Keeps an outcome for all tabs, or for this one if localStorage is full. */
function keep(name, outcome) {
  const text = JSON.stringify(outcome);
  for (const store of stores().reverse()) {
    try {
      store.setItem(name, text);
      if (store !== memory) memory.removeItem(name);
      return;
    } catch {
      // The next one is memory, which takes it.
    }
  }
}

function find(name) {
  for (const store of stores()) {
    const outcome = read(store, name);
    if (outcome) return outcome;
  }
  return null;
}

function forget(name) {
  for (const store of stores()) store.removeItem(name);
}

function read(store, name) {
  try {
    return JSON.parse(store.getItem(name));
  } catch {
    return null;
  }
}

/** Removes what is older than a day, and the oldest beyond the limit of each store. */
function forgetOld() {
  for (const store of stores()) {
    const names = Object.keys(store.items ?? store).filter((name) => name.startsWith(PREFIX));
    const entries = names.map((name) => ({ name, at: read(store, name)?.at ?? 0 })).sort((a, b) => b.at - a.at);
    entries.forEach(({ name, at }, index) => {
      if (index >= KEPT_MAX - 1 || Date.now() - at > KEPT_MS) store.removeItem(name);
    });
  }
}

/** Jobs of this tab by name, where there are no locks. */
const running = new Map();

function exclusively(name, job) {
  if (navigator.locks) return navigator.locks.request(name, job);
  const ended = (running.get(name) ?? Promise.resolve()).then(job, job);
  running.set(name, ended);
  const forget = () => running.get(name) === ended && running.delete(name);
  ended.then(forget, forget);
  return ended;
}

/** The key may contain a customer's data, so its hash is stored. */
async function digest(key) {
  if (!globalThis.crypto?.subtle) return key;
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(key));
  return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
