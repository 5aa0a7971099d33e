"""Any image-text-to-text model of transformers as a respondent: it answers and thinks, and does not draw.

A request is one turn of a user in the folder's own chat template. A think prompt is the system message before it, or,
where the template has no place for one, the first text of the turn; a thought is its last text.
"""

import sys
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import AutoModelForImageTextToText, GenerationConfig, LogitsProcessor, PreTrainedModel

from unigap.errors import CannotAskError, WeightsError
from unigap.models.hf.load import hash_weights, load_network, load_processor, read_card
from unigap.models.protocol import Ability, DrawOutput, Request, Sampling, TextOutput
from unigap.models.sampling import choose
from unigap.models.settings import change_settings

# B requests of a batch, L tokens of the longest, K positions whose logits exist, T tokens of a continuation


class Reader:
    """See `unigap.models.protocol.Model` for the contract."""

    pictures: Literal["sandbox", "photo"] = "photo"

    def __init__(self, network: PreTrainedModel, processor: Any, *, name: str, sha256: str) -> None:
        self.network, self.processor, self.tokenizer = network, processor, processor.tokenizer
        self.name, self.sha256 = name, sha256
        self.abilities: frozenset[Ability] = frozenset({"answer", "think", "log_likelihood"})
        self.batch_size = 16 if network.device.type == "cuda" else 4
        self.max_tokens = getattr(network.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
        """Of its context, as far as its configuration says."""
        self.sampling = Sampling(max_answer_tokens=512)  # an answer may be sentences
        self.trained_on: dict[str, str] = {}
        own = network.generation_config or GenerationConfig()
        ends = own.eos_token_id if own.eos_token_id is not None else self.tokenizer.eos_token_id
        self.ends: list[int] = [ends] if isinstance(ends, int) else list(ends or ())
        """Tokens that end an answer; the first is the one whose likelihood counts."""
        if not self.ends:
            raise WeightsError(f"{name}: neither its generation_config.json nor its tokenizer names an end token")
        if self.tokenizer.eos_token_id in self.ends:
            self.ends.sort(key=lambda end: end != self.tokenizer.eos_token_id)
        self.own_generation_config = own
        # What a checkpoint suggests (temperatures, penalties) is left out: settings are ours, and in every record.
        network.generation_config = GenerationConfig(eos_token_id=self.ends, pad_token_id=self.tokenizer.pad_token_id)
        self._system = self._has_system_message()
        self._space = self._ends_within_a_line()

    @classmethod
    def load(cls, folder: Path, query: str, *, device: str, dtype: torch.dtype) -> "Reader":
        change_settings(Sampling(), query, of="hf")  # what is misspelt is refused before anything is loaded
        sha256, processor = hash_weights(folder), load_processor(folder)
        if not has_template(processor):
            raise WeightsError(
                f"{folder} has no chat template, so it is not known how the model is asked. If its makers state one, "
                "save it there as chat_template.jinja"
            )
        network = load_network(AutoModelForImageTextToText, folder, device=device, dtype=dtype)
        model = cls(network, processor, name=f"hf:{folder.resolve().name}", sha256=sha256)
        model.sampling = change_settings(model.sampling, query, of="hf")
        model.trained_on = dict(read_card(folder).get("trained_on", {}))
        return model

    # ---- the protocol ----------------------------------------------------------------------------------------------

    def answer(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[TextOutput]:
        outputs: dict[int, TextOutput] = {}
        groups: dict[tuple[int, Hashable], list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            thinks = request.think_prompt is not None and request.thought is None
            limit = sampling.max_think_tokens if thinks else sampling.max_answer_tokens
            groups[limit, self.company(request)].append(i)
        for (limit, _), some in groups.items():
            inputs = self.encode([requests[i] for i in some])
            rooms = [self.max_tokens - length for length in inputs["attention_mask"].sum(dim=1).tolist()]
            written = self._write(
                inputs, limit=limit, temperature=sampling.text_temperature, seeds=[seeds[i] for i in some]
            )
            # Cut row by row: how much room one has must not depend on the others.
            outputs |= {i: self._text_output(ids, room) for i, ids, room in zip(some, written, rooms, strict=True)}
        return [outputs[i] for i in range(len(requests))]

    def draw(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[DrawOutput]:
        """Not among this model's abilities."""
        raise CannotAskError(f"{self.name} does not draw; it answers alone. To pair it with one that draws: pair:A+B")

    def log_likelihood(self, requests: Sequence[Request], continuations: Sequence[str]) -> list[np.ndarray]:
        """See the protocol; the last entry is the end token's. A space is put before a continuation where the template
        ends within a line.

        Raises:
            ValueError: The lists differ in length, or a request does not fit the context with its continuation.
        """
        if len(requests) != len(continuations):
            raise ValueError(f"{len(requests)} requests but {len(continuations)} continuations")
        found: dict[int, np.ndarray] = {}
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            groups[self.company(request)].append(i)
        for some in groups.values():
            inputs = self.encode([requests[i] for i in some])
            labels = [[*self._encode_answer(continuations[i]), self.ends[0]] for i in some]
            found |= dict(zip(some, self._log_p(inputs, labels), strict=True))
        return [found[i] for i in range(len(requests))]

    def token_texts(self, text: str) -> list[str]:
        """The tokens that `log_likelihood` scores for a text, without the end token."""
        return [self.tokenizer.decode([index]) for index in self._encode_answer(text)]

    def company(self, request: Request) -> Hashable:
        """Requests for which this is equal may be one batch: processors want as many pictures in every row."""
        return sum(not isinstance(part, str) for part in request.content)

    # ---- parts of it -----------------------------------------------------------------------------------------------

    def messages(self, request: Request) -> list[dict[str, Any]]:
        """A request as a conversation."""
        content = list(request.content)
        system = []
        if request.think_prompt is not None:
            if self._system:
                system = [{"role": "system", "content": [{"type": "text", "text": request.think_prompt}]}]
            else:
                content.insert(0, request.think_prompt)
        if request.thought is not None:
            content.append(request.thought)
        parts = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part.convert("RGB")}
            for part in content
        ]
        return [*system, {"role": "user", "content": parts}]

    def encode(self, requests: Sequence[Request], **how: Any) -> dict[str, Tensor]:
        """Tensors for the network, (B, L) padded on the left. Text that spells a control token is plain text."""
        inputs = self.processor.apply_chat_template(
            [self.messages(request) for request in requests],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            sanitize_control_tokens=True,
            processor_kwargs={"padding": True, "padding_side": "left", **how},
        )
        dtype = self.network.dtype
        return {
            name: value.to(device=self.network.device, dtype=dtype if value.is_floating_point() else value.dtype)
            for name, value in inputs.items()
        }

    def _has_system_message(self) -> bool:
        """Whether the template has a place for one: some refuse it, some leave it out."""
        if not has_template(self.processor):
            return False
        probe = "be careful"
        turns = [{"role": role, "content": [{"type": "text", "text": probe}]} for role in ("system", "user")]
        try:
            return self.processor.apply_chat_template(turns, tokenize=False).count(probe) == 2
        except TemplateError:
            return False

    def _ends_within_a_line(self) -> bool:
        """Whether a prompt ends in words, as "ASSISTANT:" does; then answers begin with a space."""
        if not has_template(self.processor):
            return False
        last = int(self.encode([Request(content=("a",))])["input_ids"][0, -1])
        return last not in self.tokenizer.all_special_ids and not self.tokenizer.decode([last])[-1:].isspace()

    def _encode_answer(self, text: str) -> list[int]:
        """Tokens of a text as the model would write it behind a prompt."""
        if self._space:
            # Some tokenizers put a space of their own before a text, so it is encoded behind something.
            before, ids = (self.tokenizer.encode(part, add_special_tokens=False) for part in (":", f": {text}"))
            if ids[: len(before)] == before:
                return ids[len(before) :]
        return self.tokenizer.encode(text, add_special_tokens=False)

    @torch.inference_mode()
    def _write(
        self, inputs: Mapping[str, Tensor], *, limit: int, temperature: float, seeds: Sequence[int]
    ) -> list[list[int] | None]:
        """New tokens of every row, the end token included when it comes; None where logits were not finite."""
        start = inputs["input_ids"].shape[1]
        watch = FiniteWatch(start, self.ends)
        chooser = [SeededChoice(seeds, limit, start, temperature)] if temperature > 0 else []
        found = self._generate(**inputs, max_new_tokens=limit, do_sample=False, logits_processor=[watch, *chooser])
        rows = enumerate(found[:, start:].tolist())
        return [None if number in watch.broken else _cut(row, self.ends) for number, row in rows]

    def _generate(self, **inputs: Any) -> Tensor:
        return self.network.generate(**inputs)  # type: ignore[operator]  (a mixin that not every network has)

    def _text_output(self, ids: list[int] | None, room: int) -> TextOutput:
        if ids is None:
            detail = f"the logits are not finite ({str(self.network.dtype).removeprefix('torch.')})"
            return TextOutput(text=None, num_tokens=0, finish="none", outcome="malformed", detail=detail)
        if room < 1:
            detail = f"the request does not fit the model's context of {self.max_tokens} tokens"
            return TextOutput(text=None, num_tokens=0, finish="none", outcome="malformed", detail=detail)
        ids = ids[:room]
        finished = ids[-1:] != [] and ids[-1] in self.ends
        text = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return TextOutput(text=text, num_tokens=len(ids), finish="stop" if finished else "length")

    @torch.inference_mode()
    def _log_p(self, inputs: Mapping[str, Tensor], labels: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """(T,) float32 a row: log-probability of each label after the row's prompt, in nats."""
        whole, starts = append(inputs, labels, pad=self.tokenizer.pad_token_id)
        length = whole["input_ids"].shape[1]
        if length > self.max_tokens:
            raise ValueError(f"{length} tokens with the continuation; the model's context holds {self.max_tokens}")
        keep = length - min(starts) + 1
        logits_BKV = self.network(**whole, use_cache=False, logits_to_keep=keep).logits
        found = []
        for row, (start, label) in enumerate(zip(starts, labels, strict=True)):
            first = start - 1 - (length - logits_BKV.shape[1])  # a token is predicted from the position before it
            log_p_TV = logits_BKV[row, first : first + len(label)].float().log_softmax(dim=-1)
            labels_T1 = torch.tensor(label, device=log_p_TV.device)[:, None]
            found.append(log_p_TV.gather(1, labels_T1)[:, 0].cpu().numpy())
        return found


class FiniteWatch(LogitsProcessor):
    """Changes nothing, and notes the rows whose logits are no numbers before their text has ended."""

    def __init__(self, start: int, ends: Sequence[int]) -> None:
        self.broken: set[int] = set()
        self._start, self._ends = start, ends

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        ended_B = torch.isin(input_ids[:, self._start :], torch.tensor(self._ends, device=input_ids.device)).any(dim=1)
        broken_B = (scores.isnan() | scores.isposinf()).any(dim=1) & ~ended_B
        self.broken.update(torch.nonzero(broken_B)[:, 0].tolist())
        return scores


class SeededChoice(LogitsProcessor):
    """Leaves one token of every row possible: drawn with the row's own random numbers, whatever rows are beside it."""

    def __init__(self, seeds: Sequence[int], limit: int, start: int, temperature: float) -> None:
        self._uniform_BT = np.stack([np.random.Generator(np.random.Philox(seed)).random(limit) for seed in seeds])
        self._start, self._temperature = start, temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = input_ids.shape[1] - self._start
        chosen = torch.from_numpy(choose(scores, self._temperature, self._uniform_BT[:, step])).to(scores.device)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)


def append(
    inputs: Mapping[str, Tensor], labels: Sequence[Sequence[int]], *, pad: int
) -> tuple[dict[str, Tensor], list[int]]:
    """Prompts, their padding taken away, with tokens behind them, padded on the right; and where each row's begin."""
    ids_BL, mask_BL = inputs["input_ids"], inputs["attention_mask"]
    starts = mask_BL.sum(dim=1).tolist()
    longest = max(start + len(label) for start, label in zip(starts, labels, strict=True))
    whole = dict(inputs)
    for name, value in inputs.items():
        if value.shape != ids_BL.shape:
            continue  # pictures
        whole[name] = value.new_full((len(ids_BL), longest), pad if name == "input_ids" else 0)
        for row, (start, label) in enumerate(zip(starts, labels, strict=True)):
            whole[name][row, :start] = value[row, value.shape[1] - start :]
            if name in ("input_ids", "attention_mask"):
                new = torch.tensor(label, dtype=value.dtype, device=value.device)
                whole[name][row, start : start + len(label)] = new if name == "input_ids" else 1
    return whole, starts


def has_template(processor: Any) -> bool:
    return bool(processor.chat_template or getattr(processor.tokenizer, "chat_template", None))


def joined(request: Request) -> Request:
    """A drawing's request as one text, the thought its last line.

    Raises:
        CannotAskError: It holds a picture.
    """
    texts = [part for part in (*request.content, request.thought) if part is not None]
    if not all(isinstance(text, str) for text in texts):
        raise CannotAskError("a picture in the request of a drawing: models of hf:FOLDER draw from text alone")
    return replace(request, content=("\n".join(map(str, texts)),), think_prompt=None, thought=None)


def _cut(ids: list[int], ends: Sequence[int]) -> list[int]:
    """Up to the first end token: shorter rows are filled up to the longest."""
    return next((ids[: i + 1] for i, index in enumerate(ids) if index in ends), ids)
