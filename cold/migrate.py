"""Brings a database to the schema of this version. Connects directly, so give it the server's own URL, not a pooler's.

Each file of `migrations/` is applied in one transaction together with its row of the ledger, which the file itself
writes last: killed at any moment, it was applied or it was not. `psql -1 -f` does the same; what it applied lacks a
checksum until the next `migrate`. One that alters several tables does so in the order in which a flush comes to them
(shards, messages, events, states, memories, agents): in another, PostgreSQL may end one of both as a deadlock. Two
runners wait for each other by an advisory lock, which ends with its connection.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from banshee_memory.cold.queries import STATEMENTS
from banshee_memory.cold.schema import Migration, require_known, require_shards, shipped
from banshee_memory.errors import IncompatibleSchema
from banshee_memory.failpoints import failpoint
from banshee_memory.settings import Settings

if TYPE_CHECKING:
    from banshee_memory.cold.session import BoundedConnection


class Standing(NamedTuple):
    """A migration that this version ships or the database has.

    `pending`: it is to be applied; `unknown`: a newer version applied it, this one does not ship it; `changed`: it was
    applied as another file than this version ships.
    """

    name: str
    applied_at: datetime | None
    state: Literal["applied", "pending", "unknown", "changed"]


class _Entry(NamedTuple):
    checksum: str | None
    applied_at: datetime


def migrate(database_url: str, settings: Settings) -> list[str]:
    """Applies what is missing and fixes the number of shards; returns the names of what was applied now.

    IncompatibleSchema if the database is newer than this code or an applied file has changed since; ConfigurationError
    for another number of shards; ColdStoreUnavailable.
    """
    from banshee_memory.cold.failures import translated
    from banshee_memory.cold.session import server_of

    with translated(server_of(database_url)), _direct(database_url, settings) as connection:
        connection.execute(STATEMENTS["hold_migrations"].sql)
        ledger = _ledger(connection)
        _require_unchanged(ledger)
        applied = [migration.name for migration in shipped() if migration.name not in ledger]
        for migration in shipped():
            _apply(connection, migration, ledger)
        _fix_shards(connection, settings.shards)
        return applied


def status(database_url: str, settings: Settings) -> list[Standing]:
    """Every migration that this version ships or the database has, in their order. Changes nothing."""
    from banshee_memory.cold.failures import translated
    from banshee_memory.cold.session import server_of

    with translated(server_of(database_url)), _direct(database_url, settings) as connection:
        ledger = _ledger(connection)
    checksums = {migration.name: migration.checksum for migration in shipped()}
    return [_standing(name, ledger.get(name), checksums.get(name)) for name in sorted({*ledger, *checksums})]


def _standing(name: str, entry: _Entry | None, checksum: str | None) -> Standing:
    if entry is None:
        return Standing(name, None, "pending")
    if checksum is None:
        return Standing(name, entry.applied_at, "unknown")
    return Standing(name, entry.applied_at, "applied" if entry.checksum in {None, checksum} else "changed")


def _direct(database_url: str, settings: Settings) -> BoundedConnection:
    from banshee_memory.cold.session import BoundedConnection, connection_arguments

    connection = BoundedConnection.connect(**connection_arguments(database_url, settings))
    # Another runner may be long at work, and so may a migration.
    connection.execute("SET statement_timeout = 0")
    return connection


def _ledger(connection: BoundedConnection) -> dict[str, _Entry]:
    if connection.execute(STATEMENTS["ledger_exists"].sql).fetchall() == [(False,)]:
        return {}
    rows = connection.execute(STATEMENTS["ledger"].sql).fetchall()
    return {name: _Entry(checksum, applied_at) for name, checksum, applied_at in rows}


def _require_unchanged(ledger: dict[str, _Entry]) -> None:
    files = {migration.name: migration.checksum for migration in shipped()}
    require_known(list(ledger), list(files))
    for name, entry in ledger.items():
        if entry.checksum not in {None, files[name]}:
            raise IncompatibleSchema(f"{name} was applied as another file than this version ships")


def _apply(connection: BoundedConnection, migration: Migration, ledger: dict[str, _Entry]) -> None:
    with connection.transaction():
        if migration.name not in ledger:
            connection.execute(migration.sql.encode())
            failpoint("migrate.applied")
        connection.execute(STATEMENTS["sign_migration"].sql, {"name": migration.name, "checksum": migration.checksum})
    failpoint("migrate.signed")


def _fix_shards(connection: BoundedConnection, shards: int) -> None:
    with connection.transaction():
        connection.execute(STATEMENTS["fix_shards"].sql, {"shards": shards})
        rows = connection.execute(STATEMENTS["store_shards"].sql).fetchall()
        require_shards(rows[0][0], shards)
        failpoint("migrate.shards_fixed")
        connection.execute(STATEMENTS["add_shards"].sql, {"shards": shards})
