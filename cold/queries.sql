-- Every statement of the cold tier, by name. The line under a name says what it does; parameters are psycopg's.
-- Histories are ordered by (created_at or occurred_at, stamp, id), which is how their primary keys go on after agent_id.
-- Readers of an agent see nothing at or below its tombstone in `forgotten`: its rows go some at a time. What it feels and its
-- totals need no such look: they go with the very statement that writes the tombstone.
-- A time that is called pg_us is read as the number that it travels as, microseconds since 2000: to make objects of many at
-- once costs less.

-- name: state_of
-- What an agent feels, as it was felt.
SELECT emotions, felt_at, decay_rates, last_updated, stamp, absence, paused_us, away_since
FROM emotional_states
WHERE agent_id = %(agent)s;

-- name: message_page
-- The newest messages of an agent before a place in its history and not before a time, newest first; and, in a row without a
-- message, how many there ever were, and between which times: so whoever bounded it knows in the same round trip whether that
-- was too narrow.
(SELECT id, role, content, metadata, emotional_context, tokens_used, session_id, created_at AS pg_us,
        stamp
 FROM conversation_messages
 WHERE agent_id = %(agent)s
   AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
   AND created_at BETWEEN %(since)s AND %(until)s
   AND (created_at, stamp) < (%(until)s, %(stamp)s)
 ORDER BY created_at DESC, stamp DESC, id DESC
 LIMIT %(limit)s)
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, total_messages, NULL, first_message,
       (extract(epoch FROM last_message) * 1000000)::bigint
FROM agents
WHERE agent_id = %(agent)s;

-- name: messages_after
-- The oldest messages of an agent after a place in its history and not after a time, oldest first: what an export walks along.
SELECT id, role, content, metadata, emotional_context, tokens_used, session_id, created_at AS pg_us, stamp
FROM conversation_messages
WHERE agent_id = %(agent)s
  AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
  AND created_at BETWEEN %(since)s AND %(until)s
  AND (created_at, stamp, id) > (%(since)s, %(stamp)s, %(id)s)
ORDER BY created_at, stamp, id
LIMIT %(limit)s;

-- name: message_place
-- One message of an agent, in the partition that the time in its id names.
SELECT id, role, content, metadata, emotional_context, tokens_used, session_id, created_at AS pg_us, stamp
FROM conversation_messages
WHERE agent_id = %(agent)s
  AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
  AND created_at >= %(since)s
  AND created_at < %(until)s
  AND id = %(id)s;

-- name: message_place_unpruned
-- One message of an agent whose id carries no time: every partition is asked.
SELECT id, role, content, metadata, emotional_context, tokens_used, session_id, created_at AS pg_us, stamp
FROM conversation_messages
WHERE agent_id = %(agent)s
  AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
  AND id = %(id)s
ORDER BY created_at, stamp
LIMIT 1;

-- name: search
-- The agent's messages that match, best first, then newest; the unflushed ones are judged by the same rules and count as
-- newest. A message that is in both counts once, as the stored one. Where more stored ones match than are to be ranked, the
-- newest are, and each row says that they are so many: then nothing older than `since` would be among them. (IS TRUE and interval '0' keep the primary key from looking as if it gave these at once.) Clients send the language as a constant, as it is in the indexes of words: see queries.in_language.
WITH sought AS MATERIALIZED (
    SELECT websearch_to_tsquery(%(language)s::regconfig, %(query)s) AS query
), candidates AS (
    (SELECT id, role, content, metadata, emotional_context, tokens_used, session_id, created_at, stamp, true AS stored
     FROM conversation_messages
     WHERE agent_id = %(agent)s
       AND banshee_document(%(language)s::regconfig, content) @@ (SELECT query FROM sought)
       AND (stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)) IS TRUE
       AND created_at >= coalesce((SELECT first_message FROM agents WHERE agent_id = %(agent)s), '-infinity')
       AND created_at >= %(since)s
     ORDER BY created_at + interval '0' DESC, stamp DESC, id DESC
     LIMIT %(ranked)s)
    UNION ALL
    SELECT id, NULL, content, NULL, NULL, NULL, NULL, 'infinity', place, false
    FROM unnest(%(ids)s::uuid[], %(texts)s::text[]) WITH ORDINALITY AS unflushed (id, content, place)
    WHERE banshee_document(%(language)s::regconfig, content) @@ (SELECT query FROM sought)
), matching AS (
    SELECT DISTINCT ON (id) candidates.*,
           ts_rank(banshee_document(%(language)s::regconfig, content), (SELECT query FROM sought)) AS rank
    FROM candidates
    ORDER BY id, stored DESC
)
SELECT id, role, content, metadata, emotional_context, tokens_used, session_id,
       CASE WHEN stored THEN created_at END AS pg_us, stamp,
       (SELECT count(*) FROM candidates WHERE candidates.stored) = %(ranked)s
FROM matching
ORDER BY rank DESC, created_at DESC, stamp DESC, id DESC
LIMIT %(limit)s;

-- name: word_index_steps
-- What lets a search in a language find words by an index: statements, to be run one by one outside of a transaction. They
-- make an index for each partition that ended in a span of time and is not small, where that has none that is whole and of
-- this language, the newest first; none where somebody builds one, and none that this role may not build. What an index is
-- of is told by its expression. The planner takes agents to be few there (n_distinct): whoever said much is found by words.
WITH wanted AS (
    SELECT %(language)s::regconfig::text AS language
), agents_indexed AS (
    SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'btree_gin') AS possible,
           has_database_privilege(current_database(), 'CREATE') AND has_schema_privilege(current_schema(), 'CREATE')
           AND EXISTS (SELECT FROM pg_available_extension_versions
                       WHERE name = 'btree_gin'
                         AND (trusted OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))) AS creatable
), lacking AS (
    SELECT part.oid::regclass::text AS part, part.relname || '_words' AS name, built.indexrelid::regclass AS built, upper,
           format('banshee_document(%%L::regconfig, content)', language) AS words
    FROM wanted, pg_inherits JOIN pg_class AS part ON part.oid = inhrelid
         CROSS JOIN LATERAL (
             SELECT substring(pg_get_expr(part.relpartbound, part.oid) FROM 'TO \(''([^'']+)''\)')::timestamptz AS upper
         ) AS bound
         LEFT JOIN (pg_index AS built JOIN pg_class AS called ON called.oid = built.indexrelid)
             ON built.indrelid = part.oid AND called.relname = part.relname || '_words'
    WHERE inhparent = to_regclass('conversation_messages')
      AND upper > coalesce(%(since)s::timestamptz, '-infinity') AND upper <= %(until)s
      AND pg_relation_size(part.oid) >= %(least)s
      AND pg_has_role(part.relowner, 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE relid = part.oid)
      AND NOT coalesce(built.indisvalid AND pg_get_expr(built.indexprs, built.indrelid)
                                            = format('banshee_document(%%L::regconfig, content)', language), false)
)
SELECT step
FROM (
    SELECT 'infinity' AS upper, 0 AS place, 'CREATE EXTENSION IF NOT EXISTS btree_gin' AS step
    FROM agents_indexed
    WHERE creatable AND NOT possible AND EXISTS (SELECT FROM lacking)
    UNION ALL
    SELECT upper, 1, format('DROP INDEX CONCURRENTLY IF EXISTS %%s', built) FROM lacking WHERE built IS NOT NULL
    UNION ALL
    SELECT upper, 2, format('ALTER TABLE %%s ALTER COLUMN agent_id SET (n_distinct = 200)', part) FROM lacking
    UNION ALL
    SELECT upper, 3, format('ANALYZE %%s (agent_id)', part) FROM lacking
    UNION ALL
    SELECT upper, 4, format('CREATE INDEX CONCURRENTLY IF NOT EXISTS %%I ON %%s USING gin (%%s%%s)', name, part,
                            CASE WHEN possible OR creatable THEN 'agent_id, ' END, words)
    FROM lacking, agents_indexed
) AS steps
ORDER BY upper DESC, place;

