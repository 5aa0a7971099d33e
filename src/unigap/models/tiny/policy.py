"""The embedded model as a policy: drawings with the probabilities they were drawn with, and those of given drawings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from unigap.models.policy import Likelihood
from unigap.models.protocol import Request, Sampling
from unigap.models.sampling import choose
from unigap.models.tiny import tokenizer as tok
from unigap.models.tiny.model import TinyModel
from unigap.models.tiny.network import Cache, Network
from unigap.models.tiny.pictures import TOKENS_PER_PICTURE


@dataclass(frozen=True, eq=False)
class Drawn:
    """A drawing as the policy sampled it."""

    prompt: list[int]
    """Token ids up to and including the one that says to draw."""
    codes: list[int]
    """Token ids of the picture, (T,)."""
    log_p: np.ndarray
    """Of each code when it was drawn, (T,) float32, in nats, at the temperature of sampling."""
    image: Image


class TinyPolicy:
    """See `unigap.models.policy.Policy`."""

    likelihood: Likelihood = "tokens"

    def __init__(self, model: TinyModel) -> None:
        self.model = model

    @torch.inference_mode()
    def sample(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[Drawn]:
        """The pictures that `TinyModel.draw` gives for the same requests, settings and seeds.

        Raises:
            ValueError: A request leaves no room for a picture.
        """
        model, network = self.model, self.model.network
        prompts = [model.encode(request, tok.DRAW)[0] for request in requests]
        if max(map(len, prompts)) + TOKENS_PER_PICTURE > network.config.max_tokens:
            raise ValueError(f"a request is too long to draw: {max(map(len, prompts))} tokens")
        uniform_NT = np.stack([np.random.Generator(np.random.Philox(s)).random(TOKENS_PER_PICTURE) for s in seeds])
        ids = model.pad(prompts)
        num_new = torch.tensor([len(prompt) for prompt in prompts], device=ids.device)
        capacity = ids.shape[1] + TOKENS_PER_PICTURE
        cache = Cache(network.config, len(prompts), capacity, ids.device, network.embed.weight.dtype)
        codes_NT = np.zeros((len(prompts), TOKENS_PER_PICTURE), dtype=np.int64)
        log_p_NT = np.zeros((len(prompts), TOKENS_PER_PICTURE), dtype=np.float32)
        first = model.tokenizer.first_code
        for step in range(TOKENS_PER_PICTURE):
            logits_NV = network.extend(ids, cache, num_new)[:, first:]
            chosen_N = choose(logits_NV, sampling.image_temperature, uniform_NT[:, step])
            log_p_NV = (logits_NV / sampling.image_temperature).log_softmax(dim=-1).cpu().numpy()
            codes_NT[:, step] = chosen_N + first
            log_p_NT[:, step] = log_p_NV[np.arange(len(prompts)), chosen_N]
            ids = torch.from_numpy(codes_NT[:, step])[:, None].to(ids.device)
            num_new = torch.ones_like(num_new)
        images = model.codebook.decode((codes_NT - first).tolist())
        return [
            Drawn(prompt, codes_T.tolist(), log_p_T, image)
            for prompt, codes_T, log_p_T, image in zip(prompts, codes_NT, log_p_NT, images, strict=True)
        ]

    def collate(self, drawn: Sequence[Drawn]) -> dict[str, Tensor]:
        """Prompts with their pictures behind them, padded on the right, and where each picture begins."""
        rows = [[*one.prompt, *one.codes] for one in drawn]
        device = self.model.network.cos.device
        starts = torch.tensor([len(one.prompt) for one in drawn], device=device)
        return {"ids": self.model.pad(rows), "starts": starts}

    def module(self, sampling: Sampling) -> "DrawingLogP":
        """What gives log-probabilities of given drawings, with a gradient."""
        return DrawingLogP(self.model.network, self.model.tokenizer.first_code, sampling.image_temperature)


class DrawingLogP(nn.Module):
    """Batch of `TinyPolicy.collate` to log-probabilities (N, T) and entropies (N, T) of the drawn tokens, in nats."""

    def __init__(self, network: Network, first_code: int, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.first_code, self.temperature = first_code, temperature

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        ids_NL, starts_N = batch["ids"], batch["starts"]
        at_NT = starts_N[:, None] + torch.arange(TOKENS_PER_PICTURE, device=ids_NL.device)
        rows_N1 = torch.arange(len(ids_NL), device=ids_NL.device)[:, None]
        # A token is predicted from the position before it.
        hidden_NTD = self.network.hidden(ids_NL)[rows_N1, at_NT - 1]
        logits_NTV = self.network.head(hidden_NTD)[..., self.first_code :].float() / self.temperature
        all_NTV = logits_NTV.log_softmax(dim=-1)
        codes_NT = ids_NL[rows_N1, at_NT] - self.first_code
        entropy_NT = -(all_NTV.exp() * all_NTV).sum(dim=-1)
        return all_NTV.gather(2, codes_NT[..., None])[..., 0], entropy_NT
