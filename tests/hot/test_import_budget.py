"""What importing the package brings in: no driver before the first connection, never what a client does not use."""

from __future__ import annotations

import subprocess
import sys

DRIVERS = {"hiredis", "psycopg", "psycopg_pool", "redis"}
NEVER = {"apscheduler", "click", "numpy", "prometheus_client", "pydantic", "redis_om", "rich", "structlog"}


def brought_in(*lines: str) -> set[str]:
    """The top-level modules that are there after these lines."""
    script = "\n".join([*lines, "import sys", "print(*sys.modules)"])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_names_of_the_package_bring_in_no_driver_and_no_event_loop() -> None:
    assert not brought_in("import banshee_memory") & (DRIVERS | NEVER | {"asyncio"})


def test_a_client_brings_in_no_driver_before_it_connects() -> None:
    lines = ("from banshee_memory import AsyncMemoryPlugin, MemoryPlugin", "MemoryPlugin(); AsyncMemoryPlugin()")
    assert not brought_in(*lines) & (DRIVERS | NEVER)


def test_a_client_in_use_brings_in_the_drivers_and_no_more(redis_url: str, database_url: str) -> None:
    lines = (
        "from uuid import uuid4",
        "from banshee_memory import MemoryPlugin",
        f"with MemoryPlugin({database_url!r}, {redis_url!r}) as memory:",
        "    memory.migrate()",
        "    memory.emotions.load_state(uuid4())",
    )
    found = brought_in(*lines)
    assert found >= DRIVERS
    assert not found & NEVER
