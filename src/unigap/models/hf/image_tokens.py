"""Drawing by image tokens: a language model writes a picture's codes one after the other, as Janus and Emu3 do.

With classifier-free guidance two contexts go along, the prompt and one that says nothing of it, and the logits are
    l = l_blank + s (l_prompt - l_blank)                                                                        (1)
with s = `cfg_scale`. The policy's distribution is softmax(l / temperature), guidance and all: that is what is sampled,
what `log_p` says, and what training moves. Nothing is cut off (no top-k).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel

from unigap.models.sampling import choose

# N drawings, R = N or 2N contexts (prompts, then blanks), L tokens of the longest, T codes of a picture, V codes to
# choose from, D width


@dataclass(frozen=True)
class Context:
    """What a picture's codes are written behind, as token ids."""

    prompt: tuple[int, ...]
    blank: tuple[int, ...]
    """The same without what is to be drawn."""


class ImageWriter(nn.Module, ABC):
    """The parts of a unified model that write image codes. Parameters have the names they have in the whole model."""

    parts: Mapping[str, str] = {}
    """What can be trained by name, as in `unigap.models.trainable.Trainable.parts`."""
    row: int | None = None
    """Codes of a row, if the model reads a token at the end of each."""
    row_end: int | None = None
    """That token."""
    text_config: Any

    @abstractmethod
    def embed_text(self, ids: Tensor) -> Tensor: ...

    @abstractmethod
    def embed_codes(self, codes: Tensor) -> Tensor: ...

    @abstractmethod
    def body(self, **inputs: Any) -> Any: ...

    @abstractmethod
    def head(self, hidden: Tensor) -> Tensor:
        """Logits over the codes (..., V)."""

    def embed_row_end(self, num: int) -> Tensor:
        """(num, 1, D): what is read after a row of codes."""
        assert self.row_end is not None
        return self.embed_text(torch.full((num, 1), self.row_end, device=next(self.parameters()).device))


class JanusWriter(ImageWriter):
    """Codes have embeddings and a head of their own."""

    parts: Mapping[str, str] = {
        "all": "",
        "language_model": r"(writer\.)?model\.language_model\.",
        "attention": r"(writer\.)?model\.language_model\.layers\.\d+\.self_attn\.",
        "mlp": r"(writer\.)?model\.language_model\.layers\.\d+\.mlp\.",
        "embeddings": r"(writer\.)?model\.(language_model\.embed_tokens|generation_embeddings|generation_aligner)\.",
        "head": r"(writer\.)?model\.generation_head\.",
    }

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.model: Any = nn.Module()
        self.model.language_model = network.model.language_model
        self.model.generation_embeddings = network.model.generation_embeddings
        self.model.generation_aligner = network.model.generation_aligner
        self.model.generation_head = network.model.generation_head
        self.text_config = network.config.text_config

    def embed_text(self, ids: Tensor) -> Tensor:
        return self.model.language_model.get_input_embeddings()(ids)

    def embed_codes(self, codes: Tensor) -> Tensor:
        return self.model.generation_aligner(self.model.generation_embeddings(codes))

    def body(self, **inputs: Any) -> Any:
        return self.model.language_model(**inputs)

    def head(self, hidden: Tensor) -> Tensor:
        return self.model.generation_head(hidden)


