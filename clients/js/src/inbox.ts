/**
 * Counts the messages of one session, and knows which of them the application has handled.
 *
 * The broker sends again, after a resume, what follows the count that it is given. The count is the last message before
 * the first that is not handled; messages that were handled beyond it are recognised by their number and skipped.
 */
export type Inbox = ReturnType<typeof inbox>;

export function inbox() {
  /** The number of the last message on the wire. */
  let cursor = 0;
  /** The highest number that has arrived. */
  let arrived = 0;
  /** Numbers of messages that are not handled yet, ascending. */
  let open = new Set<number>();
  /** Numbers up to `arrived` that a page before this one did not handle. */
  let missing = new Set<number>();
  /** The last count that the broker was told. */
  let acknowledged = 0;
  const handled = () => {
    for (const first of open) return first - 1;
    return arrived;
  };
  return {
    /** Returns how many messages in a row are handled. */
    handled,

    /** Returns how many messages are handled that the broker was not told of. */
    due: () => handled() - acknowledged,

    /** Returns the count to tell the broker. */
    acknowledge: () => (acknowledged = handled()),

    /** Continues the count of a page that was reloaded. */
    restore(saved: { arrived: number; open: number[] }): void {
      arrived = saved.arrived;
      open = new Set(saved.open);
      missing = new Set(saved.open);
    },

    /** Returns what `restore` needs. */
    save: () => ({ arrived, open: [...open] }),

    /** Notes that the broker sends again what follows `handled`. */
    resume: () => void (cursor = handled()),

    /** Counts a message. Returns its number, or 0 if it was handled before. */
    take(): number {
      cursor += 1;
      if (cursor <= arrived && !missing.delete(cursor)) return 0;
      arrived = Math.max(arrived, cursor);
      open.add(cursor);
      return cursor;
    },

    /** Notes that a message is handled. */
    done: (number: number) => void open.delete(number),
  };
}
