"""Rectified flow on a picture's nine cells: noise, times, guidance, the Euler sampler, and the latents themselves.

Time t runs from 0 (picture) to 1 (noise), as in `unigap.models.bagel`:
    x_t = (1 - t) x_0 + t n,    v = n - x_0 = (x_t - x_0) / t        (docs/heads.md eq. 1, 2)
The network predicts the clean picture x_0; the velocity follows from it.

Shape suffixes: N pictures, C = 9 cells, W = 192 numbers of a cell (8 x 8 pixels, RGB).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from unigap.models.tiny.pictures import TOKENS_PER_PICTURE, Codebook, from_patches, to_patches
from unigap.scenes.render import CELL_PX
from unigap.scenes.vocabulary import NUM_CELLS

CELL_VALUES = CELL_PX * CELL_PX * 3
CODES_PER_CELL = TOKENS_PER_PICTURE // NUM_CELLS

TIME_MEAN, TIME_STD = 2.2, 1.0
"""Of the normal draw whose sigmoid is a training time. Which layout it is, is decided in much noise: an ideal reader of
x_t has half of its doubt left at t = 0.9 (logit 2.2), next to none at 0.73."""
LEAST_TIME = 0.2
"""The loss is the velocity's, but no time counts as less: at t = 0.05 the clean picture shows already, and its last
shades would weigh 16 times as much."""


def noised(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t, with t broadcast over cells and values (eq. 1)."""
    return (1 - t) * clean + t * noise


def velocity(x: Tensor, clean: Tensor, t: Tensor | float) -> Tensor:
    """v at x_t = x, t > 0, where the picture is believed to be `clean` (eq. 2)."""
    return (x - clean) / t


def training_times(normal: Tensor) -> Tensor:
    """Times in (0, 1) of standard normal draws."""
    return (TIME_MEAN + TIME_STD * normal).sigmoid()


def flow_losses(predicted: Tensor, clean: Tensor, t_N: Tensor) -> Tensor:
    """Mean squared error of the velocity of each picture (N,), float32, with t at least LEAST_TIME (eq. 3)."""
    squared = (predicted.float() - clean).square().mean(dim=(1, 2))
    return squared / t_N.clamp(min=LEAST_TIME).square()


def schedule(num_steps: int, shift: float) -> list[float]:
    """num_steps + 1 times from 1 to 0: t = s u / (1 + (s - 1) u) of evenly spaced u; s > 1 lingers in noise."""
    return [shift * u / (1 + (shift - 1) * u) for u in (1 - step / num_steps for step in range(num_steps + 1))]


def start_noise(seeds: Sequence[int]) -> Tensor:
    """(N, C, W), standard normal; each picture's from its own seed alone."""
    drawn = [np.random.Generator(np.random.Philox(seed)).standard_normal((NUM_CELLS, CELL_VALUES)) for seed in seeds]
    return torch.from_numpy(np.stack(drawn)).float()


def euler(predict: Callable[[Tensor, float], Tensor], x: Tensor, times: Sequence[float]) -> Tensor:
    """Follow the flow through `times`, from noise to picture (eq. 4).

    Args:
        predict: (x_t, t) to the clean picture, guided already.
    """
    for t, following in pairwise(times):
        x = x - (t - following) * velocity(x, predict(x, t), t)
    return x


def guided(clean: Tensor, without: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance, u + scale (c - u) (eq. 5): of predicted pictures, the same as of their velocities."""
    return without + scale * (clean - without)


# ---- pictures and latents --------------------------------------------------------------------------------------------


def to_latents(codebook: Codebook, codes_NT: np.ndarray) -> np.ndarray:
    """Pictures of N x 18 codes as (N, C, W) float32 in [-1, 1]."""
    patches = codebook.patches[codes_NT]
    return patches.reshape(-1, NUM_CELLS, CELL_VALUES).astype(np.float32) / 127.5 - 1


def latents_of(pixels_NHW3: np.ndarray) -> np.ndarray:
    """Pictures (N, 24, 24, 3) uint8, of any colors, as (N, C, W) float32 in [-1, 1]."""
    return to_patches(pixels_NHW3).reshape(-1, NUM_CELLS, CELL_VALUES).astype(np.float32) / 127.5 - 1


def to_pixels(codebook: Codebook, latents_NCW: np.ndarray) -> np.ndarray:
    """Pictures (N, 24, 24, 3) uint8: every pixel is the nearest of the colors that the codebook holds.

    A pixel has a color of the palette and no other, as a voxel of an autoencoder's would; so rounding that depends on a
    batch's size does not show.
    """
    palette_K3 = np.unique(codebook.patches.reshape(-1, 3), axis=0)
    levels = (latents_NCW.reshape(-1, 3) + 1) * 127.5
    # |a - b|^2 without |a|^2, which is the same for every color.
    colors = palette_K3.astype(np.float32)
    nearest = ((colors**2).sum(axis=1) - 2 * levels @ colors.T).argmin(axis=1)
    patches = palette_K3[nearest].reshape(-1, TOKENS_PER_PICTURE, *codebook.patches.shape[1:])
    return from_patches(patches)
