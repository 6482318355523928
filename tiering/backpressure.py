"""Back pressure: what a write does that a shard refuses because too much of it waits for PostgreSQL.

A refused write has done nothing, so the same step can be tried again: after a pause, or after somebody made room.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from banshee_memory.hot.faults import BacklogFull
from banshee_memory.tiering.steps import Pause, Step, Steps, relayed

T = TypeVar("T")
Relief = Callable[[BacklogFull], Steps[None]]
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 1.0


def slowed(steps: Steps[T], seconds: float) -> Steps[T]:
    """The same steps; a refused one is tried again, at longer and longer pauses, for so many seconds in all."""
    until: float | None = None
    pause = _FIRST_PAUSE

    def wait(refusal: BacklogFull) -> Steps[None]:
        nonlocal until, pause
        now = time.monotonic()
        until = now + seconds if until is None else until
        if now >= until:
            raise refusal
        yield Pause(min(pause, until - now))
        pause = min(2 * pause, _LONGEST_PAUSE)

    return _relieved(steps, wait)


def emptied(steps: Steps[T], flush: Callable[[], object]) -> Steps[T]:
    """The same steps; before a refused one is tried again, what waits is flushed."""

    def empty(_refusal: BacklogFull) -> Steps[None]:
        flush()
        yield from ()

    return _relieved(steps, empty)


def _relieved(steps: Steps[T], relief: Relief) -> Steps[T]:
    def answer(step: Step) -> Steps[Any]:
        while True:
            try:
                return (yield step)
            except BacklogFull as refusal:
                yield from relief(refusal)

    return relayed(steps, answer)
