"""The embedded model with a painter (`unigap.models.tiny.painter`): learning to draw, and drawing.

What is learned from is the same sequence as without one (`unigap.models.tiny.learning.Sample`). The 18 codes of a
picture to be drawn never enter the trunk: they say what the picture is, and queries take their places, or nothing does.
Text is learned as before, from the same sequence; pictures that are shown stay image tokens.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL.Image import Image, fromarray
from torch import Tensor, nn

from unigap.models.tiny import tokenizer as tok
from unigap.models.tiny.flow import CELL_VALUES, flow_losses, noised, start_noise, to_latents, to_pixels, training_times
from unigap.models.tiny.learning import Sample, collate, losses_of_hidden
from unigap.models.tiny.network import Network
from unigap.models.tiny.painter import Context, Painter, PainterSampling
from unigap.models.tiny.pictures import TOKENS_PER_PICTURE, Codebook
from unigap.models.tiny.tokenizer import Tokenizer
from unigap.scenes.vocabulary import NUM_CELLS

NUM_VIEWS = TOKENS_PER_PICTURE // NUM_CELLS
"""Times at which a picture is learned in one pass, so that it is as many tokens (2 x 9) as a picture of codes."""
BLIND_SHARE = 0.1
"""Of the views, learned without the text: what guidance compares with."""
PICTURE_WEIGHT = 2.0
"""Of a picture's token beside a word: the squared error of a velocity is the smaller number. Not tuned."""


