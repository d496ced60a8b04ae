"""How long work is told to end early: by a function that it calls again and again, which raises then."""

from collections.abc import Callable

Proceed = Callable[[], None]


def go_on() -> None:
    """For work that nobody ends early."""
