"""A flush that Redis forbids says so: only a key of another type may be left out, never a right that is missing."""

from __future__ import annotations

from uuid import uuid4

import pytest
import redis

from banshee_memory import ConfigurationError, MemoryPlugin, Settings
from tests.own_servers import own_database, own_redis

SETTINGS = Settings(shards=2)


@pytest.mark.parametrize("command", ["xlen", "xrevrange", "srandmember"])
def test_a_missing_right_is_no_empty_flush(redis_url: str, database_url: str, command: str) -> None:
    with (
        own_redis(like=redis_url) as own,
        own_database(database_url, SETTINGS) as database,
        MemoryPlugin(database, own, settings=SETTINGS) as memory,
        redis.Redis.from_url(own) as admin,
    ):
        agent = uuid4()
        memory.conversations.save_message(agent, "user", "hello")
        admin.execute_command("ACL", "SETUSER", "default", f"-{command}")
        with pytest.raises(ConfigurationError):
            memory.flush()
        admin.execute_command("ACL", "SETUSER", "default", f"+{command}")
        assert memory.flush().messages == 1
