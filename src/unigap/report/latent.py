"""Probes of hidden states on one page: what was told before it was drawn, layer by position, in words, and by patching.

The numbers are those that `unigap.probe.study` returns for each model (docs/probe.md).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rich.console import Console
from rich.text import Text

from unigap.report.estimate import write_json
from unigap.report.page import render
from unigap.report.terminal import plain_table

SCHEMA = 1
DARKEST = 0.5
"""Opacity of a certain cell: numbers on it stay readable."""
KINDS = ("text", "query", "image")


@dataclass(frozen=True)
class LatentPage:
    """What the template shows; nothing in it is markup."""

    models: Sequence[SimpleNamespace]
    """As in latent.json."""
    made: date

    @property
    def title(self) -> str:
        return "What hidden states know of an answer before it is drawn"

    @staticmethod
    def opacity(rate: float, chance: float) -> float:
        """Of a cell: 0 at chance and below, DARKEST at 1."""
        return round(DARKEST * max(0.0, rate - chance) / max(1 - chance, 1e-9), 3)

    @staticmethod
    def best(facet: SimpleNamespace, kind: str) -> SimpleNamespace | None:
        """The probe of a kind of states that cross-validation chose; None if the model has no such states."""
        maps = (one for one in facet.maps if one.kind == kind)
        one = max(maps, key=lambda one: one.cells[one.best].folds, default=None)
        return None if one is None else SimpleNamespace(**vars(one.cells[one.best]), over_words=one.over_words)

    @staticmethod
    def rows(one: SimpleNamespace) -> list[list[SimpleNamespace]]:
        """Cells of a map, the last layer first."""
        width = len(one.positions)
        return [one.cells[start : start + width] for start in range(0, len(one.cells), width)][::-1]

    @staticmethod
    def x(index: int, num: int) -> float:
        """Where position `index` of `num` stands, in thousandths of the width."""
        return round(1000 * (index + 0.5) / num, 1)

    @staticmethod
    def y(rate: float) -> float:
        return round(1000 * (1 - rate), 1)


def called(positions: Sequence[str]) -> str:
    """ "end", "end-3 to end"."""
    return positions[0] if len(positions) == 1 else f"{positions[0]} to {positions[-1]}"


def short(position: str) -> str:
    """ "7" of "query 7", a minus and 3 of "end-3"."""
    return position.rpartition(" ")[2].replace("end-", "\N{MINUS SIGN}")


def load_page(models: Sequence[Mapping[str, Any]]) -> LatentPage:
    """Results as the template and the terminal show them."""
    shown = json.loads(json.dumps(list(models)), object_hook=lambda fields: SimpleNamespace(**fields))
    return LatentPage(shown, date.today())


def print_latent(models: Sequence[Mapping[str, Any]], console: Console) -> None:
    """One row a model, family, arm and facet; then one a set of positions that was patched."""
    page = load_page(models)
    probes, patches = plain_table(), plain_table()
    for name in ("model", "family", "arm", "drawn right", "what", "chance", "words", *KINDS):
        probes.add_column(name)
    for name in ("model", "family", "arm", "put at", "follows", "control", "difference", "donor's own"):
        patches.add_column(name)
    for model in page.models:
        for step in model.steps:
            asked = (model.name, step.family, step.arm)
            for facet in step.facets:
                best = [page.best(facet, kind) for kind in KINDS]
                cells = ["-" if one is None else f"{_said(one.right)} {one.position}, {one.layer}" for one in best]
                numbers = (_said(step.drawn_right), facet.name, f"{facet.chance:.0%}", _said(facet.words.right))
                probes.add_row(*map(Text, (*asked, *numbers, *cells)))
            for patch in step.patches:
                rates = (patch.follows, patch.control, patch.difference, patch.donor)
                patches.add_row(*map(Text, (*asked, called(patch.positions), *map(_said, rates))))
    console.print(probes, patches, highlight=False)
    console.print(
        "Percent of held-out items with 95% intervals; of text, queries and picture the probe that was best in cross-"
        "validation, with its position and layer.",
        style="dim",
        highlight=False,
    )


def _said(interval: SimpleNamespace) -> str:
    return f"{100 * interval.rate:.0f} [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def write_latent_page(models: Sequence[Mapping[str, Any]]) -> str:
    """The page, as HTML."""
    return render("latent.html.j2", page=load_page(models), kinds=KINDS, called=called, short=short)


def write_latent(out: Path, models: Sequence[Mapping[str, Any]]) -> tuple[Path, Path]:
    """Write `latent.json` and `latent.html` into a folder."""
    page = out / "latent.html"
    write_json(out / "latent.json", {"schema": SCHEMA, "models": list(models)})
    page.write_text(write_latent_page(models), encoding="utf-8", errors="backslashreplace")
    return out / "latent.json", page
