import { DeskCore } from "./desk.js";
import { SwitchboardError } from "./error.js";
import type * as api from "./switchboard.js";

export { SwitchboardError };
export type * from "./switchboard.js";

/** See switchboard.d.ts. */
export function connect(options: api.Options): api.Desk<any> {
  if (!options.source) throw new TypeError("connect: source is missing");
  const core = new DeskCore(options);
  if (typeof window === "undefined") core.connection.start();
  else void attachPage(core);
  return facade(core);
}

/** Loads what only pages need. */
async function attachPage(core: DeskCore): Promise<void> {
  const { attach } = await import("./page.js");
  if (core.connection.state !== "closed") await attach(core);
}

/** The methods of a desk. */
const METHODS = [
  "on", "close", "subscribe", "events", "publish", "request", "gather", "handle", "credentials", "applications", "explain", "setState",
] as const;

/** The public surface of a desk, and nothing else of it. */
function facade(core: DeskCore): api.Desk<any> {
  const { connection } = core;
  const desk: any = {
    get state() {
      return connection.state;
    },
    get problem() {
      return connection.problem;
    },
    get session() {
      return connection.isOpen ? core.session : undefined;
    },
    opened: async (options: { signal?: AbortSignal }) => (await core.opened(options), desk),
    retry: () => connection.start(),
  };
  for (const method of METHODS) desk[method] = (core[method] as Function).bind(core);
  return desk;
}
