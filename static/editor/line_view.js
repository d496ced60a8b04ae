// A document drawn as lines, each one element, and the way between the document's cells and places on the page.
// Only what changed is drawn again. Knows nothing of typing.

const SPEAKER = /^[^\s:][^:\n]{0,40}:$/;
const LONGEST_SPEAKER = 42;

export class Lines {
  #starts = []; // the first cell of each line
  #look; // (cell) => class names
  #past = 0; // cells before this one have left the model's window
  #cursor = -1; // the cell that is being looked at by keyboard
  #cursorSpan = null; // its element, the same one wherever it goes

  constructor(root, doc, look) {
    this.root = root;
    this.doc = doc;
    this.#look = look;
    doc.listen((change) => this.#update(change));
    this.refresh();
  }

  /** Draws everything again. */
  refresh() {
    this.#keepSelection([this.root], () => {
      this.#starts = [];
      this.root.replaceChildren(joined(this.#make(0, this.doc.length, this.#starts)));
      this.#markSpeakers(0, this.#starts.length);
    });
  }

  /** Draws the lines of some cells again. */
  redraw(from, to) {
    if (from < to) this.#redraw(this.#lineOf(from), this.#lineOf(to));
  }

  /** Draws again the cells that left the window or came back into it: all before `past` have left. */
  setPast(past) {
    if (past === this.#past) return;
    const [from, to] = [Math.min(past, this.#past), Math.max(past, this.#past)];
    this.#past = past;
    if (this.doc.length) this.#redraw(this.#lineOf(from), this.#lineOf(Math.min(to, this.doc.length)));
  }

  /** Gives one cell an element of its own, and returns it, for the keyboard to be at; -1 for none. */
  setCursor(index) {
    const before = this.#cursor;
    this.#cursor = index;
    this.#cursorSpan ??= document.createElement("span");
    for (const cell of [before, index]) {
      if (cell >= 0 && cell < this.doc.length) this.#redraw(this.#lineOf(cell), this.#lineOf(cell));
    }
    return this.#cursorSpan;
  }

  /** The first and last cell (a line break, or the document's end) of the line that a cell is in. */
  lineAround(index) {
    const line = this.#lineOf(index);
    return { start: this.#starts[line], end: this.#endOf(line) };
  }

  /** The cell at a place in the DOM, or null outside. */
  indexOf(node, offset) {
    if (!this.root.contains(node)) return null;
    if (node === this.root) return this.#starts[offset] ?? this.doc.length;
    const element = (node.nodeType === Node.TEXT_NODE ? node.parentElement : node).closest(".line");
    const line = Array.prototype.indexOf.call(this.root.children, element);
    if (line < 0 || line >= this.#starts.length) return null;
    const before = document.createRange();
    before.setStart(element, 0);
    before.setEnd(node, offset);
    return this.#advance(this.#starts[line], before.toString().length, this.#endOf(line));
  }

  /** The place in the DOM before a cell. */
  placeOf(index) {
    const line = this.#lineOf(index);
    let units = 0;
    for (let i = this.#starts[line]; i < index; i++) units += this.doc.cells[i].c.length;
    const walker = document.createTreeWalker(this.root.children[line], NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      if (units <= node.length) return [node, units];
      units -= node.length;
    }
    return [this.root.children[line], 0];
  }

  /** Where a cell is on the screen. */
  rectOf(index) {
    const range = document.createRange();
    range.setStart(...this.placeOf(index));
    const { end } = this.lineAround(index);
    if (index >= end) return this.#breakRect(range, this.#lineOf(index));
    range.setEnd(...this.placeOf(index + 1));
    const rects = range.getClientRects();
    return rects[rects.length - 1] ?? range.getBoundingClientRect();
  }

  /** The cell under a point of the screen, or null. */
  cellAt(x, y) {
    const place = caretAt(x, y);
    const near = place && this.indexOf(...place);
    if (near === null) return null;
    for (const index of [near, near - 1]) {
      if (index < 0 || index >= this.doc.length) continue;
      const { left, right, top, bottom } = this.rectOf(index);
      if (x >= left && x < right && y >= top && y < bottom) return index;
    }
    return null;
  }

  /** The text as the DOM has it, which a browser may have changed by itself. */
  domText() {
    return [...this.root.childNodes].map((line) => line.textContent).join("\n");
  }

  #breakRect(range, line) {
    const rect = range.getBoundingClientRect();
    const box = rect.height ? rect : this.root.children[line].getBoundingClientRect();
    return new DOMRect(box.left, box.top, 0.6 * box.height, box.height);
  }

  #update({ start, end, inserted }) {
    if (this.#cursor >= this.doc.length) this.#cursor = -1;
    const atEnd = start === end && start + inserted.length === this.doc.length;
    if (atEnd && this.#starts.length) this.#append(start);
    else this.#replace(start, end, inserted.length);
  }

  /** Goes on at the end of the last line. */
  #append(start) {
    const first = this.#starts.length - 1;
    let end = start;
    while (end < this.doc.length && this.doc.cells[end].c !== "\n") end += 1;
    if (this.#starts[first] === start) this.root.lastElementChild.replaceChildren();
    this.#fill(this.root.lastElementChild, start, end);
    if (end < this.doc.length) this.root.append(joined(this.#make(end + 1, this.doc.length, this.#starts)));
    this.#markSpeakers(first, this.#starts.length);
  }

  #replace(start, end, count) {
    const first = this.#lineOf(start);
    const after = this.#lineOf(end) + 1; // of the lines before the change
    const shift = count - (end - start);
    const stop = after < this.#starts.length ? this.#starts[after] + shift - 1 : this.doc.length;
    const starts = [];
    const made = this.#make(this.#starts[first] ?? 0, stop, starts);
    const old = [...this.root.children].slice(first, after);
    for (const line of made) this.root.insertBefore(line, old[0] ?? null);
    for (const line of old) line.remove();
    const rest = this.#starts.slice(after).map((place) => place + shift);
    this.#starts = [...this.#starts.slice(0, first), ...starts, ...rest];
    this.#markSpeakers(first, first + starts.length + 2);
  }

  #redraw(from, to) {
    const elements = Array.from({ length: to - from + 1 }, (_, i) => this.root.children[from + i]);
    this.#keepSelection(elements, () => {
      elements.forEach((element, i) => {
        element.replaceChildren();
        this.#fill(element, this.#starts[from + i], this.#endOf(from + i));
      });
    });
  }

  /** Does `action`, which draws `elements` again, and puts back what was selected there and the keyboard's focus. */
  #keepSelection(elements, action) {
    const { anchorNode, anchorOffset, focusNode, focusOffset } = getSelection();
    const touched = elements.some((element) => element.contains(anchorNode) || element.contains(focusNode));
    const inside = touched && this.#starts.length > 0 && this.root.contains(anchorNode) && this.root.contains(focusNode);
    const ends = inside ? [this.indexOf(anchorNode, anchorOffset), this.indexOf(focusNode, focusOffset)] : [null];
    const focused = this.#cursorSpan !== null && document.activeElement === this.#cursorSpan;
    action();
    if (focused) this.#cursorSpan.focus({ preventScroll: true });
    else if (!ends.includes(null)) getSelection().setBaseAndExtent(...this.placeOf(ends[0]), ...this.placeOf(ends[1]));
  }

  /** Elements of the lines that the cells from `start` to `stop` make; their first cells go to `starts`. */
  #make(start, stop, starts) {
    const made = [];
    for (let from = start, at = start; at <= stop; at++) {
      if (at < stop && this.doc.cells[at].c !== "\n") continue;
      const line = document.createElement("div");
      this.#fill(line, from, at);
      made.push(line);
      starts.push(from);
      from = at + 1;
    }
    return made;
  }

  /** Adds the cells from `start` to `end` to a line: a span for each stretch that looks the same. */
  #fill(line, start, end) {
    line.classList.add("line");
    const ended = this.doc.cells[end]; // the line break, if there is one
    line.dataset.break = ended?.run ? this.#classes(ended, end) : "";
    let span = line.lastElementChild?.tagName === "SPAN" ? line.lastElementChild : null;
    let text = "";
    const flush = () => {
      if (text) span.append(text);
      text = "";
    };
    for (let i = start; i < end; i++) {
      const classes = this.#classes(this.doc.cells[i], i);
      if (span?.className !== classes) {
        flush();
        span = line.appendChild(i === this.#cursor ? this.#cursorSpan : document.createElement("span"));
        span.className = classes;
        span.textContent = "";
      }
      text += this.doc.cells[i].c;
    }
    flush();
    if (ended && end === this.#cursor) this.#drawBreak(line, end);
    if (!line.hasChildNodes()) line.append(document.createElement("br")); // an empty line keeps its height
  }

  /** A line break has no width, so the keyboard's place at one is an empty element. */
  #drawBreak(line, index) {
    this.#cursorSpan.className = `${this.#classes(this.doc.cells[index], index)} break`;
    this.#cursorSpan.textContent = "";
    line.append(this.#cursorSpan);
  }

  #classes(cell, index) {
    const past = index < this.#past ? " past" : "";
    return this.#look(cell) + past + (index === this.#cursor ? " cursor" : "");
  }

  /** Sets the first line of a paragraph apart when it names a speaker. */
  #markSpeakers(from, to) {
    for (let line = from; line < Math.min(to, this.#starts.length); line++) {
      const first = line === 0 || this.#endOf(line - 1) === this.#starts[line - 1];
      const element = this.root.children[line];
      const short = this.#endOf(line) - this.#starts[line] <= LONGEST_SPEAKER;
      element.classList.toggle("speaker", first && short && SPEAKER.test(element.textContent));
      element.classList.toggle("blank", this.#endOf(line) === this.#starts[line] && line + 1 < this.#starts.length);
    }
  }

  /** The number of the line that a cell is in. */
  #lineOf(index) {
    let [low, high] = [0, this.#starts.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#starts[middle] <= index) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** The cell after a line's last, which is its line break if it has one. */
  #endOf(line) {
    return line + 1 < this.#starts.length ? this.#starts[line + 1] - 1 : this.doc.length;
  }

  /** The cell `units` UTF-16 units after `index`, at most `end`. */
  #advance(index, units, end) {
    let at = index;
    while (at < end && units > 0) units -= this.doc.cells[at++].c.length;
    return at;
  }
}

/** Elements as one: a call takes no more than some 100,000 arguments. */
function joined(elements) {
  const fragment = document.createDocumentFragment();
  for (const element of elements) fragment.appendChild(element);
  return fragment;
}

function caretAt(x, y) {
  if (document.caretPositionFromPoint) {
    const place = document.caretPositionFromPoint(x, y);
    return place && [place.offsetNode, place.offset];
  }
  const range = document.caretRangeFromPoint?.(x, y); // Safari
  return range ? [range.startContainer, range.startOffset] : null;
}
