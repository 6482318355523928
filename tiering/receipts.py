"""Receipts: what a write that is not cold yet is waited for with."""

from __future__ import annotations

import time
from typing import Any, TypeVar

from banshee_memory.cold import reads
from banshee_memory.errors import ColdStoreUnavailable, DurabilityUnavailable, HotStoreUnavailable
from banshee_memory.hot import calls, failover, flushing
from banshee_memory.hot.calls import MISS
from banshee_memory.hot.greeting import taken_by_another
from banshee_memory.hot.keys import AgentKeys, shard_keys
from banshee_memory.stamps import Receipt
from banshee_memory.tiering.steps import Durably, Pause, Step, Steps, relayed

T = TypeVar("T")
_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.25


class Due:
    """What must be in PostgreSQL before a write counts as done: all of its shard up to the receipt its steps left."""

    def __init__(self, keys: AgentKeys) -> None:
        self.receipt = Receipt(keys.shard, 0)

    def noted(self, steps: Steps[T]) -> Steps[T]:
        """The same steps, whose writes are asked for their receipts in the same round trip."""

        def answer(step: Step) -> Steps[Any]:
            if not isinstance(step, Durably):
                return (yield step)
            result, self.receipt = yield [step.call, calls.receipt_beside(step.call)]
            return result

        return relayed(steps, answer)


def completed(steps: Steps[T]) -> Steps[T]:
    """The same steps, which go on behind a write that was not confirmed: so the error has what the whole call gives.

    A later write that was confirmed speaks for those before it.
    """
    unconfirmed: DurabilityUnavailable | None = None

    def answer(step: Step) -> Steps[Any]:
        nonlocal unconfirmed
        try:
            result = yield step
        except DurabilityUnavailable as exc:
            if not exc.applied:
                raise
            unconfirmed = exc
            return exc.result
        if isinstance(step, Durably) and result is not MISS:
            unconfirmed = None
        return result

    result = yield from relayed(steps, answer)
    if unconfirmed is not None:
        said, receipt = str(unconfirmed), unconfirmed.receipt
        raise DurabilityUnavailable(said, applied=True, result=result, receipt=receipt) from unconfirmed.__cause__
    return result


def receipt(keys: AgentKeys) -> Steps[Receipt]:
    """For all that is acknowledged of the agent so far (and of the others of its shard)."""
    return (yield calls.receipt(keys.log))  # type: ignore[no-any-return]


def wait_cold(given: Receipt, timeout: float) -> Steps[None]:
    """Returns when PostgreSQL has it; DurabilityUnavailable if that takes longer. A store that is away may come back.

    PostgreSQL's stamp of the shard alone does not tell: a promoted replica can hold unflushed entries below it. Nor
    does Redis's log alone, which a loss empties.
    """
    until, pause, why = time.monotonic() + timeout, _FIRST_PAUSE, "it waits in Redis"
    while True:
        try:
            if (yield from _is_cold(given)):
                return
        except (HotStoreUnavailable, ColdStoreUnavailable) as exc:
            why = str(exc)
        left = until - time.monotonic()
        if left <= 0:
            raise DurabilityUnavailable(
                f"Not known to be in PostgreSQL within {timeout:g} s: {why}", applied=True, receipt=given
            )
        yield Pause(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE)


def _is_cold(given: Receipt) -> Steps[bool]:
    if given.stamp and given.server and (yield failover.named_server()) != given.server:
        raise taken_by_another(None, given)
    head = yield flushing.log_head(shard_keys(given.shard), 1, 1)
    if head and head[0].stamp <= given.stamp:
        return False
    return bool((yield reads.shard_stamp(given.shard)) >= given.stamp)
