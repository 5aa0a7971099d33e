"""The Gap Score as the script of the GapEval authors computes it, for all models of a file at once.

Input: for each model and category the joint rates [p11, p10, p01, p00] = shares of items with both directions right,
understanding only, generation only, neither. The score is the point at which 2,000 steps of AdamW on an objective
without a minimum happen to stand (docs/published_score.md, equations P1 to P7), so it is sensitive to rounding. Every
score therefore comes with a conditioning check: the same fit from inputs perturbed by 1e-7, in float64 and in float32,
the precision of the published numbers. Smaller = the two abilities are closer; the sign is lost.

Shapes: C categories, R runs (fits side by side), D directions (understanding, generation).

Source: Wang et al. (2026), arXiv 2602.02140, and the script released with it.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from unigap.gap.published_fit import (
    PublishedSettings,
    adjusted_gaps,
    clamped_logit,
    fit_deltas,
    on_the_clamp,
    success_rates,
)
from unigap.gap.rates import Rates, check_rates

Precision = Literal["float32", "float64"]
PERTURBATION, NUM_PERTURBED = 1e-7, 16
"""The conditioning check: relative size of the change of each rate, and how many changed copies are fitted."""
MAX_SPREAD = 0.005
"""A range of the check wider than this is flagged."""


@dataclass(frozen=True, kw_only=True)
class CheckedScore:
    """A score in (0, 1), fitted in float64, with its conditioning check. Printing it shows both."""

    value: float
    range64: tuple[float, float]
    """Smallest and largest of this fit and of 16 from perturbed rates, in float64."""
    range32: tuple[float, float]
    """The same 17 fits in float32. The published script's own value can be told no better than this."""

    @property
    def spread64(self) -> float:
        return self.range64[1] - self.range64[0]

    @property
    def spread32(self) -> float:
        return self.range32[1] - self.range32[0]

    @property
    def flags(self) -> tuple[Precision, ...]:
        """Precisions in which the score is ill-conditioned: its range is wider than `MAX_SPREAD`."""
        spreads: dict[Precision, float] = {"float64": self.spread64, "float32": self.spread32}
        return tuple(name for name, spread in spreads.items() if spread > MAX_SPREAD)

    def to_json(self) -> dict[str, Any]:
        ranges = {"range64": list(self.range64), "range32": list(self.range32)}
        return {"value": self.value, **ranges, "flags": list(self.flags)}

    def __str__(self) -> str:
        flags = f", ill-conditioned in {' and '.join(self.flags)}" if self.flags else ""
        return f"{self.value:.4f} (float32: {self.range32[0]:.4f} to {self.range32[1]:.4f}{flags})"


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedScore:
    """The Gap Score of one model, and of the rates the three things that it hides or mixes in."""

    model: str
    categories: tuple[CheckedScore, ...]
    mean: CheckedScore
    """Plain mean of the categories; its ranges are those of the mean, not means of ranges."""
    rates: np.ndarray
    """The joint rates (categories, 4)."""

    @property
    def difference(self) -> float:
        """Understanding rate minus generation rate, mean over categories: the sign that the score loses."""
        return float((self.rates[:, 1] - self.rates[:, 2]).mean())

    @property
    def disagreement(self) -> float:
        """Share of items with exactly one direction right, mean over categories."""
        return float((self.rates[:, 1] + self.rates[:, 2]).mean())

    @property
    def on_the_clamp(self) -> int:
        """Categories with a rate of 0 or 1, whose start is the clamp of P1 rather than the data."""
        return int(on_the_clamp(self.rates).any(axis=0).sum())

    def to_json(self) -> dict[str, Any]:
        return {
            "categories": [score.to_json() for score in self.categories],
            "mean": self.mean.to_json(),
            "difference": self.difference,
            "disagreement": self.disagreement,
        }


def published_scores(
    rates: Rates, settings: PublishedSettings | None = None, *, seed: int = 42
) -> dict[str, PublishedScore]:
    """Gap Score of every model, each with its conditioning check.

    Args:
        rates: Joint rates by model; models may differ in their number of categories.
        settings: Of the fit; None is the published script's.
        seed: Drives the perturbations of the check alone; the score is deterministic.

    Raises:
        ValueError: The rates are not joint rates (see `check_rates`).
        UnigapError: A fit never had a finite loss.
    """
    checked, settings = check_rates(rates), settings or PublishedSettings()
    inputs = {model: _perturbed(rates_C4, seed) for model, rates_C4 in checked.items()}
    gaps64, gaps32 = (_gaps(inputs, settings, dtype) for dtype in (np.float64, np.float32))
    return {model: _score(model, checked[model], gaps64[model], gaps32[model]) for model in checked}


