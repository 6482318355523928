"""What PostgreSQL's errors mean to a caller. Imports the driver: whoever needs it imports it when first connecting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from banshee_memory.errors import BansheeError, ColdStoreUnavailable, ConfigurationError, IncompatibleSchema

_HINTS = {
    "": "Is it running, and does DATABASE_URL name it?",
    "08": "Is it running, and does DATABASE_URL name it?",
    "28": "Check the user and the password in DATABASE_URL.",
    "3D": "Create the database, or correct DATABASE_URL.",
    "53": "The server has reached a limit of its own (connections, memory or disk).",
    "55": "Somebody else holds a lock that the call needs; try again.",
    "57": "It was stopped, or the call took longer than the settings allow.",
}
_SCHEMA_STATES = frozenset({"42P01", "42703", "42883", "3F000"})
_PARTITIONLESS = "23514"


class ConnectionLost(ColdStoreUnavailable):
    """The connection broke under a call; whether the server is there, another connection can tell."""


class Overdue(psycopg.OperationalError):
    """The server took longer than the call may take; the connection was given up."""


@contextmanager
def translated(server: str) -> Iterator[None]:
    """Raises the driver's errors as ours, `from` them."""
    try:
        yield
    except psycopg.Error as exc:
        raise failure_of(exc, server) from exc


def failure_of(exc: psycopg.Error, server: str, *, lost: bool = False) -> BansheeError:
    """Our error for the driver's. `lost`: an open connection broke."""
    state = exc.sqlstate or ""
    said = " ".join(str(exc).split("\nCONTEXT:")[0].split())
    if state in _SCHEMA_STATES:
        return IncompatibleSchema(f"PostgreSQL at {server}: {said}. Run `banshee migrate`.")
    if is_without_partition(exc):
        return IncompatibleSchema(f"PostgreSQL at {server}: {said}. Was a partition detached by hand?")
    if state == "42501":
        return ConfigurationError(f"PostgreSQL at {server}: {said}. Grant it to the role in DATABASE_URL.")
    if state == "42704":
        return ConfigurationError(f"PostgreSQL at {server}: {said}. Is Settings.search_language right?")
    kind = ConnectionLost if lost and not isinstance(exc, Overdue) else ColdStoreUnavailable
    return kind(f"PostgreSQL at {server}: {said}. {_HINTS.get(state[:2], '')}".rstrip())


def is_poison(exc: Exception) -> bool:
    """Whether it is the row that is to blame: what does not encode in Python, and SQLSTATE classes 22, 23 and 54."""
    if not isinstance(exc, psycopg.Error):
        return isinstance(exc, TypeError | ValueError | ArithmeticError | AttributeError | RecursionError)
    if exc.sqlstate is None:
        return isinstance(exc, psycopg.DataError)
    return exc.sqlstate[:2] in {"22", "23", "54"} and not is_without_partition(exc)


def is_without_partition(exc: Exception) -> bool:
    """Whether a row found no partition: the same SQLSTATE as a violated CHECK, but without a constraint."""
    return isinstance(exc, psycopg.Error) and exc.sqlstate == _PARTITIONLESS and exc.diag.constraint_name is None
