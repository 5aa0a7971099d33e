"""Certificates of parity: two engines asked the same items, and whether they differ by less than a margin.

`unigap doctor --against` makes them; a report shows those that lie in the run's folder (docs/doctor.md).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from unigap.disk import explain_os_errors, safe_name, write_files
from unigap.errors import RunFolderError
from unigap.items import Arm, Direction
from unigap.records import JudgeRef, ModelRef, RunFolder

SCHEMA = 1
FOLDER = "certificates"
LEVEL = 0.05
"""Of each one-sided test."""

Outcome = Literal["equivalent", "different", "not settled"]


@dataclass(frozen=True, kw_only=True)
class ParityRow:
    """One direction and arm; rates are of units, differences other minus first."""

    direction: Direction
    arm: Arm
    units: int
    left_out: int
    """Units that are not scored in both."""
    first: float
    other: float
    difference: float
    low90: float
    """Of the difference; inside (-margin, margin) iff p < 0.05."""
    high90: float
    p: float
    """Of the test that the difference is smaller than the margin (docs/compare.md eq. 7)."""
    discordance: float
    """Share of units that one engine alone has right: engines can have equal rates and differ on every item."""
    identical: float | None
    """Share of answers that are the same text, or the same picture to the pixel; None if no item has two."""

    @property
    def holds(self) -> bool:
        return self.p < LEVEL


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was asked of which engines, and what came of it."""

    made: str
    """Date, ISO."""
    margin: float
    first: ModelRef
    other: ModelRef
    judge: JudgeRef
    families: tuple[str, ...]
    num_items: int
    items_sha256: str
    seed: int
    settings: tuple[str, ...]
    """Sampling settings in which the two differ, a line each."""
    rows: tuple[ParityRow, ...]
    notes: tuple[str, ...] = ()
    environment: Mapping[str, Any]
    """Packages, commit and machine, of the process that asked."""
    schema: int = SCHEMA

    @property
    def holds(self) -> bool:
        """All rows hold. Each at level 0.05 makes that claim one of level 0.05 (intersection-union test)."""
        return bool(self.rows) and all(row.holds for row in self.rows)

    @property
    def outcome(self) -> Outcome:
        """different: an interval lies beyond the margin whole."""
        if self.holds:
            return "equivalent"
        beyond = any(row.low90 >= self.margin or row.high90 <= -self.margin for row in self.rows)
        return "different" if beyond else "not settled"

    def to_json(self) -> dict[str, Any]:
        return {"kind": "parity", **asdict(self), "holds": self.holds, "outcome": self.outcome}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Inverse of `to_json`; what follows from the rows is computed again.

        Raises:
            ValueError: It is not a certificate of this version.
        """
        if not isinstance(data, Mapping) or data.get("kind") != "parity" or data.get("schema") != SCHEMA:
            raise ValueError(f'expected "kind": "parity" and "schema": {SCHEMA}')
        fields = {name: value for name, value in data.items() if name not in ("kind", "holds", "outcome")}
        try:
            fields |= {"first": ModelRef(**fields["first"]), "other": ModelRef(**fields["other"])}
            fields |= {"judge": JudgeRef(**fields["judge"])}
            fields |= {name: tuple(fields[name]) for name in ("families", "settings", "notes")}
            fields["rows"] = tuple(ParityRow(**row) for row in fields["rows"])
            found = cls(**fields)
            numbers = [found.margin, *(value for row in found.rows for value in _numbers(row))]
        except (TypeError, KeyError) as error:
            raise ValueError(f"a field is missing or unknown: {error}") from None
        if not all(isinstance(number, int | float) for number in numbers):
            raise ValueError("a rate is not a number")
        return found


def _numbers(row: ParityRow) -> list[Any]:
    names = {"direction", "arm"} | ({"identical"} if row.identical is None else set())
    return [value for name, value in vars(row).items() if name not in names]


def dump_certificate(certificate: Certificate) -> bytes:
    text = json.dumps(certificate.to_json(), ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    return text.encode("utf-8", "backslashreplace")


def read_certificate(path: Path) -> Certificate:
    """Read one file.

    Raises:
        RunFolderError: It cannot be read, or is not a certificate.
    """
    try:
        return Certificate.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise RunFolderError(f"{path} is not a certificate of parity: {error}") from None


def read_certificates(folder: RunFolder) -> list[Certificate]:
    """Those that lie in a run's folder, by name.

    Raises:
        RunFolderError: One cannot be read.
    """
    return [read_certificate(path) for path in sorted((folder.path / FOLDER).glob("*.json"))]


def add_certificate(folder: RunFolder, certificate: Certificate) -> Path:
    """Put a certificate into the folder of a run that one of its two engines made.

    Raises:
        ValueError: Neither made it.
        RunFolderError: It cannot be written.
    """
    model = folder.identity.model
    if model not in (certificate.first, certificate.other):
        raise ValueError(
            f"the certificate is about {_name(certificate.first)} and {_name(certificate.other)}; {folder.path} is a "
            f"run of {_name(model)}"
        )
    names = (certificate.first.name, certificate.other.name, certificate.made, certificate.items_sha256[:8])
    path = folder.path / FOLDER / f"{safe_name('-'.join(names))}.json"
    with explain_os_errors(folder.path):
        write_files([(path, dump_certificate(certificate))])
    return path


def _name(model: ModelRef) -> str:
    return f"{model.name} (weights {model.sha256[:8]})"


def sentences(certificate: Certificate) -> Sequence[str]:
    """The outcome in words."""
    points = f"{100 * certificate.margin:g} points"
    first, other = certificate.first.name, certificate.other.name
    pair = f"{first} and {other}" if first != other else f"The two engines of {first}"
    match certificate.outcome:
        case "equivalent":
            said = f"{pair} differ by less than {points} in all that was compared."
        case "different":
            said = f"{pair} differ by more than {points}."
        case _:
            said = f"That {pair} differ by less than {points} is not shown. That is not to say that they do."
    return (
        said,
        *certificate.notes,
        *(f"They were asked with unequal settings: {line}." for line in certificate.settings),
    )
