"""The judge card: how often a judge is wrong, measured on answers whose truth is known (docs/judge_card.md).

Two sources. Probes (`unigap.judges.probes`) need nothing but the judge; they are pictures of the sandbox, and their
wrong answers are wrong in ways that we chose. Labels (`unigap.judges.labels`) are what people said of a run's own
pictures: the better source for real models, whose pictures and mistakes probes do not resemble.

A card is about single answers, one text or one picture, which is what a judge rules on. A pair of items is two answers.
"""

import heapq
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from unigap.disk import explain_os_errors, hash64, safe_name, write_files
from unigap.gap.correction import ErrorRate, ErrorRates, KnownRates
from unigap.items import Direction, Item
from unigap.judges.probes import RIGHT_KINDS, Probe, make_probes
from unigap.judges.protocol import Judge
from unigap.progress import show_progress
from unigap.records import JudgeRef, Ruling, RunFolder

SCHEMA = 1
CARDS = "judges"
ALL = "all"
"""Instead of a family: every family together."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """What a card says of one direction."""

    direction: Direction
    source: Literal["probes", "labels"]
    pictures: str | None
    """Domain of the pictures ("sandbox", "photo"); None for texts."""
    families: Mapping[str, ErrorRates]
    """By family; from labels also ALL, weighted to the run's own mix."""
    kinds: Mapping[str, KnownRates]
    """By kind of probe, over families; a kind has right answers or wrong ones. Empty for labels."""
    num_unscored: int = 0
    """Answers of known truth that the judge could not rule on; they are in no rate."""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "direction": self.direction,
            "source": self.source,
            "pictures": self.pictures,
            "unit": "answer",
            "families": {name: _rates_json(rates) for name, rates in self.families.items()},
            "kinds": {name: _rates_json(rates) for name, rates in self.kinds.items()},
            "unscored": self.num_unscored,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class Card:
    """A judge's error rates."""

    judge: JudgeRef
    sides: tuple[Side, ...]
    notes: tuple[str, ...] = ()
    """What could not be measured, and why."""

    def side(self, direction: Direction) -> Side | None:
        return next((side for side in self.sides if side.direction == direction), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "judge": vars(self.judge),
            "sides": [side.to_json() for side in self.sides],
            "notes": list(self.notes),
        }


def _rates_json(rates: ErrorRates) -> dict[str, Any]:
    return {name: _rate_json(rate) for name, rate in _named(rates)}


def _named(rates: ErrorRates) -> list[tuple[str, ErrorRate]]:
    return [("false_accept", rates.false_accept), ("false_reject", rates.false_reject)]


def _rate_json(rate: ErrorRate) -> dict[str, Any] | None:
    return asdict(rate) if rate.rate == rate.rate else None  # NaN is not JSON


def card_path(folder: RunFolder, judge: str) -> Path:
    return folder.path / CARDS / f"{safe_name(judge)}.card.json"


