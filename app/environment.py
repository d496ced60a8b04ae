"""The names of variables: which are settings, which look like one, which only happen to begin with the same word.

Only the standard library, so that the container's health check (`python -m app.health`) starts in no time.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches

PREFIX = "soliloquy_"
DEFAULT_PORT = 8000
NEVER_BLANK = frozenset(
    {"api_keys", "api_keys_file"}
)  # a blank would open the server that somebody wanted to close
# What Kubernetes tells every pod of a Service named soliloquy, or soliloquy-something.
SERVICE = re.compile(
    r"soliloquy(_\w+)?_(service_host|service_port(_\w+)?|port(_[0-9]+_(tcp|udp|sctp)(_(proto|port|addr))?)?)"
)
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")
OTHER_PROGRAMS = (
    *("sample", "verify", "prepare", "train", "evaluate", "import", "plot", "index", "draft"),
    *("benchmark", "page"),
)
OTHER_NAMES = frozenset(
    f"{PREFIX}{name}"
    for name in (
        *("publish", "fuzz_cases", "mutations"),  # of docker-compose.yml and the tests
        *("min_replicas", "max_replicas", "replica_cpus", "replica_gpus"),  # of deploy.ray_serve
    )
)
KEY_LIKE = re.compile(r"key|secret|passw|credential|auth|(api|access|bearer)_?token")
ALIKE = 0.85  # of two names, from which one may be meant for the other


def usable(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """The variables, names in small letters, without those that are as good as absent: blank ones, and the address
    that Kubernetes gives a Service, where a port is expected.
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
        ValueError: it is no number; nor would the server start.
    """
    return int(usable(variables).get(f"{PREFIX}port") or DEFAULT_PORT)


def remarks(variables: Mapping[str, str | None], settings: Collection[str]) -> list[str]:
    """What whoever set these variables should know: which of them have no effect, and what was meant perhaps."""
    said = []
    for name, value in sorted(variables.items()):
        if name.lower() == f"{PREFIX}port" and _is_service_address(name.lower(), value):
            said.append(f"{name}={value} is the address of a Kubernetes Service, not a port: it is left aside")
    for name, meant in _strangers(variables, settings):
        said.append(f"{name} is not a setting and has no effect" + (f"; did you mean {meant}?" if meant else ""))
    return said


def key_like(variables: Mapping[str, str | None], settings: Collection[str]) -> str | None:
    """A variable that somebody may have put API keys into, but that is not a setting: nobody would ask for them."""
    for name, meant in _strangers(variables, settings):
        if meant in ("SOLILOQUY_API_KEYS", "SOLILOQUY_API_KEYS_FILE") or KEY_LIKE.search(name.lower()):
            return name
    return None


def _strangers(variables: Mapping[str, str | None], settings: Collection[str]) -> Iterator[tuple[str, str | None]]:
    """Variables that are named like settings and are none, each with the setting that it is most like, if any."""
    known = [f"{PREFIX}{name}" for name in settings]
    for given, value in sorted(variables.items()):
        name = given.lower()
        others = name in OTHER_NAMES or name.removeprefix(PREFIX).startswith(
            tuple(f"{one}_" for one in OTHER_PROGRAMS)
        )
        if name in known or not (value or "").strip() or others or SERVICE.fullmatch(name):
            continue
        named = name.startswith(PREFIX.rstrip("_"))
        meant = next(iter(get_close_matches(name, known, n=1, cutoff=0.6 if named else ALIKE)), None)
        if named or meant:
            yield given.upper(), meant and meant.upper()


def _is_service_address(name: str, value: str | None) -> bool:
    return bool(SERVICE.fullmatch(name) and SERVICE_ADDRESS.fullmatch(value or ""))
