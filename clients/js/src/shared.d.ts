// @switchboard/client/shared 1.0

import type { AnySchema, Desk, Options } from "./switchboard.js";

/**
 * Connects as `connect` does, over one WebSocket for all tabs and frames of this origin that name the same `url`, `source` and
 * `user`. One of them has the WebSocket; if it is closed or frozen, another one goes on with the session.
 *
 * A tab gets the events of the others and not its own, as separate sessions do. `handle`, `credentials` and subscriptions with a
 * `group` use a connection of the tab's own, which is made when the first of them is called. Without Web Locks (no secure context), this is `connect`.
 */
export function connectShared<S extends { events: any; requests: any } = AnySchema>(options: Options): Desk<S>;
