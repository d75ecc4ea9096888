// Which of several Salesforce tabs opens a record: of the registered ones, the one that the agent looked at last. All of
// them receive the same event.

const LOCK = "switchboard-screen-pop";

/**
 * A lock that one page of the browser holds at a time, and only between `start` and `stop`. Chrome does not freeze a page that
 * holds a lock.
 */
export class Leader {
  #changed;
  /** Aborted by `stop`. */
  #run = null;
  /** The waiting request for the lock. */
  #queued = null;
  /** The request that holds the lock. */
  #holder = null;

  /** @param {(leads: boolean) => void} changed */
  constructor(changed) {
    this.#changed = changed;
  }

  /** Whether this page holds the lock. Without locks (no secure context) each page that has started does. */
  get leads() {
    return this.#holder !== null;
  }

  start() {
    if (this.#run) return;
    const run = new AbortController();
    this.#run = run;
    if (!navigator.locks) return this.#become({});
    const seen = () => document.hidden || this.leads || this.#take(run);
    document.addEventListener("visibilitychange", seen, { signal: run.signal });
    if (document.hidden) this.#queue(run);
    else this.#take(run);
  }

  stop() {
    this.#run?.abort();
    this.#run = null;
    this.#queued?.abort();
    this.#become(null);
  }

  /** Takes the lock from the page that holds it. */
  #take(run) {
    this.#queued?.abort();
    this.#request(run, { steal: true });
  }

  /** Waits until no other page holds the lock. */
  #queue(run) {
    this.#queued = new AbortController();
    this.#request(run, { signal: this.#queued.signal });
  }

  #request(run, options) {
    const request = {};
    const hold = () => {
      // A request that steals cannot be aborted, so it may be granted after `stop`.
      if (run.signal.aborted) return undefined;
      this.#become(request);
      return new Promise((release) => run.signal.addEventListener("abort", release));
    };
    const lost = () => {
      // Not if it never held the lock, or if this page has taken the lock from itself.
      if (this.#holder !== request) return;
      this.#become(null);
      this.#queue(run);
    };
    navigator.locks.request(LOCK, options, hold).catch(lost);
  }

  #become(holder) {
    const led = this.leads;
    this.#holder = holder;
    if (this.leads !== led) this.#changed(this.leads);
  }
}
