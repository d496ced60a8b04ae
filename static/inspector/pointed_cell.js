// Which character of a text the mouse or a finger points at.

/**
 * The cell under a point of the screen, or null.
 * @param {import("../editor/line_view.js").LineView} lines @param {number} x @param {number} y
 */
export function cellAt(lines, x, y) {
	const position = caretAt(x, y);
	const near = position && lines.indexOf(...position);
	if (near === null) return null;
	// the position nearest to a point is before or after its cell
	for (const index of [near, near - 1]) {
		if (index < 0 || index >= lines.doc.length) continue;
		const { left, right, top, bottom } = lines.rectOf(index);
		if (x >= left && x < right && y >= top && y < bottom) return index;
	}
	return null;
}

/**
 * The DOM's position nearest to a point of the screen, or null.
 * @param {number} x @param {number} y @returns {[Node, number] | null}
 */
function caretAt(x, y) {
	if (document.caretPositionFromPoint) {
		const position = document.caretPositionFromPoint(x, y);
		return position && [position.offsetNode, position.offset];
	}
	const range = document.caretRangeFromPoint?.(x, y); // Safari
	return range ? [range.startContainer, range.startOffset] : null;
}
