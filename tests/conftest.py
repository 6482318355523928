"""Fixtures for every test: two servers for the session, and an environment without the user's own."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.folders import folder
from tests.own_servers import drop_patterns
from tests.servers import USERS_VARIABLES, Urls, servers

LONGEST = (
    "test_recovery",
    "test_meld",
    "test_interleavings",
    "test_crash_points",
    "test_endpoints",
    "test_sharing",
    "test_daemon",
    "test_failover",
    "test_kills",
    "test_forgetting_races",
    "test_takeover",
    "test_simulator",
    "test_page_interleavings",
    "test_every_await",
    "test_ends",
    "test_demo",
    "test_receipts",
    "test_multiplexer",
    "test_failure_table",
    "test_transports",
    "test_identity",
    "test_client_cache",
    "test_flush_races",
    "test_instructions",
    "test_hindsight",
    "test_model",
)
"""The files that take longest, the longest first. Side by side with others they begin first, whatever their number of
tests: who begins one of them last is waited for by all who have ended."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        places = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_collection_finish() -> None:
    # Thousands of tests and all that is imported stay to the end; the collector need not look at them again and again.
    gc.collect()
    gc.freeze()


def pytest_configure() -> None:
    for name in USERS_VARIABLES:
        os.environ.pop(name, None)
    # A shell starts what runs in the background with SIGINT ignored, and so would be what tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_data_dir(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What starts embedded servers without naming a directory gets this one, never the user's."""
    os.environ["BANSHEE_DATA_DIR"] = str(tmp_path_factory.mktemp("default data"))


@pytest.fixture(scope="session")
def server_urls() -> Iterator[Urls]:
    """Both servers, from where `tests.servers` says, running until the session ends."""
    with folder("servers-") as home, servers(Path(home)) as urls:
        yield urls
        drop_patterns()


@pytest.fixture(scope="session")
def redis_url(server_urls: Urls) -> str:
    """A Redis 7 or newer (or Valkey) that holds nothing but what tests put in."""
    return server_urls.redis


@pytest.fixture(scope="session")
def database_url(server_urls: Urls) -> str:
    """A PostgreSQL 15 or newer, with a database that holds nothing but what tests put in."""
    return server_urls.database
