"""Knowledge before and after training: what is asked about it, what came of it, and the tables.

Rates have 95% intervals over clusters: a character, or a pair of them in inverse questions.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.table import Table

from unigap.arms import Question
from unigap.disk import explain_os_errors, write_files
from unigap.evaluate import EvalConfig, evaluate
from unigap.gap.intervals import Interval, difference_interval, rate_interval
from unigap.items import DIRECTIONS, Arm, Direction, Item
from unigap.judges.protocol import Judge
from unigap.judging import judge_run
from unigap.models.protocol import Model
from unigap.records import RunFolder
from unigap.scenes import make_units
from unigap.train.changes import (
    Change,
    forward_items,
    inverse_items,
    looks_items,
    naming_items,
    untouched_items,
)

BASELINE = "baseline"

ALL_ARMS: tuple[Arm, ...] = ("normal", "think", "refined")


@dataclass(frozen=True)
class Group:
    """Items that are measured as one."""

    name: str
    run: Literal["knowledge", "looks", "naming"]
    """The run folder they are asked in."""
    items: Sequence[Item]


ASKED: Mapping[str, tuple[tuple[Direction, ...], tuple[Arm, ...]]] = {
    "knowledge": (DIRECTIONS, ALL_ARMS),
    "looks": (DIRECTIONS, ("normal",)),
    "naming": (("understanding",), ("normal",)),
}


def groups(changes: Sequence[Change], newest: Sequence[Change], *, control_units: int, seed: int) -> list[Group]:
    """What is asked: of what was taught, of what is beside it, and of what should not have changed."""
    earlier = [change for change in changes if change not in newest]
    found = [
        Group("forward, held-out wording", "knowledge", list(forward_items(changes, held_out=True))),
        Group("forward, a learned wording", "knowledge", list(forward_items(changes, held_out=False))),
        Group("forward, newest", "knowledge", list(forward_items(newest, held_out=True)) if earlier else []),
        Group("forward, earlier", "knowledge", list(forward_items(earlier, held_out=True))),
        Group("inverse", "knowledge", list(inverse_items(changes))),
        Group("their other facts", "knowledge", list(untouched_items(changes))),
        Group("their looks, plainly", "looks", list(looks_items(changes))),
        Group("whose portrait", "naming", list(naming_items(changes))),
    ]
    found += [
        Group("old characters, forward", "knowledge", _controls("forward", changes, control_units, seed)),
        Group("old characters, inverse", "knowledge", _controls("inverse", changes, control_units, seed)),
        Group("plain", "looks", _controls("plain", changes, control_units, seed)),
        Group("counting", "looks", _controls("counting", changes, control_units, seed)),
    ]
    return [group for group in found if group.items]


def _controls(family: str, changes: Sequence[Change], num_units: int, seed: int) -> list[Item]:
    """Test items of a family in which nobody occurs whose facts were edited."""
    names = [change.person.name for change in changes]
    items: list[Item] = []
    for unit in make_units(family, seed=seed):
        if not any(name in item.prompt for item in unit for name in names):
            items += unit
        if len(items) >= num_units:
            break
    return items


@dataclass(frozen=True)
class Cell:
    """One group in one direction and arm."""

    items: Sequence[Item]
    errors: Sequence[str | None]
    """Of each item: None if it was right, else the judge's code, "unscored" included."""

    @property
    def scores(self) -> dict[str, tuple[str, float]]:
        """Item -> its cluster and whether it was right (0 or 1), of what the judge could score."""
        scored = ((item, error) for item, error in zip(self.items, self.errors, strict=True) if error != "unscored")
        return {item.id: (item.cluster, float(error is None)) for item, error in scored}

    def interval(self, code: str | None = None) -> Interval:
        """Rate of what is right, or of an error code, over what the judge could score."""
        scored = [(item, error) for item, error in zip(self.items, self.errors, strict=True) if error != "unscored"]
        return rate_interval([error == code for _, error in scored], [item.cluster for item, _ in scored])

    def minus(self, before: "Cell") -> Interval:
        """Paired change against the same items before."""
        old = {item.id: error for item, error in zip(before.items, before.errors, strict=True)}
        both = [
            (item.cluster, error is None, old[item.id] is None)
            for item, error in zip(self.items, self.errors, strict=True)
            if "unscored" not in (error, old.get(item.id, "unscored"))
        ]
        return difference_interval([now for _, now, _ in both], [was for *_, was in both], [who for who, *_ in both])

    @property
    def has_old_answers(self) -> bool:
        """The tempting wrong answer is what was right before."""
        return any(item.family == "forward" and item.other is not None for item in self.items)


Cells = Mapping[tuple[str, Question], Cell]
"""(group, (direction, arm)) -> what came of it."""


