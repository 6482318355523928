"""Everything this package raises on purpose.

    BansheeError
    ├── InvalidInput            (also a ValueError) the caller's argument; names the field and the limit
    ├── ConfigurationError      what is set, or is missing, on this machine
    ├── HotStoreUnavailable     Redis cannot be reached, or was lost during the call
    ├── HotStoreFull            Redis has no memory for the write, or too much waits for PostgreSQL; nothing was done
    ├── ColdStoreUnavailable    PostgreSQL cannot be reached, or was lost during the call
    ├── IncompatibleSchema      the tables or the Lua library are older or newer than this code
    └── DurabilityUnavailable   the durability asked for cannot be given, or was not confirmed in time

Errors of drivers never leave the package: each is raised `from` the driver's own, at the boundary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from banshee_memory.stamps import Receipt


class BansheeError(Exception):
    """The root of the tree: `except BansheeError` catches all that this package raises on purpose."""


class InvalidInput(BansheeError, ValueError):
    """An argument that is refused, and nothing was done. `field` is its name, `reason` what is wrong and the limit."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason

    def __reduce__(self) -> tuple[type[InvalidInput], tuple[str, str]]:
        return type(self), (self.field, self.reason)


class ConfigurationError(BansheeError):
    """Something to set, install or correct; the message says what."""


class HotStoreUnavailable(BansheeError):
    """Redis did not answer. A write whose call was cut may have been applied: retry it with its idempotency key."""


class HotStoreFull(BansheeError):
    """Redis is at its memory limit, or what waits for PostgreSQL is at `Settings.backlog_limit`; the message says so.

    Nothing of the write was done; reads and flushes go on, and deletions still go through.
    """


class ColdStoreUnavailable(BansheeError):
    """PostgreSQL did not answer, and the call needed something that only it has."""


class IncompatibleSchema(BansheeError):
    """The tables or the Lua library do not match this code; the message says what to run."""


class DurabilityUnavailable(BansheeError):
    """The durability asked for was not reached.

    `applied` tells whether the write itself was done: False where the server can never give the level (nothing was
    sent), True where it did not confirm in time (the write is in Redis and will reach PostgreSQL by the next flush).
    `result` is then what the call would have returned, and `receipt` what `wait_cold` takes.
    """

    def __init__(
        self, message: str, *, applied: bool = False, result: object = None, receipt: Receipt | None = None
    ) -> None:
        super().__init__(message)
        self.applied = applied
        self.result = result
        self.receipt = receipt


def shown(value: object) -> str:
    """A refused value as its message shows it: in short, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python prints
        return f"a {type(value).__name__} of monstrous size"
    return text if len(text) <= 80 else f"{text[:79]}…"
