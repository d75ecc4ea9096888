/** Whose turn it is to lead: one tab holds the lock of this name, and the others wait for it. */
export class Turn {
  readonly #name: string;
  readonly #begin: () => void;
  readonly #lose: () => void;
  /** Ends the wait. Absent: this tab does not take part. */
  #queue: AbortController | undefined;
  /** Gives the lock back. Absent: it is not this tab's turn. */
  #resign: (() => void) | undefined;

  /** `begin` is called when it is this tab's turn, `lose` when another tab has taken the lock from it. */
  constructor(name: string, begin: () => void, lose: () => void) {
    this.#name = name;
    this.#begin = begin;
    this.#lose = lose;
  }

  get isOurs(): boolean {
    return this.#resign !== undefined;
  }

  wait(): void {
    if (this.isOurs) return;
    this.#queue?.abort();
    this.#queue = new AbortController();
    this.#request({ signal: this.#queue.signal });
  }

  /** Takes the lock from a tab that does not answer. */
  steal(): void {
    if (this.isOurs || !this.#queue) return;
    this.#queue.abort();
    this.#request({ steal: true });
  }

  /** Leaves the lock to another tab. */
  leave(): void {
    this.#queue?.abort();
    this.#queue = undefined;
    this.#resign?.();
    this.#resign = undefined;
  }

  #request(options: LockOptions): void {
    let resign: (() => void) | undefined;
    const hold = () => {
      // A request that steals cannot be aborted.
      if (!this.#queue) return undefined;
      return new Promise<void>((resolve) => {
        resign = resolve;
        this.#resign = resign;
        // What the tab before has passed on comes first.
        setTimeout(() => this.#resign === resign && this.#begin());
      });
    };
    navigator.locks.request(this.#name, options, hold).catch(() => {
      if (!resign || this.#resign !== resign) return;
      this.#resign = undefined;
      this.#lose();
    });
  }
}
