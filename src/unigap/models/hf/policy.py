"""Janus and Emu3 as policies: drawings with the probabilities they were drawn with, and those of given drawings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from unigap.models.hf.image_tokens import CodeLogP, Context, collate
from unigap.models.hf.unified import UnifiedModel
from unigap.models.policy import Likelihood
from unigap.models.protocol import Request, Sampling


@dataclass(frozen=True, eq=False)
class Drawn:
    """A drawing as the policy sampled it."""

    context: Context
    codes: list[int]
    """Of the picture, (T,)."""
    log_p: np.ndarray
    """Of each code when it was drawn, (T,) float32, in nats, guidance and temperature included."""
    image: Image.Image
    cfg_scale: float


class ImageTokenPolicy:
    """See `unigap.models.policy.Policy`."""

    likelihood: Likelihood = "tokens"

    def __init__(self, model: UnifiedModel) -> None:
        self.model = model

    def sample(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[Drawn]:
        """The pictures that `UnifiedModel.draw` gives for the same requests, settings and seeds, if batches of
        `batch_size` are drawn.

        Raises:
            ValueError: A request leaves no room for a picture.
        """
        settings, size = self.model.settings(sampling), self.model.batch_size
        drawn: list[Drawn] = []
        for start in range(0, len(requests), size):
            contexts = self.model.contexts(requests[start : start + size], settings)
            if not all(self.model.fits(context, settings) for context in contexts):
                raise ValueError(f"a request is too long to draw; the context holds {self.model.max_tokens} tokens")
            codes_NT, log_p_NT = self.model.write(contexts, settings, seeds[start : start + size])
            images = self.model.decode(codes_NT, settings)
            drawn += [
                Drawn(context, codes_T.tolist(), log_p_T, image, settings.cfg_scale)
                for context, codes_T, log_p_T, image in zip(contexts, codes_NT, log_p_NT, images, strict=True)
            ]
        return drawn

    def collate(self, drawn: Sequence[Drawn]) -> dict[str, Tensor]:
        """Contexts and codes; all drawings have the same guidance."""
        return collate(
            [one.context for one in drawn],
            [one.codes for one in drawn],
            cfg_scale=drawn[0].cfg_scale,
            device=self.model.network.device,
        )

    def module(self, sampling: Sampling) -> CodeLogP:
        """What gives log-probabilities of given drawings, with a gradient."""
        settings = self.model.settings(sampling)
        module = CodeLogP(self.model.writer(settings), settings.cfg_scale, settings.image_temperature)
        return module.requires_grad_(True)