@dataclass(frozen=True, eq=False)
class _Inputs:
    """What runs of one model are fitted to."""

    rates: np.ndarray
    """Joint rates (runs, categories, 4)."""
    scale: np.ndarray
    """Factor on the start of theta (runs, categories, directions)."""


def _perturbed(rates_C4: np.ndarray, seed: int) -> _Inputs:
    """The rates, then 16 copies with each rate changed by a relative 1e-7 at most.

    Where the clamp of P1 hides the change of a rate from the start of theta, the start is changed itself.
    """
    # The same generator for each model, so that a model's range does not depend on its neighbours in the file.
    noise = np.random.default_rng(seed).uniform(-1, 1, (NUM_PERTURBED, len(rates_C4), 6))
    factors = np.concatenate([np.ones((1, len(rates_C4), 6)), 1 + PERTURBATION * noise])
    # Not divided by the sum again: that would undo the change of a row with a single entry.
    hidden_CD = on_the_clamp(rates_C4).T
    return _Inputs(rates_C4 * factors[..., :4], np.where(hidden_CD, factors[..., 4:], 1))


def _score(model: str, rates_C4: np.ndarray, gaps64_RC: np.ndarray, gaps32_RC: np.ndarray) -> PublishedScore:
    def checked(runs64_R: np.ndarray, runs32_R: np.ndarray) -> CheckedScore:
        (low64, high64), (low32, high32) = ((float(r.min()), float(r.max())) for r in (runs64_R, runs32_R))
        return CheckedScore(value=float(runs64_R[0]), range64=(low64, high64), range32=(low32, high32))

    categories = tuple(checked(runs64_R, runs32_R) for runs64_R, runs32_R in zip(gaps64_RC.T, gaps32_RC.T))
    mean = checked(gaps64_RC.mean(axis=1), gaps32_RC.mean(axis=1))
    return PublishedScore(model=model, categories=categories, mean=mean, rates=rates_C4)


def published_gaps(rates: Rates, settings: PublishedSettings | None = None) -> dict[str, np.ndarray]:
    """Gap of every model and category in float64, without the conditioning check: what a loop over settings needs.

    Raises:
        ValueError: The rates are not joint rates (see `check_rates`).
        UnigapError: A fit never had a finite loss.
    """
    alone = {
        model: _Inputs(rates_C4[None], np.ones((1, len(rates_C4), 2))) for model, rates_C4 in check_rates(rates).items()
    }
    return {model: gaps_RC[0] for model, gaps_RC in _gaps(alone, settings or PublishedSettings(), np.float64).items()}


def closed_form_gaps(rates: Rates, settings: PublishedSettings | None = None) -> dict[str, np.ndarray]:
    """The gaps without the fit: P6 and P7 on the difference of observed logits, where the fit starts.

    Raises:
        ValueError: The rates are not joint rates (see `check_rates`).
    """
    settings = settings or PublishedSettings()
    gaps = {}
    for model, rates_C4 in check_rates(rates).items():
        start_DC = clamped_logit(success_rates(rates_C4))
        gaps[model] = adjusted_gaps(start_DC[0] - start_DC[1], rates_C4, settings)
    return gaps


def _gaps(inputs: Mapping[str, _Inputs], settings: PublishedSettings, dtype: type) -> dict[str, np.ndarray]:
    """Adjusted gaps (runs, categories) by model; models with equally many categories are fitted side by side."""
    groups: dict[int, list[str]] = defaultdict(list)
    for model, given in inputs.items():
        groups[given.rates.shape[1]].append(model)
    gaps = {}
    for models in groups.values():
        rates_RC4 = np.concatenate([inputs[model].rates for model in models])
        scale_RCD = np.concatenate([inputs[model].scale for model in models])
        gaps_RC = adjusted_gaps(fit_deltas(rates_RC4, scale_RCD, settings, dtype), rates_RC4, settings)
        gaps |= dict(zip(models, np.split(gaps_RC, len(models))))
    return {model: gaps[model] for model in inputs}
