/**
 * Counts the messages of one session, and knows which of them the application has handled.
 *
 * The broker sends again, after a resume, what follows the count that it is given. The count is the last message before
 * the first that is not handled; messages that were handled beyond it are recognised by their number and skipped.
 */
export class Inbox {
  /** The number of the last message on the wire. */
  #cursor = 0;
  /** The highest number that has arrived. */
  #arrived = 0;
  /** Numbers of messages that are not handled yet, ascending. */
  readonly #open = new Set<number>();
  /** Numbers up to `#arrived` that a page before this one did not handle. */
  readonly #missing = new Set<number>();
  /** The last count that the broker was told. */
  acknowledged = 0;

  /** Continues the count of a page that was reloaded. */
  static restore({ arrived, open }: { arrived: number; open: number[] }): Inbox {
    const inbox = new Inbox();
    inbox.#arrived = arrived;
    for (const number of open) {
      inbox.#open.add(number);
      inbox.#missing.add(number);
    }
    inbox.acknowledged = inbox.handled;
    return inbox;
  }

  /** Returns what `restore` needs. */
  get saved(): { arrived: number; open: number[] } {
    return { arrived: this.#arrived, open: [...this.#open] };
  }

  /** How many messages in a row are handled. */
  get handled(): number {
    for (const first of this.#open) return first - 1;
    return this.#arrived;
  }

  /** Notes that the broker sends again what follows `handled`. */
  resume(): void {
    this.#cursor = this.acknowledged = this.handled;
  }

  /** Counts a message. Returns its number, or 0 if it was handled before. */
  take(): number {
    this.#cursor += 1;
    if (this.#cursor <= this.#arrived && !this.#missing.delete(this.#cursor)) return 0;
    this.#arrived = Math.max(this.#arrived, this.#cursor);
    this.#open.add(this.#cursor);
    return this.#cursor;
  }

  /** Notes that a message is handled. */
  done(number: number): void {
    this.#open.delete(number);
  }
}
