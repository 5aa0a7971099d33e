"""How the published Gap Score, and the order of models by it, depend on settings that nobody would defend."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from unigap.gap.published import PublishedSettings, closed_form_gaps, published_gaps
from unigap.gap.rates import Rates

MIN_MODELS = 3
"""With fewer there is no order to correlate."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """Scores under one other setting."""

    name: str
    scores: dict[str, float]
    """Mean gap by model."""
    spearman: float | None
    """Rank correlation with the scores under the given settings; None for fewer than 3 models, or if all are equal."""
    kendall: float | None
    """Kendall's tau-b with the same."""

    def to_json(self) -> dict[str, Any]:
        return vars(self)


def sensitivity(rates: Rates, settings: PublishedSettings | None = None) -> list[Variation]:
    """The scores under `settings`, then with one thing changed at a time, and last without the fit.

    Changed are the lambdas (each and both to 0), the pseudo-count (a tenth, ten times), the steps (a quarter to four
    times), and the weight of the prior on beta and mu (a tenth, a hundred times).

    Raises:
        ValueError: The rates are not joint rates (see `check_rates`).
        UnigapError: A fit never had a finite loss.
    """
    settings = settings or PublishedSettings()
    given = _means(published_gaps(rates, settings))
    scores = {name: _means(published_gaps(rates, other)) for name, other in _others(settings)}
    scores["no fit"] = _means(closed_form_gaps(rates, settings))
    return [_variation("as given", given, given), *(_variation(name, other, given) for name, other in scores.items())]


def _others(settings: PublishedSettings) -> Iterator[tuple[str, PublishedSettings]]:
    yield "lambda both 0", replace(settings, lambda_fail=0.0, lambda_success=0.0)
    yield "lambda fail 0", replace(settings, lambda_fail=0.0)
    yield "lambda succ 0", replace(settings, lambda_success=0.0)
    for name, factor in (("/10", 0.1), ("x10", 10.0)):
        yield f"counts {name}", replace(settings, total_count=settings.total_count * factor)
    for name, factor in (("/4", 0.25), ("/2", 0.5), ("x2", 2.0), ("x4", 4.0)):
        yield f"steps {name}", replace(settings, steps=max(1, round(settings.steps * factor)))
    for name, factor in (("/10", 0.1), ("x100", 100.0)):
        yield f"prior {name}", replace(settings, prior=settings.prior * factor)


def _means(gaps: dict[str, np.ndarray]) -> dict[str, float]:
    return {model: float(gaps_C.mean()) for model, gaps_C in gaps.items()}


def _variation(name: str, scores: dict[str, float], given: dict[str, float]) -> Variation:
    first, second = list(given.values()), list(scores.values())
    if len(first) < MIN_MODELS or len(set(first)) == 1 or len(set(second)) == 1:
        return Variation(name=name, scores=scores, spearman=None, kendall=None)
    spearman, kendall = _statistic(stats.spearmanr(first, second)), _statistic(stats.kendalltau(first, second))
    return Variation(name=name, scores=scores, spearman=spearman, kendall=kendall)


def _statistic(result: Any) -> float:
    return float(result.statistic)