def write_card(path: Path, card: Card, **more: Any) -> None:
    """Write a card as JSON, with what else belongs to it.

    Raises:
        RunFolderError: It cannot be written.
    """
    data = json.dumps({**card.to_json(), **more}, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    with explain_os_errors(path.parent, safe="Nothing was lost"):
        write_files([(path, data.encode("utf-8", "backslashreplace"))])


# ---- from probes -----------------------------------------------------------------------------------------------------


def probe_card(judge: Judge, items: Iterable[Item], *, num_items: int = 50, seed: int = 0) -> Card:
    """Measure a judge on known-right and known-wrong texts and pictures.

    Args:
        judge: Who is measured. Pictures are left out, with a note, if it does not read those of the sandbox.
        items: What the probes are about; `num_items` of each family are drawn.
        num_items: More make narrower intervals: each gives about two right and six wrong answers a direction.
        seed: Of the items drawn and the probes made.

    Raises:
        ValueError: `num_items` is less than 1.
    """
    if num_items < 1:
        raise ValueError(f"a card needs at least 1 item of a family; got {num_items}")
    drawn = _draw_items(items, num_items, seed)
    reads = [item for item in drawn if item.answer.kind in judge.answer_kinds]
    probes = [probe for item in reads for probe in make_probes(item, seed=seed)]
    notes = []
    without = Counter(item.family for item in drawn)
    without.subtract(Counter({probe.item.id: probe.item.family for probe in probes}.values()))
    if left := sum(without.values()):
        notes.append(f"{left} of {len(drawn)} items have an answer that no probe can be made of")
    sides = []
    directions: tuple[Direction, ...] = ("understanding", "generation")
    with show_progress(f"probing {judge.name}", len(probes), unit="probes") as advance:
        for direction in directions:
            wanted = [probe for probe in probes if probe.direction == direction]
            if direction == "generation" and "sandbox" not in judge.pictures:
                notes.append(f"{judge.name} reads no sandbox pictures, and probes are such; label pictures instead")
                continue
            rulings: list[Ruling] = []
            for start in range(0, len(wanted), judge.batch_size):
                batch = wanted[start : start + judge.batch_size]
                rulings += judge.judge([probe.submission for probe in batch])
                advance(len(batch))
            sides.append(_side(direction, wanted, rulings))
    ref = JudgeRef(name=judge.name, version=judge.version, prompt_sha256=judge.prompt_sha256)
    return Card(judge=ref, sides=tuple(sides), notes=tuple(notes))


def _draw_items(items: Iterable[Item], num_items: int, seed: int) -> list[Item]:
    """`num_items` of each family, the same for the same items in any order."""
    families: dict[str, list[tuple[int, str, Item]]] = defaultdict(list)
    for item in items:
        # The least hashes are a draw that holds no more items than it returns.
        entry, heap = (-hash64(f"{seed}/{item.id}"), item.id, item), families[item.family]
        heapq.heappush(heap, entry) if len(heap) < num_items else heapq.heappushpop(heap, entry)
    return [item for heap in families.values() for _, _, item in sorted(heap, key=lambda entry: entry[:2])]


def _side(direction: Direction, probes: list[Probe], rulings: list[Ruling]) -> Side:
    families: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    kinds: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for probe, ruling in zip(probes, rulings, strict=True):
        if ruling.verdict == "unscored":
            continue
        for group, name in ((families, probe.item.family), (kinds, probe.kind)):
            group[name].append((probe.right, ruling.verdict == "correct"))
    ordered = sorted(kinds, key=lambda kind: kind not in RIGHT_KINDS)
    return Side(
        direction=direction,
        source="probes",
        pictures="sandbox" if direction == "generation" else None,
        families={name: _known(answers) for name, answers in families.items()},
        kinds={kind: _known(kinds[kind]) for kind in ordered},
        num_unscored=sum(ruling.verdict == "unscored" for ruling in rulings),
        notes=tuple(_uneven({kind: _known(kinds[kind]).false_accept for kind in ordered})),
    )


def _known(answers: list[tuple[bool, bool]]) -> KnownRates:
    counts = Counter(answers)
    return KnownRates(
        num_wrong=counts[False, True] + counts[False, False],
        num_accepted=counts[False, True],
        num_right=counts[True, True] + counts[True, False],
        num_rejected=counts[True, False],
    )


def _uneven(kinds: Mapping[str, ErrorRate]) -> list[str]:
    """A note if some mistakes are accepted more often than others: then the mix of mistakes matters."""
    wrong = {kind: rate for kind, rate in kinds.items() if rate.of}
    for (kind, rate), (other, more) in itertools.permutations(wrong.items(), 2):
        if rate.high < more.low and more.rate == max(r.rate for r in wrong.values()):
            return [
                f"false accepts differ by kind of mistake ({kind} {rate.rate:.0%}, {other} {more.rate:.0%}): a "
                "corrected value holds for answers that err as the probes do"
            ]
    return []
