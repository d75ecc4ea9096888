import { SwitchboardError } from "./error.js";
import type { Message, Subscribed } from "./switchboard.js";

/** A bounded queue of events, read by `for await`. */
export class Events implements AsyncIterableIterator<Message> {
  readonly #buffer: number;
  #remove: () => void = () => {};
  #queue: { message: Message; done: () => void }[] = [];
  #waiting: { resolve: (result: IteratorResult<Message>) => void; reject: (error: unknown) => void }[] = [];
  /** Marks the message that the loop is working on as handled. */
  #finish: () => void = () => {};
  #end: { error?: unknown } | undefined;
  ready!: Promise<Subscribed>;
  readonly pattern: string;

  constructor(pattern: string, buffer: number) {
    this.pattern = pattern;
    this.#buffer = buffer;
  }

  /** Connects it to the subscription that feeds it. */
  begin(ready: Promise<Subscribed>, remove: () => void): void {
    this.ready = ready;
    this.#remove = remove;
  }

  /** Adds an event. */
  give(message: Message, done: () => void): void {
    if (this.#end) {
      done();
      return;
    }
    const waiting = this.#waiting.shift();
    if (waiting) {
      this.#finish = done;
      waiting.resolve({ value: message, done: false });
    } else if (this.#queue.length < this.#buffer) {
      this.#queue.push({ message, done });
    } else {
      done();
      this.#remove();
      this.end(new SwitchboardError("OVERFLOW", `more than ${this.#buffer} events of ${this.pattern} wait for the loop`));
    }
  }

  /** Ends it. The events that wait are still given. */
  end(error?: unknown): void {
    if (this.#end) return;
    this.#end = error === undefined ? {} : { error };
    for (const { resolve, reject } of this.#waiting.splice(0)) {
      if (error === undefined) resolve({ value: undefined, done: true });
      else reject(error);
    }
  }

  next(): Promise<IteratorResult<Message>> {
    this.#finish();
    this.#finish = () => {};
    const first = this.#queue.shift();
    if (first) {
      this.#finish = first.done;
      return Promise.resolve({ value: first.message, done: false });
    }
    if (this.#end) {
      const { error } = this.#end;
      // An iterator fails once.
      this.#end = {};
      return error === undefined ? Promise.resolve({ value: undefined, done: true }) : Promise.reject(error);
    }
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  return(): Promise<IteratorResult<Message>> {
    this.unsubscribe();
    return Promise.resolve({ value: undefined, done: true });
  }

  unsubscribe(): void {
    this.#remove();
    this.#finish();
    for (const { done } of this.#queue.splice(0)) done();
    this.end();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  [Symbol.dispose](): void {
    this.unsubscribe();
  }
}
