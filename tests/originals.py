"""Databases as the original plugin wrote them, in both of its variants, filled with lives that are always the same."""

from __future__ import annotations

import psycopg

_EMOTIONS = "Joy Distress Hope Fear Satisfaction Disappointment Relief FearConfirmed Pride Shame Admiration"

MIGRATED = """
CREATE TYPE message_role AS ENUM ('user', 'assistant', 'system', 'function');
CREATE TABLE emotional_states (
    id uuid PRIMARY KEY, agent_id uuid NOT NULL UNIQUE, emotions jsonb NOT NULL, decay_rates jsonb NOT NULL,
    overall_valence real, overall_arousal real, dominant_emotion text, dominant_intensity real,
    emotional_temperature real, is_frustrated boolean, is_confident boolean,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE TABLE emotional_events (
    id uuid PRIMARY KEY, agent_id uuid NOT NULL, event_type text NOT NULL, event_data jsonb NOT NULL,
    resulting_emotions jsonb NOT NULL, context_factors jsonb, intensity_delta real, valence_delta real,
    arousal_delta real, appraisal_duration_ms integer, personality_influence jsonb, created_at timestamptz NOT NULL);
CREATE TABLE conversation_messages (
    id uuid PRIMARY KEY, agent_id uuid NOT NULL, role message_role NOT NULL, content text NOT NULL, metadata jsonb,
    emotional_context jsonb, tokens_used integer,
    content_length integer GENERATED ALWAYS AS (length(content)) STORED, created_at timestamptz NOT NULL);
CREATE TABLE memory_records (
    id uuid PRIMARY KEY, agent_id uuid NOT NULL, memory_type text NOT NULL, key text NOT NULL, data jsonb NOT NULL,
    importance real NOT NULL, access_count integer NOT NULL, last_accessed timestamptz, created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL, expires_at timestamptz, tags text[], UNIQUE (agent_id, memory_type, key));
CREATE TABLE agent_sessions (
    id uuid PRIMARY KEY, agent_id uuid NOT NULL, session_start timestamptz NOT NULL, session_end timestamptz,
    initial_emotional_state jsonb, final_emotional_state jsonb, total_messages integer, total_events integer,
    total_tokens_used integer, session_metadata jsonb);
"""
STARTED_UP = """
CREATE TABLE emotional_states (
    id uuid PRIMARY KEY, agent_id uuid NOT NULL, emotions jsonb NOT NULL, decay_rates jsonb NOT NULL,
    overall_valence real, overall_arousal real, dominant_emotion text, dominant_intensity real,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE TABLE emotional_events (
    id uuid PRIMARY KEY, agent_id uuid NOT NULL, event_type text NOT NULL, event_data jsonb NOT NULL,
    resulting_emotions jsonb NOT NULL, context_factors jsonb, intensity_delta real, valence_delta real,
    arousal_delta real, created_at timestamptz NOT NULL);
CREATE TABLE conversation_messages (
    id uuid PRIMARY KEY, agent_id uuid NOT NULL, role text NOT NULL, content text NOT NULL, metadata jsonb,
    emotional_context jsonb, tokens_used integer, created_at timestamptz NOT NULL);
CREATE TABLE memory_records (
    id uuid PRIMARY KEY, agent_id uuid NOT NULL, memory_type text NOT NULL, key text NOT NULL, data jsonb NOT NULL,
    importance real NOT NULL, access_count integer NOT NULL, last_accessed timestamptz, created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL, expires_at timestamptz, UNIQUE (agent_id, memory_type, key));
"""
# A row number n becomes an agent, a time, an id by arithmetic and md5: the same number, the same row.
_FUNCTIONS = """
CREATE FUNCTION pg_temp.id(kind text, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
    $$ SELECT overlay(md5(kind || n) PLACING '4' FROM 13)::uuid $$;
CREATE FUNCTION pg_temp.part(kind text, n bigint) RETURNS double precision LANGUAGE sql IMMUTABLE AS
    $$ SELECT (('x' || left(md5(kind || n || 'part'), 7))::bit(28)::int & 1023) / 1024.0 $$;
CREATE FUNCTION pg_temp.moment(kind text, n bigint) RETURNS timestamptz LANGUAGE sql STABLE AS
    $$ SELECT now() - interval '1 hour' - interval '20 days' * pg_temp.part(kind, n)
                    - interval '1 microsecond' * (n % 1000003) $$;
CREATE FUNCTION pg_temp.felt(n bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_object_agg(name, round(pg_temp.part(name, n)::numeric, 3)) FROM (
        SELECT (string_to_array('{emotions}', ' '))[1 + (n + i * 3) % 11] AS name FROM generate_series(0, n % 3) AS i
    ) AS names $$;
"""
_FILL = """
INSERT INTO emotional_states (id, agent_id, emotions, decay_rates, created_at, updated_at)
    SELECT pg_temp.id('state', n), pg_temp.id('agent', n), pg_temp.felt(n),
           CASE WHEN n % 5 = 0 THEN '{{"Joy": 0.001, "Fear": 0.12}}' ELSE '{{"Joy": 0.05}}' END::jsonb,
           pg_temp.moment('state', n), pg_temp.moment('state', n)
    FROM generate_series(1, {agents}) AS n;
INSERT INTO emotional_events (id, agent_id, event_type, event_data, resulting_emotions, context_factors,
                              intensity_delta, valence_delta, arousal_delta, created_at)
    SELECT pg_temp.id('event', n), pg_temp.id('agent', 1 + n % {agents}),
           (ARRAY['task_completed', 'social_interaction', 'tool_call_failed', 'rain'])[1 + n % 4],
           (ARRAY['{{"TaskCompleted": {{"success": true, "difficulty": 0.7, "time_taken": 120.0,
                                        "expected_time": 100.0}}}}',
                  '{{"SocialInteraction": {{"interaction_type": "Collaboration", "outcome": 0.5,
                                            "peer_status": 0.1}}}}',
                  '{{"ToolCallFailed": {{"attempts": 3, "error_severity": 0.25, "is_critical": false}}}}',
                  '{{"Custom": {{"event_type": "rain", "data": {{"mm": 3.5}}}}}}'])[1 + n % 4]::jsonb,
           pg_temp.felt(n), CASE WHEN n % 2 = 0 THEN '{{"mood": "good"}}'::jsonb END, 0.25, 0, 0,
           pg_temp.moment('event', n)
    FROM generate_series(1, {events}) AS n;
INSERT INTO conversation_messages (id, agent_id, role, content, metadata, emotional_context, tokens_used, created_at)
    SELECT pg_temp.id('message', n), pg_temp.id('agent', 1 + n % {agents}),
           (ARRAY['user', 'assistant', 'system', 'function'])[1 + n % 4]::{role},
           CASE WHEN n % 500 = 0 THEN '' ELSE 'Word ' || n || ' of a fox, ünd 🦊 ' || repeat('x', (n % 97)::int) END,
           CASE WHEN n % 3 = 0 THEN jsonb_build_object('n', n, 'deep', '{{"Joy": "a", "1": [1.5, null]}}'::jsonb) END,
           CASE WHEN n % 4 = 0 THEN pg_temp.felt(n) END, CASE WHEN n % 7 > 0 THEN n % 1000 END,
           pg_temp.moment('message', n)
    FROM generate_series(1, {messages}) AS n;
INSERT INTO memory_records (id, agent_id, memory_type, key, data, importance, access_count, last_accessed, created_at,
                            updated_at, expires_at)
    SELECT pg_temp.id('memory', n), pg_temp.id('agent', 1 + n % {agents}),
           (ARRAY['goal', 'fact', 'skill'])[1 + n % 3], 'key ' || n, jsonb_build_object('n', n), 0.7, n % 50,
           pg_temp.moment('memory', n), pg_temp.moment('memory', n), pg_temp.moment('memory', n),
           CASE WHEN n % 10 = 0 THEN now() + interval '30 days' WHEN n % 25 = 0 THEN now() - interval '1 hour' END
    FROM generate_series(1, {memories}) AS n;
"""
_SESSIONS = """
INSERT INTO agent_sessions (id, agent_id, session_start, session_end, initial_emotional_state, final_emotional_state,
                            total_messages, total_events, total_tokens_used, session_metadata)
    SELECT pg_temp.id('session', n), pg_temp.id('agent', 1 + n % {agents}), pg_temp.moment('session', n),
           CASE WHEN n % 8 > 0 THEN pg_temp.moment('session', n) + interval '5 minutes' END, pg_temp.felt(n),
           pg_temp.felt(n + 1), n % 40, n % 9, 0, jsonb_build_object('n', n)
    FROM generate_series(1, {sessions}) AS n;
UPDATE emotional_events SET appraisal_duration_ms = 12, personality_influence = '{{"openness": 0.5}}'
    WHERE event_type = 'rain';
UPDATE memory_records SET tags = ARRAY['a', 'b'] WHERE memory_type = 'goal';
"""
_TWICE = """
INSERT INTO emotional_states (id, agent_id, emotions, decay_rates, created_at, updated_at)
    SELECT pg_temp.id('older', n), pg_temp.id('agent', n), '{{"Hate": 1}}', '{{}}', now() - interval '21 days',
           now() - interval '21 days'
    FROM generate_series(1, {agents}, 4) AS n;
"""


def make(url: str, rows: int, *, migrated: bool) -> None:
    """Fills a new, empty database with about so many rows: half of them messages, a third events."""
    counts = {
        "agents": max(rows // 100, 3),
        "events": rows * 3 // 10,
        "messages": rows // 2,
        "memories": rows * 3 // 20,
        "sessions": rows // 25,
        "role": "message_role" if migrated else "text",
    }
    with psycopg.connect(url) as database:
        database.execute((MIGRATED if migrated else STARTED_UP).encode())
        database.execute(_FUNCTIONS.replace("{emotions}", _EMOTIONS).encode())
        database.execute((_FILL + (_SESSIONS if migrated else _TWICE)).format(**counts).encode())
