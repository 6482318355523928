"""Logic of several steps, written once for both clients.

A generator yields what it needs done (a call to Redis, several in one round trip, a write of some durability, a query
to PostgreSQL, a pause) and is sent the result, or is thrown the error. The drivers below are all that differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from banshee_memory.cold.reads import Query
from banshee_memory.errors import BansheeError
from banshee_memory.failpoints import failpoint
from banshee_memory.hot.calls import Call
from banshee_memory.hot.faults import SlotMigratingError
from banshee_memory.settings import Durability

if TYPE_CHECKING:
    from banshee_memory.cold.client import AsyncColdStore, ColdStore
    from banshee_memory.hot.aio import AsyncHotStore
    from banshee_memory.hot.aio_tracking import AsyncCachedReads
    from banshee_memory.hot.client import HotStore
    from banshee_memory.hot.tracking import CachedReads

T = TypeVar("T")


_MIGRATION = tuple(0.01 * 2**n for n in range(8))
"""The pauses, in seconds, in which a call waits for the keys of a migrating slot to be on one node."""


@dataclass(frozen=True, slots=True)
class Durably:
    """A write that must be safer than HOT. COLD is HOT and then a flush, which the plugin adds."""

    call: Call[Any]
    level: Durability


@dataclass(frozen=True, slots=True)
class Pause:
    """So many seconds in which nothing is asked of either store."""

    seconds: float


Step = Call[Any] | list[Call[Any]] | Durably | Query[Any] | Pause
Steps = Generator[Step, Any, T]


def write(call: Call[Any], level: Durability) -> Step:
    """The step of a write."""
    return call if level is Durability.HOT else Durably(call, level)


def relayed(steps: Steps[T], answer: Callable[[Step], Steps[Any]]) -> Steps[T]:
    """The same steps, each of them answered by what `answer` makes of it."""
    try:
        step = next(steps)
        while True:
            try:
                result = yield from answer(step)
            except BansheeError as exc:
                step = steps.throw(exc)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def resumed(steps: Steps[T], outcome: Any) -> Steps[T]:
    """The same steps, the first of which was done already: with this result, or this error."""
    if isinstance(outcome, SlotMigratingError):
        return steps  # which waits until the slot is where it goes to
    is_first = True

    def answer(step: Step) -> Steps[Any]:
        nonlocal is_first
        if not is_first:
            return (yield step)
        is_first = False
        if isinstance(outcome, BansheeError):
            raise outcome
        return outcome

    return relayed(steps, answer)


def drive(steps: Steps[T], hot: HotStore | CachedReads, cold: ColdStore) -> T:
    """Runs the steps here and now."""
    try:
        step = next(steps)
        while True:
            try:
                result = _do(step, hot, cold)
            except SlotMigratingError as exc:
                answer = _done_later(step, hot, cold, exc)
                step = steps.throw(answer) if isinstance(answer, BansheeError) else steps.send(answer)
            except BansheeError as exc:
                step = steps.throw(exc)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def _do(step: Step, hot: HotStore | CachedReads, cold: ColdStore) -> Any:
    if isinstance(step, Call):
        return hot.run(step)
    if isinstance(step, Query):
        return cold.fetch(step)
    if isinstance(step, Durably):
        return hot.run_durably(step.call, step.level)
    if isinstance(step, Pause):
        return time.sleep(step.seconds)
    return hot.run_all(step)


def _done_later(step: Step, hot: HotStore | CachedReads, cold: ColdStore, refusal: BansheeError) -> Any:
    """What a step gives once its slot is where it goes to, or why it gives nothing."""
    for seconds in _MIGRATION:
        _do(Pause(seconds), hot, cold)
        try:
            return _do(step, hot, cold)
        except SlotMigratingError as exc:
            refusal = exc
        except BansheeError as exc:
            return exc
    return refusal


def drive_together(many: Sequence[Steps[Any]], hot: HotStore, cold: ColdStore) -> list[Any]:
    """Runs several side by side, in their order: what they ask of Redis at one time goes in one round trip.

    The first that fails ends them all, so what the others wrote by then stays.
    """
    lanes = [_Lane(steps) for steps in many]
    while waiting := [lane for lane in lanes if lane.step is not None]:
        replies = iter(hot.try_all([call for lane in waiting for call in lane.calls]))
        failpoint("together.asked")
        for lane in waiting:
            own = list(islice(replies, len(lane.calls)))
            lane.answer(_as_asked(lane.step, own) if own else _tried(lane.step, hot, cold))
    return [lane.result for lane in lanes]


def side_by_side(*many: Steps[Any]) -> Steps[list[Any]]:
    """Runs several that begin with reads of Redis: those in one round trip, what comes after one after the other."""
    lanes = [_Lane(steps) for steps in many]
    replies = iter((yield [call for lane in lanes for call in lane.calls]))
    for lane in lanes:
        lane.answer(_as_asked(lane.step, list(islice(replies, len(lane.calls)))))
    for lane in lanes:
        while lane.step is not None:
            try:
                lane.answer((yield lane.step))
            except BansheeError as exc:
                lane.answer(exc)
    return [lane.result for lane in lanes]


def _as_asked(step: Step, replies: list[Any]) -> Any:
    """The reply to a call; of several all replies, or the first error."""
    if isinstance(step, Call):
        return replies[0]
    return next((reply for reply in replies if isinstance(reply, BansheeError)), replies)


def _tried(step: Step, hot: HotStore, cold: ColdStore) -> Any:
    """What a step gives, or its error: that is for the lane that asked, which may know what to do without."""
    try:
        return _do(step, hot, cold)
    except BansheeError as exc:
        return exc


class _Lane:
    """One of several that are driven together: the step it waits for (None: it has ended), and its result."""

    def __init__(self, steps: Steps[Any]) -> None:
        self.step: Any = None
        self.result: Any = None
        self._steps = steps
        self._move(lambda: next(steps))

    @property
    def calls(self) -> Sequence[Call[Any]]:
        """What it asks of Redis now."""
        if isinstance(self.step, Call):
            return [self.step]
        return self.step if isinstance(self.step, list) else []

    def answer(self, reply: Any) -> None:
        """Goes on to the next step."""
        if isinstance(reply, BansheeError):
            self._move(lambda: self._steps.throw(reply))
        else:
            self._move(lambda: self._steps.send(reply))

    def _move(self, move: Callable[[], Step]) -> None:
        try:
            self.step = move()
        except StopIteration as stop:
            self.step, self.result = None, stop.value


async def adrive(steps: Steps[T], hot: AsyncHotStore | AsyncCachedReads, cold: AsyncColdStore) -> T:
    """Runs the steps in the running event loop."""
    try:
        step = next(steps)
        while True:
            try:
                result = await _ado(step, hot, cold)
            except SlotMigratingError as exc:
                answer = await _adone_later(step, hot, cold, exc)
                step = steps.throw(answer) if isinstance(answer, BansheeError) else steps.send(answer)
            except BansheeError as exc:
                step = steps.throw(exc)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def _adone_later(
    step: Step, hot: AsyncHotStore | AsyncCachedReads, cold: AsyncColdStore, refusal: BansheeError
) -> Any:
    for seconds in _MIGRATION:
        await _ado(Pause(seconds), hot, cold)
        try:
            return await _ado(step, hot, cold)
        except SlotMigratingError as exc:
            refusal = exc
        except BansheeError as exc:
            return exc
    return refusal


async def _ado(step: Step, hot: AsyncHotStore | AsyncCachedReads, cold: AsyncColdStore) -> Any:
    if isinstance(step, Call):
        return await hot.run(step)
    if isinstance(step, Query):
        return await cold.fetch(step)
    if isinstance(step, Durably):
        return await hot.run_durably(step.call, step.level)
    if isinstance(step, Pause):
        import asyncio  # not for those who use threads: it takes its time

        return await asyncio.sleep(step.seconds)
    return await hot.run_all(step)
