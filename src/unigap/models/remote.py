"""A model behind a URL: answers by chat, draws through one of five interfaces, named in its address.

    openai:MODEL@URL                                answers and thinks; cannot draw
    openai:MODEL@URL?draw=vllm-omni&size=512x512    draws too

See docs/models.md for every setting.
"""

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import quote

import numpy as np
from PIL.Image import Image

from unigap.errors import UnknownNameError
from unigap.models.http import Fault, Post, RemoteClient, data_uri, read_address, take_http_settings
from unigap.models.protocol import Ability, DrawOutput, Request, Sampling, TextOutput
from unigap.models.replies import MODERATION_CODES, READERS, Shape, read_chat_text, read_gemini_text
from unigap.records import Outcome

SETTINGS = ("draw", "size", "seed", "thought", "pictures", "body.NAME")


@dataclass(frozen=True, kw_only=True)
class RemoteSampling(Sampling):
    """What a remote model is told beside the protocol's settings."""

    max_answer_tokens: int = 64
    """Servers write sentences where the embedded model writes a word."""
    draw: Shape | None = None
    """How pictures are asked for and come back; None: the model does not draw."""
    size: str | None = None
    """WIDTHxHEIGHT in pixels; None is the server's own."""
    send_seed: bool = True
    """Whether requests carry `seed`; some services refuse fields that they do not know."""
    thought: Literal["text", "field"] = "text"
    """How the instruction to think and a finished thought travel by chat: as a system message and a text behind the
    content, which every server takes; or in the body fields of `unigap serve`, which thinks as in one process."""
    draw_body: dict[str, Any] = field(default_factory=dict)
    """Further fields of drawing requests, as given."""

    def __post_init__(self) -> None:
        if self.draw is not None and self.draw not in get_args(Shape):
            raise UnknownNameError("draw", self.draw, get_args(Shape))
        if self.size is not None and not re.fullmatch(r"[1-9]\d{0,4}x[1-9]\d{0,4}", self.size):
            raise ValueError(f"size is WIDTHxHEIGHT in pixels, e.g. 1024x1024; got {self.size!r}")
        if self.thought not in ("text", "field"):
            raise UnknownNameError("thought", self.thought, ("text", "field"))
        if self.thought == "field" and self.draw not in (None, "vllm-omni"):
            raise ValueError(f"thought=field is for draw=vllm-omni, which is how unigap serve draws; got {self.draw}")
        if self.size is not None and self.draw in ("openrouter", "gemini"):
            raise ValueError(f"{self.draw} takes no size in pixels; name its own field, e.g. body.image_config={{...}}")


