"""OpenAI's bodies to requests of a model, and a model's outputs to OpenAI's replies; docs/serving.md has the tables."""

import base64
import binascii
import io
import json
import math
import secrets
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from PIL import Image

from unigap.arms import call_seed
from unigap.models.protocol import DrawOutput, Sampling, TextOutput

MAX_PICTURES, MAX_TOKENS, MAX_THOUGHT_CHARS = 16, 32_768, 100_000
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP")
NO_PICTURE = "Image generation completed but no images were produced."

COMMON = {"model", "n", "seed", "temperature", "think", "think_prompt", "thought", "max_think_tokens", "user"}
CHAT = COMMON | {"messages", "modalities", "max_tokens", "max_completion_tokens"}
IMAGES = COMMON | {"prompt"}

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "stream": (False,),
    "store": (False,),
    "logprobs": (False,),
    "top_p": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "response_format": ("b64_json", {"type": "text"}),
    "size": ("auto",),
    "quality": ("auto",),
    "background": ("auto", "opaque"),
    "output_format": ("png",),
}
"""Parameters that clients send at values which ask for nothing; at any other value they are refused."""


class ApiError(Exception):
    """A refusal in OpenAI's shape."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        kind = {429: "rate_limit_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a body asks for, checked."""

    content: tuple[str | Image.Image, ...]
    draw: bool
    sampling: Sampling
    seeds: tuple[int, ...]
    """One per answer or picture: the body's own, then seeds derived from it."""
    think: bool
    """Think first, then answer or draw with the thought."""
    think_prompt: str | None
    """Without `think`: the reply is the thought alone."""
    thought: str | None
    """A thought of an earlier request, to go on from."""


def parse_json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
        if b"\\u" in body:  # half of a surrogate pair is JSON, and no text
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"the body must be a JSON object, got {type(value).__name__}", code="invalid_json")
    return value


def parse_chat(body: Mapping[str, Any], default: Sampling, *, max_side_px: int) -> Ask:
    """A chat body: one user message, of text and of pictures as data URIs.

    Raises:
        ApiError: 400; the message names the parameter.
    """
    body = _known(body, CHAT)
    modalities = body.get("modalities", ["text"])
    if not isinstance(modalities, list) or not modalities or not all(m in ("text", "image") for m in modalities):
        raise _bad("modalities", 'must be ["text"], ["image"] or both', modalities)
    draw = "image" in modalities
    content = _messages(body.get("messages"), max_side_px)
    tokens = [
        (name, _integer(body, name, 1, MAX_TOKENS)) for name in ("max_tokens", "max_completion_tokens") if name in body
    ]
    if len(tokens) > 1 or (tokens and draw):
        why = "is for text; a picture has no token limit" if draw else "is given twice, as max_tokens too"
        raise ApiError(400, f"{tokens[-1][0]} {why}", param=tokens[-1][0])
    if tokens:
        default = replace(default, max_answer_tokens=tokens[0][1])
    return _ask(body, content, draw, default)


def parse_images(body: Mapping[str, Any], pictures: Sequence[Image.Image], default: Sampling) -> Ask:
    """A body of images/generations, or the fields of images/edits with its pictures.

    Raises:
        ApiError: 400; the message names the parameter.
    """
    body = _known(body, IMAGES)
    prompt = body.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise _bad("prompt", "must be a text that is not empty", prompt)
    return _ask(body, (*pictures, prompt), True, default)


def parse_fields(fields: Mapping[str, str]) -> dict[str, Any]:
    """Form fields, which are all texts, as a JSON body would have them."""
    values: dict[str, Any] = dict(fields)
    for name in ("n", "seed", "max_think_tokens", "temperature", "think", "stream"):
        if name in values:
            try:
                values[name] = json.loads(values[name])
            except ValueError:
                raise _bad(name, "must be a number, true or false", values[name]) from None
    return values


