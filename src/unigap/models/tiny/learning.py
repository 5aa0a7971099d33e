"""Supervised learning of the embedded model: what a training sequence is, batches of them, and the loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unigap.models.tiny.network import Network
from unigap.models.tiny.pictures import TOKENS_PER_PICTURE

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
    named: tuple[int, ...] = ()
    """Of a sequence that ends with a drawing: words that the token before it names between the layers, one after the
    other, if the model learns to (`Naming`)."""

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


def collate_named(samples: Sequence[Sample], num_tokens: int, naming: "Naming") -> Tensor:
    """For each token and each of the naming's places (B, T, N), the word to name; -1: none."""
    named_BTN = torch.full((len(samples), num_tokens, len(naming.after)), -1)
    for row, sample in enumerate(samples):
        if words := naming.words(sample):
            named_BTN[row, len(sample.ids) - TOKENS_PER_PICTURE - 1, -len(words) :] = torch.tensor(words)
    return named_BTN


def losses_of_hidden(
    network: Network, hidden_BSD: Tensor, alternatives_BTK: Tensor, weights_BTK: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight x -log probability, in nats, of the N tokens that are learned and their alternatives.

    Args:
        hidden_BSD: Final hidden states before each token but the first (S = T - 1).

    Returns:
        The losses (N, K) in float32, and the ids (N, K) that they are of.
    """
    learned_BT = weights_BTK[:, 1:].any(dim=-1)
    logits_NV = network.head(hidden_BSD[learned_BT])
    alternatives_NK = alternatives_BTK[:, 1:][learned_BT]
    logprobs_NK = logits_NV.float().log_softmax(dim=-1).gather(1, alternatives_NK)
    return -(logprobs_NK * weights_BTK[:, 1:][learned_BT]), alternatives_NK


@dataclass(frozen=True)
class Naming:
    """That the token which begins a drawing also names words, read off between the layers by the network's own head.

    So the steps of a thought can be asked for in the layers that come before those that draw: a chain of thought that
    runs through the layers instead of the text (Deng et al. 2023, arXiv 2311.01460, who match hidden states where this
    asks for words). When the model draws, nothing more is written or computed.
    """

    after: tuple[int, ...]
    """The places: how many layers come before each; increasing."""
    weight: float
    """Loss weight of a word."""
    first: bool = False
    """Whether the first word has the first place, and the last word all that are left. Else the last word has the last
    place, the one before it the one before, and fewer words leave the first places out."""

    def words(self, sample: Sample) -> tuple[int, ...]:
        """The words for the last places, at most one for each."""
        places = len(self.after)
        if not (self.first and sample.named):
            return sample.named[-places:]
        head, last = sample.named[:-1][: places - 1], sample.named[-1]
        return (*head, *[last] * (places - len(head)))

    def total(self, sample: Sample) -> float:
        """Loss weight of a sequence's words."""
        return self.weight * len(self.words(sample))


class TinyLoss(nn.Module):
    """See `unigap.models.trainable.Trainable.loss_module`: one mean over everything learned, text and codes alike.

    Words that are named (`Naming`) count as text.
    """

    def __init__(self, network: Network, first_code: int, naming: Naming | None = None) -> None:
        super().__init__()
        self.network = network
        self.first_code = first_code
        self.naming = naming

    def forward(self, batch: dict[str, Tensor], totals: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        states: list[Tensor] | None = [] if self.naming else None
        hidden_BSD = self.network.hidden(batch["ids"][:, :-1], states=states)
        losses_NK, ids_NK = losses_of_hidden(self.network, hidden_BSD, batch["alternatives"], batch["weights"])
        drawn_NK = ids_NK >= self.first_code
        known = losses_NK.detach()
        loss, text, image = losses_NK.sum(), known[~drawn_NK].sum(), known[drawn_NK].sum()
        if self.naming and states is not None:
            named = self._naming_loss(self.naming, states, batch["named"])
            loss, text = loss + named, text + named.detach()
        return loss / sum(totals), torch.stack((text, image))

    def _naming_loss(self, naming: Naming, states: Sequence[Tensor], named_BSN: Tensor) -> Tensor:
        loss = named_BSN.new_zeros((), dtype=torch.float32)
        for place, after in enumerate(naming.after):
            names_BS = named_BSN[..., place] >= 0
            logits_NV = self.network.head(self.network.norm(states[after - 1][names_BS])).float()
            loss = loss + F.cross_entropy(logits_NV, named_BSN[names_BS][:, place], reduction="sum")
        return naming.weight * loss
