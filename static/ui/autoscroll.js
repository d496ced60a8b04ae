// The page follows the end of the text while it grows, lets go when the reader scrolls up, and offers the way back.

const NEAR = 80; // pixels from the end that still count as being there

export class Follower {
  #following = true;
  #growing = false;
  #frame = 0;
  #expected = 0; // where our own scrolling has put the page

  constructor(pill) {
    this.pill = pill;
    pill.addEventListener("click", () => this.jump());
    addEventListener("scroll", () => this.#onScroll(), { passive: true });
  }

  /** A text begins to grow; whoever started it wants to see it. */
  start() {
    this.#growing = this.#following = true;
    this.#expected = scrollY; // the text before may have been longer
    this.end = null;
    this.#show();
  }

  /** The end has moved: go there in the next frame, if the reader is following. */
  follow(end) {
    this.end = end;
    if (this.#growing && this.#following) this.#frame ||= requestAnimationFrame(() => this.#move());
  }

  #move() {
    this.#frame = 0;
    if (!this.#growing || !this.#following || !this.end?.isConnected) return;
    const { end } = this;
    const overlap = end.getBoundingClientRect().bottom - (innerHeight - NEAR);
    if (overlap <= 0) return;
    this.#expected = Math.round(scrollY + overlap);
    scrollTo({ top: this.#expected, behavior: "instant" });
  }

  /** Nothing grows any more. */
  stop() {
    this.#move();
    this.#growing = false;
    this.#show();
  }

  /** To the end, and on with it. */
  jump() {
    this.#following = true;
    if (this.end?.isConnected) this.end.scrollIntoView({ block: "end", behavior: "instant" });
    this.#show();
  }

  #onScroll() {
    if (!this.#growing) return;
    if (scrollY < this.#expected - 4) this.#following = false;
    else if (this.end && this.end.getBoundingClientRect().bottom <= innerHeight + 4) this.#following = true;
    if (this.#following) this.#expected = scrollY;
    this.#show();
  }

  #show() {
    this.pill.hidden = !this.#growing || this.#following;
  }
}
