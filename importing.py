"""The import: lines of the import format go through the public operations, so that nothing gets in that no call would
take. All of them are judged before the first is written.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import IO, Any
from uuid import UUID

from banshee_memory.emotions import Emotion, EmotionalState
from banshee_memory.errors import BansheeError, InvalidInput
from banshee_memory.failpoints import failpoint
from banshee_memory.operations import AnyOperation, Operations
from banshee_memory.records import ImportReport, NewMessage
from banshee_memory.tiering.transfer import EventLine, Line, MemoryLine, MessageLine, StateLine, dump, parse

Together = Callable[[Sequence[AnyOperation[Any]]], Sequence[Any]]
"""Carries out several operations in their order, with as few round trips as it can."""

_CHUNK_LINES = 500
_CHUNK_BYTES = 4_000_000
_FLUSH_EVERY = 20_000
_IN_MEMORY = 8_000_000


class Importer:
    """One import into one store."""

    def __init__(self, operations: Operations, together: Together, flush: Callable[[], object]) -> None:
        self._operations = operations
        self._settings = operations.settings
        self._together = together
        self._flush = flush
        self._now = datetime.now(UTC)
        self._agents: set[UUID] = set()
        self._counts: Counter[str] = Counter()

    def run(self, records: Iterable[Line], *, skip_expired: bool) -> ImportReport:
        """Judges all records, then puts them in. InvalidInput names the first that cannot go in; then none has."""
        with _repeatable(records) as lines:
            self._judge(lines, skip_expired)
            try:
                self._put(lines)
            except BansheeError as exc:
                exc.add_note(f"The import stopped after {self._counts.total()} records, which are in.")
                raise
        return ImportReport(agents=len(self._agents), **self._counts)

    # --- before anything is written ---

    def _judge(self, lines: Iterable[Line], skip_expired: bool) -> None:
        for number, line in enumerate(lines, start=1):
            if not isinstance(line, Line):
                raise InvalidInput(
                    f"record {number}", f"must be a line of the import format, not {type(line).__name__}"
                )
            try:
                self._operation(line)
            except InvalidInput as exc:
                if not self._is_expired(line):
                    raise InvalidInput(f"record {number}, {exc.field}", exc.reason) from None
                if not skip_expired:
                    reason = f"{exc.reason}; nothing was imported (skip what has expired, or switch retention off)"
                    raise InvalidInput(f"record {number}, {exc.field}", reason) from None

    def _is_expired(self, line: Line) -> bool:
        days = {
            MessageLine: self._settings.message_retention_days,
            EventLine: self._settings.event_retention_days,
        }.get(type(line))
        at = self._time(line)
        if days is None or at is None or at.tzinfo is None:
            return False
        return at < datetime.now(UTC) - timedelta(days=days)

    def _time(self, line: Line) -> datetime | None:
        try:
            return None if isinstance(line, MemoryLine) else line.when(self._now)
        except InvalidInput:
            return None

    # --- writing ---

    def _put(self, lines: Iterable[Line]) -> None:
        unflushed = 0
        for chunk in _chunks(lines, min(_CHUNK_LINES, self._settings.max_batch)):
            unflushed += len(chunk)
            self._put_chunk(chunk)
            failpoint("import.chunk_put")
            # What waits for PostgreSQL stays in Redis whole: where no daemon carries it, somebody has to.
            if unflushed >= _FLUSH_EVERY:
                self._flush()
                failpoint("import.flushed")
                unflushed = 0

    def _put_chunk(self, chunk: Sequence[Line]) -> None:
        messages: dict[UUID, list[NewMessage]] = {}
        others: list[AnyOperation[Any]] = []
        counts: Counter[str] = Counter()
        for line in chunk:
            try:
                operation = self._operation(line)
            except InvalidInput:
                if not self._is_expired(line):
                    raise
                counts["skipped"] += 1
                continue
            counts[_KINDS[type(line)]] += 1
            self._agents.add(line.agent_id)
            if isinstance(line, MessageLine):
                messages.setdefault(line.agent_id, []).append(self._message(line))
            else:
                others.append(operation)
        self._bring_states_in({line.agent_id for line in chunk if isinstance(line, EventLine)})
        failpoint("import.states_brought")
        batches = [self._operations.save_messages(agent, batch, None) for agent, batch in messages.items()]
        self._together([*batches, *others])
        self._counts += counts

    def _bring_states_in(self, agents: Iterable[UUID]) -> None:
        """An event needs the state before it: so PostgreSQL is asked once an agent, not once an event."""
        self._together([self._operations.load_state(agent) for agent in agents])

    def _operation(self, line: Line) -> AnyOperation[Any]:
        operations = self._operations
        match line:
            case MessageLine():
                return operations.save_messages(line.agent_id, [self._message(line)], None)
            case EventLine():
                return self._event(line)
            case StateLine():
                return operations.save_state(line.agent_id, self._state(line), None)
            case MemoryLine():
                named = (line.agent_id, line.memory_type, line.key, line.data)
                return operations.store_memory(*named, line.ttl_seconds, line.importance, line.tags, None)

    def _message(self, line: MessageLine) -> NewMessage:
        return NewMessage(
            role=line.role,
            content=line.content,
            metadata=line.metadata,
            tokens_used=line.tokens,
            emotional_context=line.emotional_context,
            session_id=line.session_id,
            created_at=line.when(self._now),
        )

    def _event(self, line: EventLine) -> AnyOperation[Any]:
        felt = {Emotion.parse(name): amount for name, amount in line.emotions.items()}
        what = (line.agent_id, line.event, felt, line.mode, line.when(self._now))
        return self._operations.save_event(*what, line.session_id, line.context_factors, None)

    def _state(self, line: StateLine) -> EmotionalState:
        return EmotionalState(
            {Emotion.parse(name): intensity for name, intensity in line.emotions.items()},
            {Emotion.parse(name): rate for name, rate in line.decay_rates.items()},
            line.when(self._now) or datetime.now(UTC),
        )


_KINDS = {MessageLine: "messages", EventLine: "events", StateLine: "states", MemoryLine: "memories"}


def _chunks(lines: Iterable[Line], most: int) -> Iterator[list[Line]]:
    chunk: list[Line] = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += len(line.content) if isinstance(line, MessageLine) else len(dump(line))
        if len(chunk) >= most or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


@contextmanager
def _repeatable(records: Iterable[Line]) -> Iterator[Iterable[Line]]:
    """Records that can be walked along twice. Those of an iterator are kept in a file meanwhile, if they are many."""
    if iter(records) is not records:
        yield records
        return
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as spool:
        for record in records:
            spool.write(dump(record) + b"\n")
        yield _Spooled(spool)


class _Spooled:
    def __init__(self, spool: IO[bytes]) -> None:
        self._spool = spool

    def __iter__(self) -> Iterator[Line]:
        self._spool.seek(0)
        return parse(self._spool)
