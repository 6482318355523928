"""Whatever a server says, cut up and spoilt in whatever way: it is read exactly, or the connection ends. No reply goes
to another call, nobody waits for ever, no socket stays open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

import pytest

from banshee_memory.hot import aio_tracking, connection, tracking
from banshee_memory.hot.aio_tracking import AsyncCachedReads
from banshee_memory.hot.cache import ABSENT, Cache
from banshee_memory.hot.calls import Call
from banshee_memory.hot.connection import Connection, Pool
from banshee_memory.hot.faults import LostError
from banshee_memory.hot.multiplexer import Multiplexer
from banshee_memory.hot.replies import pack
from banshee_memory.hot.tracking import CachedReads
from tests.hot.peers import AsyncPeer, Peer, happens, peers
from tests.hot.streams import Said, Speech, chunked, cut_at, new_reply, old_reply, read_at_once, spoilt, unasked
from tests.servers import until

PATIENCE = 60.0
"""Seconds after which somebody waits for ever; no test waits for it."""
PING = pack(("PING",))
SANE = [b"$4\r\nsa", b"ne\r\n"]
TRACKED = [b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n+OK\r\n"]
FEW, MANY = range(150), range(10_000, 50_000)
SEEDS = [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.soak)]


class Stream(NamedTuple):
    """What is said to some calls in one packet, and what that reads as."""

    calls: int
    sent: bytes
    speech: Speech

    @property
    def is_right(self) -> bool:
        """Whether that is one reply for each call and nothing else."""
        return self.speech.is_whole and len(self.speech.replies) == self.calls

    @property
    def is_enough(self) -> bool:
        """Whether nobody waits for more."""
        return len(self.speech.replies) >= self.calls


def whole(chance: Random, *, is_tracked: bool = False) -> Stream:
    """One that is as it should be."""
    reply = new_reply if is_tracked else chance.choice((old_reply, new_reply))
    said = [reply(chance) for _ in range(chance.choice((1, 1, 2, 3, 6)))]
    heard: list[Said] = []
    parts = []
    for one in said:
        if is_tracked:
            heard += (between := [unasked(chance) for _ in range(chance.randrange(3))])
            parts += between
        parts.append(one)
    sent = b"".join(part.sent for part in parts)
    return Stream(len(said), sent, Speech([one.read for one in said], [one.read for one in heard], is_whole=True))


def broken(chance: Random, *, is_tracked: bool = False) -> Stream:
    """One that was spoilt."""
    count, sent, _ = whole(chance, is_tracked=is_tracked)
    sent = spoilt(chance, sent)
    return Stream(count, sent, read_at_once(sent, is_tracked=is_tracked))


# --- threads ---


def ask(to: Connection | Pool, count: int, *, packed: bool) -> list[str]:
    """The replies to so many calls, in either way to ask for them."""
    if not packed:
        return [repr(reply) for reply in to.ask_all([PING] * count)]
    reply = to.ask(PING * count, count)
    return [repr(one) for one in (reply if count > 1 else [reply])]


def outcome(pool: Pool, count: int, *, packed: bool) -> list[str] | LostError:
    """The same, or why there are none."""
    try:
        return ask(pool, count, packed=packed)
    except LostError as exc:
        return exc


@pytest.mark.parametrize("reply", [old_reply, new_reply])
@pytest.mark.parametrize("packed", [True, False])
def test_cut_at_every_byte(reply: Callable[[Random], Said], packed: bool) -> None:
    chance = Random(1)
    said = [reply(chance) for _ in range(30)]
    said = [one for one in said if len(one.sent) < 60]
    sent = b"".join(one.sent for one in said)
    with peers() as every:
        every.append(Peer([cut_at(sent, [place]) for place in range(1, len(sent))]))
        made = Connection(every[0].client, PATIENCE)
        for place in range(1, len(sent)):
            assert ask(made, len(said), packed=packed) == [one.read for one in said], f"cut at {place}"
        made.close()
        assert every[0].is_left


@pytest.mark.parametrize("seeds", SEEDS)
def test_cut_anyhow(seeds: range) -> None:
    for seed in seeds:
        chance = Random(seed)
        streams = [whole(chance) for _ in range(3)]
        with peers() as every:
            every.append(Peer([chunked(chance, stream.sent) for stream in streams]))
            made = Connection(every[0].client, PATIENCE)
            for stream in streams:
                assert ask(made, stream.calls, packed=chance.random() < 0.5) == stream.speech.replies, f"seed {seed}"
            made.close()
            assert every[0].is_left


@pytest.mark.parametrize("seeds", SEEDS)
def test_spoilt_it_is_read_as_it_is_or_the_connection_ends(seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_IDLE", 0.0)  # every call looks first whether something came unasked
    read = lost = 0
    for seed in seeds:
        chance = Random(seed)
        stream = broken(chance)
        with peers() as every:
            pool = Pool(lambda: _opened(every, chance, stream), lambda _: True)  # noqa: B023
            told = outcome(pool, stream.calls, packed=chance.random() < 0.5)
            if isinstance(told, LostError):
                assert not told.is_late, f"seed {seed}: it waits for ever"
                assert not stream.is_right, f"seed {seed}: {told}"
                lost += 1
            else:
                assert told == stream.speech.replies[: stream.calls], f"seed {seed}"
                read += 1
            every[0].await_said()
            assert pool.ask(PING) == b"sane", f"seed {seed}"
            pool.close()
            assert all(peer.is_left for peer in every), f"seed {seed}: a socket stays open"
    assert min(read, lost) > len(seeds) / 20


def _opened(every: list[Peer], chance: Random, stream: Stream) -> Connection:
    """The first connection leads to what is spoilt, and to good sense after that; the next one to good sense."""
    if every:
        peer = Peer([SANE])
    elif stream.is_enough:
        peer = Peer([chunked(chance, stream.sent), SANE])
    else:
        peer = Peer([chunked(chance, stream.sent)], hangs_up=True)
    every.append(peer)
    return Connection(peer.client, PATIENCE)


# --- tasks ---


@pytest.fixture(params=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Any:
    """Runs a coroutine on either loop, which must have nothing to complain of."""
    factory = None if request.param == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    def run(body: Callable[[], Any]) -> None:
        complaints: list[Any] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, told: complaints.append(told))
            await body()

        with asyncio.Runner(loop_factory=factory) as made:
            made.run(main())
        assert not complaints

    return run


async def multiplexed(peer: AsyncPeer) -> Multiplexer:
    _, writer = await asyncio.open_connection(sock=peer.client)
    return Multiplexer(writer, writer.transport, PATIENCE)


class Asked(NamedTuple):
    """A call under way, and which of the replies are its."""

    future: asyncio.Future[Any]
    begin: int
    end: int

    def check(self, speech: Speech) -> None:
        """It has just those; if they did not all come, it was told."""
        if self.future.cancelled():
            return
        exc = self.future.exception()
        if self.end > len(speech.replies):
            assert isinstance(exc, LostError)
            assert not exc.is_late
            return
        assert exc is None
        replies = self.future.result() if self.end - self.begin > 1 else [self.future.result()]
        assert [repr(reply) for reply in replies] == speech.replies[self.begin : self.end]


def asked_by_tasks(chance: Random, made: Multiplexer, count: int) -> list[Asked]:
    """So many calls, of one command or several, in turn; who asks for some of them gives up."""
    asked: list[Asked] = []
    while (begin := asked[-1].end if asked else 0) < count:
        size = chance.randrange(1, count - begin + 1)
        batch = size > 1 and chance.random() < 0.5
        future = made.ask_all([PING] * size) if batch else made.ask(PING * size, size)
        asked.append(Asked(future, begin, begin + size))
        if chance.random() < 0.2:
            future.cancel()
    return asked


async def answered(chance: Random, peer: AsyncPeer, made: Multiplexer, stream: Stream) -> None:
    """Some calls, and what comes of that stream."""
    asked = asked_by_tasks(chance, made, stream.calls)
    await peer.say(chunked(chance, stream.sent))
    if not stream.is_enough:
        peer.hang_up()
        await happens(lambda: made.lost is not None)
    await asyncio.wait([one.future for one in asked])
    for one in asked:
        one.check(stream.speech)


async def left(made: Multiplexer, peer: AsyncPeer) -> bool:
    """Ends it; whether its socket is closed then."""
    made.end("the test is over")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    is_left = peer.is_left
    peer.close()
    return is_left


@pytest.mark.parametrize("seeds", SEEDS)
def test_tasks_get_what_is_cut_anyhow(seeds: range, runner: Callable[[Any], None]) -> None:
    async def body() -> None:
        for seed in seeds:
            chance, peer = Random(seed), AsyncPeer()
            made = await multiplexed(peer)
            for _ in range(3):
                await answered(chance, peer, made, whole(chance))
                assert made.lost is None, f"seed {seed}"
            assert await left(made, peer)

    runner(body)


@pytest.mark.parametrize("seeds", SEEDS)
def test_tasks_get_what_is_spoilt_as_it_is_or_the_connection_ends(seeds: range, runner: Callable[[Any], None]) -> None:
    async def body() -> None:
        lost = 0
        for seed in seeds:
            chance, peer = Random(seed), AsyncPeer()
            made, stream = await multiplexed(peer), broken(chance)
            await answered(chance, peer, made, stream)
            if stream.is_right:
                asked = made.ask(PING)
                await peer.say(SANE)
                assert await asked == b"sane", f"seed {seed}"
            else:
                assert made.lost is not None, f"seed {seed}: what is left of it is there for the next call"
                lost += 1
            assert await left(made, peer), f"seed {seed}: a socket stays open"
        assert len(seeds) / 20 < lost < len(seeds)

    runner(body)


# --- reads that are kept ---


class Elsewhere(Exception):
    """The store was to be asked as if nothing were ever kept."""


class Store:
    """What reads that are kept need of a store: a connection to a peer, and where to turn to else."""

    recovery = None
    where = "the other end"

    def __init__(self, peer: Any) -> None:
        self._peer = peer

    def connect(self, patience: float) -> Connection:
        return Connection(self._peer.client, patience)

    def run(self, call: Call[Any]) -> Any:
        raise Elsewhere

    run_all: Callable[[Sequence[Call[Any]]], Any] = run  # type: ignore[assignment]


class AsyncStore:
    """The same for tasks."""

    recovery = None
    where = "the other end"

    def __init__(self, peer: AsyncPeer) -> None:
        self._peer = peer

    async def connect(self, patience: float) -> Multiplexer:
        return await multiplexed(self._peer)

    async def run(self, call: Call[Any]) -> Any:
        raise Elsewhere

    run_all: Callable[[Sequence[Call[Any]]], Any] = run  # type: ignore[assignment]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What servers said unasked."""
    told: list[str] = []

    def heed(cache: Cache, said: Any) -> None:
        told.append(repr(said))
        genuine(cache, said)

    genuine = tracking.heed
    monkeypatch.setattr(tracking, "heed", heed)
    monkeypatch.setattr(aio_tracking, "heed", heed)
    monkeypatch.setattr(connection, "TRUSTED", PATIENCE)  # until when nobody asks which server this is
    return told


