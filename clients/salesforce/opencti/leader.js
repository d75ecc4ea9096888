// Which of several Salesforce tabs opens a record: the one that the agent looked at last. The others hear the same event.

const LOCK = "switchboard-screen-pop";

/** Held by one page of the browser at a time. A page that holds a lock is not frozen by Chrome, either. */
export class Leader {
  #leads = false;
  #queued = new AbortController();
  #ended = new AbortController();

  /** Whether this page is the one. Without locks (no secure context) each page is. */
  get leads() {
    return this.#leads || !navigator.locks;
  }

  start() {
    if (!navigator.locks) return;
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

  #release = null;

  #hold = () => {
    this.#leads = true;
    return new Promise((resolve) => (this.#release = resolve));
  };

  /** Takes the lock from whoever has it, and stands in line when another page takes it in turn. */
  #take() {
    this.#queued.abort();
    navigator.locks.request(LOCK, { steal: true }, this.#hold).catch(() => this.#lost());
  }

  #lost() {
    this.#leads = false;
    if (!this.#ended.signal.aborted) this.#queue();
  }

  #queue() {
    this.#queued = new AbortController();
    const { signal } = this.#queued;
    navigator.locks.request(LOCK, { signal }, this.#hold).catch(() => signal.aborted || this.#lost());
  }
}