-- name: weeks_without_words
-- Where the partitions begin that word_index_steps would index, whoever owns them and whether or not somebody is at it.
SELECT lower
FROM pg_inherits JOIN pg_class AS part ON part.oid = inhrelid
     CROSS JOIN LATERAL (
         SELECT substring(pg_get_expr(part.relpartbound, part.oid) FROM 'FROM \(''([^'']+)''\)')::timestamptz AS lower,
                substring(pg_get_expr(part.relpartbound, part.oid) FROM 'TO \(''([^'']+)''\)')::timestamptz AS upper
     ) AS bounds
WHERE inhparent = to_regclass('conversation_messages')
  AND upper > coalesce(%(since)s::timestamptz, '-infinity') AND upper <= %(until)s
  AND pg_relation_size(part.oid) >= %(least)s
  AND NOT EXISTS (
      SELECT FROM pg_index AS built JOIN pg_class AS called ON called.oid = built.indexrelid
      WHERE built.indrelid = part.oid AND called.relname = part.relname || '_words' AND built.indisvalid
        AND pg_get_expr(built.indexprs, built.indrelid)
            = format('banshee_document(%%L::regconfig, content)', %(language)s::regconfig::text))
ORDER BY lower;

-- name: totals_of
-- An agent's exact totals, and up to which stamp they count.
SELECT flushed_stamp, total_messages, user_messages, assistant_messages, system_messages, function_messages,
       tool_messages, total_tokens, first_message, last_message, total_events
FROM agents
WHERE agent_id = %(agent)s;

-- name: lifespan_of
-- How many messages and events of an agent there ever were, between which times, and up to which stamp that counts.
SELECT flushed_stamp, total_messages, first_message, last_message, total_events, first_event, last_event
FROM agents
WHERE agent_id = %(agent)s;

-- name: event_page
-- The newest events of an agent before a place in its history and not before a time, newest first, and what is known of all;
-- see message_page.
(SELECT id, event_type, event_data, resulting_emotions, context_factors, valence, arousal, intensity,
        valence_delta, arousal_delta, intensity_delta, occurred_at, created_at, session_id, mode, stamp
 FROM emotional_events
 WHERE agent_id = %(agent)s
   AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
   AND occurred_at BETWEEN %(since)s AND %(until)s
   AND (occurred_at, stamp) < (%(until)s, %(stamp)s)
 ORDER BY occurred_at DESC, stamp DESC, id DESC
 LIMIT %(limit)s)
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, first_event, last_event, NULL, NULL, total_events
FROM agents
WHERE agent_id = %(agent)s;

-- name: events_after
-- The oldest events of an agent after a place in its history and not after a time, oldest first; see messages_after.
SELECT id, event_type, event_data, resulting_emotions, context_factors, valence, arousal, intensity,
       valence_delta, arousal_delta, intensity_delta, occurred_at, created_at, session_id, mode, stamp
FROM emotional_events
WHERE agent_id = %(agent)s
  AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
  AND occurred_at BETWEEN %(since)s AND %(until)s
  AND (occurred_at, stamp, id) > (%(since)s, %(stamp)s, %(id)s)
ORDER BY occurred_at, stamp, id
LIMIT %(limit)s;

-- name: trend
-- What an agent felt since a time: the newest of its events, what remains of those whose partitions are gone, and up to when
-- that is (in a row without events). In one statement: so an event is in it once while its partition goes.
(SELECT id, occurred_at, stamp, valence, arousal, intensity, 1::bigint, emotions_after
 FROM emotional_events
 WHERE agent_id = %(agent)s
   AND occurred_at >= %(since)s
   AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
 ORDER BY occurred_at DESC, stamp DESC, id DESC
 LIMIT %(limit)s)
UNION ALL
SELECT NULL, at, stamp, valence / events, arousal / events, intensity / events, events, peaks
FROM emotional_rollups
WHERE agent_id = %(agent)s
  AND at >= %(since)s
  AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
UNION ALL
SELECT NULL, rolled_up_to, 0, 0, 0, 0, 0, '{}' FROM banshee_store;

-- name: deeds_until
-- An agent's newest events by when they were taken, before a stamp, newest first, with the state around each. What came
-- late (it occurred before it was told) can lie anywhere in its life: it has an index of its own.
SELECT * FROM (
    (SELECT id, event_type, event_data, resulting_emotions, context_factors, valence, arousal,
            intensity, valence_delta, arousal_delta, intensity_delta, occurred_at, created_at, session_id, mode, stamp,
            emotions_after, state_before
     FROM emotional_events
     WHERE agent_id = %(agent)s
       AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
       AND NOT late AND occurred_at BETWEEN %(first)s AND %(until)s AND (stamp, id) < (%(stamp)s, %(id)s)
     ORDER BY occurred_at DESC, stamp DESC, id DESC
     LIMIT %(limit)s)
    UNION ALL
    (SELECT id, event_type, event_data, resulting_emotions, context_factors, valence, arousal,
            intensity, valence_delta, arousal_delta, intensity_delta, occurred_at, created_at, session_id, mode, stamp,
            emotions_after, state_before
     FROM emotional_events
     WHERE agent_id = %(agent)s
       AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
       AND late AND occurred_at BETWEEN %(first)s AND %(last)s AND (stamp, id) < (%(stamp)s, %(id)s)
     ORDER BY stamp DESC, id DESC
     LIMIT %(limit)s)
) AS deeds
ORDER BY stamp DESC, id DESC
LIMIT %(limit)s;

