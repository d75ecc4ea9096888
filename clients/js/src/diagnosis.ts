/** What a page knows that this module cannot find out later. */
export interface Known {
  /** The permission that the browser asks for, if it can be asked. */
  permission: (url: string) => Promise<PermissionState | undefined>;
  /** Addresses that the page's Content Security Policy has blocked. */
  blocked: ReadonlySet<string>;
}

/** The parts of an error, which the core makes of them. */
export interface Finding {
  code: string;
  message: string;
  cure: string;
}

/** How long `GET /` may take. */
const PROBE_MS = 5_000;

/**
 * Why a socket does not open. A browser does not say, so this asks what can be asked: the page's policies, the permission, and
 * `GET /` of the broker. The first row that fits is the reason.
 */
export async function findReason(url: string, known: Known): Promise<Finding> {
  const { host, protocol, hostname } = new URL(url);
  const origin = `${protocol === "wss:" ? "https" : "http"}://${host}/`;
  const error = (code: string, message: string, cure: string) => ({ code, message, cure });
  const here = location.origin;

  if ([...known.blocked].some((blocked) => blocked.startsWith(url) || new URL(url).href.startsWith(blocked))) {
    return error(
      "CSP_BLOCKED",
      `the Content Security Policy of this page does not allow ${url}`,
      `Add ${new URL(url).origin} to connect-src of the page's Content-Security-Policy.`,
    );
  }
  // Only WebKit blocks loopback addresses as mixed content.
  if (location.protocol === "https:" && protocol === "ws:" && "GestureEvent" in window) {
    return error(
      "MIXED_CONTENT",
      "this browser blocks ws: on pages with https:",
      "Let the broker use TLS, and connect to wss:, or use another browser.",
    );
  }
  if (!navigator.onLine && !isLocal(hostname)) {
    return error(
      "OFFLINE",
      "this computer has no network",
      "Connect the computer to the network.",
    );
  }
  // Without a secure context, every permission is denied.
  const isAsked = isSecureContext && isLocal(hostname) && !isLoopback(location.hostname);
  const permission = isAsked ? await known.permission(url) : undefined;
  const feature = isLoopback(hostname) ? "loopback-network" : "local-network";
  if (permission && permission !== "granted" && !isDelegated(feature)) {
    return error(
      "LNA_NOT_DELEGATED",
      `this frame may not reach ${host}`,
      `Write allow="${feature}" on the frame of this page.`,
    );
  }
  if (permission === "denied") {
    return error(
      "LNA_DENIED",
      `the browser does not let ${here} reach ${host}`,
      "Allow access to this device or to the local network in the browser's settings for this site, then reload the page.",
    );
  }
  if (permission === "prompt") {
    return error(
      "LNA_PROMPT",
      `the browser asks before ${here} may reach ${host}`,
      "Please allow the access that the browser asks for.",
    );
  }
  const answer = await probe(origin, "cors");
  if (!answer) {
    if (await probe(origin, "no-cors")) {
      return error(
      "ORIGIN_REFUSED",
      `${origin} answers, but not to pages of ${here}`,
      `Ask the operator to add "${here}" to http.allowed_origins of the broker.`,
    );
    }
    if (!isSecureContext && isLocal(hostname)) {
      return error(
      "NOT_SECURE_CONTEXT",
      `a page without https: may not reach ${host}`,
      "Open this page with https:.",
    );
    }
    return error(
      "BROKER_DOWN",
      `nothing answers at ${origin}`,
      "Start switchboard on this computer, or ask the operator whether it runs.",
    );
  }
  switch (answer.status) {
    case 421:
      return error(
        "HOST_REFUSED",
        `the broker does not serve the name ${host}`,
        `Connect to localhost, or ask the operator to add "${hostname}" to http.allowed_hosts.`,
      );
    case 403:
      return error(
        "NEIGHBOUR_REFUSED",
        "the broker serves another user of this computer",
        "Start switchboard as the user of this browser.",
      );
    case 503:
      return error(
        "BUSY",
        "the broker takes no connections now",
        "Wait; it is tried again.",
      );
  }
  if (answer.server !== "switchboard") {
    return error(
      "NOT_SWITCHBOARD",
      `something else answers at ${origin}`,
      "Correct the address, or end the program that has this port.",
    );
  }
  return error(
      "UPGRADE_BLOCKED",
      `${origin} answers, but the WebSocket does not open`,
      "Let the proxy in front of the broker pass WebSockets on.",
    );
}

/** Asks the broker. With `no-cors`, a page learns only that something answers. */
async function probe(origin: string, mode: RequestMode): Promise<{ status: number; server?: unknown } | undefined> {
  try {
    const response = await fetch(origin, { mode, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(PROBE_MS) });
    const { server } = response.ok ? await response.json().catch(() => ({})) : {};
    return { status: response.status, server };
  } catch {
    return undefined;
  }
}

/** Whether this document may use a feature. A browser without the feature or the interface does not limit it. */
function isDelegated(feature: string): boolean {
  const { permissionsPolicy, featurePolicy } = document as any;
  const policy = permissionsPolicy ?? featurePolicy;
  return !policy?.features().includes(feature) || policy.allowsFeature(feature);
}

function isLoopback(hostname: string): boolean {
  return /^(localhost|127\.[\d.]+|\[::1\])$/.test(hostname);
}

/** Whether a host is this computer or in a private network, as far as its name shows. */
function isLocal(hostname: string): boolean {
  return isLoopback(hostname) || /^(10\.|192\.168\.|169\.254\.|172\.(1[6-9]|2\d|3[01])\.|\[f[cd])/.test(hostname);
}