class Emu3Writer(ImageWriter):
    """Codes are tokens of the one vocabulary; a token ends each row of a picture."""

    parts: Mapping[str, str] = {
        "all": "",
        "attention": r"(writer\.)?model\.text_model\.layers\.\d+\.self_attn\.",
        "mlp": r"(writer\.)?model\.text_model\.layers\.\d+\.mlp\.",
        "embeddings": r"(writer\.)?model\.text_model\.embed_tokens\.",
        "head": r"(writer\.)?lm_head\.",
    }

    def __init__(self, network: Any, row: int) -> None:
        super().__init__()
        self.model: Any = nn.Module()
        self.model.text_model, self.lm_head = network.model.text_model, network.lm_head
        self.text_config, self.row = network.config.text_config, row
        names = network.vocabulary_mapping
        ids = [names.img2bpe[code] for code in range(len(names.img2bpe))]
        self.register_buffer("code_ids", torch.tensor(ids, device=network.device), persistent=False)
        self.row_end = names.eol_token_id
        run = slice(ids[0], ids[0] + len(ids))
        self._run = run if ids == list(range(run.start, run.stop)) else None  # one piece of the vocabulary is no copy

    def embed_text(self, ids: Tensor) -> Tensor:
        return self.model.text_model.embed_tokens(ids)

    def embed_codes(self, codes: Tensor) -> Tensor:
        return self.embed_text(self.get_buffer("code_ids")[codes])

    def body(self, **inputs: Any) -> Any:
        return self.model.text_model(**inputs)

    def head(self, hidden: Tensor) -> Tensor:
        # Guidance by logits or by log-probabilities of the whole vocabulary is the same after the softmax.
        if self._run is not None and type(self.lm_head) is nn.Linear:
            return F.linear(hidden, self.lm_head.weight[self._run])
        return self.lm_head(hidden)[..., self.get_buffer("code_ids")]


def guide(logits_RXV: Tensor, cfg_scale: float) -> Tensor:
    """Equation (1) in float32; all rows are prompts at a scale of 1."""
    if cfg_scale == 1:
        return logits_RXV.float()
    prompt_NXV, blank_NXV = logits_RXV.float().chunk(2)
    return blank_NXV + cfg_scale * (prompt_NXV - blank_NXV)


def rows_of(contexts: Sequence[Context], cfg_scale: float) -> list[tuple[int, ...]]:
    """Prompts, and blanks behind them if there is guidance."""
    return [c.prompt for c in contexts] + ([] if cfg_scale == 1 else [c.blank for c in contexts])


