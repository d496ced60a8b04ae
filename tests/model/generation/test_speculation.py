"""Which draft tokens stand, and when none are proposed; that they change no text is in `test_generator.py`."""

import pytest

from model.backends.base import LinearCosts
from model.generation.speculation import count_accepted, max_draft_tokens


@pytest.mark.parametrize(
    ("draft_tokens", "drawn", "accepted"),
    [([], [4], 0), ([4, 5], [4, 5, 6], 2), ([4, 5], [4, 6, 5], 1), ([4, 5], [5, 5, 5], 0)],
)
def test_draft_tokens_are_accepted_up_to_the_first_that_was_not_drawn(
    draft_tokens: list[int], drawn: list[int], accepted: int
) -> None:
    assert count_accepted(draft_tokens, drawn) == accepted


def test_draft_tokens_are_not_proposed_where_they_would_have_to_be_too_sure() -> None:
    costs = LinearCosts(max_draft_tokens=7, call=4.0, draft_token=1.0)
    assert max_draft_tokens(costs, 1) == 7
    assert max_draft_tokens(costs, 1000) == 0
    assert max_draft_tokens(None, 1) == 0
