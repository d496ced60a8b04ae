"""Names of environment variables: which are settings, which look like one, and which only begin with the same word.

Only the standard library, so that the container's health check (`python -m app.health`) starts in no time.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches

PREFIX = "soliloquy_"
DEFAULT_PORT = 8000
NEVER_BLANK = frozenset({"api_keys", "api_keys_file"})  # a blank would open a server that somebody meant to close
# The variables that Kubernetes sets in every pod for a Service named soliloquy, or soliloquy-something:
SERVICE = re.compile(
    r"soliloquy(_\w+)?_(service_host|service_port(_\w+)?|port(_[0-9]+_(tcp|udp|sctp)(_(proto|port|addr))?)?)"
)
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")
OTHER_PROGRAMS = (
    *("sample", "verify", "prepare", "train", "evaluate", "import", "plot", "index", "draft"),
    *("average", "distill", "browser_weights", "export"),
    *("benchmark", "ensemble", "page"),
)
OTHER_NAMES = frozenset(
    f"{PREFIX}{name}"
    for name in (
        *("publish", "fuzz_cases", "mutations"),  # of docker-compose.yml and the tests
        *("min_replicas", "max_replicas", "replica_cpus", "replica_gpus"),  # of deploy.ray_serve
    )
)
KEY_LIKE = re.compile(r"key|secret|passw|credential|auth|(api|access|bearer)_?token")
ALIKE = 0.85  # similarity of two names from which one may be a misspelling of the other


def usable(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """The variables, by their names in small letters, without those that are as good as absent.

    Those are blank ones, and the address of a Service that Kubernetes puts where a port is expected.
    """
    found = {}
    for given, value in variables.items():
        name = given.lower()
        blank = value is None or not value.strip()
        if (blank and name.removeprefix(PREFIX) not in NEVER_BLANK) or _is_service_address(name, value):
            continue
        found[name] = value
    return found


def port_of(variables: Mapping[str, str | None]) -> int:
    """The port that a server with these variables listens on.

    Raises:
        ValueError: it is not a number; the server would not start with it either.
    """
    return int(usable(variables).get(f"{PREFIX}port") or DEFAULT_PORT)


def remarks(variables: Mapping[str, str | None], settings: Collection[str]) -> list[str]:
    """Warnings for whoever set these variables: which of them have no effect, and what was perhaps meant."""
    found: list[str] = []
    for name, value in sorted(variables.items()):
        if name.lower() == f"{PREFIX}port" and _is_service_address(name.lower(), value):
            found.append(f"{name}={value} is the address of a Kubernetes Service, not a port: it is left aside")
    for name, meant in _unknown(variables, settings):
        question = f"; did you mean {meant}?" if meant else ""
        found.append(f"{name} is not a setting and has no effect{question}")
    return found


def key_like(variables: Mapping[str, str | None], settings: Collection[str]) -> str | None:
    """A variable that looks as if it held API keys but is not a setting, so that no key would be required."""
    for name, meant in _unknown(variables, settings):
        if meant in ("SOLILOQUY_API_KEYS", "SOLILOQUY_API_KEYS_FILE") or KEY_LIKE.search(name.lower()):
            return name
    return None


def _unknown(variables: Mapping[str, str | None], settings: Collection[str]) -> Iterator[tuple[str, str | None]]:
    """Variables that are named like settings and are none, each with the setting that is most like it, if any."""
    known = [f"{PREFIX}{name}" for name in settings]
    for given, value in sorted(variables.items()):
        name = given.lower()
        is_blank = value is None or not value.strip()
        if is_blank or name in known or _is_for_other_programs(name) or SERVICE.fullmatch(name):
            continue
        has_prefix = name.startswith(PREFIX.rstrip("_"))
        matches = get_close_matches(name, known, n=1, cutoff=0.6 if has_prefix else ALIKE)
        if matches:
            yield given.upper(), matches[0].upper()
        elif has_prefix:
            yield given.upper(), None


def _is_for_other_programs(name: str) -> bool:
    """Whether a variable is a setting of another program of this project."""
    prefixes = tuple(f"{program}_" for program in OTHER_PROGRAMS)
    return name in OTHER_NAMES or name.removeprefix(PREFIX).startswith(prefixes)


def _is_service_address(name: str, value: str | None) -> bool:
    """Whether Kubernetes has set this variable to the address of a Service."""
    return bool(SERVICE.fullmatch(name) and SERVICE_ADDRESS.fullmatch(value or ""))
