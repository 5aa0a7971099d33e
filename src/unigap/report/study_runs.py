"""Runs of the same items by several models, as tables of a study: rates, what each can draw, gaps, ladders."""

from collections.abc import Mapping, Sequence

from unigap.arms import Question
from unigap.report.comparable import LoadedRun
from unigap.report.estimate import family_gaps
from unigap.report.page import RUNGS
from unigap.report.repeated import answers, drawable, rate
from unigap.report.study import StudyCell, StudyRow, StudyTable, Unit, row
from unigap.report.summary import FamilySummary, summarize
from unigap.report.together import models_together

DRAWN: Question = ("generation", "normal")
FROM_THOUGHT: Question = ("generation", "think")
ORACLE: Question = ("generation", "oracle")
WORDS: Mapping[Question, str] = {
    ("understanding", "normal"): "text, at once",
    ("understanding", "think"): "text, after a thought",
    DRAWN: "drawing, at once",
    FROM_THOUGHT: "drawing, after a thought",
    ("generation", "refined"): "drawing, from the thought's last line",
    ORACLE: "drawing, from the true caption",
}
BY_KNOWING: tuple[Question, ...] = (DRAWN, FROM_THOUGHT, ("generation", "refined"))
"""Drawings for which something has to be known or worked out: also counted among the drawable."""

ITEMS = "In brackets 95% over items (clusters: pairs, characters)."
DRAWABLE = "Drawable: among the units that the same model draws right from the true caption."


def run_tables(runs: Sequence[LoadedRun], names: Sequence[str]) -> list[StudyTable]:
    """Every family in every arm: rates, rates among the drawable, plain drawings by variant, gaps, ladders.

    Args:
        runs: Of the same items in both directions and all arms, one a model.
        names: The models'.
    """
    oracle = [answers(run, ORACLE) for run in runs]
    rates, relative = [], []
    for family in dict.fromkeys(item.family for item in runs[0].scores.items):
        for question, words in WORDS.items():
            given = [answers(run, question, [family]) for run in runs]
            rates.append(row(f"{family}: {words}", [rate([one]) for one in given]))
            if question in BY_KNOWING:
                within = [rate([drawable(one, right)]) for one, right in zip(given, oracle, strict=True)]
                relative.append(row(f"{family}: {words}", within))

    def table(title: str, note: str, rows: Sequence[StudyRow], unit: Unit = "rate") -> StudyTable:
        return StudyTable(title=title, note=f"{note} {ITEMS}", columns=names, rows=rows, unit=unit)

    gap = "Text minus drawing of the same arm; positive: understands more than it draws."
    scale = "on one Rasch scale for all models" if len(runs) > 1 else "averaged over difficulty"
    points, logits = _gaps(runs)
    of_family = list(zip(*(summarize(run.scores, run={}, trained_on={}).families for run in runs), strict=True))
    return [
        table("Main suite", "Share of units right.", rates),
        table("Main suite, drawable", DRAWABLE, relative),
        table("What it can draw", "Plain prompts, drawn at once, by what is asked for.", _plain(of_family)),
        table("Gap, points", gap, points, "points"),
        table("Gap Score", f"{gap} In logits, {scale}.", logits, "logits"),
        table("Ladder", "Share of units by cause.", _rungs(of_family)),
    ]


def _plain(of_family: Sequence[tuple[FamilySummary, ...]]) -> list[StudyRow]:
    rows = []
    for same in of_family:
        if same[0].name == "plain":
            for variants in zip(*(family.variants for family in same), strict=True):
                cells = [variant.cells[DRAWN] for variant in variants]
                shown = [StudyCell(value=c.rate, low=c.low, high=c.high, num_units=c.scored) for c in cells]
                rows.append(StudyRow(variants[0].name, shown))
    return rows


def _gaps(runs: Sequence[LoadedRun]) -> tuple[list[StudyRow], list[StudyRow]]:
    """In points, and in logits."""
    of_row: dict[str, list] = {}
    for one in models_together(runs)[0] if len(runs) > 1 else family_gaps(runs[0]):
        of_row.setdefault(f"{one.family}, {one.arm}", []).append(one.gap)
    points = [StudyRow(name, [StudyCell.of(gap.rate) for gap in models]) for name, models in of_row.items()]
    logits = [
        StudyRow(name, [StudyCell(value=g.logit.logit, low=g.logit.low, high=g.logit.high) for g in models])
        for name, models in of_row.items()
    ]
    return points, logits


def _rungs(of_family: Sequence[tuple[FamilySummary, ...]]) -> list[StudyRow]:
    return [
        StudyRow(
            f"{same[0].name}: {RUNGS[cause]}",
            [StudyCell.of(family.ladder.rungs[place].share) if family.ladder else None for family in same],
        )
        for same in of_family
        for place, cause in enumerate(RUNGS)
    ]
