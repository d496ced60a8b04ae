// What a screen reader hears of a growing text: whole sentences, one at a time, never a flood.

const PAUSE = 1500; // milliseconds between two messages
const KEPT = 20;
const SENTENCE = /^[\s\S]*[.!?;:\n]\s/;

export class Announcer {
  #text = "";
  #last = 0;

  constructor(region) {
    this.region = region;
  }

  /** Says a message at once. */
  say(message) {
    if (!message.trim()) return;
    this.region.appendChild(document.createElement("p")).textContent = message;
    while (this.region.childElementCount > KEPT) this.region.firstElementChild.remove();
  }

  /** Adds text that has been written; sentences are said when they are whole. */
  add(text) {
    this.#text += text;
    if (performance.now() - this.#last < PAUSE) return;
    const [sentences] = SENTENCE.exec(this.#text) ?? [""];
    if (!sentences) return;
    this.#text = this.#text.slice(sentences.length);
    this.#last = performance.now();
    this.say(sentences);
  }

  /** Says what is left of it. */
  finish() {
    this.say(this.#text);
    this.#text = "";
  }
}