-- name: deed_from
-- The first event of an agent that was taken at a stamp or after it, with the state around it. See deeds_until.
SELECT * FROM (
    (SELECT id, event_type, event_data, resulting_emotions, context_factors, valence, arousal,
            intensity, valence_delta, arousal_delta, intensity_delta, occurred_at, created_at, session_id, mode, stamp,
            emotions_after, state_before
     FROM emotional_events
     WHERE agent_id = %(agent)s
       AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
       AND NOT late AND occurred_at BETWEEN %(since)s AND %(last)s AND stamp >= %(stamp)s
     ORDER BY occurred_at, stamp, id
     LIMIT 1)
    UNION ALL
    (SELECT id, event_type, event_data, resulting_emotions, context_factors, valence, arousal,
            intensity, valence_delta, arousal_delta, intensity_delta, occurred_at, created_at, session_id, mode, stamp,
            emotions_after, state_before
     FROM emotional_events
     WHERE agent_id = %(agent)s
       AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
       AND late AND occurred_at BETWEEN %(first)s AND %(last)s AND stamp >= %(stamp)s
     ORDER BY stamp, id
     LIMIT 1)
) AS deeds
ORDER BY stamp, id
LIMIT 1;

-- name: memory_of
-- One memory of an agent, deleted or not.
SELECT memory_type, key, data, importance, access_count, last_accessed, created_at, updated_at, expires_at, tags,
       stamp, deleted
FROM memory_records
WHERE agent_id = %(agent)s AND memory_type = %(memory_type)s AND key = %(key)s
  AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1);

-- name: memory_page
-- An agent's living memories of one type, by importance, then last access, descending.
SELECT memory_type, key, data, importance, access_count, last_accessed, created_at, updated_at, expires_at, tags,
       stamp, deleted
FROM memory_records
WHERE agent_id = %(agent)s
  AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
  AND memory_type = %(memory_type)s
  AND NOT deleted
  AND (expires_at IS NULL OR expires_at > %(now)s)
ORDER BY importance DESC, last_accessed DESC, key COLLATE "C"
LIMIT %(limit)s OFFSET %(offset)s;

-- name: memory_page_of_all_types
-- An agent's living memories, by importance, then last access, descending; types that begin with _ are not memories.
SELECT memory_type, key, data, importance, access_count, last_accessed, created_at, updated_at, expires_at, tags,
       stamp, deleted
FROM memory_records
WHERE agent_id = %(agent)s
  AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
  AND left(memory_type, 1) <> '_'
  AND NOT deleted
  AND (expires_at IS NULL OR expires_at > %(now)s)
ORDER BY importance DESC, last_accessed DESC, memory_type COLLATE "C", key COLLATE "C"
LIMIT %(limit)s OFFSET %(offset)s;

-- name: memories_after
-- An agent's living memories after one of them, by their names: what an export walks along. See memory_page_of_all_types.
SELECT memory_type, key, data, importance, access_count, last_accessed, created_at, updated_at, expires_at, tags,
       stamp, deleted
FROM memory_records
WHERE agent_id = %(agent)s
  AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
  AND (memory_type, key) > (%(memory_type)s, %(key)s)
  AND left(memory_type, 1) <> '_'
  AND NOT deleted
  AND (expires_at IS NULL OR expires_at > %(now)s)
ORDER BY memory_type, key
LIMIT %(limit)s;

-- name: session_totals
-- What an agent's messages and events up to a stamp add up to that belong to a session: by name, or by none and their stamps.
-- What names a session can have brought a time of its own, so the times that bound this are those of the agent's whole life.
SELECT messages, tokens, events
FROM (
    SELECT count(*) AS messages, coalesce(sum(tokens_used), 0)::bigint AS tokens
    FROM conversation_messages
    WHERE agent_id = %(agent)s
      AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
      AND stamp <= %(through)s AND created_at BETWEEN %(first_message)s AND %(last_message)s
      AND (session_id = %(session)s
           OR (session_id IS NULL
               AND EXISTS (SELECT FROM unnest(%(firsts)s::bigint[], %(lasts)s::bigint[]) AS span (first, last)
                           WHERE stamp BETWEEN first AND last)))
) AS said, (
    SELECT count(*) AS events
    FROM emotional_events
    WHERE agent_id = %(agent)s
      AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = %(agent)s), -1)
      AND stamp <= %(through)s AND occurred_at BETWEEN %(first_event)s AND %(last_event)s
      AND (session_id = %(session)s
           OR (session_id IS NULL
               AND EXISTS (SELECT FROM unnest(%(firsts)s::bigint[], %(lasts)s::bigint[]) AS span (first, last)
                           WHERE stamp BETWEEN first AND last)))
) AS happened;

-- name: shard_stamp
-- Up to which stamp one shard was flushed.
SELECT flushed_stamp FROM shards WHERE shard = %(shard)s;

-- name: agents
-- The agents that were ever flushed, by id.
SELECT agent_id
FROM agents
WHERE agent_id > %(after)s
ORDER BY agent_id
LIMIT %(limit)s;

-- name: agent_known
-- Whether anything of an agent was ever flushed.
SELECT EXISTS (SELECT FROM agents WHERE agent_id = %(agent)s);

-- name: overview
-- Each table with its partitions and estimated rows: PostgreSQL's own statistics, nothing is counted.
SELECT name, count(tree.relid), coalesce(sum(greatest(leaf.reltuples, pg_stat_get_live_tuples(leaf.oid))), 0)::bigint
FROM unnest(ARRAY['agents', 'emotional_states', 'memory_records', 'emotional_events', 'emotional_rollups',
                  'conversation_messages']) AS parent (name)
     LEFT JOIN LATERAL pg_partition_tree(to_regclass(name)) AS tree ON tree.isleaf AND tree.level > 0
     JOIN pg_class AS leaf ON leaf.oid = coalesce(tree.relid, to_regclass(name))
GROUP BY name
ORDER BY name;

-- name: database_size
-- The bytes of the whole database, and how many agents there are.
SELECT pg_database_size(current_database()), (SELECT count(*) FROM agents);

-- name: ping
-- The server's version.
SELECT current_setting('server_version');

-- name: schema_state
-- What was migrated, how many shards the store was made for (NULL: not yet said).
SELECT coalesce(array_agg(name ORDER BY name), '{}'), (SELECT shards FROM banshee_store)
FROM banshee_migrations;

-- name: limit_transaction
-- Bounds of this transaction, in milliseconds: how long a lock, a statement and an idle client may take.
SELECT set_config('lock_timeout', %(lock_ms)s::text, true),
       set_config('statement_timeout', %(statement_ms)s::text, true),
       set_config('idle_in_transaction_session_timeout', %(idle_ms)s::text, true);

-- name: hold_free_shards
-- Takes those of the shards that nobody holds, in their order, until the transaction ends.
SELECT shard, flushed_stamp FROM shards WHERE shard = ANY (%(shards)s::integer[]) ORDER BY shard FOR UPDATE SKIP LOCKED;

