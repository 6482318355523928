"""The Lua library: its source, put together from `lua/`, and whether the one a server has is good enough."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from banshee_memory.errors import IncompatibleSchema

TOPICS = (
    *("library", "clock", "idempotency", "emotions", "histories", "index", "memories"),
    *("forgetting", "leases", "settlement", "flush", "letters", "failover"),
)
"""The files in the order in which they build on each other."""


@cache
def source(clock: str | None = None, backlog: int = 0) -> str:
    """The library as FUNCTION LOAD takes it. `backlog`: at how many entries a shard's log takes no more; 0: never.

    `clock` replaces `clock.lua`: the test build injects time there.
    """
    folder = Path(__file__).parents[1] / "lua"
    parts = [clock if clock and topic == "clock" else (folder / f"{topic}.lua").read_text("utf-8") for topic in TOPICS]
    return "\n".join(parts).replace("local BACKLOG = 0\n", f"local BACKLOG = {backlog}\n")


@cache
def shipped_version() -> tuple[int, ...]:
    """The version this package brings."""
    found = re.search(r"VERSION = \{ (\d+), (\d+), (\d+) \}", source())
    assert found
    return tuple(int(part) for part in found.groups())


def must_load(loaded: tuple[int, ...] | None) -> bool:
    """Whether the server's library is missing or older. One with a newer major is somebody else's business."""
    return loaded is None or loaded < shipped_version()


def no_right_to_load(reason: object) -> IncompatibleSchema:
    """The error where a server will not take the library."""
    return IncompatibleSchema(
        f"The Lua library {'.'.join(map(str, shipped_version()))} is not on the Redis server and could not be loaded: "
        f"{reason}. Let this user run FUNCTION LOAD, or load it once as another user with `banshee doctor --load`."
    )
