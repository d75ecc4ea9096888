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
export type Outbox = ReturnType<typeof outbox>;

/** Makes one. Only a session that can be resumed `keeps` messages. */
export function outbox(keeps: boolean) {
  let last = 0;
  let kept: Sent[] = [];
  let units = 0;
  const add = (sent: Sent) => {
    last += 1;
    sent.number = last;
    if (keeps) {
      kept.push(sent);
      units += sent.text.length;
    }
    return sent;
  };
  return {
    /** Returns whether another message can be kept. */
    hasRoom: () => kept.length < KEPT_MAX && units < KEPT_UNITS_MAX,

    /** Returns whether something is kept that a ping would let go of. */
    isInDoubt: () => kept.some((sent) => !sent.isUpkeep),

    /** Numbers a message that is about to be written. */
    add: (text: string, isUpkeep: boolean) => add({ number: 0, text, isUpkeep }),

    /** Notes that the broker has taken this message and all before it. */
    prove({ number }: Sent): void {
      let taken = 0;
      for (const sent of kept) {
        if (sent.number > number) break;
        units -= sent.text.length;
        taken += 1;
      }
      kept.splice(0, taken);
    },

    /** Goes on after the broker has taken `taken` messages. Returns what to write again, with new numbers. */
    resume(taken: number): Sent[] {
      const again = kept.filter((sent) => sent.number > taken && !sent.isUpkeep);
      last = taken;
      kept = [];
      units = 0;
      return again.map(add);
    },
  };
}