-- name: hold_shards
-- Takes all of the shards, in their order, waiting for who holds them, until the transaction ends.
SELECT shard, flushed_stamp FROM shards WHERE shard = ANY (%(shards)s::integer[]) ORDER BY shard FOR UPDATE;

-- name: flushed_stamps
-- Up to which stamp each shard was flushed.
SELECT shard, flushed_stamp FROM shards ORDER BY shard;

-- name: shard_stamps
-- The last stamp that each shard is known to have used: what it was flushed up to, the newest value that came along with
-- that, or an agent of it forgotten.
SELECT shard, greatest(flushed_stamp, newest_stamp, buried.stamp)
FROM shards LEFT JOIN (SELECT shard, max(stamp) AS stamp FROM forgotten GROUP BY shard) AS buried USING (shard)
ORDER BY shard;

-- name: tombstones
-- Those of the agents that were forgotten, and up to which stamp.
SELECT agent_id, stamp FROM forgotten WHERE agent_id = ANY (%(agents)s::uuid[]);

-- name: bury_agent
-- Writes an agent's tombstone above all that PostgreSQL has of it; in the same step go its totals and what it feels. Whoever
-- calls this holds the shard, which was flushed up to `flushed`. Returns the stamp, and how many of both went.
WITH tombstone AS (
    INSERT INTO forgotten (agent_id, shard, stamp)
    VALUES (%(agent)s, %(shard)s,
            greatest(%(flushed)s, (SELECT flushed_stamp FROM agents WHERE agent_id = %(agent)s),
                     (SELECT max(stamp) FROM memory_records WHERE agent_id = %(agent)s),
                     (SELECT stamp FROM emotional_states WHERE agent_id = %(agent)s)))
    ON CONFLICT (agent_id) DO UPDATE SET stamp = greatest(forgotten.stamp, excluded.stamp), at = now()
    RETURNING stamp
), totals AS (
    DELETE FROM agents WHERE agent_id = %(agent)s RETURNING agent_id
), felt AS (
    DELETE FROM emotional_states WHERE agent_id = %(agent)s RETURNING agent_id
)
SELECT (SELECT stamp FROM tombstone), (SELECT count(*) FROM totals), (SELECT count(*) FROM felt);

-- name: raise_tombstone
-- Moves an agent's tombstone up to a stamp; never down.
UPDATE forgotten SET stamp = greatest(stamp, %(through)s) WHERE agent_id = %(agent)s;

-- name: partition_spans
-- The half-open spans of the partitions of a table by time, the newest first.
SELECT substring(bound FROM 'FROM \(''([^'']+)''\)')::timestamptz AS lower,
       substring(bound FROM 'TO \(''([^'']+)''\)')::timestamptz
FROM (SELECT pg_get_expr(relpartbound, oid) AS bound
      FROM pg_inherits JOIN pg_class ON oid = inhrelid
      WHERE inhparent = to_regclass(%(parent)s)) AS partitions
ORDER BY lower DESC;

-- name: erase_messages
-- Deletes some messages of a forgotten agent in a span of time, the newest first. Returns how many were found, how many
-- of those were still there to be deleted, and the time of the oldest found.
WITH due AS MATERIALIZED (
    SELECT ctid AS row_at, created_at
    FROM conversation_messages
    WHERE agent_id = %(agent)s AND created_at BETWEEN %(since)s AND %(until)s AND stamp <= %(through)s
    ORDER BY created_at DESC, stamp DESC, id DESC
    LIMIT %(limit)s
), gone AS (
    DELETE FROM conversation_messages
    WHERE ctid = ANY (ARRAY(SELECT row_at FROM due))
      AND agent_id = %(agent)s AND created_at BETWEEN %(since)s AND %(until)s AND stamp <= %(through)s
    RETURNING agent_id
)
SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM gone), (SELECT min(created_at) FROM due);

-- name: erase_events
-- Deletes some events of a forgotten agent in a span of time; see erase_messages.
WITH due AS MATERIALIZED (
    SELECT ctid AS row_at, occurred_at
    FROM emotional_events
    WHERE agent_id = %(agent)s AND occurred_at BETWEEN %(since)s AND %(until)s AND stamp <= %(through)s
    ORDER BY occurred_at DESC, stamp DESC, id DESC
    LIMIT %(limit)s
), gone AS (
    DELETE FROM emotional_events
    WHERE ctid = ANY (ARRAY(SELECT row_at FROM due))
      AND agent_id = %(agent)s AND occurred_at BETWEEN %(since)s AND %(until)s AND stamp <= %(through)s
    RETURNING agent_id
)
SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM gone), (SELECT min(occurred_at) FROM due);

-- name: erase_memories
-- Deletes some memories of a forgotten agent, deleted ones and sessions included, after one of them, by their names. Returns
-- how many were found, how many of those were still there to be deleted, and the name of the last found.
WITH due AS MATERIALIZED (
    SELECT ctid AS row_at, memory_type, key
    FROM memory_records
    WHERE agent_id = %(agent)s AND (memory_type, key) > (%(memory_type)s, %(key)s) AND stamp <= %(through)s
    ORDER BY memory_type, key
    LIMIT %(limit)s
), gone AS (
    DELETE FROM memory_records
    WHERE ctid = ANY (ARRAY(SELECT row_at FROM due)) AND agent_id = %(agent)s AND stamp <= %(through)s
    RETURNING agent_id
), last AS (
    SELECT memory_type, key FROM due ORDER BY memory_type DESC, key DESC LIMIT 1
)
SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM gone),
       (SELECT memory_type FROM last), (SELECT key FROM last);

-- name: erase_state
-- Deletes what a forgotten agent felt; bury_agent did, so that something is found means that somebody put it back.
WITH gone AS (
    DELETE FROM emotional_states WHERE agent_id = %(agent)s AND stamp <= %(through)s RETURNING agent_id
)
SELECT count(*) FROM gone;

-- name: advance_shards
-- Records how far shards were flushed, and which of their stamps is the newest; never backwards.
UPDATE shards
SET flushed_stamp = greatest(shards.flushed_stamp, reached.stamp),
    newest_stamp = greatest(shards.newest_stamp, reached.newest),
    flushed_at = now()
FROM unnest(%(shards)s::integer[], %(stamps)s::bigint[], %(newest)s::bigint[]) AS reached (shard, stamp, newest)
WHERE shards.shard = reached.shard;

-- name: keep_replies
-- Keeps what calls with an idempotency key were answered; of one key the first call stays.
INSERT INTO idempotency (agent_id, function, key, shard, stamp, reply)
SELECT * FROM unnest(%(agents)s::uuid[], %(functions)s::text[], %(keys)s::bytea[], %(shards)s::integer[],
                     %(stamps)s::bigint[], %(replies)s::bytea[])
ON CONFLICT DO NOTHING;

