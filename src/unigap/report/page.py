"""report.html: the numbers of a run and a gallery, in one file that loads nothing from anywhere."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import jinja2

from unigap.arms import CALLS, Question
from unigap.items import ARMS_OF, DIRECTIONS, Arm
from unigap.records import RunFolder
from unigap.report.gallery import Gallery, build_gallery
from unigap.report.scores import Scores
from unigap.report.summary import FailureSplit, FamilySummary, Gap, Summary
from unigap.report.table import legend

FILE = "report.html"

CAUSES: Mapping[str, str] = {
    "cannot_draw": "cannot draw it, even from the caption",
    "does_not_know": "does not know it in text",
    "reasoning_does_not_reach": "draws it with the thought: reasoning does not reach the drawing",
    "thought_disturbs": "draws it from the thought's last line alone: the thought disturbs",
    "unexplained": "unexplained",
    "incomplete": "an arm is missing or unscored",
}
"""The causes of `FailureSplit` in words."""


@dataclass(frozen=True)
class Page:
    """What the template shows; nothing in it is markup."""

    summary: Summary
    facts: Sequence[tuple[str, str]]
    """Of the run, for the header: name and value."""
    gallery: Gallery
    made: date

    @property
    def arms(self) -> dict[str, list[Arm]]:
        """The arms that were asked, by direction."""
        asked = {question for family in self.summary.families for question in family.cells}
        return {
            direction: [arm for arm in ARMS_OF[direction] if (direction, arm) in asked]
            for direction in DIRECTIONS
            if any((direction, arm) in asked for arm in ARMS_OF[direction])
        }

    @property
    def gap_arms(self) -> list[Arm]:
        return [arm for arm in ARMS_OF["understanding"] if any(arm in f.gaps for f in self.summary.families)]

    @property
    def legend(self) -> list[str]:
        return list(legend(self.summary.families))

    @property
    def splits(self) -> list[tuple[FamilySummary, FailureSplit]]:
        return [(family, family.split) for family in self.summary.families if family.split]

    @property
    def errors(self) -> list[tuple[FamilySummary, Question, Mapping[str, int]]]:
        """Every family and question with errors, most frequent first."""
        return [
            (family, question, cell.errors)
            for family in self.summary.families
            for question in CALLS
            if (cell := family.cells.get(question)) and cell.errors
        ]

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """Cards by family and outcome."""
        return Counter((card.family, card.outcome) for card in self.gallery.cards)


def write_page(folder: RunFolder, judge: str, scores: Scores, summary: Summary, *, made: date) -> str:
    """Write report.html into the run folder; returns its text."""
    gallery = build_gallery(folder, judge, scores)
    text = render_page(Page(summary, run_facts(folder.run, judge), gallery, made))
    (folder.path / FILE).write_text(text, encoding="utf-8", errors="backslashreplace")
    return text


def run_facts(run: Mapping[str, Any], judge: str) -> list[tuple[str, str]]:
    """What identifies a run, from run.json."""
    identity, config = run["identity"], run.get("config", {})
    model = identity["model"]
    machine = run.get("machine") or {}
    facts = {
        "model": model["name"],
        "weights": f"sha256 {model['sha256']}",
        "items": config.get("suite") or "; ".join(config.get("coverage") or config.get("items") or ()),
        "units": config.get("num_units"),
        "samples": config.get("samples"),
        "seed": identity["seed"],
        "judge": judge,
        "think prompt": config.get("think_prompt"),
        "suite version": identity["suite_version"],
        "unigap": (run.get("packages") or {}).get("unigap"),
        "commit": run.get("git_commit"),
        "machine": ", ".join(str(machine[name]) for name in ("cpu", "system") if machine.get(name)),
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def render_page(page: Page) -> str:
    """The page as HTML; everything that comes from records is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unigap.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"percent": _percent, "points": _points, "leaning": _leaning}
    return environment.get_template("report.html.j2").render(page=page, causes=CAUSES)


def _percent(rate: float | None) -> str:
    return "-" if rate is None or math.isnan(rate) else f"{rate:.0%}"


def _points(difference: float) -> str:
    return "-" if math.isnan(difference) else f"{round(100 * difference):+d}".replace("-", "\N{MINUS SIGN}")


def _leaning(gap: Gap) -> str:
    """Which direction is better for sure: "understands", "draws", or "" when the interval holds 0."""
    if gap.low > 0:
        return "understands"
    return "draws" if gap.high < 0 else ""