def reads_of(stream: Stream) -> list[Call[str]]:
    return [Call(("GET", f"key{number}"), repr) for number in range(stream.calls)]


def check_kept(cache: Cache, stream: Stream) -> None:
    """What is kept is what was said of that key, and nobody said that it has changed; of another kind of news, like one
    whose name was spoilt, nobody knows what it means."""
    changes = [said for said in stream.speech.unasked if said.startswith("[b'invalidate'")]
    for number, call in enumerate(reads_of(stream)):
        kept = cache.find(call.sent)
        if kept is not ABSENT:
            assert repr(kept) == stream.speech.replies[number]
            assert not any(repr(f"key{number}".encode()) in said or "None" in said for said in changes)


def check_all_kept(cache: Cache, stream: Stream) -> None:
    """And whatever may be kept is."""
    check_kept(cache, stream)
    unasked_for = " ".join(stream.speech.unasked)
    may_be = [number for number, reply in enumerate(stream.speech.replies) if reply.startswith("b'A")]
    may_be = [number for number in may_be if f"b'key{number}'" not in unasked_for and "None" not in unasked_for]
    assert len(cache) == len(may_be)


def has_error(stream: Stream) -> bool:
    """Whether a reply says that the server lacks something: then the store is asked, which mends it."""
    return any(reply.startswith("ServerError") for reply in stream.speech.replies[: stream.calls])


