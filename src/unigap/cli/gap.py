"""`unigap gap`: gap scores of a run folder, or of a file of joint rates."""

import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from unigap.cli.common import ArgumentError, Name, argument_errors, console

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console
    from rich.table import Table

    from unigap.gap.published import CheckedScore, PublishedScore
    from unigap.gap.sensitivity import Variation

Aspect = Literal["items", "judges", "sampling"]

MOST_COLUMNS, FULL_WIDTH = 6, 116
"""With more categories, or in a narrower terminal, the table shows the means alone."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Gap scores of runs with intervals; or the published Gap Score of a file of joint rates.

    Several runs on the same items are put on one scale, by a Rasch model for each family and arm.

    A file {"model": [[p11, p10, p01, p00], ...]} is scored like by the script of the GapEval authors, whose flags are
    all taken: RATES_gapres.json is written beside it, and each score is shown with its conditioning check.
    """

    sources: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN ...|RATES.json")]
    """Run folders, or one file of joint rates."""
    judge: Name = None
    """Of runs: whose verdicts; needed when a run has several judges."""
    allow: tuple[Aspect, ...] = ()
    """Of several runs: what they may differ in. items: take the units with the same items. sampling: settings, seed,
    think prompt, suite version. The models may always differ."""
    map_steps: int = 2000
    """Of a rates file, as all below but --json: optimiser steps. The fit does not converge: part of the score."""
    map_lr: float = 0.05
    """Learning rate of the optimiser."""
    total_count: float = 1000.0
    """Pseudo-counts a category, whatever its number of items."""
    seed: int = 42
    """Drives the perturbations of the conditioning check. The score itself has nothing random in it."""
    device: str = "cpu"
    """Taken so that scripts keep working; everything is computed on the CPU."""
    sensitivity: bool = False
    """Show the scores under other settings too, with rank correlations."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the numbers as JSON here too."""

    def run(self) -> None:
        paths = [*self.sources]
        if not paths:
            raise ArgumentError("name run folders, or one file of joint rates")
        if not paths[0].is_dir():
            if len(paths) > 1:
                raise ArgumentError(f"{paths[0]} is no folder; of files of joint rates one is taken at a time")
            self._refuse("run folders", "judge", "allow")
            _score_file(self, paths[0])
            return
        self._refuse("a rates file", "map_steps", "map_lr", "total_count", "seed", "device", "sensitivity")
        from unigap.report.estimate import estimate_run
        from unigap.report.together import estimate_runs

        with argument_errors():
            if len(paths) > 1:
                estimate_runs(paths, self.judge, allow=self.allow, json_path=self.json)
            else:
                self._refuse("several runs", "allow")
                estimate_run(paths[0], self.judge, self.json)

    def _refuse(self, kind: str, *names: str) -> None:
        defaults = {field.name: field.default for field in fields(self)}
        if given := [name for name in names if getattr(self, name) != defaults[name]]:
            flags = ", ".join("--" + name.replace("_", "-") for name in given)
            raise ArgumentError(f"{flags}: only for {kind}")


def _score_file(command: Gap, source: Path) -> None:
    from unigap.disk import explain_os_errors, write_files
    from unigap.gap.published import PublishedSettings, published_scores
    from unigap.gap.rates import read_rates, results_file, results_path
    from unigap.gap.sensitivity import sensitivity

    rates = read_rates(source)
    with argument_errors():
        settings = PublishedSettings(steps=command.map_steps, lr=command.map_lr, total_count=command.total_count)
        scores = published_scores(rates, settings, seed=command.seed)
    variations = sensitivity(rates, settings) if command.sensitivity else []
    out = results_path(source)
    gaps = {model: [category.value for category in score.categories] for model, score in scores.items()}
    files = [(out, results_file(gaps))]
    if command.json is not None:
        data = {"settings": vars(settings) | {"seed": command.seed}}
        data |= {"models": {model: score.to_json() for model, score in scores.items()}}
        data |= {"sensitivity": [variation.to_json() for variation in variations]} if variations else {}
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
        files.append((command.json, text.encode("utf-8", "backslashreplace")))
    for path, content in files:
        with explain_os_errors(path.parent, safe="Nothing was lost"):
            write_files([(path, content)])
    _print_scores(scores, console())
    if variations:
        _print_sensitivity(variations, console())
    if command.device != "cpu":
        print(f"note: --device {command.device} changes nothing; the fit runs on the CPU", file=sys.stderr)
    print(out)


