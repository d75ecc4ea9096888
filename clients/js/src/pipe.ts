/** What a pipe tells the tab that it belongs to. */
export interface End {
  /** A desk has made it, and may send when it is open. */
  made(pipe: Pipe): void;
  sent(pipe: Pipe, text: string): void;
  closed(pipe: Pipe, code: number): void;
}

/** The socket of a desk in a tab: a part of the one WebSocket that the tabs share. It has what the client uses of a WebSocket. */
export class Pipe {
  readyState = 0;
  onopen: ((event: object) => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: object) => void) | null = null;
  readonly #end: End;

  constructor(end: End, readonly url: string) {
    if (!/^(ws|http)s?:$/.test(new URL(url).protocol)) throw new SyntaxError(`${url} is not an address of a WebSocket`);
    this.#end = end;
    // The desk sets its listeners after this.
    queueMicrotask(() => this.readyState === 0 && end.made(this));
  }

  send(text: string): void {
    this.#end.sent(this, text);
  }

  /** Closes it from the side of the desk. */
  close(code = 1005): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.#end.closed(this, code);
  }

  open(): void {
    if (this.readyState !== 0) return;
    this.readyState = 1;
    this.onopen?.({});
  }

  deliver(data: string): void {
    if (this.readyState === 1) this.onmessage?.({ data });
  }

  /** Closes it from the other side. */
  fail(code: number, reason: string): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
}