@pytest.mark.parametrize("seeds", SEEDS)
def test_reads_that_are_kept_are_cut_anyhow(seeds: range, heard: list[str]) -> None:
    for seed in seeds:
        heard.clear()
        chance, cache = Random(seed), Cache(100, 10_000_000)
        stream = whole(chance, is_tracked=True)
        with peers() as every:
            every.append(Peer([TRACKED, chunked(chance, stream.sent)]))
            reads: Any = CachedReads(Store(every[0]), cache, PATIENCE)  # type: ignore[arg-type]
            if has_error(stream):
                with pytest.raises(Elsewhere):
                    reads.run_all(reads_of(stream))
            else:
                assert reads.run_all(reads_of(stream)) == stream.speech.replies, f"seed {seed}"
                until(lambda: heard == stream.speech.unasked)  # noqa: B023
                check_all_kept(cache, stream)
            reads.close()
            assert every[0].is_left
    assert not any(thread.name == "banshee-memory-cache" for thread in threading.enumerate())


@pytest.mark.parametrize("seeds", SEEDS)
def test_reads_that_are_kept_are_spoilt(seeds: range, heard: list[str]) -> None:
    for seed in seeds:
        chance, cache = Random(seed), Cache(100, 10_000_000)
        stream = broken(chance, is_tracked=True)
        with peers() as every:
            every.append(Peer([TRACKED, chunked(chance, stream.sent)], hangs_up=not stream.is_right))
            reads: Any = CachedReads(Store(every[0]), cache, PATIENCE)  # type: ignore[arg-type]
            try:
                replies = reads.run_all(reads_of(stream))
            except Elsewhere:
                assert not stream.is_right or has_error(stream), f"seed {seed}"
            else:
                assert replies == stream.speech.replies[: stream.calls], f"seed {seed}"
                check_kept(cache, stream)
            if not stream.is_right:
                until(lambda: cache.generation)  # noqa: B023
                assert not len(cache), f"seed {seed}: it is kept where nobody says any more what has changed"
            reads.close()
            assert every[0].is_left, f"seed {seed}: a socket stays open"
    assert not any(thread.name == "banshee-memory-cache" for thread in threading.enumerate())


