"""A run on paper: items, records and verdicts made from a compact table of outcomes."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from unigap.arms import Question
from unigap.items import Count, Item
from unigap.records import JudgeRef, ModelRef, Record, Verdict, VerdictWord
from unigap.report.scores import collect_scores
from unigap.report.summary import Summary, summarize

JUDGE = JudgeRef(name="exact", version="1")
WORDS: dict[str, VerdictWord] = {"y": "correct", "n": "incorrect", "u": "unscored", "r": "incorrect"}


@dataclass
class Paper:
    """Answers are one letter an item: y right, n wrong, r refused (and wrong), u unscored, t never settled."""

    items: list[Item] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def add_items(self, family: str, num_units: int, *, pair: bool = False, **fields: Any) -> list[Item]:
        items = [
            Item(
                id=f"{family}/{len(self.items) + index}{half}",
                family=family,
                unit=f"{family}/{len(self.items) + index}",
                cluster=fields.get("cluster", f"{family}/{len(self.items) + index}"),
                question=f"How many is {index}?",
                prompt=f"Draw {index} cups.",
                caption=f"{index} cups",
                answer=Count(object="cup", n=index % 5),
                variant=fields.get("variant", ""),
            )
            for index in range(num_units)
            for half in (("/A", "/B") if pair else ("",))
        ]
        self.items += items
        return items

    def answer(self, items: list[Item], question: Question, letters: str, *, sample: int = 0, error: str = "x") -> None:
        direction, arm = question
        for item, letter in zip(items, letters, strict=True):
            outcome = {"r": "refused", "t": "transport_error"}.get(letter, "ok")
            record = Record(
                item_id=item.id,
                direction=direction,
                arm=arm,
                sample=sample,
                seed=1,
                model=ModelRef(name="paper", sha256="0" * 64),
                sampling={},
                outcome=outcome,  # pyright: ignore[reportArgumentType]
                usage={},
            )
            self.records.append(record)
            if letter in WORDS:
                code = {"n": error, "r": "refused"}.get(letter)
                self.verdicts.append(
                    Verdict(**record.key._asdict(), verdict=WORDS[letter], error=code, why="because", judge=JUDGE)
                )

    def summary(self, **trained_on: str) -> Summary:
        scores = collect_scores(self.items, self.records, self.verdicts)
        return summarize(scores, run={"name": "paper"}, trained_on=trained_on)


@pytest.fixture
def paper() -> Paper:
    return Paper()
