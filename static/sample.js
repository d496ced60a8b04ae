// One sample on the page: paragraphs that grow, speakers set apart, the prompt told from the model's own text.

const SPEAKER = /^[^\s:][^:\n]{0,40}:$/;

/** A sample's element; `append` adds what the model wrote. */
export class SampleView {
  #text;
  #promptEnd;
  #paragraphStart = 0;
  #paragraph = null;

  /** Adds an article to `parent`, beginning with `prompt`. */
  constructor(parent, prompt, title) {
    this.element = parent.appendChild(document.createElement("article"));
    this.element.setAttribute("aria-label", title);
    this.#text = prompt;
    this.#promptEnd = prompt.length;
    this.#render();
  }

  /** Text that the model wrote, without the prompt. */
  get written() {
    return this.#text.slice(this.#promptEnd);
  }

  append(text) {
    this.#text += text;
    this.#render();
  }

  end(reason) {
    this.element.dataset.end = reason;
  }

  /** Draws from the beginning of the last paragraph on; what is before it no longer changes. */
  #render() {
    for (;;) {
      const gap = this.#text.indexOf("\n\n", this.#paragraphStart);
      this.#draw(this.#paragraphStart, gap === -1 ? this.#text.length : gap);
      if (gap === -1) return;
      this.#paragraphStart = gap + 2;
      this.#paragraph = null;
    }
  }

  #draw(start, end) {
    this.#paragraph ??= this.element.appendChild(document.createElement("p"));
    const lines = [];
    for (let at = start; at <= end; ) {
      const found = this.#text.indexOf("\n", at);
      const lineEnd = found === -1 || found > end ? end : found;
      lines.push(this.#line(at, lineEnd, at === start));
      at = lineEnd + 1;
    }
    this.#paragraph.replaceChildren(...lines);
  }

  #line(start, end, first) {
    const line = document.createElement("span");
    line.className = first && SPEAKER.test(this.#text.slice(start, end)) ? "line speaker" : "line";
    if (start < this.#promptEnd) {
      const prompt = line.appendChild(document.createElement("span"));
      prompt.className = "prompt";
      prompt.textContent = this.#text.slice(start, Math.min(end, this.#promptEnd));
    }
    line.append(this.#text.slice(Math.max(start, this.#promptEnd), end) + "\n");
    return line;
  }
}
