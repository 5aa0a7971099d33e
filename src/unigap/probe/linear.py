"""A linear probe: can a linear map of hidden states tell the answers of items that it was not fitted on?

Ridge regression on the classes' indicators, then linear discriminants of the fitted values: penalised discriminant
analysis (docs/probe.md eq. 1 to 3). Regression alone would never find the middle one of classes that lie on a line, as
numbers do. Everything has a closed form, and one decomposition serves any number of labellings, so the control with
shuffled labels costs almost nothing.

References:
    Hastie, Buja & Tibshirani (1995), Penalized discriminant analysis. Annals of Statistics 23.
    Hewitt & Liang (2019), Designing and interpreting probes with control tasks. arXiv 1909.03368 (selectivity).

Shape suffixes: N items fitted on, M held-out items, D numbers of a state, K classes, R labellings.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unigap.gap.intervals import Interval, cluster_indices, difference_interval, rate_interval

PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001)
"""Ridge penalties in units of N, of features with variance 1, to choose from; of equals the first is taken."""
NUM_FOLDS = 4
NUM_SHUFFLES = 10


@dataclass(frozen=True, eq=False)
class Labels:
    """What a probe is to tell of some items."""

    classes: tuple[str, ...]
    answers: np.ndarray
    """Index of each item's class (N,), int."""
    allowed: np.ndarray
    """Classes among which the probe is to choose (N, K), bool; the answer is one of them."""
    clusters: tuple[Hashable, ...]
    """Items of one cluster are in one fold, and count together in intervals."""

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def chance(self) -> float:
        """The best constant answer where all classes may come; else one of those allowed, at random."""
        if self.allowed.all():
            return float(np.bincount(self.answers).max() / len(self))
        return float((1 / self.allowed.sum(axis=1)).mean())


@dataclass(frozen=True, kw_only=True)
class Probed:
    """How well one probe tells held-out answers."""

    right: Interval
    """Share of held-out items."""
    control: float
    """The same for probes fitted on shuffled labels, their mean."""
    selectivity: Interval
    """`right` minus `control`, paired by item."""
    folds: float
    """Share right in cross-validation within the items fitted on: what to choose a probe by."""
    penalty: float
    items: tuple[float, ...]
    """1 for each held-out item that is right, else 0."""


def probe(train_ND: Tensor, train: Labels, test_MD: Tensor, test: Labels, *, seed: int = 0) -> Probed:
    """Fit on some items, and ask of others.

    The penalty is chosen by cross-validation within the items fitted on, whole clusters left out. The control takes the
    same penalty and the labels in NUM_SHUFFLES other orders; it is asked for the true answers of the same items.

    Raises:
        ValueError: Fewer than two classes or NUM_FOLDS clusters to fit on, or labels of other items than states.
    """
    if len(train_ND) != len(train) or len(test_MD) != len(test) or train.classes != test.classes:
        raise ValueError(f"{len(train_ND)} and {len(test_MD)} states, {len(train)} and {len(test)} labels of a kind")
    folds_N = _folds(train.clusters)
    if len(np.unique(train.answers)) < 2 or folds_N.max() + 1 < NUM_FOLDS:
        raise ValueError(f"{len(train)} items to fit on: expected two classes and {NUM_FOLDS} clusters at least")
    mean_D, std_D = train_ND.mean(dim=0), train_ND.std(dim=0)
    scale_D = torch.where(std_D > 1e-6 * (1 + mean_D.abs()), std_D, torch.inf)
    x_ND, z_MD = ((x - mean_D).double() / scale_D for x in (train_ND, test_MD))
    num_classes = len(train.classes)
    rates = np.zeros(len(PENALTIES))
    for fold in range(NUM_FOLDS):
        out_N = torch.from_numpy(folds_N == fold)
        labels_RN = torch.from_numpy(train.answers[~out_N.numpy()])[None]
        ridge = _Ridge(x_ND[~out_N], labels_RN, num_classes)
        for index, penalty in enumerate(PENALTIES):
            scores_RMK = ridge.scores(x_ND[out_N], penalty)
            rates[index] += _right(scores_RMK, train, out_N.numpy()).sum() / len(train)
    best = int(rates.argmax())
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(train.answers) for _ in range(NUM_SHUFFLES)]
    ridge = _Ridge(x_ND, torch.from_numpy(np.stack([train.answers, *shuffled])), num_classes)
    right_RM = _right(ridge.scores(z_MD, PENALTIES[best]), test, np.ones(len(test), bool))
    control_M = right_RM[1:].mean(axis=0)
    return Probed(
        right=rate_interval(right_RM[0].tolist(), test.clusters),
        control=float(control_M.mean()),
        selectivity=difference_interval(right_RM[0].tolist(), control_M.tolist(), test.clusters),
        folds=float(rates[best]),
        penalty=PENALTIES[best],
        items=tuple(right_RM[0].tolist()),
    )


