"""Which units the page shows, and everything about them: prompts, pictures as data URIs, thoughts, verdicts.

The first `per_outcome` units of each family that are right, and as many that are wrong, by the normal drawing (or the
first question asked). Pictures larger than `THUMBNAIL_PX` are reduced, and a byte budget keeps the page loadable: what
does not fit is counted, never silently dropped.
"""

import base64
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from unigap.arms import CALLS, Question
from unigap.disk import KeyedLines
from unigap.errors import RunFolderError
from unigap.items import Item
from unigap.records import Key, Record, RunFolder, Verdict
from unigap.report.scores import Scores, UnitScore
from unigap.report.summary import NORMAL_DRAWING
from unigap.scenes.render import parse_scene, render
from unigap.scenes.vocabulary import counted

THUMBNAIL_PX = 224
"""Larger pictures are reduced to this, as JPEG; smaller ones are kept pixel by pixel, as PNG."""
MAX_BYTES = 4_500_000
"""Of pictures and texts together; markup comes on top."""
MAX_CHARACTERS = 3000
"""Of one text; the rest is cut with a note."""

Outcome = Literal["right", "wrong", "other"]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One answer: a text or a picture, with its verdict."""

    arm: str
    text: str
    """The answer in text; "" for a drawing."""
    image: str
    """Data URI; "" for a text, or when there is no picture."""
    pixelated: bool
    status: str
    """right, wrong, refused, unscored or missing."""
    error: str
    """The code of a wrong answer, in words."""
    why: str
    reading: str
    thought: str
    refined_prompt: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class ShownItem:
    id: str
    question: str
    prompt: str
    caption: str
    derived: bool
    pictures: tuple[str, ...]
    """Data URIs of what is shown with question or prompt."""
    texts: tuple[Shown, ...]
    drawings: tuple[Shown, ...]


@dataclass(frozen=True, kw_only=True)
class Card:
    """One unit: an item, or the halves of a pair."""

    unit: str
    family: str
    variant: str
    outcome: Outcome
    items: tuple[ShownItem, ...]

    @property
    def num_bytes(self) -> int:
        shown = [answer for item in self.items for answer in (*item.texts, *item.drawings)]
        pictures = sum(len(answer.image) for answer in shown) + sum(
            len(p) for item in self.items for p in item.pictures
        )
        return pictures + sum(len(answer.thought) + len(answer.text) + len(answer.why) for answer in shown)


@dataclass(frozen=True, kw_only=True)
class Gallery:
    cards: tuple[Card, ...]
    num_left_out: int
    """Units that were chosen but did not fit the byte budget."""
    chosen_by: str
    """Which answer decides whether a unit is right or wrong, e.g. "normal drawing"."""


def build_gallery(folder: RunFolder, judge: str, scores: Scores, *, per_outcome: int = 6) -> Gallery:
    """Choose units and load what the page shows of them; a picture that cannot be read is said to be so."""
    found = scores.questions(scores.items)
    asked = [question for question in CALLS if question in found]
    decisive = NORMAL_DRAWING if NORMAL_DRAWING in asked or not asked else asked[0]
    loader = _Loader(folder, folder.records(), folder.verdicts(judge), asked)
    cards: list[Card] = []
    left_out = used = 0
    for outcome, unit, items in _choose(scores, decisive, per_outcome):
        card = loader.card(outcome, unit, items)
        if used + card.num_bytes > MAX_BYTES:
            left_out += 1
            continue
        used += card.num_bytes
        cards.append(card)
    return Gallery(cards=tuple(cards), num_left_out=left_out, chosen_by=_name(decisive))


def _name(question: Question) -> str:
    direction, arm = question
    return f"{arm} {'drawing' if direction == 'generation' else 'text answer'}"


def _choose(scores: Scores, decisive: Question, per_outcome: int) -> Iterator[tuple[Outcome, UnitScore, list[Item]]]:
    """Wrong ones first within a family: they are what one looks for."""
    by_family: dict[str, dict[str, list[Item]]] = {}
    for item in scores.items:
        by_family.setdefault(item.family, {}).setdefault(item.unit, []).append(item)
    for units in by_family.values():
        members = [item for items in units.values() for item in items]
        found: dict[Outcome, list[UnitScore]] = {"wrong": [], "right": [], "other": []}
        for unit in scores.units(members, decisive):
            found[_outcome(unit)].append(unit)
        for outcome, chosen in found.items():
            for unit in chosen[:per_outcome]:
                yield outcome, unit, units[unit.unit]


def _outcome(unit: UnitScore) -> Outcome:
    status = unit.statuses[0]
    if status in ("missing", "unscored"):
        return "other"
    return "right" if status == "correct" else "wrong"


@dataclass(frozen=True)
class _Loader:
    folder: RunFolder
    records: KeyedLines[Record]
    verdicts: KeyedLines[Verdict]
    questions: list[Question]

    def card(self, outcome: Outcome, unit: UnitScore, items: list[Item]) -> Card:
        return Card(
            unit=unit.unit,
            family=items[0].family,
            variant=items[0].variant,
            outcome=outcome,
            items=tuple(self._item(self.folder.item(item.id)) for item in items),
        )

    def _item(self, item: Item) -> ShownItem:
        answers = [(question, self._answer(item, question)) for question in self.questions]
        return ShownItem(
            id=item.id,
            question=shorten(item.question),
            prompt=shorten(item.prompt),
            caption=shorten(item.caption),
            derived=item.derived,
            pictures=tuple(_scene_uri(ref) for ref in dict.fromkeys(item.images + item.prompt_images)),
            texts=tuple(shown for (direction, _), shown in answers if shown and direction == "understanding"),
            drawings=tuple(shown for (direction, _), shown in answers if shown and direction == "generation"),
        )

    def _answer(self, item: Item, question: Question) -> Shown | None:
        """The first sample of one answer; None if it was not asked."""
        key = Key(item.id, *question, 0)
        record = self.records.get(key)
        if record is None:
            return None
        verdict = self.verdicts.get(key) if record.settled else None
        image, pixelated, trouble = self._picture(record)
        return Shown(
            arm=question[1],
            text=shorten(record.text or ""),
            image=image,
            pixelated=pixelated,
            status=_status(record, verdict),
            error=(verdict.error or "").replace("_", " ") if verdict else "",
            why=shorten(trouble or (verdict.why if verdict else "")),
            reading=shorten(describe_reading(verdict.reading)) if verdict and verdict.reading else "",
            thought=shorten(record.thought or ""),
            refined_prompt=shorten(record.refined_prompt or ""),
            detail=shorten(record.detail),
        )

    def _picture(self, record: Record) -> tuple[str, bool, str]:
        """(data URI, small enough to show its pixels, why there is none)."""
        if record.image is None:
            return "", False, ""
        try:
            image = self.folder.load_image(record)
        except RunFolderError as error:
            return "", False, str(error)
        return image_uri(image), max(image.size) <= THUMBNAIL_PX, ""


def _status(record: Record, verdict: Verdict | None) -> str:
    if not verdict:
        return "missing"
    if record.outcome == "refused":
        return "refused"
    return {"correct": "right", "incorrect": "wrong", "unscored": "unscored"}[verdict.verdict]


def shorten(text: str) -> str:
    """The text, or its beginning with a note of how long it is."""
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} ... ({len(text)} characters)"


def image_uri(image: Image.Image) -> str:
    """A picture as a data URI, reduced if it is large."""
    buffer, kind = io.BytesIO(), "png"
    if max(image.size) > THUMBNAIL_PX:
        kind = "jpeg"
        image = image.copy()
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        image.save(buffer, "JPEG", quality=82)
    else:
        image.save(buffer, "PNG", optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _scene_uri(ref: str) -> str:
    """Of a picture an item shows; "" for a file, which lies beside the item file and not in the run."""
    return image_uri(render(parse_scene(ref))) if ref.startswith("scene:") else ""


def describe_reading(reading: Mapping[str, Any]) -> str:
    """What a judge saw, in a few words: "2 cups, 1 apple", the final words of a text, or the reading as JSON."""
    counts = reading.get("counts")
    if isinstance(counts, Mapping) and counts:
        return ", ".join(counted(str(name), n) if n == int(n) else f"{n} {name}" for name, n in counts.items())
    portrait = reading.get("portrait")
    if isinstance(portrait, Mapping):
        return ", ".join(str(value) for name, value in portrait.items() if name != "kind")
    for field in ("final", "why", "kind"):
        if reading.get(field):
            return str(reading[field])
    return json.dumps(dict(reading), ensure_ascii=False, default=str)
