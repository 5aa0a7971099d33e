"""Several runs on one page: the headline numbers of each, below one another family by family.

Every run keeps its own rates and intervals, over its own units. Whether two runs differ is another question, answered
on the units they share by `unigap compare`; the page says what else they differ in.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from unigap.items import Arm
from unigap.report.page import gap_arms, has_marks, render, run_facts
from unigap.report.summary import FamilySummary, Summary

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class RunColumn:
    """One run on the page."""

    letter: str
    name: str
    """Of its folder."""
    facts: Mapping[str, str]
    summary: Summary


@dataclass(frozen=True)
class SideBySide:
    """What the template shows; nothing in it is markup."""

    runs: Sequence[RunColumn]
    made: date

    @property
    def title(self) -> str:
        return f"{len(self.runs)} runs side by side: {', '.join(run.name for run in self.runs)}"

    @property
    def gap_arms(self) -> list[Arm]:
        return gap_arms([run.summary for run in self.runs])

    @property
    def has_marks(self) -> bool:
        return has_marks([run.summary for run in self.runs])

    @property
    def facts(self) -> list[tuple[str, list[str], bool]]:
        """Name, one value a run, and whether they differ."""
        names = dict.fromkeys(name for run in self.runs for name in run.facts)
        rows = [(name, [run.facts.get(name, "") for run in self.runs]) for name in names]
        return [(name, values, len(set(values)) > 1) for name, values in rows]

    def families(self, arm: Arm) -> Iterator[tuple[str, list[tuple[RunColumn, FamilySummary]]]]:
        """Families with a gap in this arm, and the runs that have it."""
        found: dict[str, list[tuple[RunColumn, FamilySummary]]] = {}
        for run in self.runs:
            for family in run.summary.families:
                if (gap := family.gaps.get(arm)) and gap.scored:
                    found.setdefault(family.name, []).append((run, family))
        yield from found.items()


def side_by_side(runs: Sequence[tuple[Summary, Mapping[str, Any], str]], *, made: date) -> str:
    """A page of several runs, as HTML.

    Args:
        runs: Of each run its summary, its run.json and the judge whose verdicts the summary is of.

    Raises:
        ValueError: Fewer than two runs, or more than there are letters to call them by.
    """
    if not 2 <= len(runs) <= len(LETTERS):
        raise ValueError(f"{len(runs)} runs to show side by side; give 2 to {len(LETTERS)}")
    columns = [
        RunColumn(letter, str(summary.run.get("folder", letter)), _facts(run, judge), summary)
        for letter, (summary, run, judge) in zip(LETTERS, runs)
    ]
    return render("runs.html.j2", page=SideBySide(columns, made))


def _facts(run: Mapping[str, Any], judge: str) -> dict[str, str]:
    identity = run["identity"]
    return dict(run_facts(run, judge)) | {
        "weights": f"sha256 {identity['model']['sha256'][:12]}...",
        "sampling": ", ".join(f"{name} {value}" for name, value in identity["sampling"].items()),
        "commit": str(run.get("git_commit") or "")[:12],
    }
