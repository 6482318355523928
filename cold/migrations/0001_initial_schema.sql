-- The cold schema: everything an agent ever was. Plain SQL: `psql -1 -f` applies it as well as `banshee migrate` does.
-- Names and types are those of the original plugin where they still mean something.
--
-- A stamp (int8) is the place of a write in its shard's log in Redis: milliseconds << 16 | sequence. It only grows.

-- The ledger. Each migration ends by writing its own row; `banshee migrate` adds the checksum of the file, also to the
-- row of one that psql applied.
CREATE TABLE IF NOT EXISTS banshee_migrations (
    name       text PRIMARY KEY,
    checksum   text,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- What was fixed when the store was first used. `banshee migrate` writes it, and a row for each of the shards.
CREATE TABLE banshee_store (
    singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    shards     integer NOT NULL CHECK (shards BETWEEN 1 AND 16384),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- Events before that may be gone, and are in emotional_rollups then.
    rolled_up_to timestamptz NOT NULL DEFAULT 'epoch'
);

-- One row a shard of Redis: whoever flushes the shard holds its row, and writes here how far it came. A value is written as
-- it is, which may be newer than the entries that were carried with it: newest_stamp is what no row of the shard is beyond.
CREATE TABLE shards (
    shard         integer PRIMARY KEY,
    flushed_stamp bigint NOT NULL DEFAULT 0,
    newest_stamp  bigint NOT NULL DEFAULT 0,
    flushed_at    timestamptz
);

-- One row an agent that was forgotten: nothing of it up to that stamp is there, whatever a row, a flush or a promoted replica
-- may still hold. Readers and flushes look here; the row stays for good.
CREATE TABLE forgotten (
    agent_id uuid PRIMARY KEY,
    shard    integer NOT NULL,
    stamp    bigint NOT NULL,
    at       timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX forgotten_by_time ON forgotten (at);

-- Calls that brought an idempotency key, and what they were answered: what a Redis that lost them is told again.
CREATE TABLE idempotency (
    agent_id uuid   NOT NULL,
    function text   NOT NULL, -- the letter of the Lua function that was called
    key      bytea  NOT NULL,
    shard    integer NOT NULL,
    stamp    bigint NOT NULL, -- of what the call logged
    reply    bytea  NOT NULL, -- as the shard's `idem` holds it
    PRIMARY KEY (agent_id, function, key)
);

CREATE INDEX idempotency_by_stamp ON idempotency (shard, stamp);

-- What befell the stores: a Redis that was not the one that was written to last, with what it may have lost. One row a
-- server, however many clients met it.
CREATE TABLE recoveries (
    server         text PRIMARY KEY,
    found_at       timestamptz NOT NULL DEFAULT now(),
    store          text NOT NULL CHECK (store IN ('redis', 'postgresql')),
    behind_seconds double precision, -- how far it is known to be behind the other store; NULL: it has nothing
    said           text NOT NULL
);

-- One row an agent: exact totals, which outlive retention and are never counted by a scan.
CREATE TABLE agents (
    agent_id           uuid PRIMARY KEY,
    flushed_stamp      bigint NOT NULL DEFAULT 0,
    total_messages     bigint NOT NULL DEFAULT 0,
    user_messages      bigint NOT NULL DEFAULT 0,
    assistant_messages bigint NOT NULL DEFAULT 0,
    system_messages    bigint NOT NULL DEFAULT 0,
    function_messages  bigint NOT NULL DEFAULT 0,
    tool_messages      bigint NOT NULL DEFAULT 0,
    total_tokens       bigint NOT NULL DEFAULT 0,
    total_events       bigint NOT NULL DEFAULT 0,
    first_message      timestamptz,
    last_message       timestamptz,
    first_event        timestamptz,
    last_event         timestamptz,
    created_at         timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);

-- What each agent feels: intensities as they were felt, each with its own time. Never a decayed value.
CREATE TABLE emotional_states (
    agent_id     uuid   NOT NULL,
    emotions     jsonb  NOT NULL,              -- {"joy": 0.8}
    felt_at      jsonb  NOT NULL,              -- {"joy": 1790000000000000}: microseconds since 1970
    decay_rates  jsonb  NOT NULL DEFAULT '{}', -- the rates that differ from the emotions' own
    absence      text   NOT NULL DEFAULT 'wall', -- what being away means for decay: wall, active, capped:<seconds>
    paused_us    bigint NOT NULL DEFAULT 0,      -- how long the agent's own clock, by which felt_at is, stood still
    away_since   timestamptz,                    -- since when it stands still now
    last_updated timestamptz NOT NULL,
    stamp        bigint NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agent_id)
) PARTITION BY HASH (agent_id);

-- Typed memories. A deleted one, or one that expired, stays as a tombstone (no data) for a while, so that nothing older
-- can bring it back; its expires_at says until when.
CREATE TABLE memory_records (
    agent_id      uuid   NOT NULL,
    memory_type   text   NOT NULL,
    key           text   NOT NULL,
    data          jsonb,
    importance    double precision NOT NULL,
    access_count  bigint NOT NULL,
    last_accessed timestamptz NOT NULL,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    expires_at    timestamptz,
    tags          text[] NOT NULL,
    stamp         bigint NOT NULL,
    deleted       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (agent_id, memory_type, key)
) PARTITION BY HASH (agent_id);

CREATE INDEX memory_records_by_worth
    ON memory_records (agent_id, memory_type, importance DESC, last_accessed DESC) WHERE NOT deleted;
CREATE INDEX memory_records_by_expiry ON memory_records (expires_at) WHERE expires_at IS NOT NULL;

DO $$
BEGIN
    FOR remainder IN 0..7 LOOP
        EXECUTE format('CREATE TABLE emotional_states_%s PARTITION OF emotional_states
                        FOR VALUES WITH (MODULUS 8, REMAINDER %s) WITH (fillfactor = 70)', remainder, remainder);
        EXECUTE format('CREATE TABLE memory_records_%s PARTITION OF memory_records
                        FOR VALUES WITH (MODULUS 8, REMAINDER %s)
                        WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05)', remainder, remainder);
    END LOOP;
END $$;

-- What happened to an agent and what it felt after it. A day a partition.
CREATE TABLE emotional_events (
    agent_id           uuid   NOT NULL,
    occurred_at        timestamptz NOT NULL,
    stamp              bigint NOT NULL,
    id                 uuid   NOT NULL,
    event_type         text   NOT NULL,
    event_data         jsonb  NOT NULL,
    mode               text   NOT NULL CHECK (mode IN ('set', 'add', 'record')),
    resulting_emotions jsonb  NOT NULL,        -- what the event named
    emotions_after     jsonb  NOT NULL,        -- the whole state after it
    context_factors    jsonb,
    valence            double precision NOT NULL,
    arousal            double precision NOT NULL,
    intensity          double precision NOT NULL,
    valence_delta      double precision NOT NULL,
    arousal_delta      double precision NOT NULL,
    intensity_delta    double precision NOT NULL,
    session_id         uuid,
    created_at         timestamptz NOT NULL,
    state_before       jsonb,                  -- the state just before it as it was stored; NULL: not known
    late               boolean NOT NULL,       -- it occurred before it was told: its stamp does not follow its time
    PRIMARY KEY (agent_id, occurred_at, stamp, id)
) PARTITION BY RANGE (occurred_at);

-- In the order in which they were told, which is the order in which they made the agent feel.
CREATE INDEX emotional_events_told_late ON emotional_events (agent_id, stamp, id) WHERE late;

-- What was said. A week a partition. The primary key is also the order of history; the id in it keeps two messages
-- apart that a failover gave the same stamp.
CREATE TABLE conversation_messages (
    agent_id          uuid   NOT NULL,
    created_at        timestamptz NOT NULL,
    stamp             bigint NOT NULL,
    id                uuid   NOT NULL,
    role              text   NOT NULL CHECK (role IN ('user', 'assistant', 'system', 'function', 'tool')),
    content           text   NOT NULL,
    metadata          jsonb,
    emotional_context jsonb,
    tokens_used       bigint CHECK (tokens_used >= 0),
    session_id        uuid,
    amended           bigint,                  -- the stamp of its latest emotional context, where that was given afterwards
    PRIMARY KEY (agent_id, created_at, stamp, id)
) PARTITION BY RANGE (created_at);

-- Creates the partition of `parent` that begins at `lower`, unless it is there. Also by a role without DDL rights.
-- ATTACH, unlike CREATE TABLE ... PARTITION OF, lets others read and write meanwhile. Its own lock on the parent is the one
-- that serializes those who create the same (ONLY its own: an index may be built on another partition meanwhile, for an
-- hour): a second lock, on something else, could be taken in another order by
-- banshee_drop_partition and end in a deadlock.
CREATE FUNCTION banshee_ensure_partition(parent text, lower timestamptz, upper timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    child text := format('%s_%s', parent, to_char(lower AT TIME ZONE 'UTC', 'YYYYMMDD'));
BEGIN
    IF parent NOT IN ('emotional_events', 'conversation_messages') THEN
        RAISE EXCEPTION 'banshee: % has no partitions by time', parent USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF to_regclass(quote_ident(child)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE ONLY %I IN SHARE UPDATE EXCLUSIVE MODE', parent);
    IF to_regclass(quote_ident(child)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', child, parent);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child, lower, upper);
    RETURN true;
END $$;

-- What remains of events whose partition was dropped: by the hour, and by the day once that is long ago. Sums, so that two
-- rows can be made one; a mean is a sum by `events`.
CREATE TABLE emotional_rollups (
    agent_id  uuid   NOT NULL,
    at        timestamptz NOT NULL,             -- where the hour or day begins
    hours     integer NOT NULL CHECK (hours IN (1, 24)),
    events    bigint NOT NULL,
    valence   double precision NOT NULL,
    arousal   double precision NOT NULL,
    intensity double precision NOT NULL,
    peaks     jsonb  NOT NULL,                  -- {"joy": 0.9}: the most that was felt of each emotion after an event
    stamp     bigint NOT NULL,                  -- the last of those that are in it
    PRIMARY KEY (agent_id, at, hours)
);

CREATE INDEX emotional_rollups_by_hour ON emotional_rollups (at) WHERE hours = 1;

-- Adds the events of a partition to what remains of its time. Of forgotten agents nothing remains.
CREATE FUNCTION banshee_roll_up(child text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format($sql$
        WITH kept AS (
            SELECT happened.agent_id, date_trunc('hour', happened.occurred_at, 'UTC') AS at, happened.valence,
                   happened.arousal, happened.intensity, happened.emotions_after, happened.stamp
            FROM %I AS happened LEFT JOIN forgotten AS buried USING (agent_id)
            WHERE happened.stamp > coalesce(buried.stamp, -1)
        ), summed AS (
            SELECT agent_id, at, count(*) AS events, sum(valence) AS valence, sum(arousal) AS arousal,
                   sum(intensity) AS intensity, max(stamp) AS stamp
            FROM kept
            GROUP BY agent_id, at
        ), highest AS (
            SELECT agent_id, at, felt.key, max(felt.value::double precision) AS value
            FROM kept, jsonb_each_text(emotions_after) AS felt
            GROUP BY agent_id, at, felt.key
        ), peaked AS (
            SELECT agent_id, at, jsonb_object_agg(key, value) AS peaks FROM highest GROUP BY agent_id, at
        )
        INSERT INTO emotional_rollups AS rolled (agent_id, at, hours, events, valence, arousal, intensity, peaks, stamp)
        SELECT agent_id, at, 1, events, valence, arousal, intensity, coalesce(peaks, '{}'), stamp
        FROM summed LEFT JOIN peaked USING (agent_id, at)
        ON CONFLICT (agent_id, at, hours) DO UPDATE
        SET events = rolled.events + excluded.events, valence = rolled.valence + excluded.valence,
            arousal = rolled.arousal + excluded.arousal, intensity = rolled.intensity + excluded.intensity,
            peaks = banshee_higher(rolled.peaks, excluded.peaks), stamp = greatest(rolled.stamp, excluded.stamp)
        $sql$, child);
END $$;

-- Of two objects of numbers the higher of each.
CREATE FUNCTION banshee_higher(one jsonb, other jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_object_agg(key, value), '{}')
    FROM (SELECT key, max(value::double precision) AS value
          FROM (SELECT * FROM jsonb_each_text(one) UNION ALL SELECT * FROM jsonb_each_text(other)) AS both_of_them
          GROUP BY key) AS highest
$$;

-- Drops the oldest partition of `parent` that lies wholly before `cutoff`; returns its name, NULL where there is none.
-- Events are added to emotional_rollups in the same transaction. While that is worked out nobody can write to the partition
-- (nobody should: it is beyond retention), and all else goes on. Only then is it detached, which stops readers and writers
-- of the parent: so it waits for them but as long as lock_timeout says, a few times, and then gives up and keeps all as it
-- was. All of these waits end before a second has passed, when a server would look for a deadlock and kill somebody.
CREATE FUNCTION banshee_drop_partition(parent text, cutoff timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    child record;
BEGIN
    IF parent NOT IN ('emotional_events', 'conversation_messages') THEN
        RAISE EXCEPTION 'banshee: % has no partitions by time', parent USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT name, upper INTO child
    FROM (SELECT c.relname AS name,
                 substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''\)')::timestamptz AS upper
          FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
          WHERE inhparent = to_regclass(quote_ident(parent))) AS children
    WHERE upper <= cutoff
    ORDER BY upper
    LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    EXECUTE format('LOCK TABLE %I IN SHARE ROW EXCLUSIVE MODE', child.name);
    IF parent = 'emotional_events' THEN
        PERFORM banshee_roll_up(child.name);
        UPDATE banshee_store SET rolled_up_to = greatest(rolled_up_to, child.upper);
    END IF;
    FOR attempt IN 1..3 LOOP
        BEGIN
            EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, child.name);
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 3 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.05);
        END;
    END LOOP;
    EXECUTE format('DROP TABLE %I', child.name);
    RETURN child.name;
END $$;

-- These two run with their owner's rights: nobody else may call them until the owner says who, and what they name is
-- looked up where this schema is, never in what a caller made.
REVOKE ALL ON FUNCTION banshee_ensure_partition(text, timestamptz, timestamptz),
                       banshee_drop_partition(text, timestamptz) FROM PUBLIC;
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION banshee_ensure_partition(text, timestamptz, timestamptz)
                    SET search_path = %I, pg_temp', current_schema());
    EXECUTE format('ALTER FUNCTION banshee_drop_partition(text, timestamptz)
                    SET search_path = %I, pg_temp', current_schema());
END $$;

-- The words of a message for a search. A tsvector holds a megabyte of them; of what has more, the beginning is searched.
-- An index of words has this as its expression, with the language in it as a constant, and so has the search. What it costs
-- is said far too high: wherever there is such an index it must look cheaper than working out the words again.
CREATE FUNCTION banshee_document(language regconfig, content text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE STRICT COST 100000 AS $$
BEGIN
    IF octet_length(content) < 150000 THEN
        RETURN to_tsvector(language, content);
    END IF;
    BEGIN
        RETURN to_tsvector(language, content);
    EXCEPTION WHEN program_limit_exceeded THEN
        RETURN to_tsvector(language, left(content, 100000));
    END;
END $$;

-- Sessions are kept as memories of the type _session; this is how they look under the original's name.
CREATE VIEW agent_sessions AS
SELECT key::uuid                                                       AS id,
       agent_id,
       created_at                                                      AS session_start,
       to_timestamp((data ->> 'ended_us')::double precision / 1000000) AS session_end,
       coalesce(data -> 'initial', '{}')                               AS initial_emotional_state,
       data -> 'final'                                                 AS final_emotional_state,
       coalesce((data ->> 'messages')::bigint, 0)                      AS total_messages,
       coalesce((data ->> 'events')::bigint, 0)                        AS total_events,
       coalesce((data ->> 'tokens')::bigint, 0)                        AS total_tokens_used,
       data -> 'metadata'                                              AS session_metadata
FROM memory_records
WHERE memory_type = '_session' AND NOT deleted;

INSERT INTO banshee_migrations (name) VALUES ('0001_initial_schema');
