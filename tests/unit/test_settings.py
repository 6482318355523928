"""What can be set: from arguments and the environment, refused where it makes no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from banshee_memory import ConfigurationError, MemoryPlugin, Settings
from banshee_memory.hot.location import where
from banshee_memory.settings import Urls, settings_from, urls_from

REDIS, DATABASE = "redis://r", "postgresql://d"


@pytest.mark.parametrize(
    ("redis", "database", "environ", "expected"),
    [
        (None, None, {}, Urls(None, None)),
        (None, None, {"REDIS_URL": "", "DATABASE_URL": ""}, Urls(None, None)),
        (None, None, {"REDIS_URL": REDIS, "DATABASE_URL": DATABASE}, Urls(REDIS, DATABASE)),
        (REDIS, DATABASE, {"REDIS_URL": "redis://other", "DATABASE_URL": "postgresql://o"}, Urls(REDIS, DATABASE)),
        (REDIS, None, {"DATABASE_URL": DATABASE}, Urls(REDIS, DATABASE)),
    ],
)
def test_urls_are_arguments_before_environment(
    redis: str | None, database: str | None, environ: dict[str, str], expected: Urls
) -> None:
    assert urls_from(redis, database, environ) == expected


@pytest.mark.parametrize(
    ("environ", "missing"), [({"REDIS_URL": REDIS}, "DATABASE_URL"), ({"DATABASE_URL": DATABASE}, "REDIS_URL")]
)
def test_one_url_alone_is_an_error_that_names_the_other(environ: dict[str, str], missing: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{missing} is not"):
        urls_from(None, None, environ)


def test_the_environment_of_the_original_works() -> None:
    environ = {"REDIS_PASSWORD": "p", "DB_MIN_CONNECTIONS": "2", "DB_MAX_CONNECTIONS": "7", "BANSHEE_DATA_DIR": "/x"}
    settings = settings_from(environ)
    assert (settings.redis_password, settings.db_min_connections, settings.db_max_connections) == ("p", 2, 7)
    assert settings.data_dir == Path("/x")
    assert settings_from({}) == Settings()
    assert settings_from({"REDIS_PASSWORD": "", "DB_MAX_CONNECTIONS": ""}) == Settings()


@pytest.mark.parametrize(
    "environ",
    [
        {"DB_MIN_CONNECTIONS": "two"},
        {"DB_MAX_CONNECTIONS": "-1"},
        {"DB_MAX_CONNECTIONS": "0"},
        {"DB_MIN_CONNECTIONS": "20"},
    ],
)
def test_numbers_that_make_no_sense_are_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        settings_from(environ)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shards": 0},
        {"shards": 16_385},
        {"flush_batch": 0},
        {"message_cap": 0},
        {"event_cap": 0},
        {"max_batch": 0},
        {"db_max_connections": 0},
        {"flush_after": 0},
        {"hot_ttl": -1},
        {"lease_ttl": 0},
        {"call_timeout": 0},
        {"connect_timeout": 0},
        {"flush_timeout": float("nan")},
        {"db_min_connections": 11},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Settings(**wrong)


@pytest.mark.parametrize("url", ["http://x", "localhost:6379", "", "rediss"])
def test_a_redis_url_has_one_of_three_schemes(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        where(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host:1/2", "redis://host:1/2"),
        ("rediss://:secret@host", "rediss://host:6379"),
        ("unix:///tmp/s?password=secret", "unix:///tmp/s"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert where(url) == shown


def test_a_bad_redis_url_is_an_error_of_ours() -> None:
    with pytest.raises(ConfigurationError):
        MemoryPlugin(DATABASE, "http://x").health_check()
