"""What is written by hand is the JSON that Python would write."""

import json

from hypothesis import given
from hypothesis import strategies as st

from app.api.logprobs import Alternative, Character, DetailsWriter, json_line
from model.sampling.sampler import Logprob
from model.vocabulary import Vocabulary

AWKWARD = Vocabulary('"\\\n é日🙂')
probabilities = st.floats(0, 1)
alternatives = st.tuples(st.integers(0, len(AWKWARD) - 1), probabilities, probabilities)
logprob_records = st.builds(
    Logprob,
    probability=probabilities,
    final=probabilities,
    rank=st.integers(1, 7),
    entropy=st.floats(0, 20),
    alternatives=st.lists(alternatives, max_size=7).map(tuple),
)


def rounded(value: float) -> float:
    return float(f"{value:.6g}")


@given(pairs=st.lists(st.tuples(st.sampled_from(AWKWARD.characters), logprob_records), max_size=5))
def test_details_are_json_with_six_digits(pairs: list[tuple[str, Logprob]]) -> None:
    text = "".join(character for character, _ in pairs)
    written = DetailsWriter(AWKWARD).write(text, [one for _, one in pairs])
    line = json_line({"text": text}, chars=written)
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == {
        "text": text,
        "chars": [
            {
                "char": character,
                "prob": rounded(one.probability),
                "final": rounded(one.final),
                "rank": one.rank,
                "entropy": rounded(one.entropy),
                "alternatives": [
                    {"char": AWKWARD.characters[i], "prob": rounded(p), "final": rounded(final)}
                    for i, p, final in one.alternatives
                ],
            }
            for character, one in pairs
        ],
    }


def test_details_have_the_fields_of_the_model_that_describes_them() -> None:
    one = Logprob(0.5, 0.25, 1, 2.0, ((0, 0.5, 0.25), (1, 0.1, 0.05)))
    [written] = DetailsWriter(AWKWARD).write("a", [one])
    content = json.loads(written)
    assert Character.model_validate_json(written, strict=True).model_dump() == content
    assert list(content) == list(Character.model_fields)
    assert list(content["alternatives"][0]) == list(Alternative.model_fields)


def test_an_object_without_lists_is_plain_json() -> None:
    assert json_line({"a": 1, "b": "é"}) == '{"a":1,"b":"\\u00e9"}'
