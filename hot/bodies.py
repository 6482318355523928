"""Bodies of messages and memories, judged while they are packed, where all is as it usually is.

What was packed is read again by a decoder that takes nothing but what is allowed; if that comes back equal, it was
right, and it is a copy besides. All of this is done in C. What comes back otherwise, or not at all, is to be judged
piece by piece (`validation`), which knows what else is allowed and says what is not.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from banshee_memory.hot.wire import MemoryBody, MessageBody, pack
from banshee_memory.records import Json, Role
from banshee_memory.settings import Settings
from banshee_memory.validation import LARGEST, LEVELS, MOST_TOKENS, NOT_PLAIN, PLAIN, has_nul

_TYPES = {
    MessageBody: {
        "nonce": bytes,
        "role": Role,
        "content": Annotated[str, Meta(min_length=1)],
        "metadata": PLAIN,
        "emotional_context": None,
        "tokens_used": Annotated[int, Meta(ge=0, le=MOST_TOKENS)] | None,
        "session_id": Annotated[bytes, Meta(min_length=16, max_length=16)] | None,
    },
    MemoryBody: {
        "data": PLAIN,
        "importance": Annotated[float, Meta(ge=0, le=1)],
        "tags": tuple[str, ...],
    },
}


def _strict(body: type[msgspec.Struct]) -> Any:
    """The same body, of which every field must be what is allowed."""
    types, nothing = _TYPES[body], msgspec.NODEFAULT
    fields = [
        (field.name, types[field.name], *([] if field.default is nothing else [field.default]))
        for field in msgspec.structs.fields(body)
    ]
    return msgspec.defstruct(body.__name__, fields, array_like=True, omit_defaults=True, frozen=True, gc=False)


_Message, _Memory = _strict(MessageBody), _strict(MemoryBody)
_message, _memory = (msgspec.msgpack.Decoder(kind).decode for kind in (_Message, _Memory))


def usual_size(settings: Settings) -> int:
    """Up to how many packed bytes no limit of the settings can be reached."""
    if settings.max_json_depth < LEVELS:
        return 0
    return min(settings.max_content_bytes, settings.max_json_bytes // LARGEST)


def usual_message(
    nonce: bytes, role: str, content: str, metadata: Json, tokens_used: int | None, session: bytes | None, most: int
) -> bytes | None:
    """A message's body, of at most so many bytes, without a context of its own; None: it is not known to be right."""
    if not most:
        return None
    given = _Message(nonce, role, content, metadata, None, tokens_used, session)
    try:
        packed = pack(given)
        if len(packed) > most or _message(packed) != given:
            return None
    except NOT_PLAIN:
        return None
    if content.isspace() or (0 in packed and ("\0" in content or has_nul(metadata))):
        return None
    return packed


def usual_memory(data: Json, importance: float, tags: tuple[str, ...], most: int) -> tuple[MemoryBody, bytes] | None:
    """A copy of a memory's body, and as bytes, at most so many; None: the data is not known to be right."""
    given = _Memory(data, importance, tags)
    try:
        packed = pack(given)
        copy = _memory(packed)
        if len(packed) > most or copy != given or has_nul(data):
            return None
    except NOT_PLAIN:
        return None
    return copy, packed
