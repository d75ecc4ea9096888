// The broker's listeners for applications, as this page can reach them.

import * as api from "./api.js";
import { h } from "./dom.js";

/** Whether a host is this computer. The broker lets pages of such origins connect. */
export function isLoopback(host) {
  return /^(localhost|.+\.localhost|127\.[\d.]+|\[::1\])$/.test(host);
}

/**
 * The addresses that this page can try. A listener on all addresses is at the host of the page. The policy of the page can
 * name neither an IPv6 address nor a Unix socket.
 */
export function reachable(listeners) {
  return listeners.flatMap((listener) => {
    if (!/^wss?:/.test(listener)) return [];
    const url = new URL(listener);
    if (url.hostname === "0.0.0.0" || url.hostname === "[::]") url.hostname = location.hostname;
    return url.hostname.startsWith("[") ? [] : [url.href];
  });
}

/** A page from beyond loopback has to be listed: returns what to add, or null. */
export async function originNotice(signal) {
  if (isLoopback(location.hostname)) return null;
  const { keys } = await api.get("/v1/config", signal);
  const allowed = keys.find(({ key }) => key === "http.allowed_origins")?.value ?? [];
  if (allowed.includes(location.origin)) return null;
  return h("div", { class: "notice warn" },
    h("p", {}, "This page is not on the machine of the broker, and the broker does not let its origin connect. Add this to the configuration, and reload:"),
    h("pre", {}, `[http]\nallowed_origins = ${JSON.stringify([...allowed, location.origin])}`));
}
