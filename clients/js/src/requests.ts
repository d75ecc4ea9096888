import type { Settle } from "./desk.js";
import { type Data, type Envelope, fields, join, payload, pick } from "./envelope.js";
import { failure, SwitchboardError } from "./error.js";
import type { Pending } from "./session.js";
import type { Answer, Gathered, RequestOptions } from "./switchboard.js";

export type Exchange = Pending;

const isReceipt = (envelope: Envelope) => join(envelope) === "Broker/Message/Receipt";

/** Waits for the last answer. `more` takes those before it, `last` returns the result. */
function exchange({ resolve, reject }: Settle, more: (envelope: Envelope) => void, last: (envelope: Envelope) => unknown): Exchange {
  return {
    answer(envelope) {
      if (envelope.more === true) {
        more(envelope);
        return false;
      }
      const refused = failure(payload(envelope), envelope.inReplyTo as string);
      if (refused) reject(refused);
      else resolve(last(envelope));
      return true;
    },
    fail: reject,
  };
}

/** Waits for a receipt. */
export function receiving(settle: Settle): Exchange {
  const keys = ["Receivers", "Duplicate", "Offset", "Epoch", "Hint", "Cluster"];
  // A handler may take it: an event on a triple that has one is a request.
  return exchange(settle, () => {}, (envelope) => (isReceipt(envelope) ? pick(fields(envelope), ...keys) : { receivers: 1 }));
}

/** Waits for the answer of one handler. One without answers takes the request when it is delivered. */
export function requesting(settle: Settle, { onProgress }: RequestOptions): Exchange {
  const more = (envelope: Envelope) => call(onProgress, payload(envelope));
  return exchange(settle, more, (envelope) => (isReceipt(envelope) ? undefined : payload(envelope)));
}

/** Waits for the answers of all handlers. */
export function gathering(
  settle: Settle,
  { onAnswer, onProgress }: RequestOptions & { onAnswer?(answer: Answer<unknown>): void },
): Exchange {
  const answers: Answer<unknown>[] = [];
  const more = (envelope: Envelope) => {
    const answer: Answer<unknown> = { ...pick(envelope, "source"), data: payload(envelope) };
    answers.push(answer);
    call(onAnswer, answer);
    call(onProgress, answer.data);
  };
  return exchange(settle, more, (envelope): Gathered<unknown> => {
    const { Expected, Failed = [] } = fields(envelope);
    const failed = (Failed as Data[]).map(({ Source, ErrorCode }) => ({ source: Source, code: ErrorCode }));
    return { answers, expected: Expected, failed };
  });
}

/** Calls a function of the application, whose exceptions must not lose the answer. */
function call<T>(given: ((value: T) => void) | undefined, value: T): void {
  try {
    given?.(value);
  } catch (cause) {
    console.error(new SwitchboardError("INTERNAL", "a callback of a request failed", { cause }));
  }
}
