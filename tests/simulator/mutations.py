"""The code broken on purpose, in ten ways: a simulation that does not notice is too weak.

Each names the text that it replaces, so one that no longer breaks anything fails for that.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from banshee_memory.cold import migrate, schema
from banshee_memory.cold.queries import STATEMENTS, Statement
from banshee_memory.hot import library
from banshee_memory.tiering.batch import Load
from banshee_memory.tiering.drain import Drain


def _replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, f"there is nothing to break: {old!r}"
        text = text.replace(old, new)
    return text


@contextmanager
def _method(owner: type, name: str, changes: dict[str, str]) -> Iterator[None]:
    """A method with another text."""
    method = getattr(owner, name)
    text = textwrap.dedent(inspect.getsource(method))
    space: dict[str, Any] = {}
    exec(_replaced(text, changes), method.__globals__, space)
    with patch.object(owner, name, space[name]):
        yield


@contextmanager
def _statement(name: str, changes: dict[str, str]) -> Iterator[None]:
    """A statement with another text."""
    before = STATEMENTS[name]
    with patch.dict(STATEMENTS, {name: Statement(_replaced(before.sql, changes), before.description)}):
        yield


@contextmanager
def _lua(changes: dict[str, str]) -> Iterator[None]:
    """The library with another text."""
    source = library.source
    with patch.object(library, "source", lambda *known: _replaced(source(*known), changes)):
        yield


@contextmanager
def _schema(changes: dict[str, str]) -> Iterator[None]:
    """A schema with another text."""
    first, *rest = schema.shipped()
    changed = [schema.Migration(first.name, _replaced(first.sql, changes)), *rest]
    with patch.object(migrate, "shipped", lambda: changed):
        yield


def log_read_after_the_watermark() -> AbstractContextManager[None]:
    """The flush passes over what lies below the stamp up to which the shard was flushed before."""
    after = "Load(k, [e for e in head or [] if e.stamp > transaction.held[k.shard]],"
    return _method(Drain, "_read", {"Load(k, head or [],": after})


def ttl_set_before_the_commit() -> AbstractContextManager[None]:
    """Redis is told to forget before PostgreSQL has it for certain."""
    last = 'failpoint("flush.advanced")'
    changes = {last: f"self._mark_clean(loads); {last}", '"flush.committed")\n    self._mark_clean(loads)': '"c")'}
    return _method(Drain, "carry", changes)


def tombstone_dropped() -> AbstractContextManager[None]:
    """A deletion leaves nothing that says so."""
    return _lua({"redis.call('SET', KEYS[1], 'A' .. pack_stamp(ms, seq))": "redis.call('DEL', KEYS[1])"})


def lease_ignored() -> AbstractContextManager[None]:
    """What PostgreSQL said is taken whenever it is offered."""
    return _lua(
        {
            "if redis.call('HGET', KEYS[1], 'lease') ~= ARGV[1] then return REFUSED end": "",
            "if redis.call('GET', KEYS[1]) ~= 'L' .. token then return REFUSED end": "",
            "header.birth .. struct.pack('>I4', header.trims) ~= ARGV[1] then": "false then",
        }
    )


def version_check_removed() -> AbstractContextManager[None]:
    """What is flushed overwrites what is stored, older or newer."""
    return _statement("store_staged", {"excluded.stamp > stored.stamp": "true"})


def letter_torn_up() -> AbstractContextManager[None]:
    """A letter that is to be tried again goes, and the log never hears of it."""
    again = "enter(list, log, letter.kind, letter.agent, entry, at, nil, id_like(log, letter.seq))"
    return _lua({again: ""})


def expired_ones_stay_in_their_list() -> AbstractContextManager[None]:
    """What is beyond retention when it is carried is not stored, and Redis is not told to let go of it."""
    return _method(Load, "_leaving", {"entry.id in self.dead or entry.id in self.expired": "entry.id in self.dead"})


def partition_dropped_too_early() -> AbstractContextManager[None]:
    """The upkeep drops partitions some of which is within retention."""
    return _statement("drop_partition", {"%(cutoff)s": "%(cutoff)s::timestamptz + interval '2 days'"})


def events_dropped_and_not_added_up() -> AbstractContextManager[None]:
    """Nothing remains of events whose partition is dropped."""
    return _schema({"PERFORM banshee_roll_up(child.name);": ""})


def expired_ones_carried() -> AbstractContextManager[None]:
    """The flush carries what is of any age: also again what was carried before its partition was dropped."""
    return _method(Load, "_is_kept", {"kept = days is None or at_us >= now_us - days * DAY_US": "kept = True"})


MUTATIONS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    mutation.__name__: mutation
    for mutation in (
        log_read_after_the_watermark,
        ttl_set_before_the_commit,
        tombstone_dropped,
        lease_ignored,
        version_check_removed,
        letter_torn_up,
        expired_ones_stay_in_their_list,
        partition_dropped_too_early,
        events_dropped_and_not_added_up,
        expired_ones_carried,
    )
}