class PaintingLoss(nn.Module):
    """See `unigap.models.trainable.Trainable.loss_module`: one mean over everything learned, text and cells alike."""

    def __init__(self, network: Network, painter: Painter) -> None:
        super().__init__()
        self.network = network
        self.painter = painter

    def forward(self, batch: dict[str, Tensor], totals: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        kept: list[tuple[Tensor, Tensor]] = []
        hidden_BTD = self.network.hidden(batch["ids"], kept)
        text_NK, _ = losses_of_hidden(self.network, hidden_BTD[:, :-1], batch["alternatives"], batch["weights"])
        rows_P, t_P = batch["rows"], batch["t"]
        context = self.painter.context(self.network, hidden_BTD, kept, rows_P, batch["lengths"][rows_P])
        context.visible.logical_and_(batch["sighted"][:, None])
        x_PCW = noised(batch["clean"], batch["noise"], t_P[:, None, None])
        losses_P = flow_losses(self.painter(x_PCW, t_P, context), batch["clean"], t_P)
        text, image = text_NK.sum(), PICTURE_WEIGHT * (losses_P * batch["picture_weights"]).sum()
        return (text + image) / sum(totals), torch.stack((text.detach(), image.detach()))


def picture_codes(sample: Sample, tokenizer: Tokenizer) -> list[int]:
    """The codes (18, from 0) of the picture that a sequence ends with to be drawn, or none."""
    end = len(sample.ids) - TOKENS_PER_PICTURE
    if end < 1 or sample.ids[end - 1] != tokenizer[tok.DRAW]:
        return []
    return [index - tokenizer.first_code for index in sample.ids[end:]]


def query_ids(painter: Painter, network: Network) -> list[int]:
    """Ids of the queries, behind all tokens and codes; none if the painter has no queries."""
    size = network.config.vocab_size
    return list(range(size - painter.num_queries, size))


def collate_painting(
    rows: Sequence[Sample], seeds: Sequence[int], queries: Sequence[int], tokenizer: Tokenizer, codebook: Codebook
) -> dict[str, Tensor]:
    """A batch of `PaintingLoss`: B rows, and P = NUM_VIEWS x (rows that draw) views of pictures.

    ids (B, T), alternatives and weights (B, T, K) as in `unigap.models.tiny.learning.collate`, lengths (B,);
    rows (P,) of B, clean and noise (P, C, W), t (P,), sighted (P,) bool, picture_weights (P,): such that the weights of
    a picture's views add up to those of its codes. Time, noise and sight of a row come from its seed.

    Args:
        queries: Ids that take the places of the codes.
    """
    cut, drawing, codes, weights, normals, sights, noises = [], [], [], [], [], [], []
    for index, (row, seed) in enumerate(zip(rows, seeds, strict=True)):
        drawn = picture_codes(row, tokenizer)
        if not drawn:
            cut.append(row)
            continue
        start = len(row.ids) - TOKENS_PER_PICTURE
        ids = [*row.ids[:start], *queries]
        cut.append(replace(row, ids=ids, targets=[*row.targets[:start], *[()] * len(queries)]))
        drawing.append(index)
        codes.append(drawn)
        weights.append(sum(weight for target in row.targets[start:] for _, weight in target))
        random = torch.Generator().manual_seed(seed)
        normals.append(torch.randn(NUM_VIEWS, generator=random))
        sights.append(torch.rand(NUM_VIEWS, generator=random) >= BLIND_SHARE)
        noises += [torch.randn(NUM_CELLS, CELL_VALUES, generator=random) for _ in range(NUM_VIEWS)]
    ids_BT, alternatives_BTK, weights_BTK = collate(cut, tokenizer[tok.PAD])
    clean = torch.from_numpy(to_latents(codebook, np.array(codes, np.int64).reshape(-1, TOKENS_PER_PICTURE)))
    per_view = torch.tensor(weights, dtype=torch.float32).repeat_interleave(NUM_VIEWS) / NUM_VIEWS
    return {
        "ids": ids_BT,
        "alternatives": alternatives_BTK,
        "weights": weights_BTK,
        "lengths": torch.tensor([len(row.ids) for row in cut]),
        "rows": torch.tensor(drawing, dtype=torch.long).repeat_interleave(NUM_VIEWS),
        "clean": clean.repeat_interleave(NUM_VIEWS, dim=0),
        "noise": torch.stack(noises) if noises else clean,
        "t": training_times(torch.cat(normals)) if normals else torch.zeros(0),
        "sighted": torch.cat(sights) if sights else torch.zeros(0, dtype=torch.bool),
        "picture_weights": per_view,
    }


def pad_prompts(network: Network, painter: Painter, prompts: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
    """Prompts (ids up to the token that says to draw) and the queries behind them, as ids (B, T) padded on the right;
    and their lengths (B,)."""
    queries = query_ids(painter, network)
    rows = [[*prompt, *queries] for prompt in prompts]
    longest, device = max(map(len, rows)), network.cos.device
    ids_BT = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
    return ids_BT, torch.tensor([len(row) for row in rows], device=device)


def read(network: Network, painter: Painter, ids_BT: Tensor, lengths_B: Tensor, num: int = 1) -> Context:
    """What pictures of padded prompts are drawn from: `num` of each prompt, one behind another."""
    kept: list[tuple[Tensor, Tensor]] = []
    hidden_BTD = network.hidden(ids_BT, kept)
    rows_P = torch.arange(len(ids_BT), device=ids_BT.device).repeat_interleave(num)
    return painter.context(network, hidden_BTD, kept, rows_P, lengths_B[rows_P])


@torch.inference_mode()
def paint(
    network: Network,
    painter: Painter,
    codebook: Codebook,
    prompts: Sequence[list[int]],
    *,
    sampling: PainterSampling,
    seeds: Sequence[int],
) -> list[Image | None]:
    """One picture a prompt (ids up to the token that says to draw), from its own seed; None where a latent is not
    finite."""
    ids_BT, lengths_B = pad_prompts(network, painter, prompts)
    context = read(network, painter, ids_BT, lengths_B)
    latents = painter.paint(context, start_noise(seeds).to(ids_BT.device), sampling).cpu().numpy()
    pictures = to_pixels(codebook, np.nan_to_num(latents))
    return [
        fromarray(picture) if np.isfinite(latent).all() else None
        for picture, latent in zip(pictures, latents, strict=True)
    ]
