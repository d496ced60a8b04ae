"""Work that a training run can do without: when it fails, the run warns in one line and goes on."""

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class BestEffort:
    """Runs optional work; `warn` is called at the first failure of each kind of it."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._failed: set[str] = set()

    def run(self, name: str, work: Callable[[], Result], default: Result) -> Result:
        """Return what `work` returns, or `default` if it raises any exception.

        Args:
            name: the kind of work, as the warning calls it.

        Raises:
            BrokenPipeError: nobody reads the run's output any more, which is no failure of the work.
        """
        try:
            return work()
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - hours of training must not end for optional work
            if name not in self._failed:
                self._failed.add(name)
                reason = " ".join(str(error).split())
                self._warn(f"warning: the run goes on without {name} ({type(error).__name__}: {reason})")
            return default
