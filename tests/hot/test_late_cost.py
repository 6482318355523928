"""What it costs to put a late message where it belongs does not grow with the length of the list."""

from __future__ import annotations

from banshee_memory.hot import calls, wire
from banshee_memory.hot.client import HotStore
from banshee_memory.hot.keys import AgentKeys
from tests.hot.raw import Server

DAY_US = 86_400_000_000


def test_it_is_found_by_halving(hot: HotStore, server: Server, keys: AgentKeys) -> None:
    body = wire.message_body(b"abcdefgh", "user", "hello", None, None, None, None)
    now = hot.run(calls.now()) - DAY_US
    hot.run(calls.append_messages(keys, [(now + n, False, body) for n in range(1_000)]))
    server.command("CONFIG", "RESETSTAT")
    hot.run(calls.append_messages(keys, [(now + 500, False, body)] * 100))
    info = server.command("INFO", "commandstats").decode()
    looks = {
        line.partition(":")[0].removeprefix("cmdstat_"): int(line.partition("calls=")[2].partition(",")[0])
        for line in info.splitlines()
        if line.startswith(("cmdstat_lindex", "cmdstat_lrange"))
    }
    assert sum(looks.values()) <= 100 * 14
