"""How long one call of our functions holds Redis up, where very many messages of one agent are not flushed.

    python bench/blocking.py [--messages 200000]

For each kind of work: the longest of its calls, in milliseconds that the server's main thread was on a processor (so it
matters little what else the machine does), and how many calls there were. Linux only.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import redis

from banshee_memory.hot import failover, flushing, leases

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
AGENT = UUID("30313233-3435-3637-3839-616263646566")
TEXT = "A message of some length, as people write them to somebody who listens: not too long, and not too short. " * 2


class Scene:
    """A server, and an agent of whom nothing is flushed."""

    def __init__(self, url: str, messages: int) -> None:
        from banshee_memory.hot import calls
        from banshee_memory.hot.client import HotStore
        from banshee_memory.hot.keys import agent_keys, shard_keys
        from banshee_memory.settings import Settings

        settings = Settings(shards=1, backlog_limit=None, call_timeout=60.0)
        self.raw: Any = redis.Redis.from_url(url)
        self.hot = HotStore(url, settings)
        self.hot.load_library()
        self.keys, self.shard = agent_keys(AGENT, 1), shard_keys(0)
        self.server = self.hot.run_all(failover.which_server())
        self.hot.run(failover.seed(self.shard, 1, self.identity))
        for first in range(0, messages, 500):
            said = [(None, False, body(f"{number:08}")) for number in range(first, min(first + 500, messages))]
            self.hot.run(calls.append_messages(self.keys, said))
        self._took: list[float] = []
        self._pid = self.raw.info("server")["process_id"]
        self.middle = self.raw.lindex(self.keys.messages, messages // 2)

    @property
    def identity(self) -> str:
        """Of the server."""
        from banshee_memory.hot.incarnation import incarnation_of

        return incarnation_of(self.server).identity

    def run(self, *batch: Any) -> Any:
        """The reply of the last of these calls; notes how long they took."""
        before = self._on_processor()
        reply = self.hot.run_all(batch)[-1]
        self._took.append((self._on_processor() - before) / 1e6)
        return reply

    def longest(self, work: Callable[[Scene], object]) -> tuple[float, int]:
        """Milliseconds of the longest call of it, and how many there were."""
        self._took.clear()
        work(self)
        return max(self._took), len(self._took)

    def _on_processor(self) -> int:
        return int(Path(f"/proc/{self._pid}/schedstat").read_text().split()[0])


def body(nonce: str) -> bytes:
    """What a message is in the log."""
    from banshee_memory.hot import wire

    return wire.message_body(nonce.encode(), "user", TEXT, None, None, None, None)


def lease(scene: Scene) -> None:
    """A reader that missed."""
    from banshee_memory.hot import calls

    scene.run(leases.lease(scene.keys.messages, "h", b"12345678", 5.0))
    scene.run(*calls.history_end(scene.keys.messages, 100))


def offer(scene: Scene) -> None:
    """What PostgreSQL told it."""
    from banshee_memory.hot import calls

    header = calls.end_of(scene.hot.run_all(calls.history_end(scene.keys.messages, 1))).header
    assert header is not None
    scene.run(leases.offer_history(scene.keys.messages, header, 60.0, (0.0, 0), [scene.middle]))


def amend(scene: Scene) -> None:
    """The message in the middle is amended."""
    from banshee_memory.hot.calls import Call

    keys = (scene.keys.messages, scene.shard.log, scene.shard.forgotten)
    command = ("FCALL", "banshee1_amend_message", 3, *keys, AGENT.bytes, scene.middle, scene.middle, b"x")
    scene.run(Call(command, lambda reply: reply))


def append_late(scene: Scene) -> None:
    """A message that was said a second ago."""
    from banshee_memory.hot import calls

    at = scene.run(calls.now()) - 1_000_000
    scene.run(calls.append_messages(scene.keys, [(at, False, body("late0000"))]))


def flush(scene: Scene) -> None:
    """The first thousand entries are carried."""
    from banshee_memory.hot.flushing import Settlement

    for _ in range(5):
        entries = scene.run(flushing.log_head(scene.shard, 1_000, 1_000_000))
        settlement = Settlement()
        settlement.history(scene.keys.messages, 50)
        assert scene.run(flushing.mark_clean(scene.shard, entries, settlement, 60.0, {}))


def find_outdated(scene: Scene) -> None:
    """PostgreSQL has a newer context of the message in the middle."""
    from banshee_memory.hot import wire
    from banshee_memory.hot.flushing import Settlement

    placed, settlement = wire.message_of(AGENT, scene.middle), Settlement()
    settlement.outdated(scene.keys.messages, placed.record.id, int(placed.at_us))
    scene.run(flushing.mark_clean(scene.shard, [], settlement, 60.0, {}))


def log_again(scene: Scene) -> None:
    """PostgreSQL went back to nothing."""
    from banshee_memory.hot.keys import owned_key

    owned, start = owned_key(scene.keys.messages.encode()), 0
    assert owned is not None
    while start is not None:
        _, start = scene.run(failover.log_again(owned, 0, start))


def recover(scene: Scene) -> None:
    """Another server than before: what of the list the log does not hold goes."""

    scene.raw.hdel(scene.shard.stats, "server")
    scene.run(failover.park(scene.shard, scene.identity))
    start: Any = b"-"
    while start:
        start, _ = scene.run(failover.mentioned(scene.shard, start, 500))
    items, done = [(scene.keys.messages, "h", b"")], 0
    while items:
        count, done = scene.run(failover.shed(scene.shard, scene.identity, os.urandom(8), items, done))
        items = items[count:]
    scene.run(failover.mark_recovered(scene.shard, scene.identity))
    scene.run(failover.seed(scene.shard, 1, scene.identity))


def forget_half(scene: Scene) -> None:
    """Of two lives in one list the older one goes."""
    from banshee_memory.hot import erasing, wire

    through, again = wire.place_of(scene.middle)[1], True
    while again:
        _, again = scene.run(erasing.erase_keys(scene.keys, through, 0, []))


WORK = (lease, offer, amend, append_late, flush, find_outdated, log_again, recover, forget_half)


def main() -> None:
    """Measures and prints."""
    from banshee_memory.embedded import start

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000)
    messages = parser.parse_args().messages
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, start(Path(folder)) as servers:
        scene = Scene(servers.redis_url, messages)
        for work in WORK:
            longest, count = scene.longest(work)
            print(f"{work.__name__:14} {longest:9.2f} ms, the longest of {count} calls", flush=True)


if __name__ == "__main__":
    main()