-- name: replies_after
-- What calls of a shard were answered that were made after a stamp, by their order.
SELECT stamp, agent_id, function, key, reply
FROM idempotency
WHERE shard = %(shard)s AND (stamp, agent_id, function, key) > (%(stamp)s, %(agent)s, %(function)s, %(key)s)
ORDER BY stamp, agent_id, function, key
LIMIT %(limit)s;

-- name: sweep_replies
-- Forgets some calls of a shard that were made before a stamp; returns how many. What another transaction is at is left to
-- the next sweep. They are found again by where they lie: see sweep_memories.
WITH due AS MATERIALIZED (
    SELECT ctid AS row_at
    FROM idempotency
    WHERE shard = %(shard)s AND stamp < %(stamp)s
    ORDER BY stamp
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM idempotency WHERE ctid = ANY (ARRAY(SELECT row_at FROM due))
)
SELECT count(*) FROM due;

-- name: erase_replies
-- Deletes some of what calls for a forgotten agent were answered, after one of them, by their names. Returns how many were
-- found, how many of those were still there to be deleted, and the name of the last found.
WITH due AS MATERIALIZED (
    SELECT ctid AS row_at, function, key
    FROM idempotency
    WHERE agent_id = %(agent)s AND (function, key) > (%(function)s, %(key)s) AND stamp <= %(through)s
    ORDER BY function, key
    LIMIT %(limit)s
), gone AS (
    DELETE FROM idempotency
    WHERE ctid = ANY (ARRAY(SELECT row_at FROM due)) AND stamp <= %(through)s
    RETURNING agent_id
), last AS (
    SELECT function, key FROM due ORDER BY function DESC, key DESC LIMIT 1
)
SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM gone), (SELECT function FROM last), (SELECT key FROM last);

-- name: keep_recovery
-- Records that another server was met; the first to say it does.
INSERT INTO recoveries (server, store, behind_seconds, said)
VALUES (%(server)s, %(store)s, %(behind)s, %(said)s)
ON CONFLICT DO NOTHING;

-- name: recoveries
-- The latest servers that were met, latest first.
SELECT found_at, store, behind_seconds, said FROM recoveries ORDER BY found_at DESC, server LIMIT %(limit)s;

-- name: sweep_recoveries
-- Forgets all but the latest servers that were met; returns how many.
WITH gone AS (
    DELETE FROM recoveries
    WHERE server IN (SELECT server FROM recoveries ORDER BY found_at DESC OFFSET %(kept)s)
    RETURNING server
)
SELECT count(*) FROM gone;

-- name: ensure_partitions
-- Creates those partitions that are missing; returns how many that were.
SELECT count(*) FILTER (WHERE banshee_ensure_partition(%(parent)s, lower, upper))
FROM unnest(%(lowers)s::timestamptz[], %(uppers)s::timestamptz[]) AS needed (lower, upper);

-- name: drop_partition
-- Drops the oldest partition that lies wholly before a time; returns its name, NULL where there is none.
SELECT banshee_drop_partition(%(parent)s, %(cutoff)s);

-- name: compact_rollups
-- Makes days of hours that are long ago, some at a time, and drops what a forgotten agent left; returns how many hours
-- there were.
WITH left_behind AS (
    DELETE FROM emotional_rollups
    WHERE ctid = ANY (ARRAY(
        SELECT rolled.ctid
        FROM forgotten AS buried JOIN emotional_rollups AS rolled USING (agent_id)
        WHERE rolled.stamp <= buried.stamp AND buried.at > now() - interval '7 days'
        LIMIT %(limit)s))
      AND stamp <= (SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = emotional_rollups.agent_id)
), due AS MATERIALIZED (
    SELECT ctid AS row_at
    FROM emotional_rollups
    WHERE hours = 1 AND at < %(before)s
    ORDER BY at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM emotional_rollups AS rolled
    WHERE ctid = ANY (ARRAY(SELECT row_at FROM due))
      AND stamp > coalesce((SELECT buried.stamp FROM forgotten AS buried WHERE buried.agent_id = rolled.agent_id), -1)
    RETURNING rolled.*
), highest AS (
    SELECT agent_id, date_trunc('day', at, 'UTC') AS day, felt.key, max(felt.value::double precision) AS value
    FROM gone, jsonb_each_text(peaks) AS felt
    GROUP BY agent_id, day, felt.key
), peaked AS (
    SELECT agent_id, day, jsonb_object_agg(key, value) AS peaks FROM highest GROUP BY agent_id, day
), days AS (
    INSERT INTO emotional_rollups AS rolled (agent_id, at, hours, events, valence, arousal, intensity, peaks, stamp)
    SELECT agent_id, day, 24, summed.events, summed.valence, summed.arousal, summed.intensity,
           coalesce(peaked.peaks, '{}'), summed.stamp
    FROM (SELECT agent_id, date_trunc('day', at, 'UTC') AS day, sum(events)::bigint AS events, sum(valence) AS valence,
                 sum(arousal) AS arousal, sum(intensity) AS intensity, max(stamp) AS stamp
          FROM gone
          GROUP BY agent_id, day) AS summed
         LEFT JOIN peaked USING (agent_id, day)
    ON CONFLICT (agent_id, at, hours) DO UPDATE
    SET events = rolled.events + excluded.events, valence = rolled.valence + excluded.valence,
        arousal = rolled.arousal + excluded.arousal, intensity = rolled.intensity + excluded.intensity,
        peaks = banshee_higher(rolled.peaks, excluded.peaks), stamp = greatest(rolled.stamp, excluded.stamp)
)
SELECT count(*) FROM due;

-- name: erase_rollups
-- Deletes some of what remains of a forgotten agent's events whose partitions are gone, from a time on. Returns how many were
-- found, how many of those were still there to be deleted, and the time of the last found.
WITH due AS MATERIALIZED (
    SELECT ctid AS row_at, at
    FROM emotional_rollups
    WHERE agent_id = %(agent)s AND at >= %(since)s AND stamp <= %(through)s
    ORDER BY at, hours
    LIMIT %(limit)s
), gone AS (
    DELETE FROM emotional_rollups
    WHERE ctid = ANY (ARRAY(SELECT row_at FROM due)) AND stamp <= %(through)s
    RETURNING agent_id
)
SELECT (SELECT count(*) FROM due), (SELECT count(*) FROM gone), (SELECT max(at) FROM due);

-- name: create_staged_messages
-- This connection's own staging table; with the three others it mirrors what binary COPY sends, in its order. is_there:
-- it is stored under another stamp.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_messages (
    agent_id uuid, created_at timestamptz, stamp bigint, id uuid, role text, content text, metadata jsonb,
    emotional_context jsonb, tokens_used bigint, session_id uuid, is_there boolean DEFAULT false
) ON COMMIT DELETE ROWS;

