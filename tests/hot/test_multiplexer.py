"""A connection that tasks share: each gets its own replies, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from banshee_memory.hot.faults import LostError, ServerError
from banshee_memory.hot.multiplexer import Multiplexer
from banshee_memory.hot.opening import open_streams
from banshee_memory.hot.replies import pack
from tests.hot.proxy import Proxy, chopped

CHOSEN = {"protocol": 2}
SOON = 0.2
Body = Callable[[Proxy, Multiplexer], Coroutine[Any, Any, None]]


@asynccontextmanager
async def line(url: str, patience: float = 10.0) -> AsyncIterator[Multiplexer]:
    made = Multiplexer(*await open_streams(url, CHOSEN), patience)
    try:
        yield made
    finally:
        made.end("the test is over")
        await asyncio.sleep(0)


@pytest.fixture
def through(own_url: str, tmp_path: Path, loop_factory: Any) -> Callable[..., None]:
    """Runs a test on a connection through a proxy."""

    def run(body: Body, patience: float = 10.0) -> None:
        async def main() -> None:
            async with Proxy(own_url, tmp_path).running() as proxy, line(proxy.url, patience) as made:
                await asyncio.wait_for(body(proxy, made), 60)

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())

    return run


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Any:
    """The usual loop, and uvloop where it is installed."""
    if request.param == "asyncio":
        return None
    return pytest.importorskip("uvloop").new_event_loop


def echo(made: Multiplexer, word: str) -> asyncio.Future[Any]:
    return made.ask(pack(("ECHO", word)))


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("never came true")


async def gathered(asked: list[asyncio.Future[Any]]) -> list[Any]:
    return list(await asyncio.gather(*asked, return_exceptions=True))


def test_replies_of_every_kind(through: Callable[..., None]) -> None:
    async def body(proxy: Proxy, made: Multiplexer) -> None:
        assert await made.ask(pack(("SET", "kinds", "x" * 300_000))) == b"OK"
        assert await made.ask(pack(("GET", "kinds"))) == b"x" * 300_000
        assert await made.ask(pack(("GET", "none"))) is None
        assert await made.ask(pack(("DEL", "kinds"))) == 1
        assert isinstance(await made.ask(pack(("NONSENSE",))), ServerError)
        first, error, last = await made.ask_all([("ECHO", "a"), ("NONSENSE",), ("ECHO", "b")])
        assert (first, last) == (b"a", b"b")
        assert isinstance(error, ServerError)

    through(body)


def test_many_at_once_go_in_few_packets(through: Callable[..., None]) -> None:
    async def body(proxy: Proxy, made: Multiplexer) -> None:
        writes: list[bytes] = []
        write = made._write

        def counted(data: Any) -> None:
            writes.append(data)
            write(data)

        made._write = counted
        replies = await gathered([echo(made, str(n)) for n in range(100)])
        assert replies == [str(n).encode() for n in range(100)]
        assert len(writes) == 2

    through(body)


def test_a_cancelled_call_s_reply_is_dropped(through: Callable[..., None]) -> None:
    async def body(proxy: Proxy, made: Multiplexer) -> None:
        proxy.held.clear()
        asked = [echo(made, str(n)) for n in range(10)]
        batch = made.ask_all([("ECHO", "x"), ("ECHO", "y")])
        last = echo(made, "last")
        for number in (0, 3, 4, 9):
            asked[number].cancel()
        batch.cancel()
        proxy.held.set()
        assert await last == b"last"
        replies = await gathered(asked)
        assert [n for n, reply in enumerate(replies) if reply == str(n).encode()] == [1, 2, 5, 6, 7, 8]
        assert not made._waiting

    through(body)


def test_a_timeout_ends_the_connection_for_all(through: Callable[..., None]) -> None:
    async def body(proxy: Proxy, made: Multiplexer) -> None:
        assert await echo(made, "before") == b"before"
        proxy.held.clear()
        replies = await gathered([echo(made, "one"), echo(made, "two"), made.ask_all([("ECHO", "three")])])
        assert [str(reply) for reply in replies] == ["it did not answer in time"] * 3
        assert made.lost
        with pytest.raises(LostError):
            echo(made, "more")

    through(body, SOON)


def test_the_watchdog_rests_while_nobody_waits(through: Callable[..., None]) -> None:
    async def body(proxy: Proxy, made: Multiplexer) -> None:
        await echo(made, "a")
        for _ in range(1_000):
            if made._watchdog is None:
                break
            await asyncio.sleep(0.01)
        assert made._watchdog is None
        assert await echo(made, "b") == b"b"
        assert made._watchdog is not None

    through(body, SOON)


def test_a_steady_stream_is_no_timeout(through: Callable[..., None]) -> None:
    async def body(proxy: Proxy, made: Multiplexer) -> None:
        loop = asyncio.get_running_loop()
        over = loop.time() + 3 * SOON
        while loop.time() < over:
            await gathered([echo(made, "x") for _ in range(20)])
        assert made.lost is None

    through(body, SOON)


@pytest.mark.parametrize("said", [b"$5\r\nother\r\n", b"\0\1\2garbage\r\n", b"+OK\r\n:1\r\n"])
def test_what_nobody_asked_for_ends_the_connection(said: bytes, through: Callable[..., None]) -> None:
    async def body(proxy: Proxy, made: Multiplexer) -> None:
        assert await echo(made, "before") == b"before"
        proxy.say(said)
        await until(lambda: made.lost is not None)
        with pytest.raises(LostError):
            echo(made, "after")

    through(body)


def test_garbage_fails_those_who_wait(through: Callable[..., None]) -> None:
    async def body(proxy: Proxy, made: Multiplexer) -> None:
        proxy.mangle = lambda replies: [replies.replace(b"$3\r\ntwo", b"?3\r\ntwo")]
        replies = await gathered([made.ask_all([("ECHO", "one"), ("ECHO", "two")]), echo(made, "six")])
        assert all(isinstance(reply, LostError) for reply in replies)

    through(body)


def test_a_server_that_hangs_up_fails_those_who_wait(through: Callable[..., None]) -> None:
    async def body(proxy: Proxy, made: Multiplexer) -> None:
        proxy.held.clear()
        asked = [echo(made, "one"), echo(made, "two")]
        await until(proxy.asked.is_set)
        proxy.cut()
        assert [type(reply) for reply in await gathered(asked)] == [LostError, LostError]

    through(body)


def test_who_asks_faster_than_the_server_takes_waits_for_room(through: Callable[..., None]) -> None:
    async def body(proxy: Proxy, made: Multiplexer) -> None:
        proxy.held.clear()
        big, asked = "x" * 1_000_000, []
        while not made.is_full:
            asked.append(made.ask(pack(("ECHO", big))))
            await asyncio.sleep(0)
            assert len(asked) < 1_000
        waiting = asyncio.ensure_future(made.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        proxy.held.set()
        await waiting
        assert await gathered(asked) == [big.encode()] * len(asked)

    through(body)


def test_a_lost_connection_lets_go_of_those_who_wait_for_room(through: Callable[..., None]) -> None:
    async def body(proxy: Proxy, made: Multiplexer) -> None:
        made.pause_writing()
        waiting = [asyncio.ensure_future(made.room()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        made.end("over")
        assert isinstance((await asyncio.gather(*waiting, return_exceptions=True))[0], asyncio.CancelledError)
        assert [task.result() for task in waiting[1:]] == [None, None]

    through(body)


def test_the_child_of_a_fork_cannot_use_it(own_url: str) -> None:
    script = (
        "import asyncio, os, sys\n"
        "from banshee_memory.hot.multiplexer import Multiplexer\n"
        "from banshee_memory.hot.opening import open_streams\n"
        "from banshee_memory.hot.faults import LostError\n"
        "from banshee_memory.hot.replies import pack\n"
        "async def main():\n"
        "    made = Multiplexer(*await open_streams(sys.argv[1], {}), 10)\n"
        "    await made.ask(pack(('PING',)))\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        try:\n"
        "            made.ask(pack(('PING',)))\n"
        "        except LostError:\n"
        "            os._exit(0)\n"
        "        os._exit(1)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "    assert await made.ask(pack(('ECHO', 'still'))) == b'still'\n"
        "    made.end('over')\n"
        "asyncio.run(main())\n"
    )

    async def run() -> int:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, own_url)
        return await process.wait()

    assert asyncio.run(run()) == 0


# --- interleavings ---

COMMANDS: list[Callable[[str], tuple[tuple[Any, ...], Callable[[Any], bool]]]] = [
    lambda word: (("ECHO", word), lambda reply: reply == word.encode()),
    lambda word: (("GET", f"nothing:{word}"), lambda reply: reply is None),
    lambda word: (("ECHO", word * 60), lambda reply: reply == word.encode() * 60),
    lambda word: ((f"NO{word}",), lambda reply: isinstance(reply, ServerError) and f"NO{word}" in str(reply)),
    lambda word: (("CONFIG", "GET", f"none{word}"), lambda reply: reply == []),
]


WEIGHTS = (60, 10, 25, 3, 2)


class Interleaving:
    """Tasks that ask, some of them cancelled somewhere, over a line that chops, stalls and sometimes breaks."""

    def __init__(self, seed: int, proxy: Proxy, open_line: Callable[[], Awaitable[Multiplexer]]) -> None:
        self.chance = random.Random(seed)
        self.proxy = proxy
        self.open_line = open_line
        self.answered = self.lost = self.cancelled = 0

    async def run(self) -> None:
        chance = self.chance
        made = await self.open_line()
        self.proxy.mangle = chopped(chance.random().__hash__(), chance.choice([3, 40, 4_000]))
        tasks = [asyncio.create_task(self.caller(made, f"{number}x{os.urandom(4).hex()}")) for number in range(12)]
        trouble = asyncio.create_task(self.trouble(made, tasks))
        await asyncio.gather(*tasks, return_exceptions=True)
        await trouble
        self.proxy.held.set()
        for task in tasks:
            if not task.cancelled():
                task.result()
        assert self.answered + self.lost + self.cancelled > 0
        with suppress(LostError):  # it was cut just now
            assert await made.ask(pack(("ECHO", "the end"))) == b"the end"
            assert not made._waiting
        made.end("over")

    async def caller(self, made: Multiplexer, word: str) -> None:
        for number in range(self.chance.randint(1, 4)):
            try:
                await self.ask(made, f"{word}x{number}")
                self.answered += 1
            except LostError:
                self.lost += 1
                return
            except asyncio.CancelledError:
                self.cancelled += 1
                if self.chance.random() < 0.5:
                    raise

    async def ask(self, made: Multiplexer, word: str) -> None:
        if self.chance.random() < 0.3:
            asked = [self.chance.choice(COMMANDS)(f"{word}y{n}") for n in range(self.chance.randint(1, 5))]
            replies = await made.ask_all([command for command, _ in asked])
            assert len(replies) == len(asked)
            assert all(right(reply) for (_, right), reply in zip(asked, replies, strict=True)), replies
        else:
            command, right = self.chance.choice(COMMANDS)(word)
            reply = await made.ask(pack(command))
            assert right(reply), (command, reply)

    async def trouble(self, made: Multiplexer, tasks: list[asyncio.Task[None]]) -> None:
        troubles: list[Callable[[], object]] = [
            lambda: self.chance.choice(tasks).cancel(),
            self.proxy.held.clear,
            self.proxy.held.set,
            self.proxy.cut,
            lambda: made.end("by itself"),
        ]
        for _ in range(self.chance.randint(0, 12)):
            for _ in range(self.chance.randint(0, 6)):
                await asyncio.sleep(0)
            self.chance.choices(troubles, WEIGHTS)[0]()
        self.proxy.held.set()


def interleave(own_url: str, folder: Path, seeds: range) -> tuple[int, int, int]:
    async def main() -> tuple[int, int, int]:
        totals = [0, 0, 0]
        async with Proxy(own_url, folder).running() as proxy, line(own_url) as direct:
            before = await clients(direct)

            async def open_line() -> Multiplexer:
                # Replies that come in drops, while it opens, are redis-py's concern.
                proxy.mangle = lambda replies: [replies]
                return Multiplexer(*await open_streams(proxy.url, CHOSEN), 10.0)

            for seed in seeds:
                one = Interleaving(seed, proxy, open_line)
                await asyncio.wait_for(one.run(), 60)
                totals = [a + b for a, b in zip(totals, (one.answered, one.lost, one.cancelled), strict=True)]
            for _ in range(5_000):
                if await clients(direct) == before:
                    break
                await asyncio.sleep(0.001)
            assert await clients(direct) == before, "a connection was leaked"
        return totals[0], totals[1], totals[2]

    return asyncio.run(main())


async def clients(direct: Multiplexer) -> int:
    return len((await direct.ask(pack(("CLIENT", "LIST")))).splitlines())


def test_no_interleaving_gives_a_reply_to_another_call(own_url: str, tmp_path: Path) -> None:
    answered, lost, cancelled = interleave(own_url, tmp_path, range(300))
    assert min(answered, lost, cancelled) > 100


@pytest.mark.soak
def test_no_interleaving_of_ten_thousand_gives_a_reply_to_another_call(own_url: str, tmp_path: Path) -> None:
    interleave(own_url, tmp_path, range(1_000, 11_000))
