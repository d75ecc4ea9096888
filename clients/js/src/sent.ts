/** How many messages are counted one by one, and how many of them are stored for the next page. The desk keeps half as many. */
const COUNTED_MAX = 32_768;
const STORED_MAX = 1_024;

/** What `restore` needs. */
export interface Saved {
  line?: string;
  first?: number;
  numbers?: (number | null)[];
}

/** The messages that the desk of a tab has sent, and which numbers they have in the session that the tabs share. */
export class Sent {
  /** The numbers of the messages after the first `#first`: infinite until the leader has said it. */
  #numbers: number[] = [];
  #first = 0;
  /** The line on which they were sent. */
  #line: string | undefined;

  /** Adds one, and returns which one of the desk it is. One that is not passed on has no number. */
  add(isPassedOn: boolean): number {
    this.#numbers.push(isPassedOn ? Infinity : 0);
    if (this.#numbers.length > COUNTED_MAX) this.#first += this.#numbers.splice(0, COUNTED_MAX / 2).length;
    return this.#first + this.#numbers.length;
  }

  /** Notes the number of one. */
  note(at: number, number: number): void {
    const index = at - 1 - this.#first;
    if (index in this.#numbers) this.#numbers[index] = number;
  }

  /** Begins a line, and forgets messages that an earlier leader did not bring to the broker. The desk sends them again. */
  settle(line: string, taken: number): void {
    if (this.#line === line) return;
    this.#line = line;
    const lost = this.#numbers.findIndex((number) => number > taken);
    if (lost >= 0) this.#numbers.length = lost;
  }

  /** Returns how many messages of the desk the broker has taken. All that were sent on a line are written. */
  count(): number {
    this.#first += this.#numbers.length;
    this.#numbers = [];
    return this.#first;
  }

  /** Begins a session. */
  clear(): void {
    this.#first = 0;
    this.#numbers = [];
  }

  save(): Saved {
    const numbers = this.#numbers.slice(-STORED_MAX);
    return { ...(this.#line && { line: this.#line }), first: this.#first + this.#numbers.length - numbers.length, numbers };
  }

  restore({ line, first = 0, numbers = [] }: Saved): void {
    this.#line = line;
    this.#first = first;
    // One without a number was posted to a leader that lives, which has written it.
    this.#numbers = numbers.map((number) => number ?? 0);
  }
}