-- name: create_staged_events
-- This connection's own staging table of events.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_events (
    agent_id uuid, occurred_at timestamptz, stamp bigint, id uuid, event_type text, event_data jsonb, mode text,
    resulting_emotions jsonb, emotions_after jsonb, context_factors jsonb, valence double precision,
    arousal double precision, intensity double precision, valence_delta double precision,
    arousal_delta double precision, intensity_delta double precision, session_id uuid, created_at timestamptz,
    state_before jsonb, late boolean, is_there boolean DEFAULT false
) ON COMMIT DELETE ROWS;

-- name: create_staged_states
-- This connection's own staging table of states.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_states (
    agent_id uuid, emotions jsonb, felt_at jsonb, decay_rates jsonb, last_updated timestamptz, stamp bigint,
    absence text, paused_us bigint, away_since timestamptz
) ON COMMIT DELETE ROWS;

-- name: create_staged_memories
-- This connection's own staging table of memories.
CREATE TEMPORARY TABLE IF NOT EXISTS staged_memories (
    agent_id uuid, memory_type text, key text, data jsonb, importance double precision, access_count bigint,
    last_accessed timestamptz, created_at timestamptz, updated_at timestamptz, expires_at timestamptz, tags text[],
    stamp bigint, deleted boolean
) ON COMMIT DELETE ROWS;

-- name: stage_messages
-- Takes messages in.
COPY pg_temp.staged_messages (agent_id, created_at, stamp, id, role, content, metadata, emotional_context, tokens_used,
                              session_id) FROM STDIN (FORMAT BINARY);

-- name: stage_events
-- Takes events in.
COPY pg_temp.staged_events (agent_id, occurred_at, stamp, id, event_type, event_data, mode, resulting_emotions,
                            emotions_after, context_factors, valence, arousal, intensity, valence_delta, arousal_delta,
                            intensity_delta, session_id, created_at, state_before, late) FROM STDIN (FORMAT BINARY);

-- name: stage_states
-- Takes states in.
COPY pg_temp.staged_states FROM STDIN (FORMAT BINARY);

-- name: stage_memories
-- Takes memories in.
COPY pg_temp.staged_memories FROM STDIN (FORMAT BINARY);

-- name: copy_messages
-- Takes new messages in directly; if one of them is there already, all of it fails with 23505.
COPY conversation_messages (agent_id, created_at, stamp, id, role, content, metadata, emotional_context, tokens_used,
                            session_id) FROM STDIN (FORMAT BINARY);

-- name: copy_events
-- Takes new events in directly; see copy_messages.
COPY emotional_events (agent_id, occurred_at, stamp, id, event_type, event_data, mode, resulting_emotions, emotions_after,
                       context_factors, valence, arousal, intensity, valence_delta, arousal_delta, intensity_delta,
                       session_id, created_at, state_before, late) FROM STDIN (FORMAT BINARY);

-- name: clear_staged
-- Empties the staging tables before the commit does: for a second write of the same transaction.
TRUNCATE pg_temp.staged_messages, pg_temp.staged_events, pg_temp.staged_states, pg_temp.staged_memories;

-- name: find_stored_messages
-- Notes which staged messages are stored already under another stamp: a dead letter that was put back has one of its own,
-- and one that is put back by an older copy of the server another again. All of them lie between these times.
UPDATE pg_temp.staged_messages AS staged
SET is_there = true
WHERE EXISTS (
    SELECT FROM conversation_messages AS stored
    WHERE stored.agent_id = staged.agent_id AND stored.created_at = staged.created_at AND stored.id = staged.id
      AND stored.stamp <> staged.stamp AND stored.created_at BETWEEN %(since)s AND %(until)s
    OFFSET 0 -- so that each is looked up by the primary key, however many the planner thinks are staged
);

-- name: find_stored_events
-- The same of events.
UPDATE pg_temp.staged_events AS staged
SET is_there = true
WHERE EXISTS (
    SELECT FROM emotional_events AS stored
    WHERE stored.agent_id = staged.agent_id AND stored.occurred_at = staged.occurred_at AND stored.id = staged.id
      AND stored.stamp <> staged.stamp AND stored.occurred_at BETWEEN %(since)s AND %(until)s
    OFFSET 0
);

