// Which of several Salesforce tabs opens a record: the one that the agent looked at last. The others hear the same event.

const LOCK = "switchboard-screen-pop";

/** Held by one page of the browser at a time. A page that holds a lock is not frozen by Chrome, either. */
export class Leader {
  #leads = false;
  #changed;
  #release = null;
  #queued = new AbortController();
  #ended = new AbortController();

  /** @param {(leads: boolean) => void} changed */
  constructor(changed) {
    this.#changed = changed;
  }

  /** Whether this page is the one. Without locks (no secure context) each page is. */
  get leads() {
    return this.#leads || !navigator.locks;
  }

  start() {
    if (!navigator.locks) return this.#changed(true);
    const seen = () => document.hidden || this.#leads || this.#take();
    document.addEventListener("visibilitychange", seen, { signal: this.#ended.signal });
    if (document.hidden) this.#queue();
    else this.#take();
  }

  stop() {
    this.#ended.abort();
    this.#queued.abort();
    this.#release?.();
  }

  #hold = () => {
    this.#become(true);
    return new Promise((resolve) => (this.#release = resolve));
  };

  /** Takes the lock from whoever has it, and stands in line when another page takes it in turn. */
  #take() {
    this.#queued.abort();
    navigator.locks.request(LOCK, { steal: true }, this.#hold).catch(() => this.#lost());
  }

  #become(leads) {
    this.#leads = leads;
    this.#changed(leads);
  }

  #lost() {
    this.#become(false);
    if (!this.#ended.signal.aborted) this.#queue();
  }

  #queue() {
    this.#queued = new AbortController();
    const { signal } = this.#queued;
    navigator.locks.request(LOCK, { signal }, this.#hold).catch(() => signal.aborted || this.#lost());
  }
}
