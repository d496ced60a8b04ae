// What a screen reader hears of a growing text: whole sentences, the latest, and never more than can be spoken.

const PAUSE = 1500; // milliseconds between two messages
const LONGEST = 200; // characters of a message
const KEPT = 20;
const SENTENCES = /[^.!?;:]*[.!?;:]+\s/g;

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

  /** Adds text that has been written; sentences are said when they are whole, the latest of them if there are many. */
  add(text) {
    this.#text += text;
    if (performance.now() - this.#last < PAUSE) return;
    const sentences = this.#text.match(SENTENCES) ?? [];
    if (!sentences.length) return;
    this.#text = this.#text.slice(sentences.join("").length);
    this.#last = performance.now();
    this.say(latest(sentences));
  }

  /** Says the end of it, whether its last sentence is whole or not, and `message`. */
  finish(message) {
    const sentences = this.#text.match(SENTENCES) ?? [];
    this.say(latest([...sentences, this.#text.slice(sentences.join("").length)]));
    this.reset();
    this.say(message);
  }

  /** Another text is listened to. */
  reset() {
    this.#text = "";
  }
}

/** As many of the last sentences as fit in a message. */
function latest(sentences) {
  let message = "";
  for (const sentence of sentences.toReversed()) {
    if (message && message.length + sentence.length > LONGEST) break;
    message = sentence + message;
  }
  return message.slice(-LONGEST);
}
