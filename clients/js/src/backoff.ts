const FIRST_MS = 250;
const LONGEST_MS = 30_000;

/** Pauses with full jitter: each is random, below a bound that doubles. */
export class Backoff {
  #bound = FIRST_MS;

  next(): number {
    const pause = Math.random() * this.#bound;
    this.#bound = Math.min(this.#bound * 2, LONGEST_MS);
    return pause;
  }

  reset(): void {
    this.#bound = FIRST_MS;
  }
}
