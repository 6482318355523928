"""A database with a crowd in it, made by the server itself: thirty weeks of messages, thirty days of events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
from psycopg.sql import SQL, Literal

from banshee_memory.cold import partitions
from banshee_memory.cold.session import BoundedConnection, connection_arguments
from banshee_memory.settings import Settings
from banshee_memory.stamps import to_us

END = datetime(2026, 7, 1, tzinfo=UTC)
PARTITIONS = 30
# An agent is its number; what it says and feels is spread evenly over the time, and its stamps follow that.
_FUNCTIONS = """
CREATE FUNCTION pg_temp.agent(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
    $$ SELECT lpad(to_hex(n), 32, '0')::uuid $$;
CREATE FUNCTION pg_temp.stamp(at timestamptz, n bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS
    $$ SELECT (extract(epoch FROM at) * 1000)::bigint * 65536 + n % 65536 $$;
"""
_FILL = """
INSERT INTO conversation_messages (agent_id, created_at, stamp, id, role, content, metadata, tokens_used)
    SELECT pg_temp.agent(n % {agents}), at, pg_temp.stamp(at, n), gen_random_uuid(), 'user',
           'number ' || n || ' of the words that are said', CASE WHEN n % 3 = 0 THEN '{{"k": 1}}'::jsonb END, 7
    FROM generate_series(0, {messages} - 1) AS n,
         LATERAL (SELECT {end}::timestamptz - interval '1 second'
                         - n * (interval '1 day' * {days} / {messages}) AS at) AS placed;
INSERT INTO emotional_events (agent_id, occurred_at, stamp, id, event_type, event_data, mode, resulting_emotions,
                              emotions_after, valence, arousal, intensity, valence_delta, arousal_delta,
                              intensity_delta, created_at, late)
    SELECT pg_temp.agent(n % {agents}), at, pg_temp.stamp(at, n), gen_random_uuid(), 'rain',
           '{{"type": "custom", "event_type": "rain"}}', 'add', '{{"joy": 0.5}}', '{{"joy": 0.5}}', 1, 0.8, 0.5, 0, 0,
           0, at, n % 97 = 0
    FROM generate_series(0, {events} - 1) AS n,
         LATERAL (SELECT {end}::timestamptz - interval '1 second' - n * (interval '1 day' * 30 / {events}) AS at)
                  AS placed;
INSERT INTO emotional_states (agent_id, emotions, felt_at, last_updated, stamp)
    SELECT pg_temp.agent(n), '{{"joy": 0.5}}', '{{"joy": 1}}', {end}, 1 FROM generate_series(0, {agents} - 1) AS n;
INSERT INTO memory_records (agent_id, memory_type, key, data, importance, access_count, last_accessed, created_at,
                            updated_at, expires_at, tags, stamp)
    SELECT pg_temp.agent(n % {agents}), (ARRAY['fact', 'goal', 'skill'])[1 + n % 3], 'key ' || n, '{{}}', 0.5, 0,
           {end}, {end}, {end}, CASE WHEN n % 10 = 0 THEN {end} END, '{{}}', 1
    FROM generate_series(0, {memories} - 1) AS n;
INSERT INTO agents (agent_id, flushed_stamp, total_messages, first_message, last_message)
    SELECT agent_id, max(stamp), count(*), min(created_at), max(created_at)
    FROM conversation_messages
    GROUP BY agent_id;
UPDATE agents SET total_events = counted.events, first_event = counted.first, last_event = counted.last
    FROM (SELECT agent_id, count(*) AS events, min(occurred_at) AS first, max(occurred_at) AS last
          FROM emotional_events GROUP BY agent_id) AS counted
    WHERE agents.agent_id = counted.agent_id;
INSERT INTO forgotten (agent_id, shard, stamp, at)
    SELECT pg_temp.agent(n + 1000000), 0, 1, '2020-01-01' FROM generate_series(1, {agents}) AS n;
INSERT INTO idempotency (agent_id, function, key, shard, stamp, reply)
    SELECT pg_temp.agent(n % {agents}), 'm', ('k' || n)::bytea, n % 8, n, 'r'::bytea
    FROM generate_series(0, {memories} - 1) AS n;
INSERT INTO emotional_rollups (agent_id, at, hours, events, valence, arousal, intensity, peaks, stamp)
    SELECT pg_temp.agent(n % {agents}), {end}::timestamptz - interval '31 days' - interval '1 hour' * (n / {agents}),
           1, 1, 0, 0, 0, '{{}}', 1
    FROM generate_series(0, {memories} - 1) AS n;
"""


def agent(number: int) -> UUID:
    """One of them."""
    return UUID(int=number)


def fill(url: str, settings: Settings, *, agents: int, messages: int, events: int, memories: int) -> None:
    """Fills a migrated database, and has its statistics taken."""
    days = PARTITIONS * 7
    with BoundedConnection.connect(**connection_arguments(url, settings)) as connection:
        partitions.ensure(
            connection, partitions.EVENTS, [to_us(END - timedelta(days=n + 0.5)) for n in range(PARTITIONS)]
        )
        partitions.ensure(connection, partitions.MESSAGES, [to_us(END - timedelta(days=n + 0.5)) for n in range(days)])
    sizes = {"agents": agents, "messages": messages, "events": events, "memories": memories, "days": days}
    filling = SQL(_FILL).format(end=Literal(END), **{name: Literal(size) for name, size in sizes.items()})
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        # A vacuum marks as visible to all only what is committed to the disk: else it depends on when that is which
        # counts look into an index alone.
        connection.execute("SET synchronous_commit = on")
        connection.execute(_FUNCTIONS.encode())
        connection.execute(filling)
        connection.execute("VACUUM ANALYZE")
