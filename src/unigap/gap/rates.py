"""Joint rates of models by category, checked; the JSON files that the published Gap Score takes and gives."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unigap.errors import ItemFileError

Rates = Mapping[str, Any]
"""Model name to rows [p11, p10, p01, p00], one a category: lists or an array."""

SUM_TOLERANCE = 5e-3
"""A row may miss 1 by as much; it is then divided by its sum."""

WHAT_A_ROW_IS = (
    "A row is [p11, p10, p01, p00] = shares of a category's items with both directions right, understanding only, "
    "generation only, neither"
)


def read_rates(path: Path) -> dict[str, np.ndarray]:
    """Read {model: [[p11, p10, p01, p00], ...], ...}, one row a category.

    Returns:
        Rows (categories, 4) by model, each divided by its sum.

    Raises:
        ItemFileError: The file cannot be read, is not such JSON, names a model twice, or `check_rates` refuses it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ItemFileError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ItemFileError(f"{path} is not UTF-8 text ({error})") from None
    if not text.strip():
        raise ItemFileError(f'{path} is empty; expected {{"model": [[p11, p10, p01, p00], ...], ...}}')
    try:
        return check_rates(json.loads(text, object_pairs_hook=_without_duplicates))
    except json.JSONDecodeError as error:
        raise ItemFileError(f"{path} is not JSON: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ItemFileError(f"{path}: {error}") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"model {twice!r} is there more than once; give each model a name of its own")
    return data


def check_rates(rates: Rates) -> dict[str, np.ndarray]:
    """Joint rates as arrays (categories, 4), each row divided by its sum.

    Raises:
        ValueError: There is no model, or rows are missing, not four numbers, NaN or infinite, negative, or do not sum
            to 1 within `SUM_TOLERANCE`. The message says how many, and which first.
    """
    if not isinstance(rates, Mapping):
        raise ValueError(f'expected {{"model": [[p11, p10, p01, p00], ...], ...}}, got {_short(rates)}')
    if not rates:
        raise ValueError("holds no models; expected a model name and rows [p11, p10, p01, p00]")
    for model, rows in rates.items():
        if not isinstance(rows, list | tuple | np.ndarray) or not len(rows):
            raise ValueError(f"model {model!r} has no rows but {_short(rows)}. {WHAT_A_ROW_IS}; give one a category")
    named = [(model, number, row) for model, rows in rates.items() for number, row in enumerate(rows, start=1)]
    _refuse(named, "are not four numbers", lambda row: None if _is_row(row) else "")
    _refuse(named, "are not finite", lambda row: None if all(map(math.isfinite, row)) else "")
    _refuse(named, "have negative shares", lambda row: None if min(row) >= 0 else "")
    _refuse(named, f"do not sum to 1 within {SUM_TOLERANCE:g}", _missed_sum)
    arrays = {model: np.array([[float(share) for share in row] for row in rows]) for model, rows in rates.items()}
    return {model: rows_C4 / rows_C4.sum(axis=1, keepdims=True) for model, rows_C4 in arrays.items()}


def _refuse(named: Iterable[tuple[str, int, Any]], what: str, problem: Callable[[Any], str | None]) -> None:
    """Raise if a row has a problem: `problem` says None, or a remark on the row."""
    named = list(named)
    found = [(model, number, row, remark) for model, number, row in named if (remark := problem(row)) is not None]
    if found:
        model, number, row, remark = found[0]
        raise ValueError(
            f"{len(found)} of {len(named)} rows {what} (first: model {model!r}, row {number}: {_short(row)}{remark}). "
            f"{WHAT_A_ROW_IS}; give shares that sum to 1, not percentages or counts"
        )


def _is_row(row: Any) -> bool:
    if not isinstance(row, list | tuple | np.ndarray) or len(row) != 4:
        return False
    return all(isinstance(share, int | float | np.floating) and not isinstance(share, bool) for share in row)


def _missed_sum(row: Any) -> str | None:
    total = math.fsum(row)
    return None if abs(total - 1) <= SUM_TOLERANCE else f" sums to {total:g}"


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def results_path(path: Path) -> Path:
    """Where the published script puts the results of a rates file: beside it, RATES_gapres.json."""
    resolved = path.resolve()
    return resolved.with_name(f"{resolved.stem}_gapres.json")


def results_file(gaps: Mapping[str, Iterable[float]]) -> bytes:
    """The published script's result file: gaps of each model to 6 decimals, and the mean of the rounded gaps."""
    results = {}
    for model, values in gaps.items():
        rounded = [round(float(value), 6) for value in values]
        results[model] = {"gaps": rounded, "gap_mean": round(sum(rounded) / len(rounded), 6)}
    return json.dumps({"results": results}, ensure_ascii=False, indent=2).encode("utf-8", "backslashreplace")
