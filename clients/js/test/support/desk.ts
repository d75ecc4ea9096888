// Desks of a test, and waiting for what they say.

import { onTestFinished } from "vitest";
import { WebSocket } from "ws";
import { connect, type Desk, type DeskEvents, type Options } from "../../src/index.js";

const DEADLINE_MS = 10_000;

/** Connects a desk that ends with the test. */
export function desk(url: string, options: Partial<Options> = {}): Desk<any> {
  const made = connect({ source: "desk", url, WebSocket, log: () => {}, ...options }) as Desk<any>;
  onTestFinished(() => made.close());
  return made;
}

/** Waits for a promise, within the deadline. */
export async function within<T>(what: string, promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within 10 s`)), DEADLINE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Waits for an event of a desk that fits. */
export function next<E extends keyof DeskEvents>(
  from: Desk<any>,
  event: E,
  fits: (value: DeskEvents[E]) => boolean = () => true,
): Promise<DeskEvents[E]> {
  const waiting = new Promise<DeskEvents[E]>((resolve) => {
    const remove = from.on(event, (value) => {
      if (!fits(value)) return;
      remove();
      resolve(value);
    });
  });
  return within(event, waiting);
}

/** Waits until something is true. */
export async function until(what: string, isTrue: () => boolean): Promise<void> {
  const end = Date.now() + DEADLINE_MS;
  while (!isTrue()) {
    if (Date.now() > end) throw new Error(`${what}: not within 10 s`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Returns the error that a promise is rejected with. */
export async function failing(promise: Promise<unknown>): Promise<any> {
  const outcome = await within("a failure", promise.then((value) => ({ value }), (error: unknown) => ({ error })));
  if ("value" in outcome) throw new Error(`it succeeded: ${JSON.stringify(outcome.value)}`);
  return outcome.error;
}
