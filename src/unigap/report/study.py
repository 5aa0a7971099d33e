"""Tables of a study with several models side by side: as Markdown, as JSON, and as one page.

A cell is a rate or a difference with its intervals, or nothing. Which interval is over what, a table's note says.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from unigap.gap.intervals import Interval
from unigap.gap.repeats import OverRepeats
from unigap.report.page import render

SCHEMA = 1

Unit = Literal["rate", "points", "logits"]
"""How numbers are written: .83, +12 (points of a difference of rates), +1.20."""


@dataclass(frozen=True, kw_only=True)
class StudyCell:
    """One number of one model."""

    value: float
    low: float
    high: float
    """Limits of the interval over items."""
    repeats: tuple[float, float] | None = None
    """Limits of the interval over repeats."""
    values: tuple[float, ...] = ()
    """Of each repeat."""
    num_units: int = 0
    num_clusters: int = 0

    @classmethod
    def of(cls, found: OverRepeats | Interval) -> "StudyCell":
        over = found if isinstance(found, OverRepeats) else None
        items = found.items if isinstance(found, OverRepeats) else found
        return cls(
            value=found.rate,
            low=items.low,
            high=items.high,
            repeats=over.repeats if over else None,
            values=over.values if over else (),
            num_units=items.num_units,
            num_clusters=items.num_clusters,
        )

    def to_json(self) -> dict[str, Any]:
        """JSON has no infinity: a limit that is nowhere is null."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {
            **{name: number if math.isfinite(number) else None for name, number in numbers.items()},
            "repeats": self.repeats,
            "values": list(self.values),
            "units": self.num_units,
            "clusters": self.num_clusters,
        }


@dataclass(frozen=True)
class StudyRow:
    name: str
    cells: Sequence[StudyCell | None]
    """One a column; None where nothing was measured."""


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """What is measured (rows) of models (columns)."""

    title: str
    note: str
    """What is counted, and what the intervals are over."""
    columns: Sequence[str]
    rows: Sequence[StudyRow]
    unit: Unit = "rate"

    def number(self, value: float) -> str:
        if not math.isfinite(value):
            return "-" if math.isnan(value) else "+inf" if value > 0 else "-inf"
        match self.unit:
            case "rate":
                return f"{value:.2f}".removeprefix("0")
            case "points":
                return f"{100 * value:+.0f}"
            case "logits":
                return f"{value:+.2f}"

    def text(self, cell: StudyCell | None) -> tuple[str, str]:
        """The number, and its limits in words; ("", "") without one."""
        if cell is None or math.isnan(cell.value):
            return "", ""
        limits = f"[{self.number(cell.low)}, {self.number(cell.high)}]"
        if len(cell.values) > 1:
            over = f"{self.number(cell.repeats[0])}, {self.number(cell.repeats[1])}" if cell.repeats else "all alike"
            limits += f" ({over})"
        return self.number(cell.value), limits

    def to_json(self) -> dict[str, Any]:
        rows = [{"name": row.name, "cells": [cell and cell.to_json() for cell in row.cells]} for row in self.rows]
        return {"title": self.title, "note": self.note, "unit": self.unit, "columns": list(self.columns), "rows": rows}

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", self.note, "", _line("", *self.columns)]
        lines.append(_line("---", *["---:"] * len(self.columns)))
        lines += [_line(row.name, *(" ".join(self.text(cell)).strip() for cell in row.cells)) for row in self.rows]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, kw_only=True)
class StudyPage:
    """What the template shows; nothing in it is markup."""

    title: str
    readings: Sequence[str]
    """What the numbers say, in sentences."""
    facts: Mapping[str, str]
    tables: Sequence[StudyTable]
    made: date = field(default_factory=date.today)

    def to_json(self) -> dict[str, Any]:
        tables = [table.to_json() for table in self.tables]
        facts = dict(self.facts)
        return {
            "schema": SCHEMA,
            "title": self.title,
            "readings": list(self.readings),
            "facts": facts,
            "tables": tables,
        }

    def markdown(self) -> str:
        facts = "\n".join(f"- {name}: {value}" for name, value in self.facts.items())
        readings = "\n".join(f"- {reading}" for reading in self.readings)
        parts = [f"# {self.title}\n", readings, facts, *(table.markdown() for table in self.tables)]
        return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"

    def html(self) -> str:
        return render("study.html.j2", page=self)


def row(name: str, found: Sequence[OverRepeats]) -> StudyRow:
    """A row of what was counted, one a column; nothing where there was nothing to count."""
    return StudyRow(name, [StudyCell.of(one) if one.values else None for one in found])


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
