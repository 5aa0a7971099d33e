"""BAGEL as a respondent: `find_model("bagel:FOLDER")`.

A request becomes segments of text, each between a start and an end token, and pictures, in order. There is no chat
template. A think prompt is a segment before them; a thought is one behind them. When BAGEL thinks in the call that
answers or draws (`Request.think_first`), the think prompt stays in its context, as in upstream's own flow.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from unigap.disk import hash64, write_files
from unigap.errors import WeightsError
from unigap.models.bagel.attention import Chunk
from unigap.models.bagel.context import Reader
from unigap.models.bagel.drawing import check_size, develop, draw, make_canvas
from unigap.models.bagel.learning import BagelLearning
from unigap.models.bagel.load import Checkpoint, load_checkpoint, save_checkpoint
from unigap.models.bagel.reading import Reading
from unigap.models.bagel.settings import BagelSampling, change_settings
from unigap.models.bagel.writing import write
from unigap.models.protocol import Ability, DrawOutput, Request, Sampling, TextOutput
from unigap.models.settings import split_settings
from unigap.models.thoughts import split_thought

if TYPE_CHECKING:
    from unigap.models.bagel.inspection import BagelInspector
    from unigap.models.bagel.policy import BagelPolicy

LOGITS_AT_ONCE = 512
"""Positions whose logits over the vocabulary exist together: 0.3 GB at 152,064 tokens."""
CARD_FILE = "card.json"


class BagelModel(BagelLearning):
    """See `unigap.models.protocol.Model` for the contract."""

    name = "bagel"
    abilities: frozenset[Ability] = frozenset(
        {
            "answer",
            "draw",
            "edit",
            "think",
            "answer_with_own_thought",
            "draw_with_own_thought",
            "log_likelihood",
            "train",
        }
    )
    pictures: Literal["sandbox", "photo"] = "photo"

    def __init__(self, checkpoint: Checkpoint, *, card: dict[str, Any] | None = None) -> None:
        self.checkpoint = checkpoint
        self.bagel, self.vae, self.tokenizer = checkpoint.bagel, checkpoint.vae, checkpoint.tokenizer
        self.sha256 = checkpoint.sha256
        self.card = card or {}
        self.trained_on: dict[str, str] = dict(self.card.get("trained_on", {}))
        self.batch_size = 8 if self.bagel.device.type == "cuda" else 4
        largest = checkpoint.config.vae_transform.max_image_size
        self.sampling = BagelSampling(height_px=largest, width_px=largest)

    # ---- weights on disk -------------------------------------------------------------------------------------------

    @staticmethod
    def auto_dtype(device: str) -> torch.dtype:
        """Precision where none is asked for."""
        return torch.bfloat16 if device.startswith("cuda") else torch.float32

    @classmethod
    def from_pretrained(
        cls, folder: Path | None = None, *, device: str = "cpu", dtype: torch.dtype | None = None
    ) -> "BagelModel":
        """Load a checkpoint folder (docs/bagel.md), or one of the weight files in such a folder.

        Args:
            folder: May be followed by settings: FOLDER?NAME=VALUE&... (`unigap.models.bagel.settings`).

        Raises:
            WeightsError: No folder is named, or it is not a whole checkpoint.
            ValueError: A setting is not of its kind, or names a size that the network cannot draw.
        """
        if folder is None:
            raise WeightsError('BAGEL needs a checkpoint folder: --model "bagel:FOLDER" (docs/bagel.md)')
        folder, query = split_settings(folder)
        change_settings(BagelSampling(), query)  # what is misspelt is refused before anything is loaded
        checkpoint = load_checkpoint(folder, device=device, dtype=dtype or cls.auto_dtype(device))
        model = cls(checkpoint, card=_read_card(folder if folder.is_dir() else folder.parent))
        model.sampling = change_settings(model.sampling, query)
        if query:
            check_size(checkpoint.config, (model.sampling.height_px, model.sampling.width_px))
        return model

    def save_pretrained(
        self, folder: Path, card: dict[str, Any], *, weights: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        """Write a checkpoint folder of the released layout, and a card; the card gains the weights' hash.

        Args:
            weights: By their names in `loss_module()`, whole and on the CPU; None takes the model's own.
        """
        if weights is not None:
            weights = {name.removeprefix("bagel."): tensor for name, tensor in weights.items()}
        sha256 = save_checkpoint(folder, self.checkpoint, weights=weights)
        card = card | {"sha256": sha256}
        write_files([(folder / CARD_FILE, (json.dumps(card, ensure_ascii=False, indent=2) + "\n").encode())])
        self.sha256, self.card = sha256, card

    # ---- the protocol ----------------------------------------------------------------------------------------------

    def answer(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[TextOutput]:
        if not requests:
            return []
        settings, token = self._settings(sampling), self.tokenizer
        reader = Reader(self.checkpoint)
        contexts, first, limits = [], [], []
        for request, seed in zip(requests, seeds, strict=True):
            context = self._plan(reader, request, settings, seed).contexts.gen
            # A thought is gone on with, in the same segment: what follows it is the answer.
            begun = [token.bos, *([] if request.thought is None else token.encode(request.thought))]
            contexts.append(reader.text(context, begun[:-1]) if begun[:-1] else context)
            first.append(begun[-1])
            thinks = request.think_prompt is not None and request.thought is None
            answers = not thinks or request.think_first
            limits.append(settings.max_think_tokens * thinks + settings.max_answer_tokens * answers)
        reader.read()
        written = self._write(contexts, first, limits, settings, seeds)
        return [self._text_output(request, ids) for request, ids in zip(requests, written, strict=True)]

    def draw(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[DrawOutput]:
        """See the protocol.

        Raises:
            ValueError: The network cannot draw pictures of the size that is asked for.
        """
        if not requests:
            return []
        settings = self._settings(sampling)
        reader = Reader(self.checkpoint)
        readings = [self._plan(reader, request, settings, seed) for request, seed in zip(requests, seeds, strict=True)]
        canvases = [make_canvas(self.checkpoint, r.contexts, settings, s) for r, s in zip(readings, seeds, strict=True)]
        outputs = self._think(reader, requests, readings, settings, seeds)
        reader.read()
        images = develop(self.checkpoint, draw(self.checkpoint, canvases))
        return [
            replace(output, image=image)
            if image is not None and output.outcome == "ok"
            else replace(
                output,
                outcome="malformed",
                detail="; ".join(filter(None, (output.detail, self._not_finite("latents") if image is None else ""))),
            )
            for image, output in zip(images, outputs, strict=True)
        ]

    def log_likelihood(self, requests: Sequence[Request], continuations: Sequence[str]) -> list[np.ndarray]:
        """See the protocol; the last entry is the end token's.

        Raises:
            ValueError: The lists differ in length.
        """
        if len(requests) != len(continuations):
            raise ValueError(f"{len(requests)} requests but {len(continuations)} continuations")
        reader, settings, token = Reader(self.checkpoint, keep_hidden=True), self.sampling, self.tokenizer
        rows = []
        for request, text in zip(requests, continuations, strict=True):
            context = self._plan(reader, request, settings, seed=0).contexts.gen
            begun = [token.bos, *([] if request.thought is None else token.encode(request.thought))]
            ids = token.encode(text)
            rows.append((reader.text(context, [*begun, *ids]), len(begun) - 1, [*ids, token.eos]))
        reader.read()
        return [self._log_p(reader.hidden[chunk][start:], labels) for chunk, start, labels in rows]

    def token_texts(self, text: str) -> list[str]:
        """The tokens that `log_likelihood` scores for a text, without the end token."""
        return [self.tokenizer.decode([index]) for index in self.tokenizer.encode(text)]

    def inspector(self) -> "BagelInspector":
        """This model as a `unigap.models.inspection.Inspector`."""
        from unigap.models.bagel.inspection import BagelInspector

        return BagelInspector(self)

    def policy(self) -> "BagelPolicy":
        """This model as a `unigap.models.policy.Policy`; its weights are the policy's."""
        from unigap.models.bagel.policy import BagelPolicy

        return BagelPolicy(self)

    # ---- parts of it -----------------------------------------------------------------------------------------------

    def _settings(self, sampling: Sampling) -> BagelSampling:
        """BAGEL's own settings; what a plain `Sampling` leaves open is the default."""
        return sampling if isinstance(sampling, BagelSampling) else replace(self.sampling, **vars(sampling))

    def _plan(self, reader: Reader, request: Request, settings: BagelSampling, seed: int) -> Reading:
        """A request's contexts without its thought, to be read."""
        reading = Reading(reader, settings, draws=request.purpose == "draw", seed=seed)
        reading.add(request.content, request.think_prompt)
        return reading

    def _write(
        self,
        contexts: Sequence[Chunk],
        first: Sequence[int],
        limits: Sequence[int],
        settings: BagelSampling,
        seeds: Sequence[int],
    ) -> list[list[int] | None]:
        return write(
            self.checkpoint,
            contexts,
            first=first,
            limits=limits,
            temperature=settings.text_temperature,
            seeds=seeds,
        )

    def _not_finite(self, what: str) -> str:
        return f"the {what} are not finite ({str(self.bagel.dtype).removeprefix('torch.')})"

    def _text_output(self, request: Request, written: list[int] | None) -> TextOutput:
        if written is None:
            detail = self._not_finite("logits")
            return TextOutput(text=None, num_tokens=0, finish="none", outcome="malformed", detail=detail)
        finished = written[-1:] == [self.tokenizer.eos]
        text, thought = self.tokenizer.decode(written[: len(written) - finished]), None
        if request.think_first:
            thought, text = split_thought(text)
            if thought is None and not finished:
                return TextOutput(
                    text=None,
                    num_tokens=len(written),
                    finish="length",
                    outcome="malformed",
                    detail=f"the thought has no end after {len(written)} tokens",
                    thought=text,
                )
        elif request.think_prompt is not None and request.thought is None and request.purpose == "answer":
            # BAGEL goes on with the answer; only the thought was asked for.
            head, end, _ = text.partition("</think>")
            text = head + end
        return TextOutput(text=text, num_tokens=len(written), finish="stop" if finished else "length", thought=thought)

    def _think(
        self,
        reader: Reader,
        requests: Sequence[Request],
        readings: Sequence[Reading],
        settings: BagelSampling,
        seeds: Sequence[int],
    ) -> list[DrawOutput]:
        """Put thoughts, given ones and those asked for, into the contexts; returns the latter, without pictures yet."""
        outputs = [DrawOutput(image=None) for _ in requests]
        for request, reading in zip(requests, readings, strict=True):
            if request.thought is not None:
                reading.add_thought(self.tokenizer.encode(request.thought))
        asked = [i for i, request in enumerate(requests) if request.think_first and request.thought is None]
        if not asked:
            return outputs
        reader.read()
        written = self._write(
            [readings[i].contexts.gen for i in asked],
            [self.tokenizer.bos] * len(asked),
            [settings.max_think_tokens] * len(asked),
            settings,
            [hash64(f"{seeds[i]}/thought") >> 1 for i in asked],
        )
        for i, ids in zip(asked, written, strict=True):
            if ids is None:
                outputs[i] = DrawOutput(image=None, outcome="malformed", detail=self._not_finite("thought's logits"))
                continue
            text, read = self.tokenizer.reread(ids, through_text=settings.reread_thought)
            readings[i].add_thought(read)
            whole = ids[-1:] == [self.tokenizer.eos]
            outputs[i] = DrawOutput(
                image=None,
                thought=text,
                thought_finish="stop" if whole else "length",
                usage={"thought_tokens": len(ids)},
                detail="" if whole else f"the thought was cut off after {len(ids)} tokens",
            )
        return outputs

    @torch.inference_mode()
    def _log_p(self, hidden_TD: torch.Tensor, labels: Sequence[int]) -> np.ndarray:
        """(T,) float32: log-probability of each label at its position, in nats."""
        labels_T = torch.tensor(labels, device=hidden_TD.device)
        parts = []
        for start in range(0, len(labels), LOGITS_AT_ONCE):
            some = slice(start, start + LOGITS_AT_ONCE)
            log_p = self.bagel.logits(hidden_TD[some]).log_softmax(dim=-1)
            parts.append(log_p.gather(1, labels_T[some, None])[:, 0].cpu().numpy())
        return np.concatenate(parts)


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / CARD_FILE
    if not path.is_file():  # the released folder has none
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    if not isinstance(card, dict):
        raise WeightsError(f"{path} holds a {type(card).__name__}, expected an object")
    return card