def measure(
    model: Model,
    changes: Sequence[Change],
    newest: Sequence[Change],
    out: Path,
    *,
    control_units: int,
    seed: int,
    judge: Judge,
) -> Cells:
    """Ask a model everything about these changes and what is beside them, and judge; resumable.

    Args:
        newest: Those taught since the last measurement; "earlier" are the others.
        out: Its folders "knowledge", "looks" and "naming" become run folders.
        control_units: Units a family of what should not have changed.
        seed: Of these units and of the sampling.
    """
    found = groups(changes, newest, control_units=control_units, seed=seed)
    cells: dict[tuple[str, Question], Cell] = {}
    for name, (directions, arms) in ASKED.items():
        members = [group for group in found if group.run == name]
        items = list({item.id: item for group in members for item in group.items}.values())
        if not items:
            continue
        asked = EvalConfig(directions=directions, arms=arms, seed=seed)
        about = {"families": sorted({item.family for item in items}), "samples": 1, "pictures": model.pictures}
        report = evaluate(model, items, out / name, asked, run_config=about | {"trained_on": model.trained_on})
        judge_run(report.folder, judge)
        errors = _errors(report.folder, judge.name)
        for group in members:
            for question in dict.fromkeys(question for _, question in errors):
                codes = [errors.get((item.id, question), "unscored") for item in group.items]
                cells[group.name, question] = Cell(group.items, codes)
    return cells


def _errors(folder: RunFolder, judge: str) -> dict[tuple[str, Question], str | None]:
    return {
        (verdict.item_id, (verdict.direction, verdict.arm)): {"correct": None, "unscored": "unscored"}.get(
            verdict.verdict, verdict.error or "incorrect"
        )
        for verdict in folder.verdicts(judge)
    }


# ---- the result ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What was measured, before and after."""

    config: Mapping[str, Any]
    """The settings it came from."""
    successive: bool
    """Characters were taught one after the other."""
    measured: Mapping[tuple[str, int], Cells]
    """(arm, how many characters were taught) -> cells; (BASELINE, 0) is the model as it was."""

    def to_json(self) -> dict[str, Any]:
        base = self.measured[BASELINE, 0]
        measured = [
            {
                "trained on": arm,
                "characters": learned,
                "cells": [
                    _cell_json(*key, cell, base.get(key) if arm != BASELINE else None) for key, cell in cells.items()
                ],
            }
            for (arm, learned), cells in self.measured.items()
        ]
        return {"schema": 1, "config": dict(self.config), "measured": measured}

    def write(self, path: Path) -> None:
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=1, default=str) + "\n"
        with explain_os_errors(path.parent):
            write_files([(path, text.encode())])

    def tables(self) -> Iterator[Table]:
        """Trained on (columns) x measured on (rows): one table, or with `successive` one for each arm."""
        if not self.successive:
            yield self._table("trained on", {arm: cells for (arm, _), cells in self.measured.items()})
            return
        for arm in dict.fromkeys(arm for arm, _ in self.measured if arm != BASELINE):
            columns = {f"after {n}": cells for (of, n), cells in self.measured.items() if of == arm}
            yield self._table(f"trained on {arm}", {"before": self.measured[BASELINE, 0]} | columns)

    def _table(self, title: str, columns: Mapping[str, Cells]) -> Table:
        table = Table(title=title, box=box.SIMPLE, title_justify="left")
        table.add_column("measured on", no_wrap=True)
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        last = ""
        for key in dict.fromkeys(key for cells in columns.values() for key in cells):
            name, (direction, arm) = key
            if name != last:
                table.add_section()
                table.add_row(name, style="bold")
                last = name
            table.add_row(f"  {direction} {arm}", *(_show(cells.get(key)) for cells in columns.values()))
            if any(cells[key].has_old_answers for cells in columns.values() if key in cells):
                old = (_show(cells.get(key), "pair_other") for cells in columns.values())
                table.add_row("    still the old answer", *old, style="dim")
        return table


def pool(results: Sequence[Result]) -> Result:
    """Runs of several seeds as one: their items side by side, clusters (characters, pairs) as they are named.

    Only rates are to be read from it; what varies between trainings is in it as far as characters differ.
    """
    measured: dict[tuple[str, int], dict[tuple[str, Question], Cell]] = {}
    for number, result in enumerate(results):
        for column, cells in result.measured.items():
            pooled = measured.setdefault(column, {})
            for key, cell in cells.items():
                before = pooled.get(key, Cell((), ()))
                items = [replace(item, id=f"{number}/{item.id}") for item in cell.items]
                pooled[key] = Cell((*before.items, *items), (*before.errors, *cell.errors))
    return Result(results[0].config, results[0].successive, measured)


def _show(cell: Cell | None, code: str | None = None) -> str:
    if cell is None:
        return ""
    found = cell.interval(code)
    return f"{found.rate:.2f} [{found.low:.2f} {found.high:.2f}]".replace("0.", ".")


def _cell_json(group: str, question: Question, cell: Cell, before: Cell | None) -> dict[str, Any]:
    direction, arm = question
    data = {"group": group, "direction": direction, "arm": arm, **_interval_json(cell.interval())}
    if cell.has_old_answers:
        data["old_answer"] = _interval_json(cell.interval("pair_other"))
    if before is not None:
        data["change"] = _interval_json(cell.minus(before))
    errors = Counter(error for error in cell.errors if error)
    variants = sorted({item.variant for item in cell.items})
    if len(variants) > 1:
        data["variants"] = {name: _interval_json(_of_variant(cell, name).interval()) for name in variants}
    return data | {"errors": dict(errors.most_common())}


def _of_variant(cell: Cell, variant: str) -> Cell:
    kept = [(item, error) for item, error in zip(cell.items, cell.errors, strict=True) if item.variant == variant]
    return Cell([item for item, _ in kept], [error for _, error in kept])


def _interval_json(interval: Interval) -> dict[str, Any]:
    return {
        "rate": round(interval.rate, 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
        "items": interval.num_units,
        "clusters": interval.num_clusters,
    }
