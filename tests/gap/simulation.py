"""Simulated datasets of understanding-generation pairs, and how often intervals hold their truth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unigap.gap.intervals import Method, difference_limits, rate_limits
from unigap.gap.logit import logit_gap
from unigap.gap.score import THETA_WIDTH

# B datasets, G clusters, U units of the largest cluster

RATES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)
CORRELATIONS = (0.0, 0.5)
ICC = 0.3
CHUNK = 250
"""Datasets at a time; more need more memory and are no faster."""
KINDS = ("rate", "difference", "logit")


@dataclass(frozen=True)
class Case:
    design: str
    num_clusters: int
    correlation: float
    first: float
    second: float

    @property
    def method(self) -> Method:
        methods: dict[str, Method] = {"independent": "independent units", "few": "few clusters"}
        return methods.get(self.design, "cluster bootstrap")

    @property
    def band(self) -> tuple[float, float]:
        """Coverage that this cell should have."""
        inner = all(0.1 <= rate <= 0.9 for rate in (self.first, self.second))
        return (0.94, 0.965) if inner and self.num_clusters >= 100 else (0.93, 1.0)

    def both_right(self) -> float:
        p, q = self.first, self.second
        covariance = self.correlation * np.sqrt(p * (1 - p) * q * (1 - q))
        return float(np.clip(p * q + covariance, max(0.0, p + q - 1), min(p, q)))


def cases(designs: Sequence[str], clusters: Sequence[int]) -> Iterator[Case]:
    for design in designs:
        for num_clusters in [10] if design == "few" else clusters:
            for correlation in CORRELATIONS:
                for first in RATES:
                    for second in RATES:
                        if second <= first and first + second < 1 + 1e-9:
                            yield Case(design, num_clusters, correlation, first, second)


def draw(case: Case, num_datasets: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Right answers of both directions by cluster, (B, 2, G), and disagreements (units, ahead, behind), (B, 3, G)."""
    sizes_G = np.ones(case.num_clusters, int) if case.design == "independent" else 2 + np.arange(case.num_clusters) % 3
    p11 = case.both_right()
    edges = np.cumsum([p11, case.first - p11, case.second - p11])  # cells: both, first alone, second alone, neither
    shape = (num_datasets, case.num_clusters, sizes_G.max())
    cell_BGU = np.searchsorted(edges, rng.random(shape), side="right")
    if case.design != "independent":
        common_BG1 = np.searchsorted(edges, rng.random((*shape[:2], 1)), side="right")
        cell_BGU = np.where(rng.random(shape) < ICC**0.5, common_BG1, cell_BGU)
    cell_BGU = np.where(np.arange(shape[2]) < sizes_G[:, None], cell_BGU, 4)
    both, ahead, behind = ((cell_BGU == cell).sum(axis=-1).astype(float) for cell in range(3))
    units = np.broadcast_to(sizes_G.astype(float), both.shape)
    return np.stack([both + ahead, both + behind], axis=1), np.stack([units, ahead, behind], axis=1)


def coverage(case: Case, num_datasets: int, seed: int) -> dict[str, float]:
    """Share of datasets whose interval holds the truth: of the first rate, the difference, the gap in logits."""
    key = [round(100 * value) for value in (case.first, case.second, case.correlation)]
    rng = np.random.default_rng([seed, case.num_clusters, *key])
    held: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    odds = [rate / (1 - rate) for rate in (case.first, case.second)]
    for start in range(0, num_datasets, CHUNK):
        right_BDG, sums_BCG = draw(case, min(CHUNK, num_datasets - start), rng)
        limits = difference_limits(sums_BCG, case.method)
        independent = case.method == "independent units"
        _, *logits = logit_gap(right_BDG, sums_BCG[:, 0], limits.critical, independent=independent, width=THETA_WIDTH)
        rates = rate_limits(right_BDG[:, 0], sums_BCG[:, 0], case.method)[:2]
        for kind, (low_B, high_B), truth in (
            ("rate", rates, case.first),
            ("difference", limits[:2], case.first - case.second),
            ("logit", logits, np.log(odds[0] / odds[1])),
        ):
            held[kind].append((low_B <= truth + 1e-9) & (truth - 1e-9 <= high_B))
    return {kind: float(np.concatenate(parts).mean()) for kind, parts in held.items()}
