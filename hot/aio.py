"""The asyncio client of the hot tier: what `client.py` is for threads, for the tasks of one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from banshee_memory.errors import BansheeError, HotStoreUnavailable
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls, connection, failover, faults, greeting, incarnation, library
from banshee_memory.hot.aio_rounds import AsyncRounds
from banshee_memory.hot.cache import Cache
from banshee_memory.hot.calls import Argument, Call
from banshee_memory.hot.faults import LostError, ServerError
from banshee_memory.hot.feed import Subscription
from banshee_memory.hot.incarnation import AsyncRecovers
from banshee_memory.hot.location import options, where
from banshee_memory.hot.multiplexer import Multiplexer
from banshee_memory.hot.opening import open_streams
from banshee_memory.hot.replies import pack
from banshee_memory.records import EmotionalEventRecord
from banshee_memory.settings import Durability, Settings

T = TypeVar("T")
_RECOVERIES = 2
"""A server can have lost two things: its library and its logs."""
_MEETINGS = 2
"""The server that took another's place may itself be replaced while it is recovered."""


class AsyncHotStore:
    """Redis, as the rest of the package sees it. Opens nothing until the first call."""

    def __init__(self, url: str, settings: Settings, *, clock: str | None = None) -> None:
        self._url = url
        self._settings = settings
        self._source = library.source(clock, settings.shard_backlog)
        self._where = where(url)
        self._lock = asyncio.Lock()
        self._waiting_lock = asyncio.Lock()
        self._shared: Multiplexer | None = None
        self._waiting: Multiplexer | None = None
        self._rounds = {level: AsyncRounds(partial(self._round, level)) for level in Durability}
        self._offered: set[Durability] = set()
        self._meeting = asyncio.Lock()
        self._meetings = 0
        self.cache: Cache | None = None
        """Replies that are kept, by whoever reads with it (`aio_tracking.py`); here it is told what was written."""
        self.recovery: AsyncRecovers | None = None
        """Mends a server that is not the one that was written to last. None: such a server is used as it is."""

    async def run(self, call: Call[T]) -> T:
        """One round trip."""
        try:
            client = self._shared
            if client is None or not client.is_usable():
                client = await self._client()
            reply = await client.ask(pack(call.sent), call.replies)
            if type(reply) is ServerError:
                reply = await self._recovered(client, call, reply)
            return call.decode(reply)
        except LostError as exc:
            raise faults.fault(exc, self._where) from exc
        finally:
            if self.cache is not None:
                self.cache.wrote([call])

    def asked(self, call: Call[Any]) -> asyncio.Future[Any] | None:
        """What will be replied, if it can be asked at once (else `run` does it); LostError if that does not come.

        An error of the server, as a `ServerError`, is for `recovered`, all else for `call.decode`."""
        client = self._shared
        if client is None or self.cache is not None or not client.is_usable():
            return None
        return client.ask(pack(call.sent), call.replies)

    async def recovered(self, call: Call[T], reply: ServerError) -> T:
        """What a call gives that was replied an error."""
        try:
            return call.decode(await self._recovered(await self._client(), call, reply))
        except LostError as exc:
            raise self.fault(exc) from exc

    def fault(self, exc: LostError | BansheeError) -> BansheeError:
        """What there is to say to a caller."""
        return exc if isinstance(exc, BansheeError) else faults.fault(exc, self._where)

    async def run_all(self, batch: Sequence[Call[Any]]) -> list[Any]:
        """Many calls in one round trip; the first that failed raises, after all were sent."""
        replies = await self._replies(batch)
        client = await self._client()
        return [call.decode(self._checked(client, reply)) for call, reply in zip(batch, replies, strict=True)]

    async def _replies(self, batch: Sequence[Call[Any]]) -> list[Any]:
        try:
            return await self._asked(batch) if batch else []
        finally:
            if self.cache is not None:
                self.cache.wrote(batch)

    async def _asked(self, batch: Sequence[Call[Any]]) -> list[Any]:
        client = await self._client()
        replies = await self._pipeline(client, batch)
        if ServerError not in map(type, replies):
            return replies
        for _ in range(_RECOVERIES):
            refused = [n for n, reply in enumerate(replies) if faults.is_recoverable(reply)]
            if not refused or not await self._recover(client, replies[refused[0]]):
                break
            # What only reads told how it was before: a receipt would be that of no write. The rest was done.
            again = sorted({*refused, *(n for n, call in enumerate(batch) if call.only_reads)})
            for n, reply in zip(again, await self._pipeline(client, [batch[n] for n in again]), strict=True):
                replies[n] = reply
        if any(map(faults.is_read_only, replies)):
            self._leave(client)
        return replies

    async def run_durably(self, call: Call[T], level: Durability) -> T:
        """One write that is SYNCED or REPLICATED when this returns; else DurabilityUnavailable says how far it came.

        Those who write at the same time wait together.
        """
        await self._check_can_give(await self._client(), level)
        result, receipt = await self.run_all([call, calls.receipt_beside(call)])
        if result is not calls.MISS:
            outcome = await self._rounds[level].wait(receipt.shard)
            if isinstance(outcome, BansheeError):
                raise greeting.unconfirmed(level, self._settings, result, receipt) from outcome
            if outcome != receipt.server:
                raise greeting.taken_by_another(result, receipt)
        return result  # type: ignore[no-any-return]

    async def _round(self, level: Durability, _shards: frozenset[int]) -> str | BansheeError:
        """The server on which all that was written before this is as safe as that; else why it is not known.

        WAITAOF and WAIT speak of the writes of their own connection and hold it up, so it does nothing else.
        """
        try:
            async with self._waiting_lock:
                client = self._waiting = await self._waiting_now()
                await self._send(client, calls.barrier())
                server = failover.named_server().decode(await self._ask(client, *failover.named_server().command))
                reply = await self._ask(client, *greeting.waiting(level, self._settings))
        except BansheeError as exc:
            return exc
        if greeting.confirmed(level, self._settings, reply):
            return server
        return HotStoreUnavailable(f"Redis at {self._where} answered {reply} when the time was up")

    async def _waiting_now(self) -> Multiplexer:
        held = self._waiting
        return held if held is not None and held.is_alive() else await self._met(self._connect)

    async def info(self) -> dict[str, str]:
        """INFO, for reports."""
        return greeting.parse_info(await self._ask(await self._client(), "INFO"))

    async def load_library(self) -> None:
        """Loads this package's library, whatever is there."""
        client = self._shared if self._shared and self._shared.is_alive() else await self._met(self._connect)
        try:
            await self._load(client)
        finally:
            if client is not self._shared:
                await client.aclose()

    async def subscribe(self, subscription: Subscription) -> AsyncIterator[EmotionalEventRecord]:
        """The feed, on a connection of its own, for as long as it is read."""
        client = await self.connect()
        try:
            for event in subscription.begun([await self._ask(client, *command) for command in subscription.begin()]):
                yield event
            while True:
                for event in subscription.came(await self._ask(client, *subscription.wait())):
                    yield event
        finally:
            await client.aclose()

    async def aclose(self) -> None:
        """Closes every connection; the next call opens new ones."""
        async with self._lock, self._waiting_lock:
            for client in (self._shared, self._waiting):
                if client is not None:
                    await client.aclose()
            self._shared = self._waiting = None
            self._offered.clear()

    @property
    def where(self) -> str:
        """Where it is, for messages."""
        return self._where

    async def connect(self, patience: float | None = None) -> Multiplexer:
        """A connection of their own for who asks or listens besides; `patience`: seconds it waits for the server."""
        await self._client()
        return await self._met(partial(self._connect, patience))

    async def _client(self) -> Multiplexer:
        """The connection that tasks share, once it has room; another one if it was lost."""
        while True:
            client = self._shared
            if client is not None and client.is_alive():
                if not client.is_full:
                    return client
                await client.room()
                continue
            async with self._lock:
                if self._shared is client:
                    self._shared = await self._met(self._greeted if client is None else self._connect)

    async def _connect(self, patience: float | None = None) -> Multiplexer:
        from redis.asyncio.retry import Retry

        chosen = options(self._settings, self._url, Retry)
        with self._faults():
            made = Multiplexer(*await open_streams(self._url, chosen), patience or chosen["socket_timeout"])
        if self.recovery is not None:
            await self._greet(made)
            made.loop.call_later(connection.TRUSTED, self._ask_again, made)
        return made

    def _ask_again(self, made: Multiplexer) -> None:
        """What a server is asked first, it is asked now and then; see `connection.TRUSTED`."""
        if made.is_alive():
            made.ask_all(failover.QUESTIONS).add_done_callback(partial(self._judge, made))

    def _judge(self, made: Multiplexer, asked: asyncio.Future[list[Any]]) -> None:
        if asked.cancelled() or asked.exception() is not None:
            return  # the connection is over
        if incarnation.objection(asked.result()):
            made.retire()  # the next call connects anew
        else:
            made.loop.call_later(connection.TRUSTED, self._ask_again, made)

    async def _greet(self, made: Multiplexer) -> None:
        """What every new connection begins with: is this the server that was written to last?"""
        try:
            with self._faults():
                replies = await made.ask_all(failover.QUESTIONS)
            wrong = incarnation.objection([self._checked(made, reply) for reply in replies])
            if wrong:
                raise faults.fault(ServerError(wrong), self._where)
        except BaseException:
            made.end("it was not greeted")
            raise

    async def _greeted(self) -> Multiplexer:
        client = await self._connect()
        try:
            greeting.check_policy(greeting.parse_info(await self._ask(client, "INFO", "memory")))
            loaded = calls.version().decode(await self._send(client, calls.version()))
            if library.must_load(loaded):
                await self._load(client)
            fixed = calls.fixed_shards()
            greeting.check_shards(self._settings.shards, fixed.decode(await self._send(client, fixed)))
        except BaseException:
            client.end("it was not greeted")
            raise
        return client

    async def _send(self, client: Multiplexer, call: Call[Any]) -> Any:
        with self._faults():
            reply = await client.ask(pack(call.sent), call.replies)
        return await self._recovered(client, call, reply) if type(reply) is ServerError else reply

    async def _recovered(self, client: Multiplexer, call: Call[Any], reply: Any) -> Any:
        """The reply once the server has back what it lost; raises an error that is not for us to mend."""
        for _ in range(_RECOVERIES):
            if not faults.is_recoverable(reply) or not await self._recover(client, reply):
                break
            with self._faults():
                reply = await client.ask(pack(call.sent), call.replies)
        return self._checked(client, reply)

    async def _recover(self, client: Multiplexer, exc: Exception) -> bool:
        """Mends what the server lost, its library or its logs; False where that is not for us to mend."""
        if faults.is_function_missing(exc):
            await self._load(client)
            return True
        if self.recovery is None:
            return False
        await self.recovery.admit()
        self._lose()
        return True

    async def _ask(self, client: Multiplexer, *command: Argument) -> Any:
        with self._faults():
            return self._checked(client, await client.ask(pack(command)))

    async def _pipeline(self, client: Multiplexer, batch: Sequence[Call[Any]]) -> list[Any]:
        with self._faults():
            return await client.ask_all([call.sent for call in batch])

    # --- another server than before ---

    async def _meet(self) -> None:
        """Recovers the server that the URL leads to now; once for all tasks that meet it at a time."""
        seen = self._meetings
        async with self._meeting:
            if self.recovery is not None and self._meetings == seen:
                await self.recovery.meet()
                self._lose()
                self._meetings += 1
                self._offered.clear()

    async def _met(self, send: Callable[[], Awaitable[T]]) -> T:
        """Sends, to a server that may be another than before: nothing went to that one, so it can be sent again."""
        for _ in range(_MEETINGS):
            try:
                return await send()
            except faults.ServerChangedError:
                pass  # not from within the handler: what fails then has nothing to do with it
            await self._meet()
        return await send()

    def _checked(self, client: Multiplexer, reply: Any) -> Any:
        if isinstance(reply, ServerError):
            if faults.is_read_only(reply):
                self._leave(client)
            raise faults.fault(reply, self._where) from reply
        return reply

    def _leave(self, client: Multiplexer) -> None:
        """The server follows another now: the next call connects anew, and asks which server it meets."""
        client.retire()
        self._lose()

    def _lose(self) -> None:
        if self.cache is not None:
            self.cache.lose()

    async def _load(self, client: Multiplexer) -> None:
        with self._faults():
            reply = await client.ask(pack(("FUNCTION", "LOAD", "REPLACE", self._source)))
        if isinstance(reply, ServerError):
            raise library.no_right_to_load(reply) from reply
        failpoint("library.loaded_by_task")

    async def _check_can_give(self, client: Multiplexer, level: Durability) -> None:
        if level in self._offered:
            return
        info = greeting.parse_info(await self._ask(client, "INFO"))
        waitaof = await self._ask(client, "COMMAND", "INFO", "WAITAOF")
        greeting.check_can_give(level, self._settings, info, waitaof)
        self._offered.add(level)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        from redis import RedisError

        try:
            yield
        except (LostError, RedisError) as exc:
            raise faults.fault(exc, self._where) from exc