class RemoteModel:
    """See `unigap.models.protocol.Model` for the contract."""

    sha256 = "unknown"
    """A server does not say which weights answer."""

    def __init__(
        self,
        model: str,
        client: RemoteClient,
        *,
        sampling: RemoteSampling | None = None,
        pictures: Literal["sandbox", "photo"] = "photo",
    ) -> None:
        self.model, self._client = model, client
        self.pictures: Literal["sandbox", "photo"] = pictures
        self.name = f"openai:{model}@{client.base_url}"
        self.sampling: Sampling = sampling or RemoteSampling()
        can: set[Ability] = {"answer", "think"}
        if sampling and sampling.draw:
            can |= {"draw", "edit"}
        self.abilities: frozenset[Ability] = frozenset(can)
        # Two rounds a batch: a slow reply then holds up less than half of what is in flight.
        self.batch_size = 2 * client.settings.concurrency
        self.trained_on: dict[str, str] = {}

    @classmethod
    def from_address(cls, address: str) -> "RemoteModel":
        """A model from "MODEL@URL" with settings behind a question mark.

        Raises:
            ValueError: Not an address, an unknown setting, or a key is missing.
            UnknownNameError: An unknown way to draw or kind of pictures.
        """
        example = 'a remote model is "openai:MODEL@URL", e.g. openai:m@http://127.0.0.1:8000/v1'
        model, url, given = read_address(address, example)
        body = {name[5:]: _json_or_text(given.pop(name)) for name in list(given) if name.startswith("body.")}
        settings = take_http_settings(given, SETTINGS)
        pictures, seed = given.get("pictures", "photo"), given.get("seed", "yes")
        if pictures not in ("photo", "sandbox"):
            raise UnknownNameError("pictures", pictures, ("photo", "sandbox"))
        if seed not in ("yes", "no"):
            raise UnknownNameError("seed", seed, ("yes", "no"))
        sampling = RemoteSampling(
            draw=given.get("draw"),  # type: ignore[arg-type]  (checked by RemoteSampling)
            size=given.get("size"),
            send_seed=seed == "yes",
            thought=given.get("thought", "text"),  # type: ignore[arg-type]  (checked by RemoteSampling)
            draw_body=body,
        )
        return cls(model, RemoteClient(url, settings=settings), sampling=sampling, pictures=pictures)

    def answer(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[TextOutput]:
        settings = _own(sampling)
        posts = [self._text_post(r, settings, seed) for r, seed in zip(requests, seeds, strict=True)]
        read = read_gemini_text if settings.draw == "gemini" else read_chat_text
        return [_text_fault(got) if isinstance(got, Fault) else got for got in self._client.post_many(posts, read)]

    def draw(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[DrawOutput]:
        settings = _own(sampling)
        if settings.draw is None:
            raise ValueError(f"{self.name} has no way to draw; add ?draw=SHAPE to its address")
        posts = [self._draw_post(r, settings, seed) for r, seed in zip(requests, seeds, strict=True)]
        got = self._client.post_many(posts, READERS[settings.draw])
        return [
            DrawOutput(image=None, outcome=_outcome(one), detail=one.reason) if isinstance(one, Fault) else one
            for one in got
        ]

    def log_likelihood(self, requests: Sequence[Request], continuations: Sequence[str]) -> list[np.ndarray]:
        """Not among this model's abilities: servers do not give them for pictures."""
        raise NotImplementedError(f"{self.name} gives no log-likelihoods")

    # ---- requests --------------------------------------------------------------------------------------------------

    def _text_post(self, request: Request, settings: RemoteSampling, seed: int) -> Post:
        thinking = request.think_prompt is not None
        max_tokens = settings.max_think_tokens if thinking else settings.max_answer_tokens
        if settings.draw == "gemini":
            generation = {"maxOutputTokens": max_tokens, "temperature": settings.text_temperature}
            return self._gemini_post(request, generation, settings, seed)
        body = self._chat_body(request, settings, seed)
        return Post(
            path="/chat/completions", body=body | {"max_tokens": max_tokens, "temperature": settings.text_temperature}
        )

    def _draw_post(self, request: Request, settings: RemoteSampling, seed: int) -> Post:
        extra = settings.draw_body
        width, height = map(int, settings.size.split("x")) if settings.size else (None, None)
        match settings.draw:
            case "images":
                body = {"model": self.model, "prompt": _prompt(request), "n": 1}
                body |= _given(size=settings.size) | self._seed(settings, seed) | extra
                pngs = [_png(part) for part in request.content if not isinstance(part, str)]
                # OpenAI's name for one file and for several.
                name = "image" if len(pngs) == 1 else "image[]"
                path = "/images/edits" if pngs else "/images/generations"
                return Post(path=path, body=body, files=[(name, png) for png in pngs])
            case "responses":
                tool = {"type": "image_generation"} | _given(size=settings.size) | extra
                content = [
                    {"type": "input_text", "text": part}
                    if isinstance(part, str)
                    else {"type": "input_image", "image_url": data_uri(_png(part))}
                    for part in _parts(request)
                ]
                body = {"model": self.model, "input": [{"role": "user", "content": content}], "tools": [tool]}
                body |= {"tool_choice": {"type": "image_generation"}} | self._seed(settings, seed)
                return Post(path="/responses", body=body)
            case "gemini":
                return self._gemini_post(request, {"responseModalities": ["TEXT", "IMAGE"]} | extra, settings, seed)
            case _:
                modalities = ["image"] if settings.draw == "vllm-omni" else ["image", "text"]
                body = self._chat_body(request, settings, seed) | {"modalities": modalities}
                return Post(path="/chat/completions", body=body | _given(width=width, height=height) | extra)

    def _chat_body(self, request: Request, settings: RemoteSampling, seed: int) -> dict[str, Any]:
        content = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": data_uri(_png(part))}}
            for part in (request.content if settings.thought == "field" else _parts(request))
        ]
        messages = [{"role": "user", "content": content}]
        fields: dict[str, Any] = {}
        if settings.thought == "field":
            fields = _given(think_prompt=request.think_prompt, thought=request.thought)
        elif request.think_prompt is not None:
            messages.insert(0, {"role": "system", "content": request.think_prompt})
        return {"model": self.model, "messages": messages} | fields | self._seed(settings, seed)

    def _gemini_post(self, request: Request, generation: dict[str, Any], settings: RemoteSampling, seed: int) -> Post:
        parts = [
            {"text": part}
            if isinstance(part, str)
            else {"inlineData": {"mimeType": "image/png", "data": data_uri(_png(part)).partition(",")[2]}}
            for part in _parts(request)
        ]
        # Gemini's seeds have 32 bits, with sign.
        generation = generation | self._seed(settings, seed % 2**31)
        body: dict[str, Any] = {"contents": [{"role": "user", "parts": parts}], "generationConfig": generation}
        if request.think_prompt is not None:
            body["systemInstruction"] = {"parts": [{"text": request.think_prompt}]}
        return Post(path=f"/models/{quote(self.model, safe='')}:generateContent", body=body)

    def _seed(self, settings: RemoteSampling, seed: int) -> dict[str, int]:
        return {"seed": seed} if settings.send_seed else {}


def _own(sampling: Sampling) -> RemoteSampling:
    if not isinstance(sampling, RemoteSampling):
        raise ValueError(f"a remote model takes RemoteSampling, got {type(sampling).__name__}")
    return sampling


def _parts(request: Request) -> list[str | Image]:
    """The content, and behind it the thought that the model is to go on from."""
    return [*request.content, *([request.thought] if request.thought is not None else [])]


def _prompt(request: Request) -> str:
    return "\n\n".join(part for part in _parts(request) if isinstance(part, str))


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _outcome(fault: Fault) -> Outcome:
    moderated = fault.kind == "rejected" and fault.code in MODERATION_CODES
    return "refused" if moderated else "transport_error"


def _text_fault(fault: Fault) -> TextOutput:
    return TextOutput(text=None, num_tokens=0, finish="none", outcome=_outcome(fault), detail=fault.reason)
