// Generated from the broker's catalogue (crates/wire/src/error.rs); tests/it/javascript compares them.

/** The error codes after which the same envelope may succeed later without any change. */
export const RETRYABLE: readonly string[] = [
  "SOURCE_IN_USE",
  "NO_HANDLER",
  "HANDLER_GONE",
  "REQUEST_TIMEOUT",
  "TOO_MANY_REQUESTS",
  "RATE_LIMITED",
  "UPSTREAM_UNAVAILABLE",
  "TOO_MANY_SESSIONS",
  "STORAGE_UNAVAILABLE",
  "INTERNAL",
];

/** What a client does after a close code. After every other code, it backs off. */
export const RECONNECT: Readonly<Record<number, "drop-message" | "after-delay" | "new-token" | "stop">> = {
  1002: "drop-message",
  1007: "drop-message",
  1009: "drop-message",
  1012: "after-delay",
  4401: "new-token",
  4403: "stop",
  4409: "stop",
  4410: "stop",
};