-- name: store_staged
-- Moves what is staged to where it belongs. What is there already stays as it is and is not counted; totals grow by what
-- was really inserted; of a value the newest stamp stays, and of equal stamps the one that was accessed more.
-- Returns how many messages, events, states and memories were new.
WITH new_messages AS (
    INSERT INTO conversation_messages (agent_id, created_at, stamp, id, role, content, metadata, emotional_context,
                                       tokens_used, session_id)
    SELECT agent_id, created_at, stamp, id, role, content, metadata, emotional_context, tokens_used, session_id
    FROM pg_temp.staged_messages
    WHERE NOT is_there
    ON CONFLICT DO NOTHING
    RETURNING agent_id, role, tokens_used, created_at
), new_events AS (
    INSERT INTO emotional_events (agent_id, occurred_at, stamp, id, event_type, event_data, mode, resulting_emotions,
                                  emotions_after, context_factors, valence, arousal, intensity, valence_delta,
                                  arousal_delta, intensity_delta, session_id, created_at, state_before, late)
    SELECT agent_id, occurred_at, stamp, id, event_type, event_data, mode, resulting_emotions, emotions_after,
           context_factors, valence, arousal, intensity, valence_delta, arousal_delta, intensity_delta, session_id,
           created_at, state_before, late
    FROM pg_temp.staged_events
    WHERE NOT is_there
    ON CONFLICT DO NOTHING
    RETURNING agent_id, occurred_at
), new_states AS (
    -- A state that was saved without knowing what absence means for the agent (NULL) leaves that as it is; its clock
    -- then never stood still, so what is felt was felt at the times that it says.
    INSERT INTO emotional_states AS stored (agent_id, emotions, felt_at, decay_rates, last_updated, stamp, absence,
                                            paused_us, away_since)
    SELECT DISTINCT ON (agent_id) agent_id, emotions, felt_at, decay_rates, last_updated, stamp,
           coalesce(absence, (SELECT known.absence FROM emotional_states AS known
                              WHERE known.agent_id = staged_states.agent_id), 'wall'),
           paused_us, away_since
    FROM pg_temp.staged_states
    ORDER BY agent_id, stamp DESC
    ON CONFLICT (agent_id) DO UPDATE
    SET emotions = excluded.emotions, felt_at = excluded.felt_at, decay_rates = excluded.decay_rates,
        last_updated = excluded.last_updated, stamp = excluded.stamp, absence = excluded.absence,
        paused_us = excluded.paused_us, away_since = excluded.away_since
    WHERE excluded.stamp > stored.stamp
    RETURNING agent_id
), new_memories AS (
    INSERT INTO memory_records AS stored (agent_id, memory_type, key, data, importance, access_count, last_accessed,
                                          created_at, updated_at, expires_at, tags, stamp, deleted)
    SELECT DISTINCT ON (agent_id, memory_type, key) agent_id, memory_type, key, data, importance, access_count,
           last_accessed, created_at, updated_at,
           -- A tombstone goes days after it came, however old the deletion is: what it keeps out may come that late, too.
           CASE WHEN deleted THEN now() + interval '7 days' ELSE expires_at END, tags, stamp, deleted
    FROM pg_temp.staged_memories
    ORDER BY agent_id, memory_type, key, stamp DESC, deleted DESC, access_count DESC
    ON CONFLICT (agent_id, memory_type, key) DO UPDATE
    SET access_count = excluded.access_count, last_accessed = excluded.last_accessed,
        data = CASE WHEN excluded.stamp > stored.stamp THEN excluded.data ELSE stored.data END,
        importance = CASE WHEN excluded.stamp > stored.stamp THEN excluded.importance ELSE stored.importance END,
        created_at = CASE WHEN excluded.stamp > stored.stamp THEN excluded.created_at ELSE stored.created_at END,
        updated_at = CASE WHEN excluded.stamp > stored.stamp THEN excluded.updated_at ELSE stored.updated_at END,
        expires_at = CASE WHEN excluded.stamp > stored.stamp THEN excluded.expires_at ELSE stored.expires_at END,
        tags = CASE WHEN excluded.stamp > stored.stamp THEN excluded.tags ELSE stored.tags END,
        stamp = excluded.stamp,
        deleted = excluded.deleted
    WHERE excluded.stamp > stored.stamp
       OR (excluded.stamp = stored.stamp AND excluded.access_count > stored.access_count
           AND NOT excluded.deleted AND NOT stored.deleted)
    RETURNING agent_id
), said AS (
    SELECT agent_id, count(*) AS messages,
           count(*) FILTER (WHERE role = 'user') AS by_user,
           count(*) FILTER (WHERE role = 'assistant') AS by_assistant,
           count(*) FILTER (WHERE role = 'system') AS by_system,
           count(*) FILTER (WHERE role = 'function') AS by_function,
           count(*) FILTER (WHERE role = 'tool') AS by_tool,
           coalesce(sum(tokens_used), 0) AS tokens, min(created_at) AS first, max(created_at) AS last
    FROM new_messages
    GROUP BY agent_id
), happened AS (
    SELECT agent_id, count(*) AS events, min(occurred_at) AS first, max(occurred_at) AS last
    FROM new_events
    GROUP BY agent_id
), reached AS (
    SELECT agent_id, max(stamp) AS stamp
    FROM (SELECT agent_id, stamp FROM pg_temp.staged_messages
          UNION ALL SELECT agent_id, stamp FROM pg_temp.staged_events
          -- A value may have been read later than the log, so its stamp says nothing of what was counted.
          UNION ALL SELECT agent_id, 0 FROM pg_temp.staged_states
          UNION ALL SELECT agent_id, 0 FROM pg_temp.staged_memories) AS staged
    GROUP BY agent_id
), grown AS (
    INSERT INTO agents AS stored (agent_id, flushed_stamp, total_messages, user_messages, assistant_messages,
                                  system_messages, function_messages, tool_messages, total_tokens, total_events,
                                  first_message, last_message, first_event, last_event)
    SELECT agent_id, reached.stamp, coalesce(messages, 0), coalesce(by_user, 0), coalesce(by_assistant, 0),
           coalesce(by_system, 0), coalesce(by_function, 0), coalesce(by_tool, 0), coalesce(tokens, 0),
           coalesce(events, 0), said.first, said.last, happened.first, happened.last
    FROM reached LEFT JOIN said USING (agent_id) LEFT JOIN happened USING (agent_id)
    ON CONFLICT (agent_id) DO UPDATE
    SET flushed_stamp = greatest(stored.flushed_stamp, excluded.flushed_stamp),
        total_messages = stored.total_messages + excluded.total_messages,
        user_messages = stored.user_messages + excluded.user_messages,
        assistant_messages = stored.assistant_messages + excluded.assistant_messages,
        system_messages = stored.system_messages + excluded.system_messages,
        function_messages = stored.function_messages + excluded.function_messages,
        tool_messages = stored.tool_messages + excluded.tool_messages,
        total_tokens = stored.total_tokens + excluded.total_tokens,
        total_events = stored.total_events + excluded.total_events,
        first_message = least(stored.first_message, excluded.first_message),
        last_message = greatest(stored.last_message, excluded.last_message),
        first_event = least(stored.first_event, excluded.first_event),
        last_event = greatest(stored.last_event, excluded.last_event)
    -- A state or a memory makes an agent known, and adds to nothing.
    WHERE excluded.flushed_stamp > stored.flushed_stamp OR excluded.total_messages > 0 OR excluded.total_events > 0
)
SELECT (SELECT coalesce(sum(messages), 0)::bigint FROM said), (SELECT coalesce(sum(events), 0)::bigint FROM happened),
       (SELECT count(*) FROM new_states), (SELECT count(*) FROM new_memories);

-- name: grow_agents
-- Adds to agents' totals what was copied in directly; see store_staged.
INSERT INTO agents AS stored (agent_id, flushed_stamp, total_messages, user_messages, assistant_messages, system_messages,
                              function_messages, tool_messages, total_tokens, total_events, first_message, last_message,
                              first_event, last_event)
SELECT agent, stamp, "user" + assistant + system + function + tool, "user", assistant, system, function, tool, tokens, events,
       timestamptz 'epoch' + first * interval '1 microsecond', timestamptz 'epoch' + last * interval '1 microsecond',
       timestamptz 'epoch' + first_event * interval '1 microsecond',
       timestamptz 'epoch' + last_event * interval '1 microsecond'
FROM jsonb_to_recordset(%(grown)s::jsonb)
         AS grown (agent uuid, stamp bigint, "user" bigint, assistant bigint, system bigint, function bigint, tool bigint,
                   tokens bigint, events bigint, first bigint, last bigint, first_event bigint, last_event bigint)
ON CONFLICT (agent_id) DO UPDATE
SET flushed_stamp = greatest(stored.flushed_stamp, excluded.flushed_stamp),
    total_messages = stored.total_messages + excluded.total_messages,
    user_messages = stored.user_messages + excluded.user_messages,
    assistant_messages = stored.assistant_messages + excluded.assistant_messages,
    system_messages = stored.system_messages + excluded.system_messages,
    function_messages = stored.function_messages + excluded.function_messages,
    tool_messages = stored.tool_messages + excluded.tool_messages,
    total_tokens = stored.total_tokens + excluded.total_tokens,
    total_events = stored.total_events + excluded.total_events,
    first_message = least(stored.first_message, excluded.first_message),
    last_message = greatest(stored.last_message, excluded.last_message),
    first_event = least(stored.first_event, excluded.first_event),
    last_event = greatest(stored.last_event, excluded.last_event);

