// A page of a browser, as far as the client uses it. tests/it/browser has real ones.

import { vi } from "vitest";
import { Locks } from "./locks.js";

/** A tab, in which one page follows the other. */
export class Tab {
  readonly #stored = new Map<string, string>();
  readonly #locks = new Locks();
  #window = new EventTarget();
  readonly storage = {
    getItem: (key: string) => this.#stored.get(key) ?? null,
    setItem: (key: string, value: string) => void this.#stored.set(key, value),
    removeItem: (key: string) => void this.#stored.delete(key),
  };

  /** Begins a page. What it imports is loaded anew. */
  begin(): void {
    this.#window = new EventTarget();
    const document = Object.assign(new EventTarget(), { hidden: false });
    const globals = { window: this.#window, document, sessionStorage: this.storage, location: { hostname: "localhost" } };
    for (const [name, value] of Object.entries({ ...globals, navigator: { locks: this.#locks } })) vi.stubGlobal(name, value);
    vi.resetModules();
  }

  /** Ends the page. */
  end(): void {
    this.#window.dispatchEvent(new Event("pagehide"));
  }
}
