"""Which server this is, and whether it is the one that was written to last. Pure; clients ask on each new connection.

The store names the server that is written to. One that was restarted, or that was a replica and was promoted, has the
name of another in its data: it may lack what was written last, and hold what is no longer true.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from banshee_memory.hot.faults import CHANGED, ServerError
from banshee_memory.hot.greeting import parse_info


class Incarnation(NamedTuple):
    """A server's identity, the one that its data names, and whether it only follows another."""

    identity: str
    named: str | None
    is_replica: bool

    @property
    def is_known(self) -> bool:
        """Whether it is the server that was written to last."""
        return self.identity == self.named


def incarnation_of(replies: list[Any]) -> Incarnation:
    """What the answers to `failover.QUESTIONS` say."""
    info, named = parse_info(replies[0]), replies[1]
    # The process, and the history in which it was promoted: one that was demoted and promoted again is the same process
    # with another. Its own history's name says nothing: it changes when a first replica begins to follow.
    identity = f"{info.get('run_id', '')[:12]}.{info.get('master_replid2', '')[:12]}"
    return Incarnation(identity, None if named is None else named.decode(errors="replace"), info.get("role") == "slave")


def objection(replies: list[Any]) -> str | None:
    """Why nothing may be sent on this connection yet, or any more; None: it may."""
    refused = next((reply for reply in replies if isinstance(reply, ServerError)), None)
    if refused is not None:
        return str(refused)
    found = incarnation_of(replies)
    if found.is_replica:  # also one that was demoted, and whose data still names it
        return "READONLY this server is a replica of another: REDIS_URL must name the one that is written to"
    if found.is_known:
        return None
    return f"{CHANGED} this is not the server that was written to last"


class Recovers(Protocol):
    """Mends a server that is not the one that was written to last; only who knows PostgreSQL can."""

    def meet(self) -> None:
        """Before anything is read: lets go of what may be stale on it."""

    def admit(self) -> None:
        """Before anything is written: brings its logs back, with stamps after all that PostgreSQL has."""


class AsyncRecovers(Protocol):
    """The same for tasks."""

    async def meet(self) -> None:
        """Before anything is read."""

    async def admit(self) -> None:
        """Before anything is written."""
