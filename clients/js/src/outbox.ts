/** A message that was sent in the current session. */
export interface Sent {
  /** Its number in the session. A resume can change it. */
  number: number;
  readonly text: string;
  /** Acknowledgements, pings and renewals, which are not sent again. */
  readonly isUpkeep: boolean;
}

/** How many messages without a sign that the broker has taken them are kept, and how many UTF-16 units of text. */
const KEPT_MAX = 16_384;
const KEPT_UNITS_MAX = 8 << 20;

/** What was sent in a session, until the broker is known to have taken it. */
export class Outbox {
  #number = 0;
  #kept: Sent[] = [];
  #units = 0;
  /** Whether the session can be resumed, so that messages have to be kept. */
  keeps = false;

  /** Whether another message can be kept. */
  get hasRoom(): boolean {
    return this.#kept.length < KEPT_MAX && this.#units < KEPT_UNITS_MAX;
  }

  /** Whether something is kept that a ping would let go of. */
  get isInDoubt(): boolean {
    return this.#kept.some((sent) => !sent.isUpkeep);
  }

  /** Numbers a message that is about to be written. */
  add(text: string, isUpkeep: boolean): Sent {
    this.#number += 1;
    const sent = { number: this.#number, text, isUpkeep };
    if (this.keeps) this.#keep(sent);
    return sent;
  }

  #keep(sent: Sent): void {
    this.#kept.push(sent);
    this.#units += sent.text.length;
  }

  /** Notes that the broker has taken this message and all before it. */
  prove({ number }: Sent): void {
    let taken = 0;
    for (const sent of this.#kept) {
      if (sent.number > number) break;
      this.#units -= sent.text.length;
      taken += 1;
    }
    this.#kept.splice(0, taken);
  }

  /** Goes on after the broker has taken `taken` messages. Returns what to write again, with new numbers. */
  resume(taken: number): Sent[] {
    const again = this.#kept.filter((sent) => sent.number > taken && !sent.isUpkeep);
    this.#number = taken;
    this.#kept = [];
    this.#units = 0;
    for (const sent of again) {
      sent.number = this.#number += 1;
      this.#keep(sent);
    }
    return again;
  }
}
