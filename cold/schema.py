"""Which schema this code needs: the migrations that it ships, and the number of shards that it was told."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

from banshee_memory.errors import ConfigurationError, IncompatibleSchema


class Migration(NamedTuple):
    """A file of `migrations/`: its name sorts it, its SQL ends by writing its own row of the ledger."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def shipped() -> list[Migration]:
    """The migrations of this version, in their order."""
    folder = resources.files("banshee_memory.cold").joinpath("migrations")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda f: f.name)
    return [Migration(file.name.removesuffix(".sql"), file.read_text("utf-8")) for file in files]


def require_current(applied: Sequence[str], shards: int | None, wanted_shards: int) -> None:
    """IncompatibleSchema if the database is older or newer than this code; ConfigurationError for other shards."""
    known = [migration.name for migration in shipped()]
    missing = [name for name in known if name not in applied]
    if missing:
        raise IncompatibleSchema(f"the database lacks {', '.join(missing)}: run `banshee migrate`")
    require_known(applied, known)
    if shards is None:
        raise IncompatibleSchema("the database was not told its number of shards: run `banshee migrate`")
    require_shards(shards, wanted_shards)


def require_known(applied: Sequence[str], known: Sequence[str]) -> None:
    """IncompatibleSchema if the database is newer than this code."""
    newer = [name for name in applied if name not in known]
    if newer:
        raise IncompatibleSchema(f"the database has {', '.join(newer)}: upgrade banshee-memory")


def require_shards(shards: int, wanted: int) -> None:
    """ConfigurationError if the store was made for another number of shards."""
    if shards != wanted:
        raise ConfigurationError(
            f"this store was made with {shards} shards, Settings.shards is {wanted}: it cannot be changed afterwards"
        )
