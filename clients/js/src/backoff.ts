const FIRST_MS = 250;
const LONGEST_MS = 30_000;

/** Returns pauses with full jitter: each is random, below a bound that doubles until it is reset. */
export function backoff(): { next(): number; reset(): void } {
  let bound = FIRST_MS;
  return {
    next() {
      const pause = Math.random() * bound;
      bound = Math.min(bound * 2, LONGEST_MS);
      return pause;
    },
    reset() {
      bound = FIRST_MS;
    },
  };
}