def _folds(clusters: Sequence[Hashable]) -> np.ndarray:
    """A fold for each item, by its cluster, in an order that does not follow the items'."""
    owner_N, num_clusters = cluster_indices(clusters)
    order = np.random.default_rng(0).permutation(num_clusters)
    return (order % NUM_FOLDS)[owner_N]


def _right(scores_RMK: Tensor, labels: Labels, rows: np.ndarray) -> np.ndarray:
    """(R, M) float: whether the best allowed class is the answer."""
    allowed = torch.from_numpy(labels.allowed[rows])
    chosen_RM = scores_RMK.masked_fill(~allowed, -torch.inf).argmax(dim=-1).numpy()
    return (chosen_RM == labels.answers[rows]).astype(float)


class _Ridge:
    """Regressions of centred indicators of R labellings on the same states, for any penalty."""

    def __init__(self, x_ND: Tensor, labels_RN: Tensor, num_classes: int) -> None:
        self.x_ND, self.labels_RN, self.num_classes = x_ND, labels_RN, num_classes
        self.mean_D = x_ND.mean(dim=0)
        centred = x_ND - self.mean_D
        indicators_NRK = torch.nn.functional.one_hot(labels_RN, num_classes).double().transpose(0, 1)
        self.counts_RK = indicators_NRK.sum(dim=0)
        y = (indicators_NRK - indicators_NRK.mean(dim=0)).flatten(1)
        values, self.vectors_DD = torch.linalg.eigh(centred.T @ centred)
        self.values_D = values.clamp(min=0)
        self.projected = self.vectors_DD.T @ (centred.T @ y)

    def scores(self, z_MD: Tensor, penalty: float) -> Tensor:
        """Discriminant scores (R, M, K) of other states (docs/probe.md eq. 2)."""
        num_items, num_classes = len(self.x_ND), self.num_classes
        weights = self.vectors_DD @ (self.projected / (self.values_D + penalty * num_items)[:, None])

        def fitted(x: Tensor) -> Tensor:
            return ((x - self.mean_D) @ weights).unflatten(1, (-1, num_classes)).transpose(0, 1)

        f_RNK, g_RMK = fitted(self.x_ND), fitted(z_MD)
        indicators_RNK = torch.nn.functional.one_hot(self.labels_RN, num_classes).double()
        means_RKK = indicators_RNK.transpose(1, 2) @ f_RNK / self.counts_RK.clamp(min=1)[..., None]
        within_RNK = f_RNK - indicators_RNK @ means_RKK
        covariance_RKK = within_RNK.transpose(1, 2) @ within_RNK / num_items
        # Fitted values of all classes add up to a constant, so one direction has no variance, and says nothing.
        inverse_RKK = torch.linalg.pinv(covariance_RKK, rtol=1e-8, hermitian=True)
        slopes_RKK = means_RKK @ inverse_RKK
        constants_RK = -0.5 * (slopes_RKK * means_RKK).sum(dim=-1) + (self.counts_RK / num_items).log()
        return g_RMK @ slopes_RKK.transpose(1, 2) + constants_RK[:, None]
