"""Turns the dialogues of MELD (Multimodal EmotionLines Dataset) into the import format.

    python bench/meld.py DIR > meld.jsonl

DIR holds files named <split>_sent_emo.csv. A dialogue is an agent, `meld-<split>-<dialogue>`; an utterance is a
message, and its emotion label, unless it is neutral, an emotional event one second after it.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from banshee_memory import SocialInteraction, UnexpectedEvent
from banshee_memory.tiering.transfer import EventLine, Line, MessageLine, dump

EMOTIONS = {"joy": "joy", "sadness": "distress", "anger": "anger", "fear": "fear", "disgust": "reproach"}
INTENSITY = 0.7
"""MELD says which emotion, not how strong it is."""
STEP = timedelta(seconds=2)
OUTCOMES = {"positive": 0.5, "neutral": 0.0, "negative": -0.5}


def lines(folder: Path, base: datetime) -> Iterator[Line]:
    """All dialogues of a folder, one after the other, from that time on."""
    times = (base + STEP * count for count in itertools.count())
    for file in sorted(folder.glob("*_sent_emo.csv")):
        split = file.name.removesuffix("_sent_emo.csv")
        with file.open(encoding="utf-8", newline="") as rows:
            for dialogue, utterances in itertools.groupby(csv.DictReader(rows), lambda row: row["Dialogue_ID"]):
                yield from _dialogue(f"meld-{split}-{dialogue}", utterances, times)


def _dialogue(agent: str, utterances: Iterator[dict[str, str]], times: Iterator[datetime]) -> Iterator[Line]:
    first = None
    for row in utterances:
        first = first or row["Speaker"]
        at = next(times)
        yield MessageLine(
            agent=agent,
            role="user" if row["Speaker"] == first else "assistant",
            content=row["Utterance"],
            at=at,
            tokens=len(row["Utterance"].split()),  # words, for want of a tokenizer
            metadata={"speaker": row["Speaker"]},
        )
        yield from _felt(agent, row, at + timedelta(seconds=1))


def _felt(agent: str, row: dict[str, str], at: datetime) -> Iterator[Line]:
    label, outcome = row["Emotion"], OUTCOMES[row["Sentiment"]]
    if label == "surprise":
        surprise = UnexpectedEvent(surprise_level=INTENSITY, positive_outcome=outcome > 0, context="conversation")
        yield EventLine(agent=agent, event=surprise, emotions={}, at=at)
    elif label in EMOTIONS:
        said = SocialInteraction(interaction_type="conversation", outcome=outcome, peer_status=0.5)
        yield EventLine(agent=agent, event=said, emotions={EMOTIONS[label]: INTENSITY}, at=at)


def main() -> None:
    """Writes the lines to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument(
        "--base",
        type=datetime.fromisoformat,
        default=datetime.now(UTC) - timedelta(days=1),
        help="when the first was said, as ISO 8601 with a time zone; then two seconds each (default: a day ago)",
    )
    options = parser.parse_args()
    for line in lines(options.folder, options.base):
        sys.stdout.buffer.write(dump(line) + b"\n")


if __name__ == "__main__":
    main()