def _print_scores(scores: "Mapping[str, PublishedScore]", to: "Console") -> None:
    from rich.text import Text

    from unigap.gap.published import MAX_SPREAD

    widest = max(len(score.categories) for score in scores.values())
    columns = range(widest) if widest <= MOST_COLUMNS and to.width >= FULL_WIDTH else ()
    to.print(
        "Published Gap Score by category (c1, c2, ...) and its mean. Smaller = abilities closer; the sign is lost.",
        style="dim",
        highlight=False,
    )
    categories = [f"c{number + 1}" for number in columns]
    table = _table([*categories, "mean", "mean in\nfloat32", "text -\ndraw", "one\nright"])
    for model, score in scores.items():
        cells = [_marked(score.categories[at]) if at < len(score.categories) else "" for at in columns]
        low, high = score.mean.range32
        difference = round(score.difference, 3) + 0.0  # or -0.0001 would be "-0.000"
        cells += [_marked(score.mean), f"{low:.3f}-{high:.3f}", f"{difference:+.3f}", f"{score.disagreement:.3f}"]
        table.add_row(Text(model), *cells)
    to.print(table, highlight=False)
    for line in _legend(list(scores.values()), MAX_SPREAD):
        to.print(line, style="dim", highlight=False, markup=False)


def _marked(score: "CheckedScore") -> str:
    # Before the number, so that digits stay in line.
    mark = "!" if "float64" in score.flags else "~" if score.flags else ""
    return f"{mark}{score.value:.3f}"


def _legend(scores: "Sequence[PublishedScore]", most: float) -> "list[str]":
    every = [checked for score in scores for checked in (*score.categories, score.mean)]
    lines = ["mean in float32: range over the fit and 16 with rates changed by 1e-7, in the precision of the script"]
    if any(checked.flags == ("float32",) for checked in every):
        lines.append(f"~ wider than {most:g} in float32: what the script prints is known no better than that")
    if any("float64" in checked.flags for checked in every):
        lines.append(f"! wider than {most:g} in float64 too: the rates do not determine the score")
    lines.append("text - draw: difference of the rates; one right: p10 + p01. Neither can be seen in the score")
    if single := [score.model for score in scores if len(score.categories) == 1]:
        lines.append(f"one category only, so nothing ties it to others: {', '.join(single)}")
    if clamped := [f"{score.model} ({score.on_the_clamp})" for score in scores if score.on_the_clamp]:
        lines.append(f"categories with a rate of 0 or 1, scored by where the fit clamps them: {', '.join(clamped)}")
    return lines


def _print_sensitivity(variations: "Sequence[Variation]", to: "Console") -> None:
    from rich.text import Text

    to.print("Mean gap with one setting changed at a time.", style="dim", highlight=False)
    half = -(-len(variations) // 2)
    for part in [variations] if to.width >= FULL_WIDTH else [variations[:half], variations[half:]]:
        table = _table([variation.name.replace(" ", "\n", 1) for variation in part])
        for model in variations[0].scores:
            table.add_row(Text(model), *(f"{variation.scores[model]:.3f}" for variation in part))
        table.add_section()
        table.add_row("Spearman", *(_correlation(variation.spearman) for variation in part))
        table.add_row("Kendall", *(_correlation(variation.kendall) for variation in part))
        to.print(table, highlight=False)
    line = "Spearman, Kendall: rank correlation of the models' means with those as given; - with fewer than 3 models"
    to.print(line, style="dim", highlight=False)


def _correlation(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _table(titles: "Sequence[str]") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", max_width=24, overflow="ellipsis", no_wrap=True)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table
