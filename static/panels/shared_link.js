// What stands in the address after #: a link, whose text is written again and compared with what the link knows of it,
// or "verify".

import { textOf, typed } from "../editor/document.js";
import { difference, fromFragment } from "../editor/share_format.js";
import { $ } from "../ui/dom.js";
import { t } from "../ui/i18n.js";
import { fill } from "../ui/settings_form.js";

/**
 * Writes the text of a link again, and shows whether it is the same; or opens the form that verifies.
 * @param {string} fragment @param {{ card: ModelCard, tree: BranchTree, session: Session }} page
 */
export async function openFragment(fragment, { card, tree, session }) {
	if (fragment === "verify") return (await import("../verify/dialog.js")).openVerify(card);
	history.replaceState({ ...history.state, opened: fragment }, ""); // the address stays, to be forwarded
	const link = await fromFragment(fragment);
	if (!link) {
		$("error").textContent = t("bad_link");
		return;
	}
	fill(link.parameters);
	const result = await replay(link, tree, session);
	const { checkpoint, numerics } = result?.request ?? card;
	const there = `${link.checkpoint} ${link.numerics}`;
	const here = `${checkpoint} ${numerics}`;
	const reason = here === there ? "" : ` ${t("replay_other", { here, there })}`;
	if (!result) {
		if ($("error").textContent) $("error").append(reason); // why it may have been refused
		return;
	}
	const { same, sample, at } = result;
	const different = { sample: sample + 1, at: at + 1 };
	$("verdict").textContent = same ? t("replay_identical") : t("replay_different", different) + reason;
	$("verdict").dataset.same = String(same);
}

/**
 * Writes again what a link holds, and compares. Returns whether all samples are the `same`, and if not, the first
 * `sample` that differs and the character `at` which it does; null if it was not written to its end.
 * @param {SharedText} link @param {BranchTree} tree @param {Session} session
 */
async function replay(link, tree, session) {
	const isPageEmpty = tree.branches.length === 1 && tree.active.doc.length === 0;
	const branch = isPageEmpty ? tree.active : tree.add([]);
	branch.doc.splice(0, 0, typed(link.prefix));
	tree.activate(branch);
	const request = await session.write(branch, { ...link.parameters, seed: link.seed });
	if (!request.timing) return null;
	const positions = link.samples.map((sample, i) => difference(textOf(request.runs[i]?.cells ?? []), sample));
	const sample = positions.findIndex((position) => position !== -1);
	return { same: sample === -1, sample, at: positions[sample], request };
}
