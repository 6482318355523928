"""No hot operation costs more instructions than what is recorded, but for a margin: noticed without a clock."""

from __future__ import annotations

import json

import pytest

from banshee_memory.settings import Settings
from bench import instructions
from tests.own_servers import own_database, own_redis

MARGIN = 0.08


def test_no_operation_costs_more_instructions_than_are_recorded(redis_url: str, database_url: str) -> None:
    recorded = json.loads(instructions.RECORDED.read_text())
    if instructions.valgrind() is None:
        pytest.skip("valgrind is not installed")
    if instructions.python() != recorded["python"]:
        pytest.skip(f"what is recorded is of {recorded['python']}, and this is {instructions.python()}")
    with own_redis(like=redis_url) as redis, own_database(database_url, Settings()) as database:
        found = instructions.counted(redis, database)
    assert found.keys() == recorded["instructions"].keys()
    over = {
        name: f"{found[name]:,} instead of {count:,}"
        for name, count in recorded["instructions"].items()
        if found[name] > count * (1 + MARGIN)
    }
    assert not over, f"{over}; if that is meant: python bench/instructions.py --record"