@torch.inference_mode()
def write_codes(
    writer: ImageWriter,
    contexts: Sequence[Context],
    *,
    num_codes: int,
    cfg_scale: float,
    temperature: float,
    seeds: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, T) and their log-probabilities (N, T) float32, in nats; NaN in a drawing whose logits were not finite.

    Args:
        temperature: 0 is greedy; log-probabilities are then those at 1.
    """
    device = next(writer.parameters()).device
    uniform_NT = np.stack([np.random.Generator(np.random.Philox(seed)).random(num_codes) for seed in seeds])
    rows = rows_of(contexts, cfg_scale)
    longest = max(map(len, rows))
    # Padding on the left, so that all rows are written at the same place; what is in it is masked.
    ids_RL = torch.tensor([[*[0] * (longest - len(row)), *row] for row in rows], device=device)
    mask_RL = torch.tensor([[*[0] * (longest - len(row)), *[1] * len(row)] for row in rows], device=device)
    cache = DynamicCache(config=writer.text_config)
    embeds = writer.embed_text(ids_RL)
    codes_NT = np.zeros((len(contexts), num_codes), dtype=np.int64)
    log_p_NT = np.zeros((len(contexts), num_codes), dtype=np.float32)
    for step in range(num_codes):
        hidden_RLD = writer.body(
            inputs_embeds=embeds,
            attention_mask=mask_RL,
            position_ids=(mask_RL.cumsum(dim=1) - 1).clamp(min=0)[:, -embeds.shape[1] :],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        guided_NV = guide(writer.head(hidden_RLD[:, -1]), cfg_scale)
        chosen_N = choose(guided_NV, temperature, uniform_NT[:, step])
        all_NV = (guided_NV / (temperature if temperature > 0 else 1)).log_softmax(dim=-1).cpu().numpy()
        codes_NT[:, step], log_p_NT[:, step] = chosen_N, all_NV[np.arange(len(contexts)), chosen_N]
        last_R1 = torch.from_numpy(chosen_N).to(device).repeat(len(rows) // len(contexts))[:, None]
        embeds = writer.embed_codes(last_R1)
        if writer.row and (step + 1) % writer.row == 0:
            embeds = torch.cat([embeds, writer.embed_row_end(len(rows))], dim=1)
        mask_RL = torch.cat([mask_RL, mask_RL.new_ones(len(rows), embeds.shape[1])], dim=1)
    return codes_NT, log_p_NT


class CodeLogP(nn.Module):
    """Contexts and codes to log-probabilities (N, T) and entropies (N, T) of the codes, in nats, in one pass."""

    def __init__(self, writer: ImageWriter, cfg_scale: float, temperature: float) -> None:
        super().__init__()
        self.writer = writer
        self.cfg_scale, self.temperature = cfg_scale, temperature

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """
        Args:
            batch: "ids" (R, L) contexts padded on the right, "lengths" (R,) and "codes" (N, T); see `collate`.
        """
        ids_RL, lengths_R, codes_NT = batch["ids"], batch["lengths"], batch["codes"]
        num_rows, num_codes = len(ids_RL), codes_NT.shape[1]
        device = ids_RL.device
        drawn_RTD = self._embed_picture(codes_NT.repeat(num_rows // len(codes_NT), 1))
        embeds_RLD = self.writer.embed_text(ids_RL)
        embeds_RLD = torch.cat([embeds_RLD, torch.zeros_like(drawn_RTD)], dim=1)
        # Right behind each row's context, wherever that ends.
        row_R1 = torch.arange(num_rows, device=device)[:, None]
        at = lengths_R[:, None] + torch.arange(drawn_RTD.shape[1], device=device)
        embeds_RLD = embeds_RLD.index_put((row_R1, at), drawn_RTD)
        ends_R1 = (lengths_R + drawn_RTD.shape[1])[:, None]
        mask_RL = (torch.arange(embeds_RLD.shape[1], device=device) < ends_R1).long()
        hidden_RLD = self.writer.body(inputs_embeds=embeds_RLD, attention_mask=mask_RL, use_cache=False)[0]
        step_T = torch.arange(num_codes, device=device)
        row_ends_T = step_T // self.writer.row if self.writer.row else torch.zeros_like(step_T)
        # A code is predicted from the position before it.
        hidden_RTD = hidden_RLD[row_R1, lengths_R[:, None] - 1 + step_T + row_ends_T]
        all_NTV = (guide(self.writer.head(hidden_RTD), self.cfg_scale) / self.temperature).log_softmax(dim=-1)
        entropy_NT = -(all_NTV.exp() * all_NTV).sum(dim=-1)
        return all_NTV.gather(2, codes_NT[..., None])[..., 0], entropy_NT

    def _embed_picture(self, codes_RT: Tensor) -> Tensor:
        """All but the last code, which predicts nothing, and the ends of rows between them."""
        embeds_RTD = self.writer.embed_codes(codes_RT[:, :-1])
        if not (row := self.writer.row):
            return embeds_RTD
        end = self.writer.embed_row_end(len(codes_RT))
        pieces = []
        for part in embeds_RTD.split(row, dim=1):
            pieces += [part, end] if part.shape[1] == row else [part]
        return torch.cat(pieces, dim=1)


def collate(
    contexts: Sequence[Context], codes: Sequence[Sequence[int]], *, cfg_scale: float, device: torch.device
) -> dict[str, Tensor]:
    """A batch for `CodeLogP`."""
    rows = rows_of(contexts, cfg_scale)
    longest = max(map(len, rows))
    return {
        "ids": torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device),
        "lengths": torch.tensor([len(row) for row in rows], device=device),
        "codes": torch.tensor([list(code) for code in codes], device=device),
    }


def find_writer(network: PreTrainedModel, row: int | None) -> ImageWriter:
    """The writer of a unified model; `row` is used where a token ends each."""
    return JanusWriter(network) if row is None else Emu3Writer(network, row)
