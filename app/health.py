"""The container's health check: `python -m app.health` exits with 0 if the server takes requests, else with 1.

It asks at the port that the server's own variables name. It does not import the app, so that it starts quickly.
"""

import os
import sys
from http.client import HTTPException
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from app.environment import port_of

TIMEOUT_SECONDS = 3


def main() -> int:
    """Ask `/health/ready`, without a proxy: Docker sets http_proxy from its client's configuration."""
    try:
        url = f"http://127.0.0.1:{port_of(os.environ)}/health/ready"
        build_opener(ProxyHandler({})).open(url, timeout=TIMEOUT_SECONDS).close()
    except (URLError, HTTPException, OSError, ValueError) as error:
        print(f"not ready: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
