"""What a server may say, as bytes and as what they read as; how a network cuts them up; and how they get spoilt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from typing import Any, NamedTuple

import hiredis

from banshee_memory.hot.replies import INCOMPLETE, new_reader

PACKET = 65_536
"""No chunk is larger: a packet that does not fit into the buffer of who receives it would lose its end."""
DEEPEST = 3


class Said(NamedTuple):
    """A reply: its bytes, and how what they read as prints, which tells True from 1 and one error from another."""

    sent: bytes
    read: str


class Speech(NamedTuple):
    """All that was said: the replies in order, what was said unasked, and whether nothing was left over."""

    replies: list[str]
    unasked: list[str]
    is_whole: bool


def _line(mark: bytes, value: bytes | str | int | float) -> bytes:
    return mark + (value if isinstance(value, bytes) else str(value).encode()) + b"\r\n"


def _counted(mark: bytes, value: bytes) -> bytes:
    return _line(mark, len(value)) + value + b"\r\n"


def _word(chance: Random) -> bytes:
    return bytes(chance.choices(b"abc $*:+-_>%~#", k=chance.randrange(12)))


def _bulk(chance: Random) -> Said:
    """Bytes of every kind; also such as look like replies, ends of lines, and more than a buffer holds."""
    size = chance.choices((chance.randrange(20), chance.randrange(400), chance.randrange(150_000)), (60, 15, 1))[0]
    value = chance.choice(
        (chance.randbytes(size), b"\r\n" * (size // 2), b"$5\r\nother\r\n" * (size // 11), b"A" * size)
    )
    return Said(_counted(b"$", value), repr(value))


def _status(chance: Random) -> Said:
    value = _word(chance)
    return Said(_line(b"+", value), repr(value))


def _error(chance: Random) -> Said:
    text = "ERR " + _word(chance).decode()
    return Said(_line(b"-", text), f"ServerError({text!r})")


def _number(chance: Random) -> Said:
    value = chance.choice((0, 1, -1, chance.randrange(-(2**63), 2**63)))
    return Said(_line(b":", value), repr(value))


def _list(chance: Random, any_of: Callable[[Random, int], Said], depth: int, mark: bytes = b"*") -> Said:
    members = [any_of(chance, depth + 1) for _ in range(chance.randrange(5))]
    sent = b"".join(member.sent for member in members)
    return Said(_line(mark, len(members)) + sent, f"[{', '.join(member.read for member in members)}]")


def old_reply(chance: Random, depth: int = 0) -> Said:
    """A reply of RESP2."""
    kind = chance.randrange(7 if depth < DEEPEST else 5)
    if kind < 4:
        return (_bulk, _status, _error, _number)[kind](chance)
    if kind == 4:
        return Said(chance.choice((b"$-1\r\n", b"*-1\r\n")), "None")
    return _list(chance, old_reply, depth)


def _map(chance: Random, depth: int) -> Said:
    members = {f"k{number}".encode(): new_reply(chance, depth + 1) for number in range(chance.randrange(4))}
    sent = b"".join(_counted(b"$", key) + member.sent for key, member in members.items())
    read = ", ".join(f"{key!r}: {member.read}" for key, member in members.items())
    return Said(_line(b"%", len(members)) + sent, f"{{{read}}}")


def _boolean(chance: Random) -> Said:
    value = chance.random() < 0.5
    return Said(_line(b"#", "t" if value else "f"), repr(value))


def _double(chance: Random) -> Said:
    value = chance.choice((0.5, -3.25, 1e300, float("inf"), chance.random()))
    return Said(_line(b",", value), repr(value))


def _big_number(chance: Random) -> Said:
    digits = str(chance.randrange(2**64, 2**200)).encode()
    return Said(_line(b"(", digits), repr(digits))


def _verbatim(chance: Random) -> Said:
    word = _word(chance)
    return Said(_counted(b"=", b"txt:" + word), repr(word))


def _nothing(chance: Random) -> Said:
    return Said(b"_\r\n", "None")


_PLAIN = (_boolean, _double, _big_number, _verbatim, _nothing)


def new_reply(chance: Random, depth: int = 0) -> Said:
    """A reply of RESP3."""
    kind = chance.randrange(len(_PLAIN) + (4 if depth < DEEPEST else 1))
    if kind < len(_PLAIN):
        return _PLAIN[kind](chance)
    if kind == len(_PLAIN) + 1:
        return _map(chance, depth)
    if kind == len(_PLAIN) + 2:
        return _list(chance, new_reply, depth, b"~")
    return old_reply(chance, depth)


def unasked(chance: Random) -> Said:
    """What a server that keeps track of reads says by itself: which keys have changed, or that all have."""
    if chance.random() < 0.1:
        return Said(b">2\r\n$10\r\ninvalidate\r\n_\r\n", "[b'invalidate', None]")
    keys = [f"key{chance.randrange(9)}".encode() for _ in range(chance.randrange(1, 4))]
    sent = _line(b"*", len(keys)) + b"".join(_counted(b"$", key) for key in keys)
    return Said(b">2\r\n$10\r\ninvalidate\r\n" + sent, repr([b"invalidate", keys]))


def read_at_once(sent: bytes, *, is_tracked: bool = False) -> Speech:
    """What that reads as to a reader that gets all of it at once, up to where it is nothing any more. Only who
    `is_tracked` tells replies from what is said unasked."""
    reader = new_reader()
    reader.feed(sent)
    replies: list[str] = []
    pushes: list[str] = []
    while reader.has_data():
        try:
            reply = reader.gets()
        except (hiredis.ProtocolError, TypeError):
            return Speech(replies, pushes, is_whole=False)
        if reply is INCOMPLETE:
            return Speech(replies, pushes, is_whole=False)
        is_push = is_tracked and isinstance(reply, hiredis.PushNotification)
        if is_push and not _is_sense(reply):
            return Speech(replies, pushes, is_whole=False)
        (pushes if is_push else replies).append(repr(reply))
    return Speech(replies, pushes, is_whole=True)


def _is_sense(push: list[Any]) -> bool:
    """Whether a server can have said that: of what has changed it gives the keys, or nothing, which is all."""
    if push[:1] != [b"invalidate"]:
        return bool(push)
    keys = push[1] if len(push) > 1 else 0
    return keys is None or (isinstance(keys, list) and all(isinstance(key, bytes) for key in keys))


# --- how it is cut up ---


def chunked(chance: Random, sent: bytes) -> list[bytes]:
    """The same bytes in pieces: whole, in halves, in drops, or anyhow."""
    if not sent:
        return []
    few, many = chance.randrange(1, 5), min(len(sent), 60)
    cuts = chance.choice((0, 1, few, many, len(sent) if len(sent) < 150 else many))
    return cut_at(sent, [chance.randrange(1, len(sent) + 1) for _ in range(cuts)])


def cut_at(sent: bytes, places: Sequence[int]) -> list[bytes]:
    """The same bytes, cut there, and wherever a packet is full."""
    ends = sorted({*places, *range(PACKET, len(sent), PACKET), len(sent)})
    return [sent[begin:end] for begin, end in pairwise([0, *ends]) if begin < end]


# --- how it is spoilt ---


def spoilt(chance: Random, sent: bytes) -> bytes:
    """Other bytes, by one accident or several; no count grows by more than a few digits."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        sent = chance.choice(_ACCIDENTS)(chance, sent)
    return sent


