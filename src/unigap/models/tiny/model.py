"""The embedded unified model: reads text and pictures, writes text or draws, on a CPU.

A sequence is <bos>, the content (words, and pictures as <image> 18 codes </image>), optionally <think> a thought
</think>, then <answer> and words up to <eos>, or <draw> and 18 picture codes. A model with a painter
(`unigap.models.tiny.painter`) draws from <draw> on in its own way; pictures in the content are codes all the same.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from PIL.Image import Image
from safetensors import safe_open
from safetensors.torch import save_file

from unigap.errors import TrainingError, WeightsError
from unigap.models.protocol import Ability, DrawOutput, Request, Sampling, TextOutput
from unigap.models.sampling import choose
from unigap.models.settings import change_settings, split_settings
from unigap.models.tiny import tokenizer as tok
from unigap.models.tiny.learning import Naming, Sample, Target, TinyLoss, collate, collate_named
from unigap.models.tiny.network import Cache, Network, NetworkConfig
from unigap.models.tiny.painter import Painter, PainterConfig, PainterSampling
from unigap.models.tiny.painting import PaintingLoss, collate_painting, paint, query_ids
from unigap.models.tiny.pictures import TOKENS_PER_PICTURE, Codebook
from unigap.models.tiny.rewrite import rewrite
from unigap.models.tiny.tokenizer import Tokenizer
from unigap.models.trainable import Example

if TYPE_CHECKING:
    from unigap.models.tiny.inspection import TinyInspector
    from unigap.models.tiny.painter_policy import PainterPolicy
    from unigap.models.tiny.policy import TinyPolicy

WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "config.json", "card.json"

PACKAGED = {"ar": "weights", "flow": "weights_flow", "query": "weights_query"}
"""Folders of the package by how the model draws: "tiny:flow" is the second; a folder of one's own named so is
"tiny:../HERE/flow"."""


class TinyModel:
    """See `unigap.models.protocol.Model` for the contract."""

    name = "tiny"
    abilities: frozenset[Ability] = frozenset({"answer", "draw", "edit", "think", "log_likelihood", "train"})
    pictures: Literal["sandbox", "photo"] = "sandbox"
    batch_size = 64
    sampling = Sampling(max_think_tokens=96)
    parts: Mapping[str, str] = {
        "all": "",
        "blocks": r"network\.blocks\.",
        "attention": r"network\.blocks\.\d+\.(norm1|conv|gain|qkv|out)\b",
        "mlp": r"network\.blocks\.\d+\.(norm2|up|down)\b",
        "embeddings": r"network\.embed\.",
        "head": r"network\.(norm|head)\.",
    }
    muon_matrices = r"network\.blocks\.\d+\.(qkv|out|up|down)\."
    adamw_eps = 1e-8
    loss_kinds: tuple[str, ...] = ("text", "image")

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        codebook: Codebook,
        *,
        sha256: str,
        card: dict[str, Any],
        painter: Painter | None = None,
    ):
        self.network = network.eval()
        self.painter = painter
        """What draws, unless the trunk does, in codes."""
        if painter is not None:
            painter.eval()
            self.name = f"tiny:{painter.config.kind}"
            self.parts = {**self.parts, "painter": r"painter\."}
            self.muon_matrices = r"(network|painter)\.blocks\.\d+\.(qkv|out|up|down|read)\."
            self.sampling = PainterSampling(max_think_tokens=self.sampling.max_think_tokens)
        self.naming: Naming | None = None
        """May be set before training; for models that draw in codes."""
        self.tokenizer = tokenizer
        self.codebook = codebook
        self.sha256 = sha256
        self.card = card
        self.trained_on: dict[str, str] = dict(card.get("trained_on", {}))

    # ---- weights on disk -------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls, folder: Path | None = None, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "TinyModel":
        """Load a folder written by `save_pretrained`; None, "ar", "flow" or "query" load weights inside the package.

        Args:
            folder: May be followed by settings: FOLDER?NAME=VALUE&..., e.g. "flow?cfg_text_scale=2".

        Raises:
            UnknownNameError: There is no such setting.
            WeightsError: A file is missing, or the weights are not those that the card describes.
        """
        folder, query = split_settings(Path("ar") if folder is None else folder)
        head = str(folder)
        where = Path(str(resources.files("unigap.models.tiny") / PACKAGED[head])) if head in PACKAGED else Path(head)
        for name in (WEIGHTS_FILE, CONFIG_FILE, CARD_FILE):
            if not (where / name).is_file():
                raise WeightsError(
                    f"{where} has no {name}; a model folder holds {WEIGHTS_FILE}, {CONFIG_FILE} and {CARD_FILE}. "
                    'Reinstall the package, or make the folder with "unigap train pretrain --out FOLDER".'
                )
        config = json.loads((where / CONFIG_FILE).read_text(encoding="utf-8"))
        card = json.loads((where / CARD_FILE).read_text(encoding="utf-8"))
        sha256 = hashlib.sha256((where / WEIGHTS_FILE).read_bytes()).hexdigest()
        if sha256 != card.get("sha256"):
            raise WeightsError(
                f"{where / WEIGHTS_FILE} has sha256 {sha256[:16]}..., its card says {str(card.get('sha256'))[:16]}...: "
                "the file is truncated or from another training run. Restore the pair from one run."
            )
        with safe_open(where / WEIGHTS_FILE, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        codebook = Codebook(tensors.pop("codebook").numpy())
        of_painter = {name: tensors.pop(name).float() for name in list(tensors) if name.startswith("painter.")}
        network = Network(NetworkConfig(**config["network"]))
        network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        network.to(device=device, dtype=dtype)
        painter = None
        if "painter" in config:
            painter = Painter(PainterConfig(**config["painter"]), network.config)
            painter.load_state_dict({name.removeprefix("painter."): value for name, value in of_painter.items()})
            painter.to(device=device, dtype=dtype)
        tokenizer = Tokenizer(config["words"], len(codebook))
        model = cls(network, tokenizer, codebook, sha256=sha256, card=card, painter=painter)
        model.sampling = change_settings(model.sampling, query, of=model.name)
        return model

    def save_pretrained(
        self, folder: Path, card: dict[str, Any], *, weights: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        """Write weights (fp16), configuration and card. The card gains the weights' sha256.

        Args:
            weights: By their names in `loss_module()`, instead of the network's own.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if weights is None:
            weights = self.loss_module().state_dict()
        tensors = {name.removeprefix("network."): value.half().contiguous() for name, value in weights.items()}
        tensors["codebook"] = torch.from_numpy(self.codebook.patches)
        save_file(tensors, folder / WEIGHTS_FILE)
        config: dict[str, Any] = {"network": vars(self.network.config), "words": self.tokenizer.words}
        if self.painter is not None:
            config["painter"] = vars(self.painter.config)
        (folder / CONFIG_FILE).write_text(json.dumps(config, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
        sha256 = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
        card = card | {"sha256": sha256}
        (folder / CARD_FILE).write_text(json.dumps(card, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        self.sha256, self.card = sha256, card

    # ---- requests to tokens ----------------------------------------------------------------------------------------

    def encode(self, request: Request, mode: str) -> tuple[list[int], str]:
        """Token ids of a request up to and including the mode token, and what was done to its text ("" if nothing)."""
        token = self.tokenizer
        ids, notes = [token[tok.BOS]], []
        for part in request.content:
            if isinstance(part, str):
                text, note = self._readable(part)
                ids += token.encode(text)
                notes += [note] if note else []
            else:
                ids += self.picture_ids(part)
        if request.thought is not None:
            ids += [token[tok.THINK], *token.encode(request.thought), token[tok.THOUGHT_END]]
        return [*ids, token[mode]], "; ".join(notes)

    def picture_ids(self, image: Image) -> list[int]:
        """<image>, 18 codes, </image>."""
        codes = self.tokenizer.codes(self.codebook.encode(image))
        return [self.tokenizer[tok.IMAGE], *codes, self.tokenizer[tok.IMAGE_END]]

    def _readable(self, text: str) -> tuple[str, str]:
        """The text as the model can read it, and a note if it was changed or holds words never read in training."""
        known = rewrite(text)
        if known is not None and known != text:
            return known, f"rewritten: {known}"
        if known is None and (unread := self.tokenizer.unread_words(text)):
            return text, f"words never read in training: {', '.join(unread[:5])}"
        return text, ""

    # ---- training (unigap.models.trainable.Trainable) ----------------------------------------------------------------

    @property
    def own_settings(self) -> Mapping[str, Any]:
        """How words are named between the layers, if any are."""
        return {"naming": asdict(self.naming)} if self.naming else {}

    def prepare(self, example: Example) -> Sample:
        """The sequence of an example; a picture to be drawn becomes its codes, each the one right next token.

        Raises:
            TrainingError: It exceeds the context.
        """
        token = self.tokenizer
        learned: list[tuple[int, list[int], bool]] = []
        if example.thought is not None:
            written = [*token.encode(example.thought), token[tok.THOUGHT_END]]
            learned.append((token[tok.THINK], written, example.learn_thought))
        if example.answer is not None:
            learned.append((token[tok.ANSWER], [*token.encode(example.answer), token[tok.EOS]], True))
        if example.image is not None:
            learned.append((token[tok.DRAW], token.codes(self.codebook.encode(example.image)), True))
        ids = self.encode(Request(content=example.content), tok.BOS)[0][:-1]
        targets: list[Target] = [()] * len(ids)
        for mode, written, is_learned in learned:
            ids += [mode, *written]
            targets += [(), *(((index, example.weight),) if is_learned else () for index in written)]
        if len(ids) > self.network.config.max_tokens:
            longest = self.network.config.max_tokens
            raise TrainingError(f"example {example.id} has {len(ids)} tokens; the model's context holds {longest}")
        return Sample(ids, targets, example.id)

    def weigh(self, row: Sample) -> tuple[float, ...]:
        """Loss weight of words and of picture codes."""
        text = image = 0.0
        for target in row.targets:
            for index, weight in target:
                if index < self.tokenizer.first_code:
                    text += weight
                else:
                    image += weight
        if self.naming:
            text += self.naming.total(row)
        return text, image

    def collate(self, rows: Sequence[Sample], seeds: Sequence[int]) -> dict[str, torch.Tensor]:
        """Rows padded to one length; nothing about them is random but what a painter learns from."""
        if self.painter is not None:
            queries = query_ids(self.painter, self.network)
            return collate_painting(rows, seeds, queries, self.tokenizer, self.codebook)
        ids_BT, alternatives_BTK, weights_BTK = collate(rows, self.tokenizer[tok.PAD])
        batch = {"ids": ids_BT, "alternatives": alternatives_BTK, "weights": weights_BTK}
        if self.naming:
            batch["named"] = collate_named(rows, ids_BT.shape[1] - 1, self.naming)
        return batch

    def loss_module(self) -> TinyLoss | PaintingLoss:
        if self.painter is not None:
            return PaintingLoss(self.network, self.painter)
        return TinyLoss(self.network, self.tokenizer.first_code, self.naming)

    # ---- the protocol ----------------------------------------------------------------------------------------------

    def answer(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[TextOutput]:
        if not requests:
            return []
        thinking = [request.think_prompt is not None for request in requests]
        prompts, notes = zip(
            *(self.encode(r, tok.THINK if t else tok.ANSWER) for r, t in zip(requests, thinking, strict=True)),
            strict=True,
        )
        limits = [sampling.max_think_tokens if t else sampling.max_answer_tokens for t in thinking]
        stops = [self.tokenizer[tok.THOUGHT_END if t else tok.EOS] for t in thinking]
        written = self._generate(
            prompts,
            limits=limits,
            stops=stops,
            allowed=slice(0, self.tokenizer.first_code),
            temperature=sampling.text_temperature,
            seeds=seeds,
        )
        return [self._text_output(ids, stop, note) for ids, stop, note in zip(written, stops, notes, strict=True)]

    def _text_output(self, ids: list[int] | None, stop: int, note: str) -> TextOutput:
        if ids is None:
            return TextOutput(text=None, num_tokens=0, finish="none", outcome="malformed", detail=self._too_long())
        finished = ids[-1:] == [stop]
        text = self.tokenizer.decode(ids)
        return TextOutput(text=text, num_tokens=len(ids), finish="stop" if finished else "length", detail=note)

    def draw(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[DrawOutput]:
        if not requests:
            return []
        prompts, notes = zip(*(self.encode(request, tok.DRAW) for request in requests), strict=True)
        if self.painter is not None:
            return self._paint(self.painter, prompts, notes, sampling, seeds)
        first = self.tokenizer.first_code
        drawn = self._generate(
            prompts,
            limits=[TOKENS_PER_PICTURE] * len(prompts),
            stops=[-1] * len(prompts),
            allowed=slice(first, self.tokenizer.vocab_size),
            temperature=sampling.image_temperature,
            seeds=seeds,
        )
        outputs = []
        for ids, note in zip(drawn, notes, strict=True):
            if ids is None:
                outputs.append(DrawOutput(image=None, outcome="malformed", detail=self._too_long()))
            else:
                picture = self.codebook.decode([[index - first for index in ids]])[0]
                outputs.append(DrawOutput(image=picture, detail=note))
        return outputs

    def _paint(
        self,
        painter: Painter,
        prompts: Sequence[list[int]],
        notes: Sequence[str],
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> list[DrawOutput]:
        if not isinstance(sampling, PainterSampling):
            raise ValueError(f"{self.name} draws with PainterSampling, found {type(sampling).__name__}")
        outputs = [DrawOutput(image=None, outcome="malformed", detail=self._too_long())] * len(prompts)
        # The room that a picture of codes would take, so that every head reads the same requests.
        longest = self.network.config.max_tokens - TOKENS_PER_PICTURE
        fits = [i for i, prompt in enumerate(prompts) if len(prompt) <= longest]
        if not fits:
            return outputs
        own = [prompts[i] for i in fits]
        pictures = paint(self.network, painter, self.codebook, own, sampling=sampling, seeds=[seeds[i] for i in fits])
        for i, picture in zip(fits, pictures, strict=True):
            if picture is None:
                outputs[i] = DrawOutput(image=None, outcome="malformed", detail="the latents are not finite")
            else:
                outputs[i] = DrawOutput(image=picture, detail=notes[i])
        return outputs

    @torch.inference_mode()
    def log_likelihood(self, requests: Sequence[Request], continuations: Sequence[str]) -> list[np.ndarray]:
        """See the protocol; the last entry is the end token's.

        Raises:
            ValueError: The lists differ in length, or a sequence exceeds the context.
        """
        if len(requests) != len(continuations):
            raise ValueError(f"{len(requests)} requests but {len(continuations)} continuations")
        rows, starts = [], []
        for request, text in zip(requests, continuations, strict=True):
            prompt, _ = self.encode(request, tok.ANSWER)
            rows.append([*prompt, *self.tokenizer.encode(text), self.tokenizer[tok.EOS]])
            starts.append(len(prompt))
        longest = max(map(len, rows), default=0)
        if longest > self.network.config.max_tokens:
            raise ValueError(f"{longest} tokens with the continuation; {self._too_long()}")
        if not rows:
            return []
        ids_BT = self.pad(rows)
        log_p = self.network(ids_BT[:, :-1]).log_softmax(dim=-1).gather(2, ids_BT[:, 1:, None])[..., 0]
        return [
            log_p[i, start - 1 : len(row) - 1].float().cpu().numpy()
            for i, (row, start) in enumerate(zip(rows, starts, strict=True))
        ]

    def token_texts(self, text: str) -> list[str]:
        """The tokens that `log_likelihood` scores for a text, without the end token."""
        return [self.tokenizer.words[index] for index in self.tokenizer.encode(text)]

    def policy(self) -> "TinyPolicy | PainterPolicy":
        """This model as a `unigap.models.policy.Policy`; its weights are the policy's."""
        if self.painter is not None:
            from unigap.models.tiny.painter_policy import PainterPolicy

            return PainterPolicy(self)
        from unigap.models.tiny.policy import TinyPolicy

        return TinyPolicy(self)

    def inspector(self) -> "TinyInspector":
        """This model as a `unigap.models.inspection.Inspector`."""
        from unigap.models.tiny.inspection import TinyInspector

        return TinyInspector(self)

    # ---- sampling --------------------------------------------------------------------------------------------------

    def _too_long(self) -> str:
        return f"the request does not fit the model's context of {self.network.config.max_tokens} tokens"

    def pad(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Rows of ids (B, T), padded on the right."""
        longest = max(map(len, rows))
        pad = self.tokenizer[tok.PAD]
        return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=self.network.cos.device)

    @torch.inference_mode()
    def _generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        limits: Sequence[int],
        stops: Sequence[int],
        allowed: slice,
        temperature: float,
        seeds: Sequence[int],
    ) -> list[list[int] | None]:
        """Continue every prompt by at most limits[i] allowed tokens, the stop token included when it comes.

        Returns None for a prompt that leaves no room for a single new token (for 18 in a picture).
        """
        room = [self.network.config.max_tokens - len(prompt) for prompt in prompts]
        needed = [limit if stop < 0 else 1 for limit, stop in zip(limits, stops, strict=True)]
        fits = [i for i in range(len(prompts)) if room[i] >= needed[i]]
        results: list[list[int] | None] = [None] * len(prompts)
        if not fits:
            return results
        limit_B = np.array([min(limits[i], room[i]) for i in fits])
        steps = int(limit_B.max())
        # Each row's randomness is its own, so its outcome does not depend on the company it keeps.
        uniform_BT = np.stack([np.random.Generator(np.random.Philox(seeds[i])).random(steps) for i in fits])
        ids = self.pad([prompts[i] for i in fits])
        num_new = torch.tensor([len(prompts[i]) for i in fits], device=ids.device)
        parameter = self.network.embed.weight
        cache = Cache(self.network.config, len(fits), ids.shape[1] + steps, ids.device, parameter.dtype)
        stop_B = np.array([stops[i] for i in fits])
        written: list[list[int]] = [[] for _ in fits]
        alive = np.arange(len(fits))
        for step in range(steps):
            logits = self.network.extend(ids, cache, num_new)[:, allowed]
            chosen = choose(logits, temperature, uniform_BT[alive, step]) + allowed.start
            for row, token in zip(alive, chosen, strict=True):
                written[row].append(int(token))
            going = (chosen != stop_B[alive]) & (step + 1 < limit_B[alive])
            if not going.any():
                break
            ids = torch.from_numpy(chosen)[:, None].to(ids.device)
            # Rows that are done leave the batch once they are many: copying the cache costs about one step.
            if going.sum() <= 0.75 * len(alive):
                keep = torch.from_numpy(np.flatnonzero(going)).to(ids.device)
                cache.keep(keep)
                ids, alive, going = ids[keep], alive[going], going[going]
            num_new = torch.ones(len(alive), dtype=torch.long, device=ids.device)
            limit_B[alive[~going]] = 0
        for i, row, stop in zip(fits, written, stop_B, strict=True):
            results[i] = _cut(row, int(stop), min(limits[i], room[i]))
        return results


def _cut(ids: list[int], stop: int, limit: int) -> list[int]:
    """What a row wrote up to its own end: rows that are done may stay in the batch for a while."""
    ids = ids[:limit]
    return ids[: ids.index(stop) + 1] if stop in ids else ids
