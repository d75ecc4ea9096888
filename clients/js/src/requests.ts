import type { Settle } from "./desk.js";
import { type Data, type Envelope, fields, join, payload } from "./envelope.js";
import { failure, SwitchboardError } from "./error.js";
import type { Pending } from "./session.js";
import type { Answer, Gathered, Receipt, RequestOptions } from "./switchboard.js";

export type Exchange = Pending;

const isReceipt = (envelope: Envelope) => join(envelope) === "Broker/Message/Receipt";

/** Waits for a receipt. */
export function receiving({ resolve, reject }: Settle): Exchange {
  return {
    answer(envelope) {
      if (envelope.more === true) return false;
      const refused = failure(payload(envelope), envelope.inReplyTo as string);
      if (refused) reject(refused);
      // A handler took it: an event on a triple that has one is a request.
      else resolve(isReceipt(envelope) ? receipt(fields(envelope)) : { receivers: 1 });
      return true;
    },
    fail: reject,
  };
}

function receipt({ Receivers, Duplicate, Offset, Epoch, Hint, Cluster }: Data): Receipt {
  const found: Receipt = { receivers: Receivers };
  const more = { duplicate: Duplicate, offset: Offset, epoch: Epoch, hint: Hint, cluster: Cluster };
  for (const [key, value] of Object.entries(more)) if (value !== undefined) Object.assign(found, { [key]: value });
  return found;
}

/** Waits for the answer of one handler. */
export function requesting({ resolve, reject }: Settle, { onProgress }: RequestOptions): Exchange {
  return {
    answer(envelope) {
      if (envelope.more === true) {
        call(onProgress, payload(envelope));
        return false;
      }
      const refused = failure(payload(envelope), envelope.inReplyTo as string);
      if (refused) reject(refused);
      // A handler without answers took it.
      else resolve(isReceipt(envelope) ? undefined : payload(envelope));
      return true;
    },
    fail: reject,
  };
}

/** Waits for the answers of all handlers. */
export function gathering(
  { resolve, reject }: Settle,
  { onAnswer, onProgress }: RequestOptions & { onAnswer?(answer: Answer<unknown>): void },
): Exchange {
  const answers: Answer<unknown>[] = [];
  return {
    answer(envelope) {
      if (envelope.more === true) {
        const answer: Answer<unknown> = { data: payload(envelope) };
        if (typeof envelope.source === "string") answer.source = envelope.source;
        answers.push(answer);
        call(onAnswer, answer);
        call(onProgress, answer.data);
        return false;
      }
      const refused = failure(payload(envelope), envelope.inReplyTo as string);
      if (refused) {
        reject(refused);
        return true;
      }
      const { Expected, Failed = [] } = fields(envelope);
      const failed = (Failed as Data[]).map(({ Source, ErrorCode }) => ({ source: Source, code: ErrorCode }));
      resolve({ answers, expected: Expected, failed } satisfies Gathered<unknown>);
      return true;
    },
    fail: reject,
  };
}

/** Calls a function of the application, whose exceptions must not lose the answer. */
function call<T>(given: ((value: T) => void) | undefined, value: T): void {
  try {
    given?.(value);
  } catch (cause) {
    console.error(new SwitchboardError("INTERNAL", "a callback of a request failed", { cause }));
  }
}
