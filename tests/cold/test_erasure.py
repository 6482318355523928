"""Rows of a forgotten agent go in lots, and all of them."""

from __future__ import annotations

from collections import Counter
from uuid import UUID, uuid4

import pytest

from banshee_memory.cold import erasure
from banshee_memory.cold.client import ColdStore
from banshee_memory.cold.queries import STATEMENTS

ONE_ROW = {"bury_agent", "erase_state", "sweep_recoveries"}
"""Of an agent there is one row there; of recoveries, a thousand are kept."""
_KEPT = """
INSERT INTO idempotency (agent_id, function, key, shard, stamp, reply)
    SELECT %(agent)s, 'm', ('k' || n)::bytea, 0, n, 'r' FROM generate_series(1, 10) AS n;
"""
_ROLLED = """
INSERT INTO emotional_rollups (agent_id, at, hours, events, valence, arousal, intensity, peaks, stamp)
    SELECT %(agent)s, '2026-01-01'::timestamptz + n / 2 * interval '1 day', 1 + mod(n, 2) * 23, 1, 0, 0, 0, '{}', n
    FROM generate_series(1, 10) AS n;
"""


@pytest.mark.parametrize("name", [name for name in STATEMENTS if "DELETE FROM" in STATEMENTS[name].sql])
def test_every_deletion_of_many_rows_is_in_lots(name: str) -> None:
    sql = STATEMENTS[name].sql
    assert name in ONE_ROW or "LIMIT %(limit)s" in sql
    assert name in ONE_ROW or sql.count("DELETE FROM") <= sql.count("ctid = ANY (ARRAY(")


def test_an_agent_with_more_rows_than_a_lot_holds_is_erased(
    store: ColdStore, agent: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "_CHUNK", 3)
    other = uuid4()
    with store.connection() as connection:
        for who in (agent, other):
            connection.execute(_KEPT, {"agent": who})
            connection.execute(_ROLLED, {"agent": who})
    gone: Counter[str] = Counter()
    lots: Counter[str] = Counter()
    for kind, count in erasure.erase(store, agent, 9):
        gone[kind] += count
        lots[kind] += 1
    assert (gone["idempotency_keys"], gone["rollups"]) == (9, 9)
    assert lots["idempotency_keys"] >= lots["rollups"] >= 3
    with store.connection() as connection:
        for table in ("idempotency", "emotional_rollups"):
            left = connection.execute(f"SELECT agent_id, count(*) FROM {table} GROUP BY 1".encode()).fetchall()
            assert dict(left) == {agent: 1, other: 10}
