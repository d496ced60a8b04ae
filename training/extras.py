"""What a training run can do without: where it fails, the run goes on, and says so in one line."""

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class Extras:
    """Makes extras; `warn` hears of the first failure of each."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._failed: set[str] = set()

    def attempt(self, name: str, make: Callable[[], Result], otherwise: Result) -> Result:
        """What `make` returns; `otherwise` if it fails, whatever at."""
        try:
            return make()
        except BrokenPipeError:  # whoever reads what the run says has gone, which is no fault of the extra
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, hours of training are not to end for it
            if name not in self._failed:
                self._failed.add(name)
                reason = " ".join(str(error).split())
                self._warn(f"warning: the run goes on without {name} ({type(error).__name__}: {reason})")
            return otherwise
