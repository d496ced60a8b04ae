// The page follows the end of the text while it grows, lets go when the reader scrolls up, and offers the way back.

import { viewBottom } from "./dom.js";

const MARGIN = 48; // pixels that are kept below the end of the text

export class AutoScroll {
	#pill;
	/** The last line. @type {Element | null} */
	#end = null;
	#following = true;
	#growing = false;
	#frame = 0;
	/** Where our own scrolling has put the page. */
	#expected = 0;

	/** @param {HTMLButtonElement} pill */
	constructor(pill) {
		this.#pill = pill;
		pill.addEventListener("click", () => this.#jump());
		addEventListener("scroll", () => this.#onScroll(), { passive: true });
	}

	/** A text begins to grow; whoever started it wants to see it. */
	start() {
		this.#growing = true;
		this.#following = true;
		this.#expected = scrollY; // the text before may have been longer
		this.#end = null;
		this.#show();
	}

	/** The end has moved: scrolls there in the next frame, if the reader is following. @param {Element | null} end */
	follow(end) {
		this.#end = end;
		if (!this.#growing || !this.#following || this.#frame) return;
		this.#frame = requestAnimationFrame(() => this.#move());
	}

	/** Nothing grows any more. */
	stop() {
		this.#move();
		this.#growing = false;
		this.#show();
	}

	#move() {
		this.#frame = 0;
		if (!this.#growing || !this.#following || !this.#end?.isConnected) return;
		const overlap = this.#end.getBoundingClientRect().bottom - (viewBottom() - MARGIN);
		if (overlap <= 0) return;
		scrollBy({ top: overlap, behavior: "instant" });
		this.#expected = Math.round(scrollY); // the page may end before
	}

	/** To the end, and on with it. */
	#jump() {
		this.#following = true;
		if (this.#end?.isConnected) {
			const overlap = this.#end.getBoundingClientRect().bottom - (viewBottom() - MARGIN);
			scrollBy({ top: overlap, behavior: "instant" });
			this.#expected = Math.round(scrollY); // the window may be another since the last time
		}
		this.#show();
	}

	#onScroll() {
		if (!this.#growing) return;
		if (scrollY < this.#expected - 4) this.#following = false;
		else if (this.#end && this.#end.getBoundingClientRect().bottom <= viewBottom() + 4) this.#following = true;
		if (this.#following) this.#expected = scrollY;
		this.#show();
	}

	#show() {
		this.#pill.hidden = !this.#growing || this.#following;
	}
}
