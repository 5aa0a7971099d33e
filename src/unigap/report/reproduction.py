"""Claims of papers beside what was measured here: a rule stated beforehand turns an interval into a verdict.

A claim is one quantity with a 95% interval and one rule. The rule is written down with the claim, before any run, and
knows nothing of the numbers. The page and the Markdown table show every claim, also those that came out otherwise.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any, Literal, get_args

from unigap.report.page import render

Verdict = Literal["agrees", "differs", "can't tell"]
Side = Literal["above", "below", "within"]
Scale = Literal["points", "logits"]

REACH: Mapping[Scale, float] = {"points": 1.0, "logits": 3.0}
"""Half of the axis that an interval is drawn on."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Where the whole 95% interval has to lie for a claim to hold.

    above, below: of `bound`. It differs when the whole interval is on the other side. within: between `bound` minus and
    plus `margin` (no change worth the name); it differs when the whole interval is outside, on one side.
    """

    side: Side
    bound: float = 0.0
    margin: float = 0.0

    def __post_init__(self) -> None:
        if (self.side == "within") != (self.margin > 0):
            raise ValueError(f"a rule has a margin above 0 if and only if its side is within; got {self}")

    def verdict(self, low: float, high: float) -> Verdict:
        """What an interval says.

        Raises:
            ValueError: It is none.
        """
        if not low <= high:
            raise ValueError(f"no interval: {low} to {high}")
        if self.side == "within":
            if self.bound - self.margin <= low and high <= self.bound + self.margin:
                return "agrees"
            return "differs" if low > self.bound + self.margin or high < self.bound - self.margin else "can't tell"
        if low <= self.bound <= high:
            return "can't tell"
        return "agrees" if (low > self.bound) == (self.side == "above") else "differs"

    def zone(self, scale: Scale) -> tuple[float, float]:
        """The claimed side on the axis of a chart, in [0, 1]."""
        ends = {
            "above": (self.bound, math.inf),
            "below": (-math.inf, self.bound),
            "within": (self.bound - self.margin, self.bound + self.margin),
        }[self.side]
        return on_axis(ends[0], scale), on_axis(ends[1], scale)

    def words(self, scale: Scale) -> str:
        """The rule in a sentence."""
        bound = show(self.bound, scale)
        if self.side == "within":
            low, high = show(self.bound - self.margin, scale), show(self.bound + self.margin, scale)
            return f"agrees if the whole interval lies between {low} and {high}, differs if it lies wholly outside"
        other = "below" if self.side == "above" else "above"
        return f"agrees if the whole interval lies {self.side} {bound}, differs if it lies wholly {other}"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A quantity with its 95% interval: a difference of rates in [-1, 1], or logits."""

    value: float
    low: float
    high: float
    num_units: int
    num_clusters: int
    detail: str = ""
    """The rates that it comes from, in words."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper says, what we measure for it, and the rule."""

    key: str
    """Of the estimate."""
    paper: str
    text: str
    theirs: str
    """The paper's number, with where it stands and how sure it is; or that there is none."""
    ours: str
    """What is measured here."""
    rule: Rule
    scale: Scale = "points"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A claim with its estimate."""

    claim: Claim
    estimate: Estimate

    @property
    def verdict(self) -> Verdict:
        return self.claim.rule.verdict(self.estimate.low, self.estimate.high)

    @property
    def value(self) -> str:
        return show(self.estimate.value, self.claim.scale)

    @property
    def interval(self) -> str:
        return f"{show(self.estimate.low, self.claim.scale)}, {show(self.estimate.high, self.claim.scale)}"

    @property
    def places(self) -> tuple[float, float, float]:
        """Value and ends on the axis, in [0, 1]."""
        found = (self.estimate.value, self.estimate.low, self.estimate.high)
        return tuple(on_axis(value, self.claim.scale) for value in found)  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawing for the page."""

    uri: str
    """Data URI (`unigap.report.pictures`)."""
    label: str
    right: bool


