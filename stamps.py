"""Stamps: the order in which a shard accepted its writes; and the ids that carry their time.

A stamp is the id that Redis gave the write's entry in the shard's log, `<ms>-<seq>`, as one integer:
`ms << 16 | seq`. It grows strictly for the shard, also when the server's clock steps back, and it fits an int8.
The Lua library keeps `seq` under 2^16 (see `lua/library.lua`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Receipt(msgspec.Struct, frozen=True):
    """What `wait_cold` waits for: that PostgreSQL has all that this shard took up to a stamp (0: it has it already).

    As JSON or MessagePack (`msgspec`) it can be handed to another process.
    """

    shard: int
    stamp: int
    server: str = ""
    """Which Redis took it: what another one comes to hold does not speak for it."""


_SEQ = 0xFFFF
_RANDOM = (1 << 58) - 1
_ID = struct.Struct(">QQ")


def stamp_of(entry_id: bytes | str) -> int:
    """`b"1700000000000-3"` as a stamp."""
    text = entry_id.decode() if isinstance(entry_id, bytes) else entry_id
    ms, _, seq = text.partition("-")
    return int(ms) << 16 | int(seq)


def entry_id_of(stamp: int) -> str:
    """The id in the log of the entry with this stamp."""
    return f"{stamp >> 16}-{stamp & _SEQ}"


def stamp_us(stamp: int) -> int:
    """When the shard accepted it: microseconds since the epoch, in steps of a millisecond."""
    return (stamp >> 16) * 1_000


_fresh_nonces: list[bytes] = []
_NONCES_AT_ONCE = 64
_BEGINS = bytes(byte & 0x03 | 0x80 for byte in range(256))


def fresh_nonce() -> bytes:
    """58 random bits, in eight bytes as the id ends with where the seq is 0: what makes the id of a record unique
    whatever the servers' clocks do.

    Asking the kernel costs more than the rest of it, so many are fetched at a time.
    """
    try:
        return _fresh_nonces.pop()
    except IndexError:
        random = bytearray(os.urandom(8 * _NONCES_AT_ONCE))
        random[::8] = random[::8].translate(_BEGINS)
        nonces = [bytes(random[at : at + 8]) for at in range(0, len(random), 8)]
        _fresh_nonces.extend(nonces[1:])
        return nonces[0]


os.register_at_fork(after_in_child=_fresh_nonces.clear)


def keyed_nonce(agent_id: UUID, idempotency_key: str, index: int) -> bytes:
    """The nonce of a record that was given an idempotency key: the same when the call is repeated."""
    import hashlib  # which brings OpenSSL in

    name = agent_id.bytes + index.to_bytes(4, "big") + idempotency_key.encode()
    return hashlib.blake2b(name, digest_size=8).digest()


_uuid = msgspec.msgpack.Decoder(UUID).decode


def uuid_of(sixteen: bytes) -> UUID:
    """The UUID of these bytes: `UUID(bytes=...)` in a quarter of the time."""
    return _uuid(b"\xc4\x10" + sixteen)


def record_id(stamp: int, nonce: bytes, at_us: int) -> UUID:
    """The UUIDv7 (RFC 9562) of a message or event: its own time, its stamp's seq, 58 random bits.

    It is derived, so both tiers and any client that knows stamp and nonce agree on it. Of a record that brought no time
    of its own the stamp can be told from it.
    """
    return uuid_of(id_bytes(stamp, nonce, at_us))


def id_bytes(stamp: int, nonce: bytes, at_us: int) -> bytes:
    """`record_id` in 16 bytes."""
    head = (at_us // 1_000) << 16 | 0x7000 | (stamp & _SEQ) >> 4
    tail = 0x8000_0000_0000_0000 | (stamp & 0xF) << 58 | int.from_bytes(nonce, "big") & _RANDOM
    return _ID.pack(head, tail)


def is_id_at(identity: UUID, stamp: int) -> bool:
    """Whether it is the id, with whatever nonce, of a record with this stamp that brought no time of its own."""
    return identity.int >> 58 == (stamp >> 16 << 16 | 0x7000 | (stamp & _SEQ) >> 4) << 6 | 0x20 | stamp & 0xF


def stamp_in_id(sixteen: bytes) -> int:
    """The stamp of a record that brought no time of its own, from its id."""
    head, tail = int.from_bytes(sixteen[:8], "big"), sixteen[8]
    return head >> 16 << 16 | (head & 0xFFF) << 4 | tail >> 2 & 0xF


def id_span(record: UUID) -> tuple[datetime, datetime]:
    """The half-open millisecond in which the record with this id lies: what a query needs to prune partitions."""
    start = from_us((record.int >> 80) * 1_000)
    return start, start + timedelta(milliseconds=1)


def to_us(at: datetime) -> int:
    """Whole microseconds since the epoch, exactly."""
    return (at - EPOCH) // _MICROSECOND


_FAR = 2**32 * 1_000_000


def times_of(micros: Sequence[int]) -> list[datetime]:
    """`from_us` of many whole numbers, in a seventh of the time."""
    if not micros or (min(micros) > -_FAR and max(micros) < _FAR):
        return msgspec.convert([us / 1e6 for us in micros], list[datetime], strict=False)
    return [from_us(us) for us in micros]


def from_us(us: int | float) -> datetime:
    """The UTC time of that many microseconds since the epoch."""
    return EPOCH + _MICROSECOND * int(us)
