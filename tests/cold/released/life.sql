-- One agent's life in the tables of the version that ships the migrations beside it.
SELECT banshee_ensure_partition('conversation_messages', '2026-03-02 00:00Z', '2026-03-09 00:00Z'),
       banshee_ensure_partition('emotional_events', '2026-03-04 00:00Z', '2026-03-05 00:00Z');
INSERT INTO conversation_messages (agent_id, created_at, stamp, id, role, content, metadata, tokens_used) VALUES
    ('00000000-0000-4000-8000-000000000001', '2026-03-04 10:00Z', 1000, '00000000-0000-4000-8000-0000000000a1', 'user',
     'The quick brown fox', '{"n": 1}', 3),
    ('00000000-0000-4000-8000-000000000001', '2026-03-04 11:00Z', 2000, '00000000-0000-4000-8000-0000000000a2', 'assistant',
     'and another fox', NULL, NULL);
INSERT INTO emotional_events (agent_id, occurred_at, stamp, id, event_type, event_data, mode, resulting_emotions,
                              emotions_after, valence, arousal, intensity, valence_delta, arousal_delta, intensity_delta,
                              created_at, late) VALUES
    ('00000000-0000-4000-8000-000000000001', '2026-03-04 10:30Z', 1500, '00000000-0000-4000-8000-0000000000b1', 'rain',
     '{"type": "custom", "event_type": "rain", "data": {}}', 'add', '{"joy": 0.5}', '{"joy": 0.5}', 1, 0.8, 0.5, 1, 0.8, 0.5,
     '2026-03-04 10:30Z', false);
INSERT INTO emotional_states (agent_id, emotions, felt_at, last_updated, stamp) VALUES
    ('00000000-0000-4000-8000-000000000001', '{"joy": 0.5}', '{"joy": 1772620200000000}', '2026-03-04 10:30Z', 1500);
INSERT INTO memory_records (agent_id, memory_type, key, data, importance, access_count, last_accessed, created_at,
                            updated_at, tags, stamp) VALUES
    ('00000000-0000-4000-8000-000000000001', 'fact', 'colour', '{"is": "green"}', 0.5, 2, '2026-03-04 10:00Z',
     '2026-03-04 10:00Z', '2026-03-04 10:00Z', '{}', 1700);
INSERT INTO emotional_rollups (agent_id, at, hours, events, valence, arousal, intensity, peaks, stamp) VALUES
    ('00000000-0000-4000-8000-000000000001', '2026-01-01 10:00Z', 1, 4, 4, 2, 2, '{"joy": 0.9}', 500);
INSERT INTO agents (agent_id, flushed_stamp, total_messages, user_messages, assistant_messages, total_tokens, total_events,
                    first_message, last_message, first_event, last_event) VALUES
    ('00000000-0000-4000-8000-000000000001', 2000, 2, 1, 1, 3, 1, '2026-03-04 10:00Z', '2026-03-04 11:00Z',
     '2026-03-04 10:30Z', '2026-03-04 10:30Z');
UPDATE shards SET flushed_stamp = 2000, newest_stamp = 2000 WHERE shard = 0;
