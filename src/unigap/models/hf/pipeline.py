"""A text-to-image pipeline of diffusers as a respondent: it draws, and does nothing else."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import diffusers
import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from unigap.errors import CannotAskError, WeightsError
from unigap.models.hf.load import hash_weights, read_json
from unigap.models.hf.reader import joined
from unigap.models.protocol import Ability, DrawOutput, Request, Sampling, TextOutput
from unigap.models.settings import change_settings


@dataclass(frozen=True, kw_only=True)
class PipelineSampling(Sampling):
    """Settings that most pipelines have; defaults are those of the pipeline's own call."""

    num_inference_steps: int = 0
    """0 leaves it to the pipeline, where its call has no default."""
    guidance_scale: float = -1.0
    """Below 0 leaves it to the pipeline; 0 is off for pipelines made for that."""
    height_px: int = 0
    """Of a drawing; 0 leaves it to the pipeline."""
    width_px: int = 0


class PipelineModel:
    """See `unigap.models.protocol.Model` for the contract."""

    abilities: frozenset[Ability] = frozenset({"draw"})
    pictures: Literal["sandbox", "photo"] = "photo"

    def __init__(self, pipeline: Any, *, name: str, sha256: str) -> None:
        self.pipeline, self.name, self.sha256 = pipeline, name, sha256
        self.batch_size = 8 if pipeline.device.type == "cuda" else 2
        self.trained_on: dict[str, str] = {}
        self.sampling: Sampling = _default_sampling(type(pipeline))
        pipeline.set_progress_bar_config(disable=True)

    @classmethod
    def load(cls, folder: Path, query: str, *, device: str, dtype: torch.dtype) -> "PipelineModel":
        kind = check_folder(folder)
        _check_taken(kind, change_settings(_default_sampling(kind), query, of="hf"))  # before anything is loaded
        sha256 = hash_weights(folder, "*/*.safetensors")
        try:
            pipeline = kind.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)
        except (OSError, ValueError) as error:
            raise WeightsError(f"{folder} cannot be loaded: {error}") from error
        model = cls(pipeline.to(device), name=f"hf:{folder.resolve().name}", sha256=sha256)
        model.sampling = change_settings(model.sampling, query, of="hf")
        return model

    def draw(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[DrawOutput]:
        """See the protocol. Noise comes from each request's own seed, on the CPU.

        Raises:
            CannotAskError: A request holds a picture.
        """
        if not requests:
            return []
        settings = sampling if isinstance(sampling, PipelineSampling) else replace(self.sampling, **vars(sampling))
        assert isinstance(settings, PipelineSampling)
        prompts = [str(joined(request).content[0]) for request in requests]
        made = self.pipeline(
            prompt=prompts,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            **_given(settings),
            output_type="np",
        )
        flagged = getattr(made, "nsfw_content_detected", None) or [False] * len(prompts)
        return [
            self._output(pixels, bool(flag), prompt)
            for pixels, flag, prompt in zip(made.images, flagged, prompts, strict=True)
        ]

    def answer(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[TextOutput]:
        """Not among this model's abilities."""
        raise CannotAskError(f"{self.name} does not answer; it draws alone. To pair it with one that answers: pair:A+B")

    def log_likelihood(self, requests: Sequence[Request], continuations: Sequence[str]) -> list[np.ndarray]:
        """Not among this model's abilities."""
        raise CannotAskError(f"{self.name} gives no log-likelihoods; it draws alone")

    def _output(self, pixels_HWC: np.ndarray, flagged: bool, prompt: str) -> DrawOutput:
        note = self._cut_note(prompt)
        if flagged:
            detail = "; ".join(filter(None, ("the pipeline's safety checker took the picture away", note)))
            return DrawOutput(image=None, outcome="refused", detail=detail)
        if not np.isfinite(pixels_HWC).all():
            return DrawOutput(image=None, outcome="malformed", detail="the pixels are not finite")
        return DrawOutput(image=self.pipeline.numpy_to_pil(pixels_HWC[None])[0], detail=note)

    def _cut_note(self, prompt: str) -> str:
        """Says that a prompt was longer than all of the pipeline's text encoders read, which it does not."""
        tokenizers = [part for name, part in self.pipeline.components.items() if name.startswith("tokenizer") and part]
        limits = [part.model_max_length for part in tokenizers]
        lengths = [len(part(prompt, truncation=False, verbose=False).input_ids) for part in tokenizers]
        if not limits or any(length <= limit for length, limit in zip(lengths, limits, strict=True)):
            return ""
        return f"the prompt has {max(lengths)} tokens, of which {max(limits)} were read"


def check_folder(folder: Path) -> type:
    """The class of a pipeline that draws from text and whose parts are all of the installed libraries.

    Raises:
        WeightsError: It is of another kind, or brings code of its own.
    """
    index = read_json(folder / "model_index.json")
    named = index.get("_class_name")
    kind = getattr(diffusers, named, None) if isinstance(named, str) else None
    if not (isinstance(kind, type) and issubclass(kind, DiffusionPipeline)):
        raise WeightsError(f"{folder}: diffusers {diffusers.__version__} has no pipeline {named!r}; code is not run")
    for part, where in index.items():
        if isinstance(where, list) and where[0] is not None and where[0] not in LIBRARIES:
            known = hasattr(diffusers.pipelines, str(where[0]))
            if not known or (folder / part / f"{where[0]}.py").exists():
                raise WeightsError(f"{folder}: its {part} is from {where[0]!r}; code in a folder is not run")
    takes = inspect.signature(kind.__call__).parameters  # type: ignore[attr-defined]
    needed = {
        name for name, p in takes.items() if p.default is p.empty and name not in ("self", "args", "kwargs", "prompt")
    }
    if "prompt" not in takes or "generator" not in takes or needed:
        raise WeightsError(f"{folder}: {named} does not draw from text alone (needs {', '.join(sorted(needed))})")
    return kind


LIBRARIES = ("diffusers", "transformers")


def _given(settings: PipelineSampling) -> dict[str, Any]:
    """What is passed on to the pipeline's call."""
    given = {
        "num_inference_steps": settings.num_inference_steps or None,
        "guidance_scale": None if settings.guidance_scale < 0 else settings.guidance_scale,
        "height": settings.height_px or None,
        "width": settings.width_px or None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _check_taken(kind: type, settings: PipelineSampling) -> None:
    takes = inspect.signature(kind.__call__).parameters  # type: ignore[attr-defined]
    if lacking := [name for name in _given(settings) if name not in takes]:
        raise ValueError(f"{kind.__name__} takes no {', '.join(lacking)}; leave that setting out")


def _default_sampling(kind: type) -> PipelineSampling:
    """Of the pipeline's own call."""
    takes = inspect.signature(kind.__call__).parameters  # type: ignore[attr-defined]
    names = [name for name in ("num_inference_steps", "guidance_scale") if name in takes]
    given = {name: takes[name].default for name in names if isinstance(takes[name].default, int | float)}
    return replace(PipelineSampling(), **given)
