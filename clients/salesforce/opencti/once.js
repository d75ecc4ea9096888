// What the tabs of one browser must do once, though several of them are asked.
//
// Outcomes are kept in localStorage, which the tabs share. Without a secure context there are neither locks nor hashes; then
// each tab keeps its own in memory.

const PREFIX = "switchboard-save-log:";

/** Limits of what is kept. */
const KEPT_MS = 24 * 60 * 60 * 1000;
const KEPT_MAX = 100;

const UNKNOWN =
  "another tab was closed while it saved this request, so the record may exist: look in Salesforce before you send it " +
  "again with another id";

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
    const kept = storage();
    const earlier = read(kept, name);
    if (earlier?.recordId) return earlier.recordId;
    if (earlier) throw new Error(UNKNOWN);
    forgetOld(kept);
    kept.setItem(name, JSON.stringify({ at: Date.now() }));
    try {
      const recordId = await save();
      kept.setItem(name, JSON.stringify({ at: Date.now(), recordId }));
      return recordId;
    } catch (error) {
      kept.removeItem(name);
      throw error;
    }
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

/** Storage of this tab alone, for browsers that keep a page from localStorage. */
const memory = {
  getItem: (name) => memory.items[name] ?? null,
  setItem: (name, value) => void (memory.items[name] = value),
  removeItem: (name) => void delete memory.items[name],
  items: {},
};

function storage() {
  try {
    return navigator.locks ? localStorage : memory;
  } catch {
    return memory;
  }
}

function read(kept, name) {
  try {
    return JSON.parse(kept.getItem(name));
  } catch {
    return null;
  }
}

/** Removes what is older than a day, and the oldest beyond the limit. */
function forgetOld(kept) {
  const names = Object.keys(kept.items ?? kept).filter((name) => name.startsWith(PREFIX));
  const entries = names.map((name) => ({ name, at: read(kept, name)?.at ?? 0 })).sort((a, b) => b.at - a.at);
  entries.forEach(({ name, at }, index) => {
    if (index >= KEPT_MAX - 1 || Date.now() - at > KEPT_MS) kept.removeItem(name);
  });
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
