"""What people use today for the same, each measured where it is installed (`bench/requirements.txt`)."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from bench import targets, world
from bench.measuring import Case

Urls = tuple[str, str]


def all_of(
    urls: Urls, loop: asyncio.AbstractEventLoop, stack: ExitStack, note: Callable[[str], None]
) -> Iterator[Case]:
    """The cases of all that are installed."""
    for name, peer in PEERS.items():
        try:
            made = list(peer(urls, loop, stack))
        except Exception as exc:  # noqa: BLE001  # whatever a peer stumbles over, the others are measured
            note(f"{name}: {type(exc).__name__}: {exc}")
        else:
            for operation, call, is_async in made:
                yield Case(operation, name, call, calls=20, is_async=is_async)


Made = Iterator[tuple[str, Callable[[], Any], bool]]


def _session(urls: Urls, loop: asyncio.AbstractEventLoop, stack: ExitStack) -> Made:
    redis_session = importlib.import_module("agents.extensions.memory.redis_session").RedisSession
    item = {"role": "user", "content": world.WORDS * 2}

    async def make(number: int) -> Any:
        session = redis_session.from_url(f"peer-{number}", url=urls[0], key_prefix="openai")
        await session.add_items([item] * world.MESSAGES)
        return session

    sessions = [loop.run_until_complete(make(number)) for number in range(8)]
    for session in sessions:
        stack.callback(lambda session=session: loop.run_until_complete(session.close()))
    reader, writer = world.turning(sessions[:4]), world.turning(sessions[4:])
    yield "get_history(50)", lambda: reader().get_items(50), True
    yield "save_message", lambda: writer().add_items([item]), True


def _langchain(urls: Urls, loop: asyncio.AbstractEventLoop, stack: ExitStack) -> Made:
    histories = importlib.import_module("langchain_community.chat_message_histories.redis")
    human = importlib.import_module("langchain_core.messages").HumanMessage
    made = [histories.RedisChatMessageHistory(f"peer-{n}", url=urls[0], key_prefix="lc:") for n in range(8)]
    for history in made:
        for _ in range(world.MESSAGES):
            history.add_message(human(world.WORDS * 2))
    reader, writer = world.turning(made[:4]), world.turning(made[4:])
    yield "get_history(50)", lambda: reader().messages, False
    yield "save_message", lambda: writer().add_message(human(world.WORDS * 2)), False


def _llama(urls: Urls, loop: asyncio.AbstractEventLoop, stack: ExitStack) -> Made:
    store = importlib.import_module("llama_index.storage.chat_store.redis").RedisChatStore(redis_url=urls[0])
    message = importlib.import_module("llama_index.core.llms").ChatMessage
    names = [f"llama-{n}" for n in range(8)]
    for name in names:
        for _ in range(world.MESSAGES):
            store.add_message(name, message(role="user", content=world.WORDS * 2))
    reader, writer = world.turning(names[:4]), world.turning(names[4:])
    yield "get_history(50)", lambda: store.get_messages(reader()), False
    yield (
        "save_message",
        lambda: store.add_message(writer(), message(role="user", content=world.WORDS * 2)),
        False,
    )


def _agno(urls: Urls, loop: asyncio.AbstractEventLoop, stack: ExitStack) -> Made:
    store = importlib.import_module("agno.db.redis").RedisDb(db_url=urls[0])
    memory = importlib.import_module("agno.db.schemas.memory").UserMemory

    def put(name: str) -> Any:
        return store.upsert_user_memory(memory(memory=world.WORDS * 2, memory_id=name, user_id="u", topics=["river"]))

    names = [f"agno-{n}" for n in range(100)]
    for name in names:
        put(name)
    reader, writer = world.turning(names[:50]), world.turning(names[50:])
    yield "retrieve_memory", lambda: store.get_user_memory(reader()), False
    yield "store_memory", lambda: put(writer()), False


def _langgraph(urls: Urls, loop: asyncio.AbstractEventLoop, stack: ExitStack) -> Made:
    postgres_store = importlib.import_module("langgraph.store.postgres").PostgresStore
    store = stack.enter_context(postgres_store.from_conn_string(urls[1]))
    store.setup()
    names = [f"river-{n}" for n in range(100)]
    for name in names:
        store.put(("agents", "fact"), name, world.DATA)
    reader, writer = world.turning(names[:50]), world.turning(names[50:])
    yield "retrieve_memory", lambda: store.get(("agents", "fact"), reader()), False
    yield "store_memory", lambda: store.put(("agents", "fact"), writer(), world.DATA), False


def _om(urls: Urls, loop: asyncio.AbstractEventLoop, stack: ExitStack) -> Made:
    om, redis = importlib.import_module("redis_om"), importlib.import_module("redis")
    client = stack.enter_context(redis.Redis.from_url(urls[0], decode_responses=True))
    names = [emotion.value for emotion in world.FELT]
    fields = {"__annotations__": dict.fromkeys(names, float), "Meta": type("Meta", (), {"database": client})}
    made_by = type(om.HashModel)
    model = made_by("Feeling", (om.HashModel,), {**fields, "__module__": __name__}, index=True)
    made = [model(**{e.value: i for e, i in world.FELT.items()}) for _ in range(100)]
    for each in made:
        each.save()
    reader, writer = world.turning([each.pk for each in made[:50]]), world.turning(made[50:])
    yield "load_state", lambda: model.get(reader()), False
    yield "update_emotions", lambda: writer().save(), False


PEERS: dict[str, Callable[[Urls, asyncio.AbstractEventLoop, ExitStack], Made]] = {
    targets.SESSION: _session,
    targets.LANGCHAIN: _langchain,
    targets.LLAMA: _llama,
    targets.AGNO: _agno,
    targets.LANGGRAPH: _langgraph,
    targets.OM: _om,
}
