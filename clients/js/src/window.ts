/** How many frames are kept for tabs that are away, and how many UTF-16 units of text. */
const FRAMES_MAX = 4_096;
const UNITS_MAX = 2 << 20;

/** The last frames of a session, by number. */
export class Window {
  /** The number of the newest frame. */
  last = 0;
  #frames: string[] = [];
  #units = 0;

  /** Begins anew after the frame `last`. */
  clear(last: number): void {
    this.last = last;
    this.#frames = [];
    this.#units = 0;
  }

  /** Adds the next frame. */
  push(text: string): void {
    this.last += 1;
    this.#frames.push(text);
    this.#units += text.length;
    if (this.#frames.length <= FRAMES_MAX && this.#units <= UNITS_MAX) return;
    // Half at a time: to shift one of many costs as much.
    for (const gone of this.#frames.splice(0, Math.ceil(this.#frames.length / 2))) this.#units -= gone.length;
  }

  /** Returns the frames after this number. `undefined`: not all of them are kept. */
  after(number: number): string[] | undefined {
    const missing = this.last - number;
    if (missing > this.#frames.length) return undefined;
    return missing > 0 ? this.#frames.slice(-missing) : [];
  }
}
