"""What connections raise and servers reply, as errors of our tree: `raise fault(exc, where) from exc` at boundaries."""

from __future__ import annotations

from banshee_memory.errors import (
    BansheeError,
    ConfigurationError,
    HotStoreFull,
    HotStoreUnavailable,
    InvalidInput,
)


class ServerError(Exception):
    """An error that the server replied: a value like other replies, until somebody raises it."""


LATE = "it did not answer in time"


class LostError(Exception):
    """The connection cannot be used any more: what was asked may have been done or not."""

    @property
    def is_late(self) -> bool:
        """Whether it was waited for in vain."""
        return str(self) == LATE


class UnsentError(LostError):
    """The server had hung up before the whole command was sent, so it was not done: another connection may be asked."""


class UnseededError(HotStoreUnavailable):
    """A shard's log is not there: PostgreSQL must be asked where its stamps begin. Never leaves the package."""


class BacklogFull(HotStoreFull):
    """Too much waits for PostgreSQL: once some of it is carried, the same write goes through."""


class ServerChangedError(HotStoreUnavailable):
    """The connection leads to a server that is not the one that was written to last; nothing was sent on it."""


class SlotMigratingError(HotStoreUnavailable):
    """The keys of the call are on two nodes at the moment. Nothing was done, and soon it will be: see `steps.drive`."""


class ForeignKeyError(ConfigurationError):
    """A key of ours holds another type: one key, not the server, is at fault, so the flush can leave it out."""


FUNCTION_MISSING = "Function not found"
UNSEEDED = "BANSHEE_UNSEEDED"
BACKLOG = "BANSHEE_BACKLOG"
CHANGED = "BANSHEE_CHANGED"
_READ_ONLY = ("READONLY", "read only replica")
"""The driver takes the code from the text."""
_NOT_NOW = ("LOADING", *_READ_ONLY, "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "BUSY")
_NOT_YOU = ("NOAUTH", "WRONGPASS", "NOPERM", "AUTHENTICATION", "INVALID USERNAME")


def is_function_missing(reply: object) -> bool:
    """Whether an error says that the server lost the library."""
    return isinstance(reply, Exception) and FUNCTION_MISSING in str(reply)


def is_unseeded(reply: object) -> bool:
    """Whether an error says that a log is not there."""
    return isinstance(reply, UnseededError) or (isinstance(reply, Exception) and UNSEEDED in str(reply))


def is_recoverable(reply: object) -> bool:
    """Whether an error says that the server lost something that we can give it back."""
    return is_function_missing(reply) or is_unseeded(reply)


def is_read_only(reply: object) -> bool:
    """Whether an error says that the server follows another now, so connections to it lead nowhere."""
    return isinstance(reply, Exception) and any(words in str(reply) for words in _READ_ONLY)


def fault(exc: Exception, where: str) -> BansheeError:
    """The error of ours that says what happened and what to do."""
    import redis

    text = str(exc)
    if isinstance(exc, (redis.AuthenticationError, redis.exceptions.NoPermissionError)) or text.upper().startswith(
        _NOT_YOU
    ):
        return ConfigurationError(
            f"Redis at {where} refuses this user: {text}. Check REDIS_URL, REDIS_PASSWORD and its rights."
        )
    if isinstance(exc, redis.OutOfMemoryError) or text.startswith("OOM"):
        return HotStoreFull(
            f"Redis at {where} is at its maxmemory; nothing was written. Flush, or give it more memory."
        )
    if text.startswith("MISCONF"):
        return HotStoreFull(
            f"Redis at {where} cannot write to its disk and takes reads only; nothing was written: {text}. "
            "Is there room on its disk?"
        )
    if text.startswith(("TRYAGAIN", "MOVED ", "ASK ")):
        return _elsewhere(text, where)
    if isinstance(exc, (LostError, redis.ConnectionError, redis.TimeoutError)):
        return HotStoreUnavailable(f"Redis at {where} does not answer: {text or type(exc).__name__}. Is it running?")
    return _refusal(text, where)


def _elsewhere(text: str, where: str) -> BansheeError:
    if text.startswith("TRYAGAIN"):
        return SlotMigratingError(f"Redis at {where} moves the keys of this call to another node; nothing was done.")
    return HotStoreUnavailable(
        f"Redis at {where} is a node of a cluster, and the keys of this call are on another ({text}). "
        "Set REDIS_URL to something that finds the node of each key."
    )


def _refusal(text: str, where: str) -> BansheeError:
    if any(code in text for code in (CHANGED, UNSEEDED, BACKLOG, "BANSHEE_INVALID")):
        return _refusal_of_ours(text, where)
    if any(word in text for word in _NOT_NOW):
        return HotStoreUnavailable(f"Redis at {where} does not take the call now: {text}")
    if "WRONGTYPE" in text:
        return ForeignKeyError(f"Redis at {where} holds keys under `banshee:` that are not this library's: {text}")
    if "LFU maxmemory policy" in text:
        return ConfigurationError(f"Redis at {where} does not know what is idle: {text}")
    return HotStoreUnavailable(f"Redis at {where} refused the call: {text}")


def _refusal_of_ours(text: str, where: str) -> BansheeError:
    if CHANGED in text:
        return ServerChangedError(
            f"Redis at {where} is not the server that was written to last; it must be recovered before it is used"
        )
    if UNSEEDED in text:
        return UnseededError(
            f"Redis at {where} lost its logs, or is new; PostgreSQL must be asked before the first write"
        )
    if BACKLOG in text:
        count = text.partition(BACKLOG)[2].split()[0]
        return BacklogFull(
            f"Redis at {where} already holds {count} records of this agent's shard that are not in PostgreSQL yet: its "
            "share of Settings.backlog_limit. Nothing was written. Is PostgreSQL there, and `banshee daemon` at work? "
            "`banshee flush` carries what waits."
        )
    field, _, reason = text.partition("BANSHEE_INVALID ")[2].partition(": ")
    return InvalidInput(field, reason.partition(" script:")[0])
