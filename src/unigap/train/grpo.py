"""The arithmetic of group-relative policy optimisation, one formula a function (docs/gvu.md).

Which GRPO this is: the advantage is the reward minus its group's mean. Division by the group's standard deviation
(Shao et al. 2024, arXiv 2402.03300) is off by default, because it weighs prompts by how little their drawings differ
(Liu et al. 2025, arXiv 2503.20783) and, with two drawings a prompt, leaves only a sign. The KL term to a frozen
reference is the k3 estimate, or of drawings by a flow the closed form (`unigap.models.sde.path_kl`); the ratio is
clipped where drawings are used for more than one update, and otherwise is 1.

Shapes: P prompts, G drawings of each, N = P x G rows, T drawn tokens, L tokens of a prompt. Log-probabilities are
natural logarithms. Of drawings by a flow, what is said of tokens is said of the steps of their paths, and nats are
nats a value (docs/heads.md eq. 10).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

STD_FLOOR = 1e-4
"""Added to a standard deviation before division, as in the released code of GvU."""

Normalization = Literal["sequence", "token"]
"""sequence: mean over rows of the mean over a row's tokens. token: mean over all tokens alike. The same where all rows
have equally many."""


def center_by_group(rewards_PG: Tensor, *, divide_by_std: bool = False) -> Tensor:
    """Advantages: A = R - mean of its group (1), or that over (unbiased standard deviation + `STD_FLOOR`) (2).

    NaN is a drawing that could not be scored: it is left out of its group's mean and has advantage 0. A group with
    fewer than two scored drawings teaches nothing: all 0.
    """
    scored_PG = ~rewards_PG.isnan()
    known_PG = rewards_PG.nan_to_num()
    count_P1 = scored_PG.sum(dim=1, keepdim=True)
    mean_P1 = known_PG.sum(dim=1, keepdim=True) / count_P1.clamp(min=1)
    centered_PG = torch.where(scored_PG & (count_P1 >= 2), known_PG - mean_P1, 0.0)
    if not divide_by_std:
        return centered_PG
    variance_P1 = centered_PG.square().sum(dim=1, keepdim=True) / (count_P1 - 1).clamp(min=1)
    return centered_PG / (variance_P1.sqrt() + STD_FLOOR)


def leave_one_out(rewards_PG: Tensor) -> Tensor:
    """Advantages: A = R - mean of the *others* of its group (3), which is n / (n - 1) times (1) for n scored.

    Kool, van Hoof & Welling 2019; Ahmadian et al. 2024, arXiv 2402.14740 (RLOO). NaN as in `center_by_group`.
    """
    count_P1 = (~rewards_PG.isnan()).sum(dim=1, keepdim=True)
    return center_by_group(rewards_PG) * count_P1 / (count_P1 - 1).clamp(min=1)


TOKEN_FLOOR = 0.1
"""Nats, added to a token's standard deviation: tokens that no drawing makes likelier than another hardly count."""


def center_by_token(log_p_GL: Tensor) -> Tensor:
    """Advantages (G,) of one group from the grader's log p of each of the L prompt tokens given each drawing:

        A_i = mean over j of (l_ij - group mean of l_j) / (unbiased standard deviation of l_j + `TOKEN_FLOOR`)    (3')

    One reward for the whole prompt is ruled by the tokens whose likelihood varies most, e.g. an object's name; here
    every token that tells drawings apart has the same say, e.g. a number too. This is credit to words, not to parts of
    a drawing: which image tokens made a word likely is not in these numbers.
    """
    centered_GL = log_p_GL - log_p_GL.mean(dim=0)
    return (centered_GL / (log_p_GL.std(dim=0) + TOKEN_FLOOR)).mean(dim=1)


def k3(log_p: Tensor, reference_log_p: Tensor) -> Tensor:
    """exp(r - l) - (r - l) - 1 (4): an estimate of KL(policy || reference) that is never negative.

    Unbiased for samples of the policy (Schulman 2020, "Approximating KL divergence").
    """
    difference = reference_log_p - log_p
    return difference.exp() - difference - 1


def surrogate(log_p: Tensor, sampled_log_p: Tensor, advantages: Tensor, clip: tuple[float, float] | None) -> Tensor:
    """min(ratio A, clipped ratio A) (5), with ratio = exp(l - l_sampled); nothing is clipped with `clip` None.

    Args:
        log_p: Of the policy as it is now, with a gradient.
        sampled_log_p: Of the policy that drew. For the first update after sampling this is `log_p.detach()`: the ratio
            is then 1 and its gradient is that of log_p.
        advantages: Broadcast against `log_p`.
        clip: How far below and above 1 the ratio may go, e.g. (0.2, 0.2).
    """
    ratio = (log_p - sampled_log_p).exp()
    if clip is None:
        return ratio * advantages
    low, high = clip
    return torch.minimum(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)


def mean_over(values_NT: Tensor, mask_NT: Tensor, normalization: Normalization) -> Tensor:
    """The mean of what `mask_NT` marks; see `Normalization`."""
    kept_NT = torch.where(mask_NT, values_NT, 0.0)
    if normalization == "token":
        return kept_NT.sum() / mask_NT.sum()
    return (kept_NT.sum(dim=1) / mask_NT.sum(dim=1)).mean()


@dataclass(frozen=True)
class PolicyLoss:
    """What a batch says; all but `loss` are detached numbers."""

    loss: Tensor
    kl: float
    """Mean over drawn tokens, in nats; 0 without a reference."""
    clipped: float
    """Share of drawn tokens whose ratio is outside the clip range."""
    largest_ratio: float


def policy_loss(
    log_p_NT: Tensor,
    sampled_log_p_NT: Tensor,
    advantages_N: Tensor,
    *,
    kl_NT: Tensor | None = None,
    mask_NT: Tensor | None = None,
    kl_coef: float = 0.0,
    clip: tuple[float, float] | None = None,
    normalization: Normalization = "sequence",
) -> PolicyLoss:
    """Minus the objective: -mean(surrogate (5) - kl_coef x KL) (6).

    Args:
        log_p_NT: Of the drawn tokens by the policy as it is now.
        sampled_log_p_NT: Of the same by the policy that drew them.
        advantages_N: One for each drawing, the same for all of its tokens.
        kl_NT: Of the same from the frozen reference: `k3` (4), or a path's closed form.
        mask_NT: What was drawn; None: everything.

    Raises:
        ValueError: `kl_coef` is not 0 and there is no divergence.
    """
    if kl_coef and kl_NT is None:
        raise ValueError("kl_coef needs the divergence from a reference")
    mask_NT = torch.ones_like(log_p_NT, dtype=torch.bool) if mask_NT is None else mask_NT
    gain_NT = surrogate(log_p_NT, sampled_log_p_NT, advantages_N[:, None], clip)
    kl_NT = torch.zeros_like(log_p_NT) if kl_NT is None else kl_NT
    loss = -mean_over(gain_NT - kl_coef * kl_NT, mask_NT, normalization)
    ratio_NT = (log_p_NT - sampled_log_p_NT).detach().exp()
    low, high = clip or (float("inf"), float("inf"))
    outside_NT = (ratio_NT < 1 - low) | (ratio_NT > 1 + high)
    return PolicyLoss(
        loss=loss,
        kl=mean_over(kl_NT.detach(), mask_NT, "token").item(),
        clipped=mean_over(outside_NT.float(), mask_NT, "token").item(),
        largest_ratio=torch.where(mask_NT, ratio_NT, 0.0).max().item(),
    )
