import { Hub } from "./hub.js";
import { connect } from "./index.js";
import { Pipe } from "./pipe.js";
import type { Desk, DeskEvents, Options } from "./switchboard.js";

export type * from "./shared.d.ts";

/** See shared.d.ts. */
export function connectShared(options: Options): Desk<any> {
  // The locks need a secure context.
  if (!globalThis.navigator?.locks || typeof BroadcastChannel === "undefined") return connect(options);
  const { source, user, url = "ws://localhost:7420/ws" } = options;
  const Socket = (options.WebSocket ?? WebSocket) as typeof globalThis.WebSocket;
  const hub = new Hub(JSON.stringify(["switchboard 1", url, source, user]), Socket, () => desk.retry());
  const Shared = class extends Pipe {
    constructor(address: string) {
      super(hub, address);
    }
  };
  const desk: Desk<any> = connect({ ...options, WebSocket: Shared });
  desk.on("state", ({ state }) => state === "closed" && hub.leave(true));
  const on = (target: EventTarget | undefined, event: string, act: () => void) => target?.addEventListener(event, act);
  // A worker has neither.
  const { window, document } = globalThis as { window?: Window; document?: Document };
  on(window, "pagehide", () => hub.leave());
  on(document, "freeze", () => hub.freeze());
  on(document, "resume", () => hub.elect());
  return Object.assign(desk, apart(desk, options, hub));
}

/**
 * What a tab does not share: its handlers, since a handler must be awake itself, its part of a group, of which each message is
 * for one member, and the agent's password.
 */
function apart(shared: Desk<any>, options: Options, hub: Hub): Partial<Desk<any>> {
  const { close, events, on, retry, setState, subscribe } = shared;
  const errors = new Set<(error: any) => void>();
  let made: Desk<any> | undefined;
  const own = () => {
    if (!made && shared.state !== "closed") {
      made = connect({ ...options, will: undefined });
      for (const listener of errors) made.on("error", listener);
    }
    return made ?? shared;
  };
  return {
    subscribe: (pattern, listener, more) => (more?.group ? own().subscribe : subscribe)(pattern, listener, more),
    events: (pattern, more) => (more?.group ? own().events : events)(pattern, more),
    handle: (...given) => own().handle(...given),
    credentials: (...given) => own().credentials(...given),
    retry: () => {
      hub.retry();
      made?.retry();
      retry();
    },
    close: async () => void (await Promise.all([made?.close(), close()])),
    setState: async (state) => void (await Promise.all([made?.setState(state), setState(state)])),
    on<E extends keyof DeskEvents>(event: E, listener: (value: DeskEvents[E]) => void, more: { signal?: AbortSignal } = {}) {
      const removers = [on(event, listener, more)];
      if (event === "error") {
        errors.add(listener);
        if (made) removers.push(made.on(event, listener, more));
      }
      return () => {
        errors.delete(listener);
        for (const remove of removers) remove();
      };
    },
  };
}
