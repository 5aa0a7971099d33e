"""States through the text head: is the true answer the likeliest of those that could be, before anything is drawn?

Nothing is fitted here. The probability of an answer is that of the token which a text answer begins with, as a share of
the sum over the answers that could be (docs/probe.md eq. 4).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unigap.gap.intervals import Interval, difference_interval, rate_interval
from unigap.probe.linear import Labels

ROWS_AT_ONCE = 64
"""Of a whole vocabulary's probabilities."""


@dataclass(frozen=True, kw_only=True)
class ReadOut:
    """What the text head makes of states at one position."""

    share: Interval
    """The true answer's probability among those that could be, mean over items."""
    another: float
    """The same for another item's answer."""
    difference: Interval
    """`share` minus `another`, paired by item."""
    first: Interval
    """How often the true answer is the likeliest of them."""
    probability: float
    """The true answer's probability among all tokens, mean."""
    left_out: int
    """Items two of whose answers begin with the same token."""


def read_out(head: Callable[[Tensor], Tensor], values_MD: Tensor, labels: Labels, tokens: list[int]) -> ReadOut | None:
    """Read last states in words; None if in no item the answers' tokens differ.

    Args:
        head: As `Inspector.read_out`.
        tokens: The token of each class.
    """
    rows = [row for row, allowed_K in enumerate(labels.allowed) if _differ(np.array(tokens)[allowed_K])]
    if not rows:
        return None
    log_p_MK = torch.cat(
        [head(values_MD[rows[start : start + ROWS_AT_ONCE]])[:, tokens] for start in range(0, len(rows), ROWS_AT_ONCE)]
    ).double()
    allowed_MK, answer_M = labels.allowed[rows], labels.answers[rows]
    share_MK = log_p_MK.masked_fill(~torch.from_numpy(allowed_MK), -torch.inf).softmax(dim=-1).numpy()
    share_M = share_MK[np.arange(len(rows)), answer_M]
    another_M = (share_MK * _others(allowed_MK, answer_M)).sum(axis=1)
    clusters = [labels.clusters[row] for row in rows]
    share, another = (np.clip(x, 0, 1).tolist() for x in (share_M, another_M))
    return ReadOut(
        share=rate_interval(share, clusters),
        another=float(another_M.mean()),
        difference=difference_interval(share, another, clusters),
        first=rate_interval((share_MK.argmax(axis=1) == answer_M).astype(float).tolist(), clusters),
        probability=float(log_p_MK[np.arange(len(rows)), answer_M].exp().mean()),
        left_out=len(labels) - len(rows),
    )


def _differ(tokens: np.ndarray) -> bool:
    return len(set(tokens.tolist())) == len(tokens)


def _others(allowed_MK: np.ndarray, answer_M: np.ndarray) -> np.ndarray:
    """How an answer is weighed that belongs to another item: as often as it comes, among those that could be."""
    if allowed_MK.all():
        shares_K = np.bincount(answer_M, minlength=allowed_MK.shape[1]) / len(answer_M)
        return np.broadcast_to(shares_K, allowed_MK.shape)
    return allowed_MK / allowed_MK.sum(axis=1, keepdims=True)
