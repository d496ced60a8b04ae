"""A report, and what is sent of it while a text is written, has the fields of the models that describe it."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.api.report_answer import InventedWord, ReportAnswer
from model.analysis.report import LiveMarks, mark_content
from tests.model.analysis.test_report import OTHER, TRAIN, bare_checkpoint, compared_checkpoint
from tests.tiny import report_of

REPEATED = "so we go on and on " * 8


@settings(max_examples=40)
@given(text=st.text(max_size=200), compared=st.booleans(), bits=st.none() | st.floats(0, 20))
@example(text=OTHER, compared=True, bits=2.5)
@example(text=TRAIN[:500] + REPEATED, compared=True, bits=None)
@example(text="ROMEO:\nGrumblish ((wordlish]\n\nNOBODY:\n'tis", compared=False, bits=None)
@example(text="", compared=True, bits=None)
def test_any_report_is_described(text: str, compared: bool, bits: float | None) -> None:
    checkpoint = compared_checkpoint() if compared else bare_checkpoint()
    content = json.loads(json.dumps(report_of(text, checkpoint, bits).content()))
    assert json.loads(ReportAnswer.model_validate(content).model_dump_json()) == content


def test_words_that_come_with_the_text_are_described() -> None:
    index = compared_checkpoint().require_index()
    marks = LiveMarks(index)
    words = (*marks.append(OTHER + " grumblish windowbreaks zzzz ").words, *marks.finish().words)
    invented = [mark_content(word) for word in words if not word.real]
    assert len(invented) >= 3
    for content in invented:
        assert InventedWord.model_validate(content).model_dump() == content
