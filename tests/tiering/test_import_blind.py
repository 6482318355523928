"""While PostgreSQL is away an import does what the single calls do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from banshee_memory import ColdStoreUnavailable, MemoryPlugin, Settings
from banshee_memory.tiering.transfer import EventLine, Line, MemoryLine, MessageLine
from tests.tiering.conftest import SETTINGS
from tests.tiering.lives import HAPPENED
from tests.tiers import Tiers


@pytest.fixture
def cut_off(own_urls: tuple[str, str], tiers: Tiers, tmp_path: Path) -> Iterator[MemoryPlugin]:
    settings = Settings(shards=SETTINGS.shards, connect_timeout=1)
    with MemoryPlugin(f"postgresql:///banshee?host={tmp_path}", own_urls[0], settings=settings) as plugin:
        yield plugin


def test_memories_and_messages_go_in(cut_off: MemoryPlugin, tiers: Tiers, agent: UUID) -> None:
    assert cut_off.memories.store_memory(agent, "fact", "single", 1).data == 1
    lines: list[Line] = [
        MemoryLine(agent=str(agent), memory_type="fact", key="one", data=2),
        MessageLine(agent=str(agent), role="user", content="hello"),
        MemoryLine(agent=str(agent), memory_type="fact", key="two", data=3),
    ]
    report = cut_off.import_(lines)
    assert (report.memories, report.messages) == (2, 1)
    tiers.evict(agent)
    stored = {record.key: record.data for record in tiers.memories.get_memories_by_type(agent, "fact")}
    assert stored == {"single": 1, "one": 2, "two": 3}


def test_what_needs_postgresql_still_says_so(cut_off: MemoryPlugin) -> None:
    event = EventLine(agent=str(uuid4()), event=HAPPENED, emotions={"joy": 0.5})
    with pytest.raises(ColdStoreUnavailable, match="Is it running"):
        cut_off.import_([event])