-- name: superseded_states
-- The agents whose staged state is not what is stored now: another, newer one is, or one that has the same stamp because two
-- servers gave it (a failover).
SELECT staged.agent_id, staged.stamp
FROM pg_temp.staged_states AS staged JOIN emotional_states AS stored USING (agent_id)
WHERE stored.stamp > staged.stamp
   OR (stored.stamp = staged.stamp
       AND (stored.emotions, stored.felt_at, stored.decay_rates, stored.last_updated)
           IS DISTINCT FROM (staged.emotions, staged.felt_at, staged.decay_rates, staged.last_updated));

-- name: superseded_memories
-- The staged memories that are not what is stored now; see superseded_states. One that was counted more often is another, too.
SELECT staged.agent_id, staged.memory_type, staged.key, staged.stamp
FROM pg_temp.staged_memories AS staged JOIN memory_records AS stored USING (agent_id, memory_type, key)
WHERE stored.stamp > staged.stamp
   OR (stored.stamp = staged.stamp
       AND NOT staged.deleted
       AND (stored.deleted OR stored.updated_at <> staged.updated_at OR stored.data IS DISTINCT FROM staged.data
            OR stored.access_count > staged.access_count));

-- name: stored_messages
-- Those of the given messages that are stored; `since` and `until` are the first and the last of their times.
SELECT said.agent_id, said.id, role, content, metadata, emotional_context, tokens_used, session_id,
       created_at AS pg_us, stamp
FROM unnest(%(agents)s::uuid[], %(times)s::timestamptz[], %(ids)s::uuid[]) AS given (agent_id, at, id)
     JOIN conversation_messages AS said
         ON said.agent_id = given.agent_id AND said.created_at = given.at AND said.id = given.id
WHERE said.created_at BETWEEN %(since)s AND %(until)s;

-- name: stored_events
-- Those of the given events that are stored; see stored_messages.
SELECT happened.agent_id, happened.id, event_type, event_data, resulting_emotions, context_factors,
       valence, arousal, intensity, valence_delta, arousal_delta, intensity_delta, occurred_at, created_at, session_id,
       mode, stamp
FROM unnest(%(agents)s::uuid[], %(times)s::timestamptz[], %(ids)s::uuid[]) AS given (agent_id, at, id)
     JOIN emotional_events AS happened
         ON happened.agent_id = given.agent_id AND happened.occurred_at = given.at AND happened.id = given.id
WHERE happened.occurred_at BETWEEN %(since)s AND %(until)s;

-- name: stored_states
-- Those states that are stored of the given agents.
SELECT agent_id, emotions, felt_at, decay_rates, last_updated, stamp, absence, paused_us, away_since
FROM unnest(%(agents)s::uuid[]) AS given (agent_id) JOIN emotional_states USING (agent_id);

-- name: stored_memories
-- Those of the given memories that are stored.
SELECT kept.agent_id, kept.memory_type, kept.key, data, importance, access_count, last_accessed, created_at,
       updated_at, expires_at, tags, stamp, deleted
FROM unnest(%(agents)s::uuid[], %(types)s::text[], %(keys)s::text[]) AS given (agent_id, memory_type, key)
     JOIN memory_records AS kept
         ON kept.agent_id = given.agent_id AND kept.memory_type = given.memory_type AND kept.key = given.key;

-- name: amend_messages
-- Gives messages another emotional context; of several for one message the newest counts, also one given before. See
-- stored_messages.
UPDATE conversation_messages AS said
SET emotional_context = newest.context, amended = newest.stamp
FROM (
    SELECT DISTINCT ON (agent_id, id) agent_id, created_at, id, context, stamp
    FROM unnest(%(agents)s::uuid[], %(times)s::timestamptz[], %(ids)s::uuid[], %(stamps)s::bigint[],
                %(contexts)s::jsonb[]) AS amended (agent_id, created_at, id, stamp, context)
    ORDER BY agent_id, id, stamp DESC
) AS newest
WHERE said.agent_id = newest.agent_id AND said.created_at = newest.created_at AND said.id = newest.id
  AND said.created_at BETWEEN %(since)s AND %(until)s
  AND coalesce(said.amended, 0) <= newest.stamp;

-- name: superseded_amendments
-- The amendments after which the message was given yet another emotional context.
SELECT said.agent_id, said.id, amended.stamp
FROM unnest(%(agents)s::uuid[], %(times)s::timestamptz[], %(ids)s::uuid[], %(stamps)s::bigint[])
         AS amended (agent_id, created_at, id, stamp)
     JOIN conversation_messages AS said USING (agent_id, created_at, id)
WHERE said.amended > amended.stamp AND said.created_at BETWEEN %(since)s AND %(until)s;

-- name: sweep_memories
-- Memories that expired become tombstones, and tombstones whose days are over go; returns how many of both, some at a time.
-- What another transaction is at is left to the next sweep. They are found again by where they lie: a join would read all,
-- since what a limit will be is not known when it is planned.
WITH due AS MATERIALIZED (
    SELECT tableoid AS part, ctid AS row_at, deleted
    FROM memory_records
    WHERE expires_at <= %(now)s
    ORDER BY expires_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), buried AS (
    UPDATE memory_records
    SET data = NULL, tags = '{}', deleted = true, updated_at = %(now)s, expires_at = %(now)s + interval '7 days'
    WHERE ctid = ANY (ARRAY(SELECT row_at FROM due WHERE NOT deleted))
      AND (tableoid, ctid) IN (SELECT part, row_at FROM due WHERE NOT deleted)
), gone AS (
    DELETE FROM memory_records
    WHERE ctid = ANY (ARRAY(SELECT row_at FROM due WHERE deleted))
      AND (tableoid, ctid) IN (SELECT part, row_at FROM due WHERE deleted)
)
SELECT count(*) FROM due;

-- name: hold_migrations
-- Waits until no other runner migrates this database; the end of the connection lets go.
SELECT pg_advisory_lock(hashtext('banshee.migrations'));

-- name: ledger_exists
-- Whether any migration was applied.
SELECT to_regclass('banshee_migrations') IS NOT NULL;

-- name: ledger
-- The applied migrations; one that psql applied has no checksum yet.
SELECT name, checksum, applied_at FROM banshee_migrations ORDER BY name;

-- name: sign_migration
-- Adds the checksum to the ledger's row, which the migration itself wrote.
UPDATE banshee_migrations SET checksum = %(checksum)s WHERE name = %(name)s AND checksum IS NULL;

-- name: store_shards
-- The number of shards that the store was made for.
SELECT shards FROM banshee_store;

-- name: fix_shards
-- Says for good how many shards this store has; the first to say it wins.
INSERT INTO banshee_store (shards) VALUES (%(shards)s) ON CONFLICT DO NOTHING;

-- name: add_shards
-- One row a shard.
INSERT INTO shards (shard) SELECT generate_series(0, %(shards)s::integer - 1) ON CONFLICT DO NOTHING;
