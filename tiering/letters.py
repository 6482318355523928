"""Dead letters: finding them, putting them back into the log, giving them up."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from uuid import UUID

from banshee_memory import validation
from banshee_memory.cold import reads
from banshee_memory.errors import ConfigurationError, InvalidInput, shown
from banshee_memory.hot import calls, letters
from banshee_memory.hot.calls import Call
from banshee_memory.hot.flushing import Entry
from banshee_memory.hot.keys import ShardKeys, shard_keys, shard_of
from banshee_memory.records import DeadLetter
from banshee_memory.settings import Settings
from banshee_memory.stamps import stamp_of
from banshee_memory.tiering.steps import Steps

MOST = 100_000
_ID = re.compile(r"(\d{1,5}):(\d{1,15}-\d{1,20})", re.ASCII)
Act = Callable[[ShardKeys, DeadLetter, Entry, int], Call[bool]]


def found(settings: Settings, agent_id: UUID | None, shard: int | None, limit: int) -> Steps[list[DeadLetter]]:
    """The oldest dead letters, of everybody or of an agent or a shard. Judges its arguments before the first step."""
    validation.optional_id("agent_id", agent_id)
    validation.count("limit", limit, low=1, high=MOST)
    if shard is not None:
        validation.count("shard", shard, low=0, high=settings.shards - 1)
    return _found(settings, agent_id, shard, limit)


def _found(settings: Settings, agent_id: UUID | None, shard: int | None, limit: int) -> Steps[list[DeadLetter]]:
    shards = [shard] if shard is not None else range(settings.shards)
    if agent_id is not None:
        shards = [number for number in shards if number == shard_of(agent_id, settings.shards)]
    every = [shard_keys(number) for number in shards]
    types = yield [calls.type_of(keys.dead) for keys in every]
    result: list[DeadLetter] = []
    for keys, kind in zip(every, types, strict=True):
        if kind == "stream":  # another type is told by `banshee doctor`
            result += yield from _of_shard(keys, agent_id, limit)
    return sorted(result, key=lambda letter: (letter.buried_at, letter.shard))[:limit]


def _of_shard(keys: ShardKeys, agent_id: UUID | None, limit: int) -> Steps[list[DeadLetter]]:
    result: list[DeadLetter] = []
    entries: list[Entry] = yield letters.page(keys)
    while entries and len(result) < limit:
        every = [letters.letter_of(keys.shard, entry) for entry in entries]
        result += [letter for letter in every if agent_id in (None, letter.agent_id)]
        entries = yield letters.page(keys, entries[-1].id.decode())
    return result


def retried(settings: Settings, ids: Sequence[str | DeadLetter]) -> Steps[int]:
    """Puts them back into the log, in the order in which they were first written; gives how many were there.

    What is of a life that was forgotten (a replica that was promoted can bring it back) stays where it is.
    """
    return _each(settings, _places(settings, ids), lambda k, letter, _, n: letters.retry(k, letter, n), _living)


def dropped(settings: Settings, ids: Sequence[str | DeadLetter]) -> Steps[int]:
    """Gives them up; gives how many were there."""
    return _each(settings, _places(settings, ids), letters.drop)


def _living(letters: Sequence[DeadLetter]) -> Steps[list[DeadLetter]]:
    """Those whose agents were not forgotten after they were written."""
    tombstones = yield reads.tombstones({letter.agent_id for letter in letters if letter.agent_id is not None})
    return [one for one in letters if one.agent_id not in tombstones or _stamp(one) > tombstones[one.agent_id]]


def _stamp(letter: DeadLetter) -> int:
    try:
        return stamp_of(letter.entry)
    except ValueError:
        return 0


def _each(
    settings: Settings,
    places: Sequence[tuple[ShardKeys, str]],
    act: Act,
    chosen: Callable[[Sequence[DeadLetter]], Steps[Sequence[DeadLetter]]] | None = None,
) -> Steps[int]:
    there: list[tuple[ShardKeys, DeadLetter, Entry]] = []
    for keys, entry_id in places:
        there += [(keys, letters.letter_of(keys.shard, entry), entry) for entry in (yield letters.one(keys, entry_id))]
    if chosen is not None:
        kept = {letter.id for letter in (yield from chosen([letter for _, letter, _ in there]))}
        there = [one for one in there if one[1].id in kept]
    done = 0
    for keys, letter, entry in sorted(there, key=lambda one: _written(one[1])):
        try:
            done += yield act(keys, letter, entry, settings.shards)
        except ConfigurationError:  # a key of another type: it stays where it is, the others go on
            continue
    return done


def _written(letter: DeadLetter) -> tuple[int, ...]:
    return tuple(int(part) for part in letter.entry.split("-") if part.isdecimal())


def _places(settings: Settings, ids: Sequence[str | DeadLetter]) -> list[tuple[ShardKeys, str]]:
    names = dict.fromkeys(one.id if isinstance(one, DeadLetter) else one for one in ids)
    return [_place(settings, name) for name in names]


def _place(settings: Settings, name: object) -> tuple[ShardKeys, str]:
    told = _ID.fullmatch(name) if isinstance(name, str) else None
    if told is None or int(told[1]) >= settings.shards:
        raise InvalidInput("letters", f"{shown(name)} is no id of a dead letter, such as 17:1700000000000-0")
    return shard_keys(int(told[1])), told[2]
