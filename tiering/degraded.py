"""Reads while Redis is away: the same steps, with a Redis that has nothing, and no room to bring anything in.

Every read can do without what is resident, because Redis may let go of what is cold, and without a lease, because Redis
may be full. So nothing is written twice: PostgreSQL answers, as of the last flush.
"""

from __future__ import annotations

import time
from typing import Any, TypeVar

from banshee_memory.cold.reads import Query
from banshee_memory.errors import HotStoreFull
from banshee_memory.hot.calls import Call
from banshee_memory.tiering.steps import Step, Steps, relayed

T = TypeVar("T")
_NOTHING: dict[str, Any] = {"GET": None, "HGETALL": [], "LINDEX": None, "LRANGE": [], "ZRANGE": [], "PEXPIRE": 0}
_MISSES = ("_load_state", "_get_memory", "_retrieve_memory")


def without_redis(steps: Steps[T]) -> Steps[T]:
    """The same steps; what they ask of Redis is answered here, by the local clock."""

    def answer(step: Step) -> Steps[Any]:
        if isinstance(step, Query):
            return (yield step)
        if isinstance(step, list):
            return [_nothing(call) for call in step]
        assert isinstance(step, Call), f"a read does not take the step {step}"
        return _nothing(step)

    return relayed(steps, answer)


def _nothing(call: Call[Any]) -> Any:
    command, name = str(call.command[0]), str(call.command[1])
    if not command.startswith("FCALL"):
        return call.decode(_NOTHING[command])
    if name.endswith("_now"):
        return call.decode(time.time_ns() // 1_000)
    if name.endswith(_MISSES):
        return call.decode(b"MISS")
    raise HotStoreFull("Redis is away, so it has no room")
