"""Whether the server in this container takes work: `python -m app.health`; exit code 0 if it does, else 1.

It asks the port that the server's own variables name. Knows nothing of the app, so that it starts in no time.
"""

import os
import sys
from http.client import HTTPException
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from app.environment import port_of

SECONDS = 3


def main() -> int:
    """Ask without a proxy: Docker passes on http_proxy from its client's configuration."""
    try:
        url = f"http://127.0.0.1:{port_of(os.environ)}/health/ready"
        build_opener(ProxyHandler({})).open(url, timeout=SECONDS).close()
    except (URLError, HTTPException, OSError, ValueError) as error:
        print(f"not ready: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
