"""Serve: `python -m app --host --port`."""

import sys

from app.server.lifecycle import serve
from app.settings import ServerSettings
from model.cli import run

if __name__ == "__main__":
    sys.exit(run(ServerSettings, serve, sys.argv[1:]))