def _at(chance: Random, sent: bytes) -> int:
    """A place; those where replies begin and end are hit more often than the insides of long words."""
    marks = [place for place in range(min(len(sent), 4_000)) if sent[place] in b"\r\n$*:+->%~_#,(="]
    return chance.choice(marks) if marks and chance.random() < 0.7 else chance.randrange(len(sent) + 1)


def _changed(chance: Random, sent: bytes) -> bytes:
    place = _at(chance, sent)
    return sent[:place] + chance.choice((b"$", b"*", b"\r", b"\n", b"-", b"9", b"%", b">", b"\0")) + sent[place + 1 :]


def _lost(chance: Random, sent: bytes) -> bytes:
    place = _at(chance, sent)
    return sent[:place] + sent[place + chance.choice((1, 1, 2, 30)) :]


def _added(chance: Random, sent: bytes) -> bytes:
    place = _at(chance, sent)
    more = chance.choice((b"\r\n", b"$", b"1", b"+OK\r\n", b"*1\r\n", b"%1\r\n*0\r\n", b">1\r\n", b"$7\r\nx", b"\xff"))
    return sent[:place] + more + sent[place:]


def _cut_off(chance: Random, sent: bytes) -> bytes:
    return sent[: _at(chance, sent)]


def _repeated(chance: Random, sent: bytes) -> bytes:
    begin, end = sorted((_at(chance, sent), _at(chance, sent)))
    return sent[:end] + sent[begin:]


_ACCIDENTS = (_changed, _lost, _added, _cut_off, _repeated)