async def read_by_task(
    chance: Random, cache: Cache, peer: AsyncPeer, stream: Stream, *, hangs_up: bool
) -> tuple[AsyncCachedReads, list[str] | None]:
    """The replies; None: the store was asked instead."""
    reads: Any = AsyncCachedReads(AsyncStore(peer), cache, PATIENCE)  # type: ignore[arg-type]
    task = asyncio.create_task(reads.run_all(reads_of(stream)))
    await peer.hear()
    await peer.say(TRACKED)
    await peer.hear()
    await peer.say(chunked(chance, stream.sent))
    if hangs_up:
        peer.hang_up()
    try:
        return reads, await task
    except Elsewhere:
        return reads, None


@pytest.mark.parametrize("seeds", SEEDS)
def test_reads_of_tasks_that_are_kept_are_cut_anyhow(
    seeds: range, heard: list[str], runner: Callable[[Any], None]
) -> None:
    async def body() -> None:
        for seed in seeds:
            heard.clear()
            chance, cache, peer = Random(seed), Cache(100, 10_000_000), AsyncPeer()
            stream = whole(chance, is_tracked=True)
            reads, replies = await read_by_task(chance, cache, peer, stream, hangs_up=False)
            assert replies == (None if has_error(stream) else stream.speech.replies), f"seed {seed}"
            assert heard == stream.speech.unasked
            if replies is not None:
                check_all_kept(cache, stream)
            await reads.aclose()
            await asyncio.sleep(0)
            assert peer.is_left
            peer.close()

    runner(body)


@pytest.mark.parametrize("seeds", SEEDS)
def test_reads_of_tasks_that_are_kept_are_spoilt(seeds: range, heard: list[str], runner: Callable[[Any], None]) -> None:
    async def body() -> None:
        for seed in seeds:
            chance, cache, peer = Random(seed), Cache(100, 10_000_000), AsyncPeer()
            stream = broken(chance, is_tracked=True)
            reads, replies = await read_by_task(chance, cache, peer, stream, hangs_up=not stream.is_right)
            if replies is None:
                assert not stream.is_right or has_error(stream), f"seed {seed}"
            else:
                assert replies == stream.speech.replies[: stream.calls], f"seed {seed}"
            if not stream.is_right:
                await happens(lambda: cache.generation)  # noqa: B023
                assert not len(cache), f"seed {seed}: it is kept where nobody says any more what has changed"
            await reads.aclose()
            await asyncio.sleep(0)
            assert peer.is_left, f"seed {seed}: a socket stays open"
            peer.close()

    runner(body)
