"""The sync client of the hot tier: runs plans on held connections. Safe to share between threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from banshee_memory.errors import BansheeError, HotStoreUnavailable
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls, failover, faults, greeting, incarnation, library
from banshee_memory.hot.cache import Cache
from banshee_memory.hot.calls import Argument, Call
from banshee_memory.hot.connection import Connection, Pool
from banshee_memory.hot.faults import LostError, ServerError
from banshee_memory.hot.feed import Subscription
from banshee_memory.hot.incarnation import Recovers
from banshee_memory.hot.location import options, where
from banshee_memory.hot.opening import open_socket
from banshee_memory.hot.rounds import Rounds
from banshee_memory.records import EmotionalEventRecord
from banshee_memory.settings import Durability, Settings

T = TypeVar("T")
Asked = Pool | Connection
_UNSENT = ServerError("The connection leads to another server than before.")
_RECOVERIES = 2
"""A server can have lost two things: its library and its logs."""
_MEETINGS = 2
"""The server that took another's place may itself be replaced while it is recovered."""


class HotStore:
    """Redis, as the rest of the package sees it. Opens nothing until the first call."""

    def __init__(self, url: str, settings: Settings, *, clock: str | None = None) -> None:
        self._url = url
        self._settings = settings
        self._clock = clock
        self._source = library.source(clock, settings.shard_backlog)
        self._where = where(url)
        self._lock = threading.RLock()
        self._waiting_lock = threading.Lock()
        self._pooled: Pool | None = None
        self._waiting: Connection | None = None
        self._rounds = {level: Rounds(partial(self._round, level)) for level in Durability}
        self._offered: set[Durability] = set()
        self._meeting = threading.RLock()
        self._meetings = 0
        self._strict = threading.local()
        self.cache: Cache | None = None
        """Replies that are kept, by whoever reads with it (`tracking.py`); here it is told what was written."""
        self.recovery: Recovers | None = None
        """Mends a server that is not the one that was written to last. None: such a server is used as it is."""

    def run(self, call: Call[T]) -> T:
        """One round trip."""
        try:
            client = self._pooled or self._client()
            try:
                reply = client.ask(call.sent, call.replies)
            except LostError as exc:
                raise faults.fault(exc, self._where) from exc
            except faults.ServerChangedError:
                reply = _UNSENT  # not from within the handler: what fails then has nothing to do with it
            if type(reply) is ServerError:
                reply = self._send(client, call) if reply is _UNSENT else self._recovered(client, call, reply)
            return call.decode(reply)
        finally:
            if self.cache is not None:
                self.cache.wrote([call])

    def run_all(self, batch: Sequence[Call[Any]]) -> list[Any]:
        """Many calls in one round trip; the first that failed raises, after all were sent."""
        replies = self._replies(batch)
        client = self._client()
        return [call.decode(self._checked(client, reply)) for call, reply in zip(batch, replies, strict=True)]

    def try_all(self, batch: Sequence[Call[Any]]) -> list[Any]:
        """Many calls in one round trip; a call that failed gives its error."""
        replies = self._replies(batch)
        return [
            faults.fault(reply, self._where) if isinstance(reply, ServerError) else call.decode(reply)
            for call, reply in zip(batch, replies, strict=True)
        ]

    def _replies(self, batch: Sequence[Call[Any]]) -> list[Any]:
        try:
            return self._asked(batch) if batch else []
        finally:
            if self.cache is not None:
                self.cache.wrote(batch)

    def _asked(self, batch: Sequence[Call[Any]]) -> list[Any]:
        client = self._client()
        replies = self._pipeline(client, batch)
        if ServerError not in map(type, replies):
            return replies
        for _ in range(_RECOVERIES):
            refused = [n for n, reply in enumerate(replies) if faults.is_recoverable(reply)]
            if not refused or not self._recover(client, replies[refused[0]]):
                break
            # What only reads told how it was before: a receipt would be that of no write. The rest was done.
            again = sorted({*refused, *(n for n, call in enumerate(batch) if call.only_reads)})
            for n, reply in zip(again, self._pipeline(client, [batch[n] for n in again]), strict=True):
                replies[n] = reply
        if any(map(faults.is_read_only, replies)):
            self._leave(client)
        return replies

    def run_durably(self, call: Call[T], level: Durability) -> T:
        """One write that is SYNCED or REPLICATED when this returns; else DurabilityUnavailable says how far it came.

        Those who write at the same time wait together.
        """
        self._check_can_give(self._client(), level)
        result, receipt = self.run_all([call, calls.receipt_beside(call)])
        if result is not calls.MISS:
            outcome = self._rounds[level].wait(receipt.shard)
            if isinstance(outcome, BansheeError) or outcome is None:
                raise greeting.unconfirmed(level, self._settings, result, receipt) from outcome
            if outcome != receipt.server:
                raise greeting.taken_by_another(result, receipt)
        return result  # type: ignore[no-any-return]

    def _round(self, level: Durability, _shards: frozenset[int]) -> str | BansheeError:
        """The server on which all that was written before this is as safe as that; else why it is not known.

        WAITAOF and WAIT speak of the writes of their own connection and hold it up, so it does nothing else.
        """
        try:
            with self._waiting_lock:
                client = self._waiting = self._waiting_now()
                self._send(client, calls.barrier())
                server = failover.named_server().decode(self._ask(client, *failover.named_server().command))
                reply = self._ask(client, *greeting.waiting(level, self._settings))
        except BansheeError as exc:
            return exc
        if greeting.confirmed(level, self._settings, reply):
            return server
        return HotStoreUnavailable(f"Redis at {self._where} answered {reply} when the time was up")

    def _waiting_now(self) -> Connection:
        held = self._waiting
        return held if held is not None and held.is_usable() else self._met(self._connect)

    def info(self) -> dict[str, str]:
        """INFO, for reports."""
        return greeting.parse_info(self._ask(self._client(), "INFO"))

    def keys(self, pattern: str) -> Iterator[bytes]:
        """Keys by SCAN: for sampling and for tests, never on a hot path."""
        client, cursor = self._client(), b"0"
        while True:
            cursor, found = self._ask(client, "SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            yield from found
            if cursor == b"0":
                return

    def load_library(self) -> None:
        """Loads this package's library, whatever is there."""
        client = self._pooled or self._met(self._connect)
        try:
            self._load(client)
        finally:
            if client is not self._pooled:
                client.close()

    def subscribe(self, subscription: Subscription) -> Iterator[EmotionalEventRecord]:
        """The feed, on a connection of its own, for as long as it is read."""
        client = self.connect()
        try:
            yield from subscription.begun([self._ask(client, *command) for command in subscription.begin()])
            while True:
                yield from subscription.came(self._ask(client, *subscription.wait()))
        finally:
            client.close()

    def close(self) -> None:
        """Closes every connection; the next call opens new ones."""
        with self._lock, self._waiting_lock:
            for client in (self._pooled, self._waiting):
                if client is not None:
                    client.close()
            self._pooled = self._waiting = None
            self._offered.clear()

    @property
    def where(self) -> str:
        """Where it is, for messages."""
        return self._where

    def connect(self, patience: float | None = None) -> Connection:
        """A connection of their own for who asks or listens besides; `patience`: seconds it waits for the server."""
        self._client()
        return self._met(partial(self._connect, patience))

    def _client(self) -> Pool:
        if self._pooled is None:
            with self._lock:
                if self._pooled is None:
                    self._pooled = self._greeted()
        return self._pooled

    def _connect(self, patience: float | None = None) -> Connection:
        from redis.retry import Retry

        chosen = options(self._settings, self._url, Retry)
        with self._faults():
            made = Connection(open_socket(self._url, chosen), patience or chosen["socket_timeout"])
        if self.recovery is not None:
            self._greet(made)
        return made

    def _greet(self, made: Connection) -> None:
        """What every new connection begins with: is this the server that was written to last?"""
        try:
            with self._faults():
                replies = made.ask_all(failover.QUESTIONS)
            wrong = incarnation.objection([self._checked(made, reply) for reply in replies])
            if wrong:
                raise faults.fault(ServerError(wrong), self._where)
        except BaseException:
            made.close()
            raise

    def _is_right(self, held: Connection) -> bool:
        """The same, of a connection that was greeted a while ago."""
        return self.recovery is None or not incarnation.objection(held.ask_all(failover.QUESTIONS))

    def _greeted(self) -> Pool:
        client = Pool(self._connect, self._is_right)
        try:
            greeting.check_policy(greeting.parse_info(self._ask(client, "INFO", "memory")))
            loaded = calls.version().decode(self._send(client, calls.version()))
            if library.must_load(loaded):
                self._load(client)
            fixed = calls.fixed_shards()
            greeting.check_shards(self._settings.shards, fixed.decode(self._send(client, fixed)))
        except BaseException:
            client.close()
            raise
        return client

    def _send(self, client: Asked, call: Call[Any]) -> Any:
        reply = self._reply(client, call.sent, call.replies)
        return self._recovered(client, call, reply) if type(reply) is ServerError else reply

    def _recovered(self, client: Asked, call: Call[Any], reply: Any) -> Any:
        """The reply once the server has back what it lost; raises an error that is not for us to mend."""
        for _ in range(_RECOVERIES):
            if not faults.is_recoverable(reply) or not self._recover(client, reply):
                break
            reply = self._reply(client, call.sent, call.replies)
        return self._checked(client, reply)

    def _recover(self, client: Asked, exc: Exception) -> bool:
        """Mends what the server lost, its library or its logs; False where that is not for us to mend."""
        if faults.is_function_missing(exc):
            self._load(client)
            return True
        if self.recovery is None or self._is_strict():
            return False
        self._admit()
        return True

    def _admit(self) -> None:
        if self.recovery is not None:
            self.recovery.admit()
            self._lose()

    def _ask(self, client: Asked, *command: Argument) -> Any:
        return self._checked(client, self._reply(client, command))

    def _reply(self, client: Asked, command: tuple[Argument, ...] | bytes, replies: int = 1) -> Any:
        """The reply, an error of the server as a value; also where the server is another than before."""
        try:
            return client.ask(command, replies)
        except LostError as exc:
            raise faults.fault(exc, self._where) from exc
        except faults.ServerChangedError:
            pass  # not from within the handler: what fails then has nothing to do with it

        def send() -> Any:
            with self._faults():
                return client.ask(command, replies)

        return self._met(send)

    def _pipeline(self, client: Asked, batch: Sequence[Call[Any]]) -> list[Any]:
        commands = [call.sent for call in batch]

        def send() -> list[Any]:
            with self._faults():
                return client.ask_all(commands)

        return self._met(send)

    # --- another server than before ---

    def sibling(self) -> HotStore:
        """Another client of the same server, which uses it as it is: for who recovers it."""
        return HotStore(self._url, self._settings, clock=self._clock)

    def recovering(self, work: Callable[[], T]) -> T:
        """Work that holds rows in PostgreSQL; again, if it met a server that must be recovered. Within, in this thread,
        such a server is an error: a recovery needs those rows, so it comes when they are let go of."""
        try:
            with self._strictly():
                return work()
        except faults.ServerChangedError:
            recover = self.meet
        except faults.UnseededError:
            recover = self._admit
        recover()
        with self._strictly():
            return work()

    @contextmanager
    def _strictly(self) -> Iterator[None]:
        self._strict.on = True
        try:
            yield
        finally:
            self._strict.on = False

    def meet(self) -> None:
        """Recovers the server that the URL leads to now; once for all threads that meet it at a time."""
        seen = self._meetings
        with self._meeting:
            if self.recovery is not None and self._meetings == seen:
                self.recovery.meet()
                self._lose()
                self._meetings += 1
                self._offered.clear()

    def _met(self, send: Callable[[], T]) -> T:
        """Sends, to a server that may be another than before: nothing went to that one, so it can be sent again."""
        for _ in range(_MEETINGS):
            try:
                return send()
            except faults.ServerChangedError:
                if self._is_strict():
                    raise
            self.meet()
        return send()

    def _is_strict(self) -> bool:
        return getattr(self._strict, "on", False)

    def _checked(self, client: Asked, reply: Any) -> Any:
        if isinstance(reply, ServerError):
            if faults.is_read_only(reply):
                self._leave(client)
            raise faults.fault(reply, self._where) from reply
        return reply

    def _leave(self, client: Asked) -> None:
        """The server follows another now: the next call connects anew, and asks which server it meets."""
        client.close()
        self._lose()

    def _lose(self) -> None:
        if self.cache is not None:
            self.cache.lose()

    def _load(self, client: Asked) -> None:
        reply = self._reply(client, ("FUNCTION", "LOAD", "REPLACE", self._source))
        if isinstance(reply, ServerError):
            raise library.no_right_to_load(reply) from reply
        failpoint("library.loaded")

    def _check_can_give(self, client: Asked, level: Durability) -> None:
        if level in self._offered:
            return
        info = greeting.parse_info(self._ask(client, "INFO"))
        waitaof = self._ask(client, "COMMAND", "INFO", "WAITAOF")
        greeting.check_can_give(level, self._settings, info, waitaof)
        self._offered.add(level)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        from redis import RedisError

        try:
            yield
        except (LostError, RedisError) as exc:
            raise faults.fault(exc, self._where) from exc
