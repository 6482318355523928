"""What each command does, on real servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import redis
from click.testing import CliRunner

from banshee_memory.cli import main
from banshee_memory.cold.migrate import migrate
from banshee_memory.hot.keys import agent_keys
from banshee_memory.settings import Settings
from banshee_memory.tiering.transfer import agent_of
from tests import originals
from tests.cli.conftest import Run
from tests.own_servers import empty_database

Told = Callable[..., Any]
NAME = "a name that a person gave"


def life(agent: UUID | str) -> str:
    """A short life as a file."""
    lines: list[dict[str, Any]] = [
        {"type": "state", "emotions": {"love": 0.9}},
        {"type": "message", "ago": 20, "role": "user", "content": "Two foxes [bold]ran[/bold] by.", "tokens": 6},
        {"type": "message", "ago": 10, "role": "assistant", "content": "Where to?", "tokens": 3},
        {
            "type": "event",
            "event": {"type": "custom", "event_type": "seen", "data": {"foxes": 2}},
            "emotions": {"Joy": 0.5},
            "mode": "add",
        },
        {"type": "memory", "memory_type": "fact", "key": "foxes", "data": {"count": 2}, "importance": 0.7},
    ]
    return "\n".join(json.dumps({"agent": str(agent), **line}) for line in lines) + "\n"


def test_import_from_a_file_and_from_standard_input(run: Run, told: Told, agent: UUID, tmp_path: Path) -> None:
    file = tmp_path / "life.jsonl"
    file.write_text(life(agent))
    expected = {"agents": 1, "messages": 2, "events": 1, "states": 1, "memories": 1, "skipped": 0}
    assert told("import", str(file)) == expected
    assert "2 messages, 1 events" in run("import", "-", stdin=life(agent)).stdout
    assert told("show", str(agent))["totals"]["total_messages"] == 4


def test_a_record_that_cannot_go_in_keeps_all_out(run: Run, told: Told, agent: UUID, tmp_path: Path) -> None:
    file = tmp_path / "life.jsonl"
    bad = {"type": "message", "agent": str(agent), "role": "boss", "content": "x"}
    file.write_text(life(agent) + json.dumps(bad) + "\n")
    assert "record 6, role: 'boss' is none of" in run("import", str(file), code=2).stderr
    file.write_text(life(agent) + '{"type": "message", "agnet": 1}\n')
    assert "line 6" in run("import", str(file), code=2).stderr
    assert told("show", str(agent))["totals"]["total_messages"] == 0


def test_what_has_expired_is_refused_or_skipped(run: Run, told: Told, agent: UUID, tmp_path: Path) -> None:
    file = tmp_path / "life.jsonl"
    old = {"type": "message", "agent": str(agent), "role": "user", "content": "long ago", "ago": 86400 * 365}
    file.write_text(json.dumps(old) + "\n" + life(agent))
    assert "record 1, created_at" in run("import", str(file), code=2).stderr
    report = told("import", str(file), "--skip-expired")
    assert (report["messages"], report["skipped"]) == (2, 1)


def test_an_original_is_taken_over(run: Run, told: Told, database_url: str) -> None:
    with empty_database(database_url) as theirs:
        originals.make(theirs, 100, migrated=True)
        report = told("import", "--from-postgres", theirs)
        assert report["tables"]["messages"]["taken"] == 50
        drawn = run("import", "--from-postgres", theirs).stdout
        assert "Taken over, and compared" in drawn
        assert report["tables"]["events"]["checksum"][:12] in drawn
        with psycopg.connect(theirs) as database:
            database.execute("UPDATE conversation_messages SET created_at = now() - interval '1 year'")
            database.execute("UPDATE memory_records SET memory_type = '!' WHERE key = 'key 1'")
        assert "memory " in run("import", "--from-postgres", theirs, code=2).stderr
        said = run("import", "--from-postgres", theirs, "--skip-unmappable", code=2).stderr
        assert "50 messages are beyond retention" in said
        skipped = run("import", "--from-postgres", theirs, "--skip-unmappable", "--skip-expired")
        assert "skipped: memory" in skipped.stderr
        assert "Left out of the messages: 50 expired." in skipped.stdout
    run("import", code=2)
    run("import", "-", "--from-postgres", "postgresql:///x", code=2)


def test_show(run: Run, told: Told) -> None:
    run("import", "-", stdin=life(NAME))
    shown = told("show", NAME)
    assert shown["agent"] == str(agent_of(NAME))
    assert shown["state"]["emotions"]["love"] > 0.8
    assert [m["role"] for m in shown["messages"][-2:]] == ["user", "assistant"]
    assert shown["memories"][0]["data"] == {"count": 2}
    drawn = run("show", str(agent_of(NAME))).stdout
    assert "love" in drawn
    assert "█" in drawn
    assert "[bold]ran[/bold]" in drawn  # said by somebody, so it is no markup
    assert max(map(len, drawn.splitlines())) <= 80


def test_show_of_nobody(run: Run, agent: UUID) -> None:
    assert f"Nothing is known of {agent}" in run("show", str(agent)).stdout


def test_what_was_said_cannot_obey_a_terminal(run: Run, agent: UUID) -> None:
    line = {"type": "message", "agent": str(agent), "role": "user", "content": "\x1b]0;owned\x07\x1b[2J"}
    run("import", "-", stdin=json.dumps(line))
    assert "\x1b" not in run("show", str(agent)).stdout


def test_trends(run: Run, told: Told, agent: UUID) -> None:
    run("import", "-", stdin=life(agent))
    (point,) = told("trends", str(agent), "--hours", "1")
    assert point["valence"] == 1.0
    assert point["events"] == 1
    assert "+1.00" in run("trends", str(agent), "--bucket", "5").stdout
    run("trends", str(agent), "--bucket", "-5", code=2)
    run("trends", str(agent), "--bucket", "inf", code=2)
    run("trends", str(agent), "--hours", "0", code=2)


def test_the_past_and_the_reasons(run: Run, told: Told, agent: UUID) -> None:
    run("import", "-", stdin=life(agent))
    feeling = {"type": "event", "agent": str(agent), "event": {"type": "custom", "event_type": "gift"}, "mode": "add"}
    run("import", "-", stdin=json.dumps({**feeling, "emotions": {"hate": 0.75}}))
    account = told("why", str(agent), "hate")
    assert [part["event"]["event_type"] for part in account["contributions"]] == ["gift"]
    drawn = run("why", str(agent), "hate").stdout
    assert "gift" in drawn
    assert "+0.750" in drawn
    assert run("why", str(agent)).stdout.split()[0] in {"hate", "love"}
    at = account["contributions"][0]["event"]["created_at"]
    felt = told("show", str(agent), "--at", at)["state"]["emotions"]["hate"]
    assert felt == pytest.approx(0.75, abs=0.05)  # the line was read a moment before it was written
    assert "felt at" in run("show", str(agent), "--at", at).stdout
    assert "Nothing is known" in run("show", str(agent), "--at", "2020-01-01").stdout
    run("show", str(agent), "--at", "yesterday", code=2)
    run("why", str(agent), "boredom", code=2)
    run("why", str(uuid4()), code=2)


def test_search(run: Run, told: Told, agent: UUID) -> None:
    run("import", "-", stdin=life(agent))
    (found,) = told("search", str(agent), "fox")
    assert found["content"] == "Two foxes [bold]ran[/bold] by."
    assert "Two foxes" in run("search", str(agent), "fox").stdout
    assert "none" in run("search", str(agent), "zebra").stdout


def test_flush_evict_and_rehydrate(run: Run, told: Told, agent: UUID) -> None:
    run("import", "-", stdin=life(agent))
    report = told("flush", "--agent", str(agent))
    assert report["messages"] >= 2
    run("flush")
    assert told("flush")["messages"] == 0
    assert told("evict", str(agent))["dropped"] >= 4
    assert told("rehydrate", str(agent)) == {"state": True, "messages": 2, "events": 1, "memories": 1}
    assert "keys dropped" in run("evict", str(agent)).stdout
    assert "its state, 2 messages, 1 events and 1 memories came back" in run("rehydrate", str(agent)).stdout
    assert "Flushed" in run("flush").stdout
    assert told("evict", "--idle", "86400")["dropped"] == 0
    assert "idle for 86400 s" in run("evict", "--idle", "86400").stdout
    run("evict", code=2)
    run("evict", str(agent), "--idle", "1", code=2)


def test_export_is_what_import_takes(run: Run, told: Told, agent: UUID, tmp_path: Path) -> None:
    run("import", "-", stdin=life(agent))
    file = tmp_path / "agent.jsonl"
    run("export", str(agent), "--output", str(file))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["type"] for line in lines] == ["state", "message", "message", "event", "memory"]
    assert file.read_text() == run("export", str(agent)).stdout
    assert told("import", str(file))["messages"] == 2


def test_stats(run: Run, told: Told, agent: UUID) -> None:
    run("import", "-", stdin=life(agent))
    run("flush")
    found = told("stats")
    assert found["agents"] >= 1
    empty = {"records": 0, "bytes": 0, "oldest_age": None}
    assert found["backlog"] == {**empty, "limit": 5_000_000, "fullest": 0.0, "pace": None}
    assert "conversation_messages" in run("stats").stdout


def test_migrate(run: Run, told: Told) -> None:
    (first, *_) = told("migrate", "--status")
    assert first["applied_at"]
    assert first["state"] == "applied"
    assert not any(migration["now"] for migration in told("migrate"))
    assert "0001_initial_schema" in run("migrate").stdout
    assert "0 weeks" in run("migrate", "--index-words").stdout


def test_the_status_of_migrations_is_for_scripts(database_url: str, redis_url: str) -> None:
    with empty_database(database_url) as url:
        where = ("--redis-url", redis_url, "--database-url", url)

        def status() -> tuple[int, list[tuple[str, str]]]:
            done = CliRunner().invoke(main, [*where, "migrate", "--status", "--json"])
            return done.exit_code, [(row["name"], row["state"]) for row in json.loads(done.stdout)]

        assert status() == (1, [("0001_initial_schema", "pending")])
        migrate(url, Settings())
        assert status() == (0, [("0001_initial_schema", "applied")])
        with psycopg.connect(url) as database:
            database.execute("INSERT INTO banshee_migrations (name) VALUES ('0002_of_tomorrow')")
        assert status() == (1, [("0001_initial_schema", "applied"), ("0002_of_tomorrow", "unknown")])
        with psycopg.connect(url) as database:
            database.execute("UPDATE banshee_migrations SET checksum = 'x'")
        assert status()[1][0] == ("0001_initial_schema", "changed")
        shown = CliRunner().invoke(main, [*where, "migrate", "--status"]).stdout
        assert "this version needs  0001_initial_schema" in shown
        assert "the database has    0002_of_tomorrow" in shown


def test_doctor(run: Run, told: Told) -> None:
    run("flush")
    checks = {check["name"]: check for check in told("doctor", "--load")}
    assert not [check for check in checks.values() if check["level"] == "problem"]
    assert {"Redis", "PostgreSQL", "Lua library", "shards", "memory", "append-only file", "unflushed"} <= checks.keys()
    assert "Lua library" in run("doctor").stdout


def test_dead_letters(run: Run, told: Told, agent: UUID, redis_url: str) -> None:
    run("import", "-", stdin=life(agent))
    with redis.Redis.from_url(redis_url) as server:
        server.xadd(agent_keys(agent, 64).log, {"k": b"Z" + agent.bytes, "p": b"what nobody may read"})
    run("flush")
    mine = ("--agent", str(agent))
    (letter,) = told("dead-letters", *mine)
    assert letter["kind"] == "Z"
    assert letter["agent_id"] == str(agent)
    assert told("dead-letters", "list", *mine) == [letter]
    assert "Dead letters: 1" in run("dead-letters", "--limit", "1", *mine).stdout
    assert "what nobody" not in run("dead-letters", *mine).stdout
    assert told("dead-letters", "retry", letter["id"]) == {"done": 1, "of": 1}
    run("flush")
    (again,) = told("dead-letters", *mine)
    assert again["id"] != letter["id"]
    assert "0 of 1 dead letters" in run("dead-letters", "retry", letter["id"]).stdout
    run("dead-letters", "drop", *mine, code=1, stdin="n\n")
    assert "1 of 1 dead letters are given up" in run("dead-letters", "drop", *mine, "--yes").stdout
    assert told("dead-letters", *mine) == []


def test_dead_letters_are_chosen_one_way(run: Run, agent: UUID) -> None:
    run("dead-letters", "--limit", "0", code=2)
    run("dead-letters", "--shard", "64", code=2)
    for act in ("retry", "drop"):
        for words in ([], ["--all", "--shard", "1"], ["1:1-1", "--agent", str(agent)], ["nonsense"]):
            run("dead-letters", act, *words, code=2, stdin="y\n")


def test_forget_asks_and_erases(run: Run, told: Told, agent: UUID) -> None:
    run("import", "-", stdin=life(agent))
    run("flush")
    asked = run("forget", str(agent), code=1, stdin="n\n")
    assert "2 messages and all else of it?" in asked.stderr
    assert told("show", str(agent))["totals"]["total_messages"] == 2
    report = told("forget", str(agent), "--yes")
    assert (report["messages"], report["memories"], report["left"]) == (2, 1, 0)
    assert "Nothing is known" in run("show", str(agent)).stdout
    said = run("forget", str(agent), stdin="y\n").stdout
    assert "is forgotten" in said
    assert "looked again everywhere" in said
