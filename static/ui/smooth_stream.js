// Text appears evenly, a little in each frame, however it comes from the network; nothing waits longer than DELAY.

const DELAY = 0.1; // seconds over which what has come is spread

export class Pacer {
  #waiting = []; // [{cells, show}]
  #frame = 0;
  #last = 0;
  #drained = [];
  #still = matchMedia("(prefers-reduced-motion: reduce)");

  constructor() {
    // a page in the background gets no frames, but its text goes on
    document.addEventListener("visibilitychange", () => document.hidden && this.flush());
  }

  /** Shows `cells` by calling `show` with some of them at a time. */
  push(cells, show) {
    this.#waiting.push({ cells, show });
    if (document.hidden || this.#still.matches) this.flush();
    else if (!this.#frame) {
      this.#last = performance.now();
      this.#frame = requestAnimationFrame((now) => this.#tick(now));
    }
  }

  /** Shows all that waits, now. */
  flush() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    for (const { cells, show } of this.#waiting.splice(0)) show(cells);
    for (const resolve of this.#drained.splice(0)) resolve();
  }

  /** Resolves when nothing waits any more. */
  drained() {
    if (!this.#waiting.length) return Promise.resolve();
    return new Promise((resolve) => this.#drained.push(resolve));
  }

  #tick(now) {
    this.#frame = 0;
    const seconds = Math.max(0.004, (now - this.#last) / 1000);
    this.#last = now;
    const total = this.#waiting.reduce((sum, { cells }) => sum + cells.length, 0);
    let room = Math.max(1, Math.ceil((total * seconds) / DELAY));
    while (room > 0 && this.#waiting.length) {
      const first = this.#waiting[0];
      first.show(first.cells.slice(0, room));
      room -= first.cells.length;
      if (room >= 0) this.#waiting.shift();
      else first.cells = first.cells.slice(room); // what is left is -room cells
    }
    if (this.#waiting.length) this.#frame = requestAnimationFrame((time) => this.#tick(time));
    else this.flush();
  }
}
