"""Reads of which replies are kept, for threads.

They share a connection of their own, on which the server notes what is read (CLIENT TRACKING, RESP3) and says what of
that has changed since. A thread listens while nobody asks. When that connection is lost, so is all that is kept.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from hiredis import ProtocolError

from banshee_memory.errors import ConfigurationError
from banshee_memory.hot import connection
from banshee_memory.hot.cache import ABSENT, Cache, Marked, Told, told_by
from banshee_memory.hot.calls import Argument, Call
from banshee_memory.hot.failover import QUESTIONS
from banshee_memory.hot.faults import LostError, ServerChangedError, ServerError, fault
from banshee_memory.hot.incarnation import objection

if TYPE_CHECKING:
    from banshee_memory.hot.client import HotStore
    from banshee_memory.settings import Durability

T = TypeVar("T")
TRACK: tuple[tuple[Argument, ...], ...] = (("HELLO", 3), ("CLIENT", "TRACKING", "ON"))
"""What a connection begins with of whose reads the server is to keep track."""


def check_tracked(replies: Sequence[Any]) -> None:
    """Whether the answers to that say that it does."""
    for reply in replies:
        if isinstance(reply, ServerError):
            raise ConfigurationError(
                "Settings.client_cache_entries needs a Redis that says what others change, and this one refuses: "
                f"{reply}. Allow its user HELLO and CLIENT TRACKING (`ACL SETUSER <user> +hello +client|tracking`), or "
                "set it to 0."
            ) from reply


def heed(cache: Cache, said: Any) -> None:
    """What follows from what the server says by itself. ProtocolError: that is nothing that one says."""
    if said[0] == b"invalidate":
        keys = said[1]
        if keys is None:
            cache.empty()  # so is the server
        elif isinstance(keys, list) and all(isinstance(key, bytes) for key in keys):
            cache.drop(keys)
        else:
            raise ProtocolError(f"{keys!r} are no keys")


class _Line:
    """The connection, and the thread that listens on it."""

    def __init__(self, hot: HotStore, cache: Cache, patience: float) -> None:
        self.generation = cache.generation
        self._cache = cache
        self._patience = patience
        self._is_recovered = hot.recovery is not None
        self._lock = threading.Lock()
        self._connection = hot.connect(patience)
        self._connection.divert(lambda said: heed(cache, said))
        try:
            check_tracked(self._connection.ask_all(TRACK))
        except BaseException:
            self._connection.close()
            raise
        self._thread = threading.Thread(target=self._listen, name="banshee-memory-cache", daemon=True)
        self._thread.start()

    @property
    def is_on(self) -> bool:
        """Whether what it reads may be kept."""
        return self.generation == self._cache.generation

    def ask_all(self, commands: Sequence[Any]) -> list[Any]:
        """The replies. LostError: it is over."""
        with self._lock:
            try:
                replies = self._connection.ask_all(commands)
                self._connection.take_in()
            except BaseException:
                self._cache.lose(self.generation)
                self.hang_up()
                raise
        return replies

    def end(self) -> None:
        """Closes it, and returns when the thread has ended."""
        self.hang_up()
        self._thread.join()

    def hang_up(self) -> None:
        """Closes it."""
        self._connection.hang_up()

    def _listen(self) -> None:
        seconds = min(self._patience, connection.TRUSTED)
        again = monotonic() + seconds
        try:
            while self.is_on:
                if self._connection.is_spoken_to(seconds):
                    with self._lock:
                        self._connection.take_in()
                if monotonic() >= again:
                    self._ask_again()
                    again = monotonic() + seconds
        except LostError:
            pass
        finally:
            self._cache.lose(self.generation)
            self._connection.close()

    def _ask_again(self) -> None:
        """Whether the server is there, and still the one that is written to."""
        wrong = objection(self.ask_all(QUESTIONS))
        if wrong and self._is_recovered:
            raise LostError(wrong)


class CachedReads:
    """A hot store for reads: a reply that is kept is the server's."""

    def __init__(self, hot: HotStore, cache: Cache, patience: float) -> None:
        self._hot = hot
        self._cache = cache
        self._patience = patience
        self._lock = threading.Lock()
        self._line: _Line | None = None
        _readers.add(self)

    def __del__(self) -> None:
        if self._line is not None:
            self._line.hang_up()  # the thread may never end where the interpreter does

    def run(self, call: Call[T]) -> T:
        """One call; at most one round trip."""
        reply = self._cache.find(call.sent)
        if reply is not ABSENT:
            return call.decode(reply)
        result: T = self._asked([call])[0]
        return result

    def run_all(self, batch: Sequence[Call[Any]]) -> list[Any]:
        """Many calls; at most one round trip."""
        find = self._cache.find
        replies = [find(call.sent) for call in batch]
        if ABSENT in replies:
            return self._asked(batch)
        return [call.decode(reply) for call, reply in zip(batch, replies, strict=True)]

    def run_durably(self, call: Call[T], level: Durability) -> T:
        """See `HotStore.run_durably`."""
        return self._hot.run_durably(call, level)

    def close(self) -> None:
        """Closes its connection and lets go of what is kept."""
        with self._lock:
            line, self._line = self._line, None
            self._cache.lose()
            if line is not None:
                line.end()

    def forget(self) -> None:
        """In a forked child: the connection is the parent's, and nobody listens."""
        self._lock = threading.Lock()
        self._line = None

    def _asked(self, batch: Sequence[Call[Any]]) -> list[Any]:
        asked = [one for call in batch if (one := told_by(call)) is not None]
        if len(asked) == len(batch):
            replies = self._tracked(asked)
            if replies is not None:
                return [call.decode(reply) for call, reply in zip(batch, replies, strict=True)]
        return [self._hot.run(batch[0])] if len(batch) == 1 else self._hot.run_all(batch)

    def _tracked(self, asked: Sequence[Told]) -> list[Any] | None:
        """The replies, kept where they may be. None: the store must be asked as if nothing ever was."""
        try:
            line = self._listened()
            marked = self._cache.ask(asked, line.generation)
            if marked is None:
                return None
            try:
                return self._answered(line, marked)
            finally:
                self._cache.end(marked)
        except ServerChangedError:
            return None
        except LostError as exc:
            if exc.is_late:
                raise fault(exc, self._hot.where) from exc
            return None  # who hung up may listen to another connection

    def _answered(self, line: _Line, marked: Marked) -> list[Any] | None:
        replies = line.ask_all([one.sent for one in marked.told])
        if ServerError in map(type, replies):
            return None  # what the server lacks is mended there
        self._cache.answer(marked, replies)
        return replies

    def _listened(self) -> _Line:
        line = self._line
        if line is not None and line.is_on:
            return line
        with self._lock:
            line = self._line
            if line is None or not line.is_on:
                if line is not None:
                    self._line = None
                    line.end()
                self._line = line = _Line(self._hot, self._cache, self._patience)
        return line


_readers: weakref.WeakSet[CachedReads] = weakref.WeakSet()


def _forget_all() -> None:
    for reader in _readers:
        reader.forget()


os.register_at_fork(after_in_child=_forget_all)
