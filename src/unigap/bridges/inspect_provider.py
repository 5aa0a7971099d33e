"""Our models as a provider of Inspect: `--model unigap/tiny`, `unigap/bagel:FOLDER`, `unigap/their.module:Class`.

A message of text and pictures is answered in text, or drawn if the modalities of the call name "image". Calls that wait
together share a forward. What the protocol knows beside (`unigap.models.protocol.Request`) travels in `extra_body`.
"""

import asyncio
import base64
import io
from dataclasses import replace
from typing import Any, Literal

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageUser,
    Content,
    ContentImage,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from PIL import Image

from unigap.models import find_model
from unigap.models.protocol import DrawOutput, Request, Sampling, TextOutput
from unigap.server.batching import Batcher
from unigap.server.shapes import ApiError, parse_picture

WAIT_S, MAX_SIDE_PX = 0.01, 8192
FIELDS = ("think_prompt", "thought", "purpose", "think_first")
"""What `extra_body` may hold: fields of a request."""


class UnigapAPI(ModelAPI):
    """A model of this package, as Inspect asks one.

    Args:
        model_name: As of `unigap eval --model`.
        device, dtype: As of `unigap eval`; model arguments of Inspect (`-M device=cpu`).
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self.model = find_model(model_name, device=device, dtype=dtype)
        self._batcher: Batcher | None = None
        self._work: asyncio.Task[None] | None = None

    def max_connections(self) -> int:
        # While one batch is drawn, the next gathers.
        return 2 * self.model.batch_size

    def connection_key(self) -> str:
        return self.model.name

    async def aclose(self) -> None:
        if self._work is not None and not self._work.get_loop().is_closed():
            self._work.cancel()
        self._work = None

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002 (as Inspect names it)
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """
        Raises:
            ValueError: More than one message of a user, or tools: a model of unigap reads one request.
            ConnectionError: The model is behind a URL and could not be reached; Inspect counts a sample's error.
        """
        if tools:
            raise ValueError(f"{self.model.name} uses no tools; {len(tools)} were given")
        draw = "image" in (config.modalities or ())
        request = _request(input, config.extra_body or {}, draw=draw)
        sampling = _sampling(self.model.sampling, config, request, draw=draw)
        batcher = self._running()
        if draw:
            output = await batcher.draw(request, sampling=sampling, seed=config.seed or 0)
        else:
            output = await batcher.answer(request, sampling=sampling, seed=config.seed or 0)
        if output.outcome == "transport_error":
            raise ConnectionError(f"{self.model.name}: {output.detail}")
        return _output(self.model.name, output)

    def _running(self) -> Batcher:
        """The batcher of this event loop: Inspect keeps a model from one evaluation to the next, but not its loop."""
        loop = asyncio.get_running_loop()
        if self._batcher is None or self._work is None or self._work.done() or self._work.get_loop() is not loop:
            self._batcher = Batcher(self.model, batch_size=self.model.batch_size, wait_s=WAIT_S)
            self._work = loop.create_task(self._batcher.run())
        return self._batcher


def _request(messages: list[ChatMessage], fields: dict[str, Any], *, draw: bool) -> Request:
    if len(messages) != 1 or not isinstance(messages[0], ChatMessageUser):
        roles = ", ".join(message.role for message in messages)
        raise ValueError(f"a model of unigap reads one message of a user, got: {roles or 'none'}")
    if unknown := sorted(fields.keys() - set(FIELDS)):
        raise ValueError(f"extra_body: unknown {', '.join(unknown)}; known: {', '.join(FIELDS)}")
    content = messages[0].content
    parts = [content] if isinstance(content, str) else [_part(part) for part in content]
    return Request(content=tuple(parts), **{"purpose": "draw" if draw else "answer", **fields})


def _part(part: Content) -> str | Image.Image:
    match part:
        case ContentText():
            return part.text
        case ContentImage():
            return read_data_uri(part.image)
        case _:
            raise ValueError(f"a model of unigap reads text and pictures, got {part.type}")


def _sampling(own: Sampling, config: GenerateConfig, request: Request, *, draw: bool) -> Sampling:
    """The model's own settings, but for what the user of Inspect set (`--temperature`, `--max-tokens`)."""
    changes: dict[str, Any] = {}
    if config.temperature is not None:
        changes["image_temperature" if draw else "text_temperature"] = config.temperature
    if config.max_tokens is not None and not draw:
        thinks = request.think_prompt is not None and not request.think_first
        changes["max_think_tokens" if thinks else "max_answer_tokens"] = config.max_tokens
    return replace(own, **changes)


def _output(name: str, output: TextOutput | DrawOutput) -> ModelOutput:
    content: list[Content] = [ContentReasoning(reasoning=output.thought)] if output.thought else []
    finish: Literal["stop", "max_tokens", "content_filter"] = "stop"
    tokens = output.usage.get("tokens")
    if isinstance(output, TextOutput):
        tokens, finish = output.num_tokens, "max_tokens" if output.finish == "length" else "stop"
    if output.outcome == "refused":
        content, finish = [ContentText(text=output.detail or "refused")], "content_filter"
    elif isinstance(output, DrawOutput) and output.image is not None:
        content.append(ContentImage(image=to_data_uri(output.image)))
    elif isinstance(output, TextOutput) and output.text is not None:
        content.append(ContentText(text=output.text))
    message = ChatMessageAssistant(content=content, model=name, source="generate")
    return ModelOutput(
        model=name,
        choices=[ChatCompletionChoice(message=message, stop_reason=finish)],
        # Prompts are not counted by the protocol, and a count is demanded.
        usage=ModelUsage(output_tokens=int(tokens or 0), total_tokens=int(tokens or 0)),
        metadata={"outcome": output.outcome, "detail": output.detail},
    )


# ---- pictures --------------------------------------------------------------------------------------------------------


def to_data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def read_data_uri(address: str) -> Image.Image:
    """A picture given as data; nothing is fetched.

    Raises:
        ValueError: It is an address of another kind.
        ApiError: It is not base64 of a PNG, JPEG or WEBP, or larger than `MAX_SIDE_PX` a side.
    """
    head, comma, data = address.partition(",")
    if not (head.startswith("data:image/") and head.endswith(";base64") and comma):
        raise ValueError(f"a picture must be a data:image/...;base64 address, got {address[:60]!r}; nothing is fetched")
    try:
        decoded = base64.b64decode(data, validate=True)
    except ValueError as error:
        raise ApiError(400, f"a picture is not base64: {error}", code="invalid_image") from None
    return parse_picture(decoded, "a picture", max_side_px=MAX_SIDE_PX)
