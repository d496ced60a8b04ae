"""How work learns that it is cancelled: nobody wants its result any more."""

from collections.abc import Callable

CancelCheck = Callable[[], None]
"""A function that the work calls again and again; it raises once the work is cancelled, and so ends it."""


def never_cancelled() -> None:
    """A `CancelCheck` of work that nobody cancels."""
