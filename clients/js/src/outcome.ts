import type { SwitchboardError } from "./error.js";

/**
 * A promise that knows whether anybody waits for it. If it is rejected and nobody does, `report` gets the error, and the
 * runtime sees no unhandled rejection.
 *
 * It has to be a subclass: `await` calls the overridden `then` only of those.
 */
export class Outcome<T> extends Promise<T> {
  #isAwaited = false;

  /** Promises derived from this one are ordinary ones. */
  static override get [Symbol.species](): PromiseConstructor {
    return Promise;
  }

  static of<T>(
    report: (error: SwitchboardError) => void,
    run: (resolve: (value: T | PromiseLike<T>) => void, reject: (error: unknown) => void) => void,
  ): Outcome<T> {
    const outcome = new Outcome<T>(run);
    Promise.prototype.then.call(outcome, undefined, (error: SwitchboardError) => {
      // Code that awaits it in the same turn has not run yet when it is rejected at once.
      setTimeout(() => outcome.#isAwaited || report(error), 0);
    });
    return outcome;
  }

  override then<A = T, B = never>(
    fulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    rejected?: ((error: any) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#isAwaited = true;
    return super.then(fulfilled, rejected);
  }
}