def parse_picture(data: bytes, where: str, *, max_side_px: int) -> Image.Image:
    """A picture of a client, as RGB; its size is read from its header before anything is decoded.

    Raises:
        ApiError: 400, it is none, or it is too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is far below Pillow's
            file = Image.open(io.BytesIO(data), formats=PICTURE_FORMATS)
        if max(file.size) > max_side_px:
            raise ApiError(
                400, f"{where}: {file.width} x {file.height} px; at most {max_side_px} px a side", param=where
            )
        return file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        message = f"{where}: {len(data)} bytes that are no readable {', '.join(PICTURE_FORMATS)} picture ({error})"
        raise ApiError(400, message, param=where, code="invalid_image") from None


def _known(body: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """The body without nulls and without parameters that ask for nothing."""
    body = {name: value for name, value in body.items() if value is not None}
    unknown = [name for name, value in body.items() if name not in known and value not in NEUTRAL.get(name, ())]
    if unknown:
        only = [f"{name} other than {json.dumps(NEUTRAL[name][0])}" for name in unknown if name in NEUTRAL]
        names = [name for name in unknown if name not in NEUTRAL] + only
        message = f"not supported by this server: {', '.join(names)}; supported: {', '.join(sorted(known))}"
        raise ApiError(400, message, param=unknown[0], code="unsupported_parameter")
    return {name: value for name, value in body.items() if name in known}


def _ask(body: Mapping[str, Any], content: tuple[str | Image.Image, ...], draw: bool, sampling: Sampling) -> Ask:
    num = _integer(body, "n", 1, MAX_PICTURES) if "n" in body else 1
    # Unseeded requests differ from one another; the reply says which seed it got.
    seed = _integer(body, "seed", 0, 2**63 - 1) if "seed" in body else secrets.randbits(63)
    if "temperature" in body:
        value = body["temperature"]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 2 or math.isnan(value):
            raise _bad("temperature", "must be a number from 0 to 2", value)
        name = "image_temperature" if draw else "text_temperature"
        sampling = replace(sampling, **{name: float(value)})
    think, prompt, thought = body.get("think", False), body.get("think_prompt"), body.get("thought")
    if not isinstance(think, bool):
        raise _bad("think", "must be true or false", think)
    for name, text in (("think_prompt", prompt), ("thought", thought)):
        if text is not None and (not isinstance(text, str) or not 0 < len(text) <= MAX_THOUGHT_CHARS):
            raise _bad(name, f"must be a text of 1 to {MAX_THOUGHT_CHARS} characters", text)
    if thought is not None and (think or prompt is not None):
        raise ApiError(400, "thought is for a request that does not think itself", param="thought")
    if prompt is not None and draw and not think:
        raise ApiError(400, 'think_prompt alone asks for a thought, which is text; or add "think": true', param="think")
    if "max_think_tokens" in body:
        if not think and prompt is None:
            raise ApiError(400, "max_think_tokens is for a request that thinks", param="max_think_tokens")
        sampling = replace(sampling, max_think_tokens=_integer(body, "max_think_tokens", 1, MAX_TOKENS))
    elif prompt is not None and not think and {"max_tokens", "max_completion_tokens"} & body.keys():
        sampling = replace(sampling, max_think_tokens=sampling.max_answer_tokens)
    seeds = (seed, *(call_seed(seed, f"choice {index}") for index in range(1, num)))
    return Ask(
        content=content, draw=draw, sampling=sampling, seeds=seeds, think=think, think_prompt=prompt, thought=thought
    )


def _messages(messages: Any, max_side_px: int) -> tuple[str | Image.Image, ...]:
    if not isinstance(messages, list) or len(messages) != 1 or not isinstance(messages[0], dict):
        raise ApiError(400, "messages must be a list of one message: the model keeps no conversation", param="messages")
    (message,) = messages
    extra = sorted(message.keys() - {"role", "content"})
    if message.get("role") != "user" or extra:
        what = f"fields {', '.join(extra)}" if message.get("role") == "user" else f"role {message.get('role')!r}"
        raise ApiError(400, f'messages[0] must have role "user" and content alone, got {what}', param="messages")
    content = message.get("content")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise _bad("messages", "content must be a text or a list of parts", content)
    parts = [_part(part, index, max_side_px) for index, part in enumerate(content)]
    if not any(not isinstance(part, str) or part.strip() for part in parts):
        raise ApiError(400, "messages[0].content is empty", param="messages")
    if sum(not isinstance(part, str) for part in parts) > MAX_PICTURES:
        raise ApiError(400, f"at most {MAX_PICTURES} pictures a message", param="messages")
    return tuple(parts)


def _part(part: Any, index: int, max_side_px: int) -> str | Image.Image:
    where = f"messages[0].content[{index}]"
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            head, comma, data = url.partition(",")
            if not (head.startswith("data:image/") and head.endswith(";base64") and comma):
                raise ApiError(400, f"{where}: only data:image/...;base64 addresses; nothing is fetched", param=where)
            try:
                return parse_picture(base64.b64decode(data, validate=True), where, max_side_px=max_side_px)
            except binascii.Error as error:
                raise ApiError(400, f"{where}: not base64: {error}", param=where, code="invalid_image") from None
        case _:
            raise ApiError(400, f"{where} must be a text part or an image_url part", param=where)


def _integer(body: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _bad(name, f"must be a whole number from {low} to {high}", value)
    return value


def _bad(name: str, must: str, value: object) -> ApiError:
    return ApiError(400, f"{name} {must}, got {str(value)[:80]!r}", param=name)


# ---- replies ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Made:
    """What came back for one seed."""

    output: TextOutput | DrawOutput
    thought: TextOutput | None = None
    png: bytes | None = None


def check_outcomes(made: Sequence[Made], *, images: bool) -> None:
    """Refuse what has no place in a reply: a model whose own server failed, and refusals of the images endpoints.

    Raises:
        ApiError: 502, or 400 with the code "moderation_blocked".
    """
    for one in made:
        if one.output.outcome == "transport_error":
            raise ApiError(502, f"the model could not be reached: {one.output.detail}", code="transport_error")
        if images and one.output.outcome == "refused":
            raise ApiError(400, f"the model refused: {one.output.detail}", code="moderation_blocked")


def chat_reply(model: str, ask: Ask, made: Sequence[Made]) -> dict[str, Any]:
    answer_tokens = [one.output.num_tokens for one in made if isinstance(one.output, TextOutput)]
    thought_tokens = [one.thought.num_tokens for one in made if one.thought is not None]
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [_choice(index, one, draw=ask.draw) for index, one in enumerate(made)],
        # The protocol does not count the tokens of prompts and pictures; null says so, which 0 would not.
        "usage": {
            "prompt_tokens": None,
            "completion_tokens": _sum(answer_tokens + thought_tokens),
            "total_tokens": None,
            "completion_tokens_details": {"reasoning_tokens": _sum(thought_tokens)},
        },
        "metrics": _metrics(ask, made),
    }


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _choice(index: int, one: Made, *, draw: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None}
    finish: Literal["stop", "length", "content_filter"] = "stop"
    if one.thought is not None:
        message["reasoning_content"] = one.thought.text
    if one.output.outcome == "refused":
        message["refusal"], finish = one.output.detail or "refused", "content_filter"
    elif one.png is not None:
        url = "data:image/png;base64," + base64.b64encode(one.png).decode()
        message["content"] = [{"type": "image_url", "image_url": {"url": url}}]
    elif draw:
        message["content"] = NO_PICTURE
    elif isinstance(one.output, TextOutput):
        message["content"] = one.output.text or ""
        finish = "length" if one.output.finish == "length" else "stop"
    return {"index": index, "message": message, "finish_reason": finish, "logprobs": None}


def images_reply(ask: Ask, made: Sequence[Made]) -> dict[str, Any]:
    data = [{"b64_json": base64.b64encode(one.png).decode()} for one in made if one.png is not None]
    return {"created": int(time.time()), "data": data, "output_format": "png", "metrics": _metrics(ask, made)}


def _metrics(ask: Ask, made: Sequence[Made]) -> dict[str, Any]:
    metrics: dict[str, Any] = {"seeds": list(ask.seeds), "details": [one.output.detail for one in made]}
    if ask.think:
        metrics["think_text"] = next((one.thought.text for one in made if one.thought is not None), None)
    return metrics
