"""Supervised learning of the embedded model: what a training sequence is, batches of them, and the loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unigap.models.tiny.network import Network

Target = tuple[tuple[int, float], ...]
"""What a token may be: (id, loss weight) pairs, at most MAX_ALTERNATIVES; empty for what is given."""

MAX_ALTERNATIVES = 3
"""A cell of a picture holds nothing or one of at most two kinds of objects."""


@dataclass(frozen=True)
class Sample:
    """One training sequence."""

    ids: list[int]
    targets: list[Target]
    """One for each id."""
    id: str = ""
    """Names it in errors."""

    @property
    def num_tokens(self) -> int:
        return len(self.ids)


_NOTHING = ((0, 0.0),) * MAX_ALTERNATIVES


def collate(samples: Sequence[Sample], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (B, T), and of the K alternatives of each token their ids (B, T, K) and loss weights (B, T, K)."""
    longest = max(sample.num_tokens for sample in samples)
    ids_BT = torch.full((len(samples), longest), pad)
    alternatives_BTK = torch.zeros((len(samples), longest, MAX_ALTERNATIVES), dtype=torch.long)
    weights_BTK = torch.zeros((len(samples), longest, MAX_ALTERNATIVES))
    for row, sample in enumerate(samples):
        ids_BT[row, : len(sample.ids)] = torch.tensor(sample.ids)
        padded = [(*target, *_NOTHING[len(target) :]) for target in sample.targets]
        both_TK2 = torch.tensor(padded, dtype=torch.float64)
        alternatives_BTK[row, : len(padded)] = both_TK2[..., 0].long()
        weights_BTK[row, : len(padded)] = both_TK2[..., 1].float()
    return ids_BT, alternatives_BTK, weights_BTK


def weighted_losses(
    network: Network, ids_BT: Tensor, alternatives_BTK: Tensor, weights_BTK: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight x -log probability, in nats, of the N tokens that are learned and their alternatives.

    Returns:
        The losses (N, K) in float32, and the ids (N, K) that they are of.
    """
    return losses_of_hidden(network, network.hidden(ids_BT[:, :-1]), alternatives_BTK, weights_BTK)


def losses_of_hidden(
    network: Network, hidden_BSD: Tensor, alternatives_BTK: Tensor, weights_BTK: Tensor
) -> tuple[Tensor, Tensor]:
    """`weighted_losses` from the hidden states before each token but the first (S = T - 1)."""
    learned_BT = weights_BTK[:, 1:].any(dim=-1)
    logits_NV = network.head(hidden_BSD[learned_BT])
    alternatives_NK = alternatives_BTK[:, 1:][learned_BT]
    logprobs_NK = logits_NV.float().log_softmax(dim=-1).gather(1, alternatives_NK)
    return -(logprobs_NK * weights_BTK[:, 1:][learned_BT]), alternatives_NK


class TinyLoss(nn.Module):
    """See `unigap.models.trainable.Trainable.loss_module`: one mean over everything learned, text and codes alike."""

    def __init__(self, network: Network, first_code: int) -> None:
        super().__init__()
        self.network = network
        self.first_code = first_code

    def forward(self, batch: dict[str, Tensor], totals: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        losses_NK, ids_NK = weighted_losses(self.network, batch["ids"], batch["alternatives"], batch["weights"])
        drawn_NK = ids_NK >= self.first_code
        known = losses_NK.detach()
        sums = torch.stack((known[~drawn_NK].sum(), known[drawn_NK].sum()))
        return losses_NK.sum() / sum(totals), sums
