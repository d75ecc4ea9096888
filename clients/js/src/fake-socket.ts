/** The other end of a [`FakeSocket`]. */
export interface Line {
  opened(socket: FakeSocket): void;
  received(socket: FakeSocket, text: string): void;
  closed(socket: FakeSocket, code: number): void;
}

/** A WebSocket in memory. What it sends and gets arrives in a later turn, in order. */
export class FakeSocket extends EventTarget {
  readyState = 0;
  onopen: ((event: any) => void) | null = null;
  onmessage: ((event: any) => void) | null = null;
  onclose: ((event: any) => void) | null = null;
  onerror: ((event: any) => void) | null = null;
  readonly #line: Line;

  constructor(line: Line) {
    super();
    this.#line = line;
    queueMicrotask(() => {
      if (this.readyState !== 0) return;
      this.readyState = 1;
      this.#line.opened(this);
      this.#emit("open", {});
    });
  }

  send(text: string): void {
    queueMicrotask(() => this.readyState === 1 && this.#line.received(this, text));
  }

  /** Closes it from the application's side. */
  close(code = 1005): void {
    this.#close(code, "");
  }

  /** Delivers a message to the application. */
  deliver(data: string): void {
    queueMicrotask(() => this.readyState === 1 && this.#emit("message", { data }));
  }

  /** Closes it from the broker's side, after what was delivered. */
  end(code: number, reason = ""): void {
    queueMicrotask(() => this.#close(code, reason));
  }

  #close(code: number, reason: string): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.#line.closed(this, code);
    queueMicrotask(() => this.#emit("close", { code, reason }));
  }

  #emit(name: "open" | "message" | "close", fields: object): void {
    const event = Object.assign(new Event(name), fields);
    this.dispatchEvent(event);
    this[`on${name}`]?.(event);
  }
}
