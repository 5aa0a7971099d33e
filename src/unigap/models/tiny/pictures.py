"""Pictures as tokens: a codebook of 8 x 4 pixel patches, two to a cell, in cell order (top half, then bottom half).

The codebook is the set of distinct patches of everything the renderer can draw, so a rendered picture survives the
round trip unchanged; any other picture is replaced patch by patch with the nearest code.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from unigap.scenes.render import CELL_PX, SIZE_PX

PATCH_HEIGHT_PX, PATCH_WIDTH_PX = 4, 8
TOKENS_PER_PICTURE = (SIZE_PX // PATCH_HEIGHT_PX) * (SIZE_PX // PATCH_WIDTH_PX)


def to_patches(pixels_NHW3: np.ndarray) -> np.ndarray:
    """Cut pictures (N, 24, 24, 3) into patches (N, 18, 4, 8, 3), cell by cell, top half first."""
    side, halves = SIZE_PX // CELL_PX, CELL_PX // PATCH_HEIGHT_PX
    cut = pixels_NHW3.reshape(-1, side, halves, PATCH_HEIGHT_PX, side, PATCH_WIDTH_PX, 3)
    return cut.transpose(0, 1, 4, 2, 3, 5, 6).reshape(-1, TOKENS_PER_PICTURE, PATCH_HEIGHT_PX, PATCH_WIDTH_PX, 3)


def from_patches(patches_NP: np.ndarray) -> np.ndarray:
    """Inverse of `to_patches`."""
    side, halves = SIZE_PX // CELL_PX, CELL_PX // PATCH_HEIGHT_PX
    grid = patches_NP.reshape(-1, side, side, halves, PATCH_HEIGHT_PX, PATCH_WIDTH_PX, 3)
    return grid.transpose(0, 1, 3, 4, 2, 5, 6).reshape(-1, SIZE_PX, SIZE_PX, 3)


class Codebook:
    """Nearest-patch quantiser.

    Args:
        patches: (K, 4, 8, 3) uint8, all different.
    """

    def __init__(self, patches: np.ndarray) -> None:
        if patches.dtype != np.uint8 or patches.shape[1:] != (PATCH_HEIGHT_PX, PATCH_WIDTH_PX, 3):
            raise ValueError(f"codebook must be uint8 (K, 4, 8, 3), found {patches.dtype} {patches.shape}")
        self.patches = patches
        self._flat = patches.reshape(len(patches), -1).astype(np.float32)
        self._exact = {patch.tobytes(): code for code, patch in enumerate(patches)}

    def __len__(self) -> int:
        return len(self.patches)

    @classmethod
    def of(cls, pixels_NHW3: np.ndarray) -> "Codebook":
        """The distinct patches of some pictures, in order of first appearance."""
        seen: dict[bytes, np.ndarray] = {}
        for patch in to_patches(pixels_NHW3).reshape(-1, PATCH_HEIGHT_PX, PATCH_WIDTH_PX, 3):
            seen.setdefault(patch.tobytes(), patch)
        return cls(np.stack(list(seen.values())))

    def encode(self, image: Image.Image) -> list[int]:
        """18 codes of a picture; one of another size is resized first."""
        if image.size != (SIZE_PX, SIZE_PX):
            image = image.resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX)
        pixels = np.asarray(image.convert("RGB"), dtype=np.uint8)
        return [self._code(patch) for patch in to_patches(pixels[None])[0]]

    def _code(self, patch: np.ndarray) -> int:
        exact = self._exact.get(patch.tobytes())
        if exact is not None:
            return exact
        distance = ((self._flat - patch.reshape(1, -1).astype(np.float32)) ** 2).sum(axis=1)
        return int(distance.argmin())

    def decode(self, codes_NP: Sequence[Sequence[int]]) -> list[Image.Image]:
        """Pictures of N x 18 codes."""
        pixels = from_patches(self.patches[np.asarray(codes_NP, dtype=np.int64)])
        return [Image.fromarray(picture) for picture in pixels]
