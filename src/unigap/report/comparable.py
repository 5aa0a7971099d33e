"""What is compared of a run, and whether two runs may be compared: the same items, judge and sampling."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unigap.disk import hash64
from unigap.errors import UnknownNameError
from unigap.items import Item
from unigap.records import JudgeRef, RunFolder, RunIdentity
from unigap.report.scores import Scores, collect_scores

Aspect = Literal["items", "judges", "sampling"]
"""What two runs may differ in, if the user says so. Their models always may."""

UnitName = tuple[str, str]
"""Family and unit."""


@dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """What is compared of a run."""

    path: Path
    identity: RunIdentity
    judge: JudgeRef
    scores: Scores
    units: Mapping[UnitName, frozenset[int]]
    """Hashes of the items of each unit: units with the same hashes ask the same."""

    def to_json(self) -> dict[str, Any]:
        return {"folder": self.path.name, **self.identity.to_json(), "judge": vars(self.judge)}


def load_run(path: Path, judge: str | None) -> LoadedRun:
    """Read a run's items and verdicts.

    Args:
        path: Its folder.
        judge: Whose verdicts; None if the run has one judge.

    Raises:
        RunFolderError: It is not a run folder, or cannot be read.
        UnknownNameError: The judge has not judged this run.
        ValueError: It has no verdicts, or several judges and none is named.
    """
    folder = RunFolder.open(path)
    judges = {ref.name: ref for ref in folder.judges()}
    if not judges:
        raise ValueError(f'{path} has no verdicts yet; "unigap judge {path}" makes them')
    if judge is None and len(judges) > 1:
        raise ValueError(f"{path} has several judges; name one with --judge: {', '.join(judges)}")
    if judge is not None and judge not in judges:
        raise UnknownNameError(f"judge of {path}", judge, judges)
    ref = judges[judge or next(iter(judges))]
    units: dict[UnitName, set[int]] = {}
    for item in folder.items():
        units.setdefault((item.family, item.unit), set()).add(_item_hash(item))
    return LoadedRun(
        path=path,
        identity=folder.identity,
        judge=ref,
        scores=collect_scores(folder.items(), folder.records(), folder.verdicts(ref.name)),
        units={unit: frozenset(hashes) for unit, hashes in units.items()},
    )


def _item_hash(item: Item) -> int:
    # Where an item comes from does not change what it asks; the suite's version is compared with the sampling.
    fields = {name: value for name, value in item.to_json().items() if name not in ("source", "suite_version")}
    return hash64(json.dumps(fields, sort_keys=True))


def common_units(first: LoadedRun, other: LoadedRun) -> set[UnitName]:
    """Units that ask the same items in both runs."""
    return {unit for unit, hashes in first.units.items() if other.units.get(unit) == hashes}


def differences(first: LoadedRun, other: LoadedRun) -> dict[Aspect, list[str]]:
    """What two runs differ in, beside their models; one line for each setting."""
    found: dict[Aspect, list[str]] = {}
    if first.units != other.units:
        common = len(common_units(first, other))
        found["items"] = [
            f"{len(first.units)} units in {first.path}, {len(other.units)} in {other.path}, {common} the same in both"
        ]
    if judges := _unequal(vars(first.judge), vars(other.judge), first, other):
        found["judges"] = judges
    if sampling := _unequal(_sampling(first), _sampling(other), first, other):
        found["sampling"] = sampling
    return found


def _sampling(run: LoadedRun) -> dict[str, Any]:
    identity = run.identity
    settings = {"think_prompt_sha256": identity.think_prompt_sha256, "seed": identity.seed}
    return dict(identity.sampling) | settings | {"suite_version": identity.suite_version}


def _unequal(mine: Mapping[str, Any], theirs: Mapping[str, Any], first: LoadedRun, other: LoadedRun) -> list[str]:
    return [
        f"{name} is {_short(mine.get(name))} in {first.path}, {_short(theirs.get(name))} in {other.path}"
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name) != theirs.get(name)
    ]


def _short(value: Any) -> str:
    is_hash = isinstance(value, str) and len(value) == 64
    return f"{value[:12]}..." if is_hash else repr(value)


def refuse_incomparable(
    first: LoadedRun,
    others: Sequence[LoadedRun],
    differing: Sequence[Mapping[Aspect, Sequence[str]]],
    allow: Collection[Aspect],
) -> None:
    """Refuse runs that differ from the first in what is not allowed.

    Raises:
        ValueError: The message lists everything that differs and the flag that allows it; or no unit is in common.
    """
    if refused := {aspect for found in differing for aspect in found} - set(allow):
        lines = [
            f"\n  {aspect}: {line}"
            for found in differing
            for aspect, named in found.items()
            if aspect in refused
            for line in named
        ]
        told = " ".join(sorted(refused | set(allow)))
        raise ValueError(f"the runs differ{''.join(lines)}\nTo compare them all the same, say so: --allow {told}")
    for other in others:
        if not common_units(first, other):
            raise ValueError(f"{first.path} and {other.path} have no unit with the same items; nothing can be compared")
