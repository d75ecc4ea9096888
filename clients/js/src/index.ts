import { DeskCore } from "./desk.js";
import { SwitchboardError } from "./error.js";
import type * as api from "./switchboard.js";

export { SwitchboardError };
export type * from "./switchboard.js";

/** See switchboard.d.ts. */
export function connect(options: api.Options): api.Desk<any> {
  check(options);
  const core = new DeskCore(options);
  core.connection.start();
  return facade(core);
}

/** Throws for options that cannot be meant. */
function check({ source, url, token, WebSocket: given }: api.Options): void {
  if (typeof source !== "string" || !source) throw new TypeError("connect: 'source' is the name to register, a string");
  if (token !== undefined && typeof token !== "string" && typeof token !== "function") {
    throw new TypeError("connect: 'token' is a string or a function");
  }
  if (url !== undefined && !(typeof url === "string" || (Array.isArray(url) && url.length))) {
    throw new TypeError("connect: 'url' is an address or a list of addresses");
  }
  if (!given && !globalThis.WebSocket) throw new TypeError("connect: there is no WebSocket here; give one as 'WebSocket'");
}

/** The public surface of a desk, and nothing else of it. */
function facade(core: DeskCore): api.Desk<any> {
  const desk: api.Desk<any> = {
    get state() {
      return core.connection.state;
    },
    get problem() {
      return core.connection.problem as api.SwitchboardError;
    },
    get session() {
      return core.connection.isOpen ? (core.session as NonNullable<typeof core.session>) : (undefined as never);
    },
    opened: async (options) => (await core.opened(options), desk as any),
    retry: () => core.connection.start(),
    close: () => core.close(),
    on: (event, listener, options) => core.on(event, listener, options),
    subscribe: (pattern, listener, options) => core.subscribe(pattern, listener, options),
    events: (pattern, options) => core.events(pattern, options) as any,
    publish: (triple, data, options) => core.publish(triple, data, options),
    request: (triple, data, options) => core.request(triple, data, options),
    gather: (triple, data, options) => core.gather(triple, data, options),
    handle: (pattern, handler, options) => core.handle(pattern, handler, options),
    credentials: (options) => core.credentials(options),
    applications: () => core.applications(),
    explain: (triple, to) => core.explain(triple, to),
    setState: (state) => core.setState(state),
  };
  return desk;
}
