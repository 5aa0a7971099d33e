"""A model of Inspect with the interface of ours, so that `unigap.arms` can ask it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import anyio.from_thread
from inspect_ai.model import (
    ChatMessage,
    ChatMessageSystem,
    ChatMessageUser,
    ContentImage,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
)

from unigap.bridges.inspect_provider import UnigapAPI, read_data_uri, to_data_uri
from unigap.models.protocol import Ability, DrawOutput, Request, Sampling, TextOutput
from unigap.server.shapes import ApiError


class AskedThroughInspect:
    """A model of Inspect with the interface of ours, to be used in a thread that anyio started.

    A model that is not ours gets the instruction to think as a system message and a finished thought behind the
    content, and is asked for pictures by `modalities`; it draws photos, as far as anyone knows.
    """

    batch_size: int
    trained_on: dict[str, str] = {}  # noqa: RUF012 (as the protocol declares it)

    def __init__(self, model: Model) -> None:
        self._model, own = model, model.api.model if isinstance(model.api, UnigapAPI) else None
        self.ours = own is not None
        self.name, self.sha256 = (own.name, own.sha256) if own else (str(model), "unknown")
        self.abilities: frozenset[Ability] = own.abilities if own else frozenset({"answer", "draw", "edit", "think"})
        self.pictures: Any = own.pictures if own else "photo"
        self.sampling = own.sampling if own else Sampling()
        self.batch_size = own.batch_size if own else model.api.max_connections()
        self.last: ModelOutput | None = None

    def answer(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[TextOutput]:
        return [_text(output) for output in self._outputs(requests, seeds, draw=False)]

    def draw(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[DrawOutput]:
        return [drawing_of(output) for output in self._outputs(requests, seeds, draw=True)]

    def log_likelihood(self, requests: Sequence[Request], continuations: Sequence[str]) -> Any:
        """Not used by any arm."""
        raise NotImplementedError(f"{self.name} is asked through Inspect, which gives no log-likelihoods")

    def _outputs(self, requests: Sequence[Request], seeds: Sequence[int], *, draw: bool) -> list[ModelOutput]:
        calls = [self._call(request, seed, draw=draw) for request, seed in zip(requests, seeds, strict=True)]
        outputs = anyio.from_thread.run(self._together, calls)
        self.last = outputs[-1]
        return outputs

    async def _together(self, calls: Sequence[tuple[list[ChatMessage], GenerateConfig]]) -> list[ModelOutput]:
        return await asyncio.gather(*(self._model.generate(messages, config=config) for messages, config in calls))

    def _call(self, request: Request, seed: int, *, draw: bool) -> tuple[list[ChatMessage], GenerateConfig]:
        parts: list[Any] = [
            ContentText(text=part) if isinstance(part, str) else ContentImage(image=to_data_uri(part))
            for part in request.content
        ]
        # Services take seeds of 32 bits with sign; the whole seed is what makes a drawing of ours the same again.
        config = GenerateConfig(seed=seed if self.ours else seed % 2**31, modalities=["image"] if draw else None)
        if self.ours:
            fields = {"think_prompt": request.think_prompt, "thought": request.thought, "purpose": request.purpose}
            config.extra_body = {name: value for name, value in fields.items() if value is not None}
            config.extra_body |= {"think_first": True} if request.think_first else {}
            return [ChatMessageUser(content=parts)], config
        parts += [ContentText(text=request.thought)] if request.thought is not None else []
        first = [ChatMessageSystem(content=request.think_prompt)] if request.think_prompt is not None else []
        return [*first, ChatMessageUser(content=parts)], config


def _text(output: ModelOutput) -> TextOutput:
    finish = "length" if output.stop_reason == "max_tokens" else "stop"
    tokens = output.usage.output_tokens if output.usage else None
    text, outcome, detail = output.message.text or None, *_outcome(output)
    if outcome != "ok" or text is None:
        outcome = "malformed" if outcome == "ok" else outcome
        return TextOutput(text=None, num_tokens=tokens, finish="none", outcome=outcome, detail=detail)
    return TextOutput(text=text, num_tokens=tokens, finish=finish, detail=detail, thought=_thought(output))


def drawing_of(output: ModelOutput) -> DrawOutput:
    """What a model of Inspect drew.

    Raises:
        ValueError: It gave an address of its picture; nothing is fetched.
    """
    outcome, detail = _outcome(output)
    content = output.message.content
    pictures = [] if isinstance(content, str) else [part.image for part in content if isinstance(part, ContentImage)]
    if outcome != "ok" or not pictures:
        outcome = "malformed" if outcome == "ok" else outcome
        return DrawOutput(image=None, outcome=outcome, detail=detail or output.message.text[:200] or "no picture came")
    try:
        image = read_data_uri(pictures[-1])  # of several, the last: some models draft first
    except (
        ApiError
    ) as error:  # data that is no picture is the model's failure; an address, which is not fetched, is not
        return DrawOutput(image=None, outcome="malformed", detail=str(error), thought=_thought(output))
    return DrawOutput(image=image, detail=detail, thought=_thought(output))


def _outcome(output: ModelOutput) -> tuple[Any, str]:
    said = output.metadata or {}
    detail = str(said.get("detail", ""))
    if output.stop_reason == "content_filter":
        return "refused", detail or output.message.text[:200]
    return said.get("outcome", "ok"), detail


def _thought(output: ModelOutput) -> str | None:
    content = output.message.content
    parts = [] if isinstance(content, str) else [part for part in content if isinstance(part, ContentReasoning)]
    return "\n".join(part.reasoning for part in parts) or None
