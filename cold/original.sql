-- What is asked of a database that the original plugin wrote. Rows come as JSON, whole: so a column that a database of the
-- plugin's start-up code lacks is simply not in them.

-- name: original_tables
-- Which of the original's tables there are, in the search path of the connection.
SELECT name FROM unnest(ARRAY['emotional_states', 'emotional_events', 'conversation_messages', 'memory_records',
                              'agent_sessions']) AS name
WHERE to_regclass(name) IS NOT NULL;

-- name: original_is_ours
-- Whether it is no original at all, but a database of this package.
SELECT to_regclass('banshee_migrations') IS NOT NULL;

-- name: original_begin
-- One snapshot for the whole import: counts, rows and the check at the end see the same.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;

-- name: count_states
-- How many states there are; of an agent with several (nothing kept it to one) the newest counts.
SELECT count(DISTINCT agent_id) FROM emotional_states;

-- name: count_superseded_states
-- How many states an agent has a newer one of.
SELECT count(*) - count(DISTINCT agent_id) FROM emotional_states;

-- name: count_events
-- How many events there are.
SELECT count(*) FROM emotional_events;

-- name: count_messages
-- How many messages there are.
SELECT count(*) FROM conversation_messages;

-- name: count_memories
-- How many memories there are.
SELECT count(*) FROM memory_records;

-- name: count_sessions
-- How many sessions there are.
SELECT count(*) FROM agent_sessions;

-- name: original_states
-- The newest state of each agent.
SELECT DISTINCT ON (agent_id) to_jsonb(original)::text
FROM emotional_states AS original
ORDER BY agent_id, updated_at DESC, created_at DESC, id;

-- name: original_events
-- Every event, oldest first.
SELECT to_jsonb(original)::text FROM emotional_events AS original ORDER BY created_at, id;

-- name: original_messages
-- Every message, oldest first.
SELECT to_jsonb(original)::text FROM conversation_messages AS original ORDER BY created_at, id;

-- name: original_memories
-- Every memory, by its agent.
SELECT to_jsonb(original)::text FROM memory_records AS original ORDER BY agent_id, id;

-- name: original_sessions
-- Every session, oldest first.
SELECT to_jsonb(original)::text FROM agent_sessions AS original ORDER BY session_start, id;
