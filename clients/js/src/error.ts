import { RETRYABLE } from "./catalogue.js";
import type { SwitchboardError as Published } from "./switchboard.js";

/** Codes that do not come from the broker, after which waiting helps. */
const PASSING = ["AWAY", "OVERFLOW", "TOKEN_UNAVAILABLE", "BROKER_DOWN", "BUSY", "OFFLINE", "LNA_PROMPT"];

/** What an error can have besides its code and message. */
interface Details {
  data?: unknown;
  cause?: unknown;
  inReplyTo?: string | undefined;
  cure?: string | undefined;
}

/** The only error of this package. */
export class SwitchboardError extends Error implements Published {
  readonly code: string;
  readonly retryable: boolean;
  declare readonly inReplyTo?: string;
  declare readonly data?: unknown;
  declare readonly cure?: string;

  constructor(code: string, message: string, details: Details = {}) {
    super(message);
    this.name = "SwitchboardError";
    this.code = code;
    this.retryable = RETRYABLE.includes(code) || PASSING.includes(code);
    // An absent detail is an absent key, so that a printed error has no empty lines.
    for (const [key, value] of Object.entries(details)) if (value !== undefined) Object.assign(this, { [key]: value });
  }
}

/** Returns the error that an answer with `Success:false` means, or `undefined` for any other answer. */
export function failure(payload: unknown, inReplyTo?: string): SwitchboardError | undefined {
  if (typeof payload !== "object" || payload === null) return undefined;
  const { Success, ErrorCode, ErrorMessage } = payload as Record<string, unknown>;
  if (Success !== false) return undefined;
  const code = typeof ErrorCode === "string" && ErrorCode ? ErrorCode : "HANDLER_FAILED";
  const message = typeof ErrorMessage === "string" && ErrorMessage ? ErrorMessage : "the handler refused the request";
  return new SwitchboardError(code, message, { data: payload, inReplyTo });
}

/** Wraps what another party threw. */
export function unexpected(code: string, message: string, cause: unknown): SwitchboardError {
  return cause instanceof SwitchboardError ? cause : new SwitchboardError(code, message, { cause });
}
