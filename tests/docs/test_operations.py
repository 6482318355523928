"""docs/durability.md and docs/runbook.md: every test that is named exists, every metric and command is as it says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import redis
import yaml
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import make_conninfo

from banshee_memory import Backlog, ColdStoreUnavailable, ConfigurationError, MemoryPlugin, NewMessage, Pace, Settings
from banshee_memory.cli import main
from banshee_memory.cold.client import ColdStore
from banshee_memory.stamps import EPOCH
from banshee_memory.tiering.metrics import exposition
from banshee_memory.tiering.watch import HotSight, Watch
from tests.own_servers import own_database, own_redis

ROOT = Path(__file__).parents[2]
DURABILITY = (ROOT / "docs" / "durability.md").read_text()
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
ALERTS = (ROOT / "deploy" / "alerts.yml").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", DURABILITY)))
METRIC = re.compile(r"\bbanshee_[a-z]+_[a-z_]+\b")
NO_METRICS = {"banshee_ensure_partition", "banshee_drop_partition"}
SETTINGS = Settings()


def blocks(kind: str, text: str = RUNBOOK) -> list[str]:
    return [block for name, block in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL) if name == kind]


COMMANDS = [
    line.partition("  #")[0].strip()
    for block in blocks("sh")
    for line in block.splitlines()
    if line.startswith("banshee ")
]


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_every_test_that_is_named_exists(path: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / path).read_text(), re.MULTILINE)


def test_every_claim_in_a_table_has_a_test() -> None:
    tables = DURABILITY.partition("## Failures")[2]
    rows = [line for line in tables.splitlines() if line.startswith("| ") and not line.endswith("| test |")]
    rows = [row for row in rows if not re.fullmatch(r"[| -]+", row)]
    assert len(rows) > 20
    assert not [row for row in rows if "::" not in row]


# --- metrics ---


def exposed() -> set[str]:
    """The names of all samples that there can be."""
    watch = Watch(SETTINGS)
    pace = Pace(measured_at=EPOCH, records_in=2.0, records_out=1.0, full_at=EPOCH)
    backlog = Backlog(records=1, bytes=1, oldest_age=1.0, limit=5, fullest=0.2, pace=pace)
    watch.hot = HotSight(latency=0.1, backlog=backlog, dead_letters=0, used_memory=1, max_memory=1, evicted_keys=1)
    for store in watch.stores.values():
        store.answered(0.1)
    job = watch.job("flush", 1.0)
    job.ended()
    job.failed(ColdStoreUnavailable("x"))
    families = text_string_to_metric_families(exposition(watch)().decode())
    samples = {sample.name for family in families for sample in family.samples}
    return {name for name in samples if name.startswith("banshee_")}


def test_the_runbook_names_every_metric_and_no_other() -> None:
    summaries = {"banshee_flush_duration_seconds_count", "banshee_flush_duration_seconds_sum"}
    listed = set(METRIC.findall(RUNBOOK.partition("## PostgreSQL is away")[0])) - NO_METRICS
    assert listed - {"banshee_flush_duration_seconds"} == exposed() - summaries


def test_the_alerts_are_about_metrics_and_lead_to_the_runbook() -> None:
    rules = yaml.safe_load(ALERTS)["groups"][0]["rules"]
    assert set(METRIC.findall(" ".join(rule["expr"] for rule in rules))) <= exposed()
    headings = {
        re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^## (.*)$", RUNBOOK, re.MULTILINE)
    }
    for rule in rules:
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert page == "docs/runbook.md"
        assert not anchor or anchor in headings, rule


# --- commands ---


@pytest.fixture(scope="module")
def urls(redis_url: str, database_url: str) -> Iterator[tuple[str, str]]:
    with own_redis(like=redis_url) as hot, own_database(database_url, SETTINGS) as cold:
        yield hot, cold


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs(urls: tuple[str, str], command: str) -> None:
    words = shlex.split(command.replace("AGENT", str(uuid4())))[1:]
    done = CliRunner().invoke(main, ["--redis-url", urls[0], "--database-url", urls[1], *words])
    assert done.exit_code == 0, done.output


def test_the_commands_in_the_text_exist() -> None:
    named = set(re.findall(r"`banshee ([a-z-]+)", RUNBOOK)) | {shlex.split(command)[1] for command in COMMANDS}
    assert named <= set(main.commands)
    assert len(COMMANDS) > 10


# --- rights ---


@pytest.fixture
def role(urls: tuple[str, str]) -> Iterator[str]:
    """The role of the runbook, by another name: roles are of the whole server."""
    name = f"app_{uuid4().hex}"
    _, roles = blocks("sql")
    with psycopg.connect(urls[1], autocommit=True) as owner:
        for statement in roles.replace("banshee_app", name).split(";"):
            if statement.strip():
                owner.execute(statement)
        yield name
        owner.execute(f"DROP OWNED BY {name}")
        owner.execute(f"DROP ROLE {name}")


def test_the_role_may_do_what_it_must_and_no_more(urls: tuple[str, str], role: str) -> None:
    url = make_conninfo(urls[1], options=f"-c role={role} -c timezone=UTC")
    agent = uuid4()
    with MemoryPlugin(url, urls[0], settings=SETTINGS) as memory:
        memory.conversations.save_messages(agent, [NewMessage(role="user", content="hello")] * 3)
        memory.memories.store_memory(agent, "fact", "x", 1)
        assert memory.evict(agent).flushed.messages == 3
        assert len(memory.conversations.get_history(agent)) == 3
        assert memory.forget(agent).left == 0
    store = ColdStore(url, SETTINGS)
    assert store.prepare_partitions(EPOCH.replace(year=2040)) > 0
    store.drop_expired(EPOCH)
    store.sweep_memories(EPOCH)
    store.compact_rollups(EPOCH)
    store.check_schema()
    store.close()
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DELETE FROM banshee_migrations")


def test_a_client_that_never_flushes_needs_select_alone(urls: tuple[str, str], role: str) -> None:
    with psycopg.connect(urls[1], autocommit=True) as owner:
        owner.execute(f"REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public FROM {role}")
    url, agent = make_conninfo(urls[1], options=f"-c role={role} -c timezone=UTC"), uuid4()
    with (
        MemoryPlugin(urls[1], urls[0], settings=SETTINGS) as daemon,
        MemoryPlugin(url, urls[0], settings=SETTINGS) as memory,
        redis.Redis.from_url(urls[0]) as server,
    ):
        daemon.flush()
        memory.conversations.save_message(agent, "user", "hello")
        memory.memories.store_memory(agent, "fact", "x", 1)
        daemon.evict(agent)
        assert [m.content for m in memory.conversations.get_history(agent)] == ["hello"]
        assert memory.memories.retrieve_memory(agent, "fact", "x") == 1
        server.delete(*server.keys("banshee:*"))
        with pytest.raises(ConfigurationError, match="Grant it"):
            memory.conversations.save_message(agent, "user", "who recovers it needs more")
        daemon.close()
        daemon.flush()  # whoever connects recovers it
        memory.conversations.save_message(agent, "user", "after a loss")
        assert len(memory.conversations.get_history(agent)) == 2


def test_the_query_for_who_holds_the_shards_runs(urls: tuple[str, str]) -> None:
    with psycopg.connect(urls[1]) as connection:
        assert connection.execute(blocks("sql")[0].encode()).fetchall() is not None


def test_the_user_of_redis_may_do_what_it_must(redis_url: str, database_url: str) -> None:
    (words,) = [shlex.split(block) for block in blocks("text") if block.startswith("ACL ")]
    with own_redis(like=redis_url) as url, own_database(database_url, SETTINGS) as cold:
        with redis.Redis.from_url(url) as server:
            try:
                server.execute_command(*words)
            except redis.ResponseError:  # Redis 7.0 knows no WAITAOF
                words.remove("+waitaof")
                server.execute_command(*words)
        secret = f"{url.replace('unix://', 'unix://banshee:secret@', 1)}"
        agent = uuid4()
        with MemoryPlugin(cold, secret, settings=SETTINGS) as memory:
            memory.conversations.save_message(agent, "user", "hello")
            memory.memories.store_memory(agent, "fact", "x", 1)
            memory.emotions.update_emotions(agent, {})
            assert memory.evict(agent).kept == 0
            memory.evict_idle(0)
            assert [m.content for m in memory.conversations.get_history(agent)] == ["hello"]
            assert memory.health_check().problems == ()
            assert memory.forget(agent).left == 0
            memory.flush()
            assert memory.stats().backlog.records == 0
