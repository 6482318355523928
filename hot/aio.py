"""The asyncio client of the hot tier: what `client.py` is for threads, for the tasks of one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from banshee_memory.errors import BansheeError, HotStoreUnavailable
from banshee_memory.failpoints import failpoint
from banshee_memory.hot import calls, faults, greeting, incarnation, library
from banshee_memory.hot.aio_rounds import AsyncRounds
from banshee_memory.hot.calls import Argument, Call
from banshee_memory.hot.feed import Subscription
from banshee_memory.hot.incarnation import AsyncRecovers
from banshee_memory.hot.location import options, where
from banshee_memory.records import EmotionalEventRecord
from banshee_memory.settings import Durability, Settings

if TYPE_CHECKING:
    import redis.asyncio as aioredis

T = TypeVar("T")
_RECOVERIES = 2
"""A server can have lost two things: its library and its logs."""


class AsyncHotStore:
    """Redis, as the rest of the package sees it. Opens nothing until the first call."""

    def __init__(self, url: str, settings: Settings, *, clock: str | None = None) -> None:
        self._url = url
        self._settings = settings
        self._source = library.source(clock, settings.shard_backlog)
        self._where = where(url)
        self._lock = asyncio.Lock()
        self._waiting_lock = asyncio.Lock()
        self._pooled: aioredis.Redis | None = None
        self._waiting: aioredis.Redis | None = None
        self._rounds = {level: AsyncRounds(partial(self._round, level)) for level in Durability}
        self._offered: set[Durability] = set()
        self._meeting = asyncio.Lock()
        self._meetings = 0
        self.recovery: AsyncRecovers | None = None
        """Mends a server that is not the one that was written to last. None: such a server is used as it is."""

    async def run(self, call: Call[T]) -> T:
        """One round trip."""
        return call.decode(await self._send(await self._client(), call))

    async def run_all(self, batch: Sequence[Call[Any]]) -> list[Any]:
        """Many calls in one round trip; the first that failed raises, after all were sent."""
        replies = await self._replies(batch)
        return [call.decode(self._checked(reply)) for call, reply in zip(batch, replies, strict=True)]

    async def _replies(self, batch: Sequence[Call[Any]]) -> list[Any]:
        if not batch:
            return []
        client = await self._client()
        replies = await self._pipeline(client, batch)
        for _ in range(_RECOVERIES):
            again = [n for n, reply in enumerate(replies) if faults.is_recoverable(reply)]
            if not again or not await self._recover(client, replies[again[0]]):
                break
            # Only what was refused is sent again: the rest was done.
            for n, reply in zip(again, await self._pipeline(client, [batch[n] for n in again]), strict=True):
                replies[n] = reply
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
                client = self._waiting = self._waiting or self._connect(single_connection_client=True)
                await self._send(client, calls.barrier())
                server = calls.named_server().decode(await self._asked(client, *calls.named_server().command))
                reply = await self._asked(client, *greeting.waiting(level, self._settings))
        except BansheeError as exc:
            return exc
        if greeting.confirmed(level, self._settings, reply):
            return server
        return HotStoreUnavailable(f"Redis at {self._where} answered {reply} when the time was up")

    async def info(self) -> dict[str, str]:
        """INFO, for reports."""
        return greeting.parse_info(await self._ask(await self._client(), "INFO"))

    async def load_library(self) -> None:
        """Loads this package's library, whatever is there."""
        await self._load(self._connected())

    async def subscribe(self, subscription: Subscription) -> AsyncIterator[EmotionalEventRecord]:
        """The feed, on a connection of its own, for as long as it is read."""
        await self._client()
        client = self._connect(single_connection_client=True)
        try:
            for event in subscription.begun([await self._ask(client, *command) for command in subscription.begin()]):
                yield event
            while True:
                for event in subscription.came(await self._ask(client, *subscription.wait())):
                    yield event
        finally:
            await client.aclose()
            await client.connection_pool.disconnect()

    async def aclose(self) -> None:
        """Closes every connection; the next call opens new ones."""
        async with self._lock, self._waiting_lock:
            for client in (self._pooled, self._waiting):
                if client is not None:
                    await client.aclose()
                    await client.connection_pool.disconnect()
            self._pooled = self._waiting = None
            self._offered.clear()

    async def _client(self) -> aioredis.Redis:
        if self._pooled is None:
            async with self._lock:
                if self._pooled is None:
                    self._pooled = await self._greeted()
        return self._pooled

    def _connected(self) -> aioredis.Redis:
        return self._pooled or self._connect()

    def _connect(self, **more: Any) -> aioredis.Redis:
        import redis.asyncio as aioredis
        from redis.asyncio.retry import Retry

        with self._faults():
            chosen = options(self._settings, self._url, Retry) | more
            if self.recovery is not None:
                chosen["redis_connect_func"] = self._greet
            client: aioredis.Redis = aioredis.Redis.from_url(self._url, **chosen)
        # Plans read replies themselves; redis-py's own readings differ from command to command.
        client.response_callbacks.clear()
        return client

    async def _greeted(self) -> aioredis.Redis:
        client = self._connect()
        try:
            greeting.check_policy(greeting.parse_info(await self._ask(client, "INFO", "memory")))
            loaded = calls.version().decode(await self._send(client, calls.version()))
            if library.must_load(loaded):
                await self._load(client)
            fixed = calls.fixed_shards()
            greeting.check_shards(self._settings.shards, fixed.decode(await self._send(client, fixed)))
        except BaseException:
            await client.aclose()
            raise
        return client

    async def _send(self, client: aioredis.Redis, call: Call[Any]) -> Any:
        for _ in range(_RECOVERIES):
            try:
                return await self._ask(client, *call.command)
            except HotStoreUnavailable as exc:
                if not faults.is_recoverable(exc) or not await self._recover(client, exc):
                    raise
        return await self._ask(client, *call.command)

    async def _recover(self, client: aioredis.Redis, exc: Exception) -> bool:
        """Mends what the server lost, its library or its logs; False where that is not for us to mend."""
        if faults.is_function_missing(exc):
            await self._load(client)
            return True
        if self.recovery is None:
            return False
        await self.recovery.admit()
        return True

    async def _ask(self, client: aioredis.Redis, *command: Argument) -> Any:
        return await self._met(lambda: self._asked(client, *command))

    async def _asked(self, client: aioredis.Redis, *command: Argument) -> Any:
        try:
            with self._faults():
                return await client.execute_command(*command)  # type: ignore[no-untyped-call]
        except HotStoreUnavailable as exc:
            if faults.is_read_only(exc):
                await self._let_go(client)
            raise

    async def _pipeline(self, client: aioredis.Redis, batch: Sequence[Call[Any]]) -> list[Any]:
        replies = await self._met(lambda: self._piped(client, batch))
        if any(faults.is_read_only(reply) for reply in replies):
            await self._let_go(client)
        return replies

    async def _piped(self, client: aioredis.Redis, batch: Sequence[Call[Any]]) -> list[Any]:
        with self._faults():
            async with client.pipeline(transaction=False) as pipe:
                for call in batch:
                    pipe.execute_command(*call.command)
                return list(await pipe.execute(raise_on_error=False))

    # --- another server than before ---

    async def _meet(self) -> None:
        """Recovers the server that the URL leads to now; once for all tasks that meet it at a time."""
        seen = self._meetings
        async with self._meeting:
            if self.recovery is not None and self._meetings == seen:
                await self.recovery.meet()
                self._meetings += 1
                self._offered.clear()

    async def _met(self, send: Callable[[], Awaitable[T]]) -> T:
        """Sends, to a server that may be another than before: nothing went to that one, so it can be sent again."""
        try:
            return await send()
        except faults.ServerChangedError:
            pass  # not from within the handler: what fails then has nothing to do with it
        await self._meet()
        return await send()

    async def _greet(self, connection: Any) -> None:
        """What every new connection begins with."""
        import redis

        await connection.on_connect()
        await connection.send_packed_command(connection.pack_commands(calls.QUESTIONS))
        wrong = incarnation.objection([await connection.read_response() for _ in calls.QUESTIONS])
        if wrong:
            raise redis.ResponseError(wrong)

    async def _let_go(self, client: aioredis.Redis) -> None:
        """The server follows another now: the next call connects anew, and then asks which server it meets."""
        if client.connection is not None:
            await client.connection.disconnect()
        await client.connection_pool.disconnect(inuse_connections=False)

    def _checked(self, reply: Any) -> Any:
        if isinstance(reply, BansheeError):
            raise reply
        if isinstance(reply, Exception):
            raise faults.fault(reply, self._where) from reply  # type: ignore[arg-type]
        return reply

    async def _load(self, client: aioredis.Redis) -> None:
        await self._met(lambda: self._loaded(client))

    async def _loaded(self, client: aioredis.Redis) -> None:
        import redis

        try:
            await client.execute_command("FUNCTION", "LOAD", "REPLACE", self._source)  # type: ignore[no-untyped-call]
        except redis.ConnectionError as exc:
            raise faults.fault(exc, self._where) from exc
        except redis.RedisError as exc:
            if faults.is_changed(exc):
                raise faults.fault(exc, self._where) from exc
            raise library.no_right_to_load(exc) from exc
        failpoint("library.loaded_by_task")

    async def _check_can_give(self, client: aioredis.Redis, level: Durability) -> None:
        if level in self._offered:
            return
        info = greeting.parse_info(await self._ask(client, "INFO"))
        waitaof = await self._ask(client, "COMMAND", "INFO", "WAITAOF")
        greeting.check_can_give(level, self._settings, info, waitaof)
        self._offered.add(level)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        import redis

        try:
            yield
        except redis.RedisError as exc:
            raise faults.fault(exc, self._where) from exc
