"""How many instructions each hot operation costs in the client: the same at every run, so no clock is needed.

    python bench/instructions.py [--record]

Runs the operations of the sync client under callgrind (valgrind), which counts what the process executes outside the
kernel; the servers are not counted. `--record` writes `bench/instructions.json`, which a test compares with.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
RECORDED = Path(__file__).with_suffix(".json")
CALLS = 10
_MARK = "getpgid"
"""A function of the C library that nothing else calls: callgrind begins to count anew at each call."""


def valgrind() -> str | None:
    """Where it is."""
    return shutil.which("valgrind")


def python() -> str:
    """The interpreter that the counts are of."""
    return f"{platform.python_implementation()} {sys.version_info.major}.{sys.version_info.minor}"


def counted(redis_url: str, database_url: str) -> dict[str, int]:
    """Instructions of one call, by operation."""
    with tempfile.TemporaryDirectory(prefix="callgrind-") as folder:
        dumps = under_callgrind(Path(folder), __file__, "--counted", redis_url, database_url)
        return {name: _total(dump) // CALLS for name, dump in dumps.items()}


def under_callgrind(folder: Path, *words: str) -> dict[str, Path]:
    """Runs this interpreter with these words; of each part that it names and marks, what was counted in it."""
    # Getting ready is not instrumented: that would take ten times as long.
    counting = [str(valgrind()), "--tool=callgrind", "--instr-atstart=no", f"--dump-before={_MARK}"]
    run = subprocess.run(
        [*counting, f"--callgrind-out-file={folder}/out", sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    if run.returncode:
        raise RuntimeError(run.stderr)
    # Each mark ends a part: the first is what went before, then one that is named, one between two, and so on.
    return {name: folder / f"out.{2 * number + 2}" for number, name in enumerate(run.stdout.splitlines())}


def mark_each(made: Mapping[str, Callable[[], object]]) -> None:
    """In the process that is counted: names the calls, and marks where each begins and ends."""
    for call in made.values():
        for _ in range(40):
            call()
    gc.collect()
    gc.disable()
    control = shutil.which("callgrind_control")
    subprocess.run([str(control), "-i", "on", str(os.getpid())], stdout=subprocess.DEVNULL, check=True)
    for name, call in made.items():
        print(name)
        os.getpgid(0)
        for _ in range(CALLS):
            call()
        os.getpgid(0)


def _total(dump: Path) -> int:
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    assert found
    return int(found.group(1))


def _operate(redis_url: str, database_url: str) -> None:
    from banshee_memory import MemoryPlugin
    from banshee_memory.cli.workload import calls, settle
    from banshee_memory.hot import connection
    from bench import world

    # What is asked now and then, or after a while, would count where the clock happens to say so.
    connection.TRUSTED = connection._IDLE = float("inf")
    with MemoryPlugin(database_url, redis_url) as memory:
        readers, writers = world.READERS[:2], world.WRITERS[:2]
        settle(memory, readers + writers)
        mark_each(calls(memory, readers, writers))


def main() -> None:
    """Counts and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--counted", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.counted:
        _operate(*options.counted)
        return
    from banshee_memory import MemoryPlugin
    from banshee_memory.embedded import start

    with tempfile.TemporaryDirectory(prefix="bench-") as folder, start(Path(folder)) as servers:
        MemoryPlugin(servers.database_url, servers.redis_url).migrate()
        found = {"python": python(), "instructions": counted(servers.redis_url, servers.database_url)}
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if options.record:
        RECORDED.write_text(text)


if __name__ == "__main__":
    main()
