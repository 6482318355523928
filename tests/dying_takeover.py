"""A process that takes an original over and kills itself on the way: `python -m tests.dying_takeover JSON`."""

from __future__ import annotations

import json
import os
import signal
import sys

from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.original import original
from banshee_memory.failpoints import armed
from banshee_memory.hot.client import HotStore
from banshee_memory.settings import Settings
from banshee_memory.tiering import takeover


def main() -> None:
    """Dies when it reaches the `point` for the `nth` time."""
    job = json.loads(sys.argv[1])
    settings, left = Settings(shards=job["shards"]), job["nth"]
    takeover._CHUNK = job["chunk"]

    def reach(name: str) -> None:
        nonlocal left
        left -= name == job["point"]
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    hot, cold = HotStore(job["redis"], settings, clock=job["clock"]), ColdStore(job["database"], settings)
    with original(job["original"], settings) as source, armed(reach):
        takeover.TakeOver(settings, hot, cold, source, lambda *_: None).run(skip_expired=False, skip_unmappable=False)


if __name__ == "__main__":
    main()