@dataclass(frozen=True, kw_only=True)
class Example:
    """One prompt, drawn in several ways."""

    prompt: str
    pictures: Sequence[Picture]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the run."""

    name: str
    """Also of its folder, beside the page."""
    what: str
    minutes: float
    """Wall clock of the session that finished it."""
    sessions: int


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What the template shows; nothing in it is markup."""

    title: str
    papers: Mapping[str, str]
    """Paper -> its reference, in order."""
    rows: Sequence[Row]
    facts: Sequence[tuple[str, str]]
    stages: Sequence[Stage]
    notes: Sequence[str]
    """How to read the table."""
    examples: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    """Heading -> prompts."""
    made: date = field(default_factory=date.today)

    @property
    def counts(self) -> dict[Verdict, int]:
        found = Counter(row.verdict for row in self.rows)
        return {verdict: found[verdict] for verdict in get_args(Verdict)}

    @property
    def sentence(self) -> str:
        """The verdicts, counted."""
        counts, total = self.counts, len(self.rows)
        said = f"{counts['agrees']} of {total} claims agree, {counts['differs']} differ"
        left = counts["can't tell"]
        return f"{said}, {left} cannot be told." if left else f"{said}."

    def of(self, paper: str) -> list[Row]:
        return [row for row in self.rows if row.claim.paper == paper]


def judge_claims(claims: Sequence[Claim], estimates: Mapping[str, Estimate]) -> list[Row]:
    """Every claim with its estimate.

    Raises:
        ValueError: An estimate is missing, or is of no claim.
    """
    if differs := {claim.key for claim in claims} ^ set(estimates):
        raise ValueError(f"claims and estimates do not fit one another: {', '.join(sorted(differs))}")
    return [Row(claim=claim, estimate=estimates[claim.key]) for claim in claims]


def on_axis(value: float, scale: Scale) -> float:
    """Where a value stands on its axis, in [0, 1]; the ends take what lies beyond."""
    return min(1.0, max(0.0, (value / REACH[scale] + 1) / 2))


def show(value: float, scale: Scale) -> str:
    """ "+48" points, or "+1.2" logits, with a true minus sign."""
    text = f"{100 * value:+.0f}" if scale == "points" else f"{value:+.2f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")


# ---- output ----------------------------------------------------------------------------------------------------------


def write_page(page: Reproduction) -> str:
    """The page, as HTML."""
    return render("reproduction.html.j2", page=page)


def write_markdown(page: Reproduction) -> str:
    """The table in Markdown, to be pasted."""
    lines = [page.sentence, ""]
    lines += ["| claim | the paper | here, 95% interval | verdict |", "| --- | --- | --- | --- |"]
    for paper in page.papers:
        lines.append(f"| **{_cell(paper)}** | | | |")
        for row in page.of(paper):
            unit = "" if row.claim.scale == "points" else f" {row.claim.scale}"
            here = f"**{row.value}**{unit} [{row.interval}]"
            here += f": {row.estimate.detail}" if row.estimate.detail else ""
            cells = (row.claim.text, row.claim.theirs, here, row.verdict)
            lines.append("| " + " | ".join(map(_cell, cells)) + " |")
    lines += ["", *(f"- {note}" for note in page.notes)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def write_json(page: Reproduction) -> dict[str, Any]:
    """The table as data."""
    rows = [
        {"key": row.claim.key, "paper": row.claim.paper, "claim": row.claim.text, "theirs": row.claim.theirs}
        | {"rule": row.claim.rule.words(row.claim.scale), "scale": row.claim.scale, "verdict": row.verdict}
        | {"estimate": asdict(row.estimate)}
        for row in page.rows
    ]
    stages = [asdict(stage) for stage in page.stages]
    return {"schema": 1, "counts": page.counts, "facts": dict(page.facts), "stages": stages, "claims": rows}
