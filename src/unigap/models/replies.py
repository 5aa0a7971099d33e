"""The five shapes in which servers return pictures, and chat text, as one kind of result each.

    images      OpenAI's Images API: data[0].b64_json
    responses   OpenAI's Responses API: an output item "image_generation_call" whose `result` is base64
    vllm-omni   chat whose message content is a list with image_url parts
    openrouter  chat whose message has `images` beside its content
    gemini      generateContent: candidates[0].content.parts[].inlineData

A reply that is not of the shape at all raises `BadReplyError` (the server's failure); a whole reply without a picture
that can be read is "malformed" (the model's). What a server shows of its own thinking comes with either, and so does
what it says it used (`read_usage`).
"""

import base64
import binascii
import io
import math
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from PIL import Image

from unigap.models.http import BadReplyError, cut_middle
from unigap.models.protocol import DrawOutput, TextOutput

Shape = Literal["images", "responses", "vllm-omni", "openrouter", "gemini"]

MAX_PICTURE_BYTES = 64_000_000
MAX_SIDE_PX = 8192
"""Larger pictures are not decoded: a file of a few kilobytes can ask for gigabytes."""

MODERATION_CODES = frozenset({"moderation_blocked", "content_policy_violation", "content_filter"})
GEMINI_REFUSALS = frozenset({"SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION", "IMAGE_SAFETY"})


# ---- pictures --------------------------------------------------------------------------------------------------------


def decode_picture(encoded: str) -> DrawOutput:
    """A picture from base64 or a data URI; malformed, with the reason, if it is none or too large."""
    if encoded.startswith(("http://", "https://")):
        # It would be a request to a host that nobody named.
        raise BadReplyError("the reply has a URL in place of the picture, and URLs are not fetched; ask for base64")
    if encoded.startswith("data:"):
        encoded = encoded.partition(",")[2]
    if len(encoded) > MAX_PICTURE_BYTES * 4 // 3 + 4:
        return _malformed(f"the picture has {len(encoded)} characters of base64, more than {MAX_PICTURE_BYTES} bytes")
    try:
        data = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        return _malformed(f"the picture is not base64: {error}")
    if not data:
        return _malformed("the picture has 0 bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "GIF")) as file:
                if max(file.size) > MAX_SIDE_PX:
                    return _malformed(f"the picture is {file.width} x {file.height} px, at most {MAX_SIDE_PX} are read")
                return DrawOutput(image=file.convert("RGB"))
    except Image.DecompressionBombError:
        return _malformed(f"the picture is far larger than {MAX_SIDE_PX} px a side")
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        return _malformed(f"the picture cannot be decoded: {type(error).__name__} in {len(data)} bytes")


def _malformed(detail: str) -> DrawOutput:
    return DrawOutput(image=None, outcome="malformed", detail=detail)


def _refused(why: str) -> DrawOutput:
    return DrawOutput(image=None, outcome="refused", detail=f"refused: {cut_middle(why)}")


def _no_picture(said: object) -> DrawOutput:
    return _malformed(f"the reply has no picture; it says {cut_middle(str(said))!r}")


def _read_images(reply: Any) -> DrawOutput:
    data = _get(reply, "data", list)
    if not data:
        return _no_picture("")
    encoded = _optional(data[0], "b64_json") or _optional(data[0], "url")
    return decode_picture(encoded) if isinstance(encoded, str) else _no_picture(_optional(data[0], "revised_prompt"))


def _read_responses(reply: Any) -> DrawOutput:
    texts = []
    for item in _get(reply, "output", list):
        if _optional(item, "type") == "image_generation_call":
            if isinstance(result := _optional(item, "result"), str):
                return decode_picture(result)
            error = _optional(item, "error")
            code = str(_optional(error, "code") or "")
            if code in MODERATION_CODES or "moderation" in code:
                return _refused(code)
            texts.append(f"status {_optional(item, 'status')} {_optional(error, 'message') or ''}".strip())
        for part in _optional(item, "content") or []:
            if _optional(part, "type") == "refusal":
                return _refused(str(_optional(part, "refusal")))
            texts.append(str(_optional(part, "text") or ""))
    return _no_picture(" ".join(texts))


def _read_vllm_omni(reply: Any) -> DrawOutput:
    # Text and picture of a two-stage server come as separate choices, whatever their index says.
    texts = []
    for message in _messages(reply):
        if refusal := _optional(message, "refusal"):
            return _refused(str(refusal))
        content = _optional(message, "content")
        for part in content if isinstance(content, list) else []:
            if isinstance(url := _optional(_optional(part, "image_url"), "url"), str):
                return decode_picture(url)
        texts += [_chat_text(content)] if content is not None else []
    if not texts:
        raise BadReplyError("the content of every choice is null")
    return _no_picture(" ".join(texts))


def _read_openrouter(reply: Any) -> DrawOutput:
    message = next(_messages(reply))
    if refusal := _optional(message, "refusal"):
        return _refused(str(refusal))
    for image in _optional(message, "images") or []:
        if isinstance(url := _optional(_optional(image, "image_url"), "url"), str):
            return decode_picture(url)
    if (content := _optional(message, "content")) is None:
        raise BadReplyError("the message has neither images nor content")
    return _no_picture(_chat_text(content))


def _read_gemini(reply: Any) -> DrawOutput:
    parts, refusal, _ = _gemini_parts(reply)
    parts = [part for part in parts if not _optional(part, "thought")]  # a draft is not the picture
    for part in parts:
        inline = _optional(part, "inlineData") or _optional(part, "inline_data")
        if isinstance(data := _optional(inline, "data"), str):
            return decode_picture(data)
    return _refused(refusal) if refusal else _no_picture(" ".join(str(_optional(p, "text") or "") for p in parts))


_READERS: Mapping[Shape, Callable[[Any], DrawOutput]] = {
    "images": _read_images,
    "responses": _read_responses,
    "vllm-omni": _read_vllm_omni,
    "openrouter": _read_openrouter,
    "gemini": _read_gemini,
}


def read_drawing(reply: Any, shape: Shape) -> DrawOutput:
    """A drawing from a reply's parsed JSON, with the thought before it if the reply shows one.

    Raises:
        BadReplyError: The reply is not of that shape.
    """
    output, thought = _READERS[shape](reply), None
    if shape in ("vllm-omni", "openrouter"):
        thought = _optional(_optional(reply, "metrics"), "think_text")
        thoughts = (_own_thought(_optional(choice, "message")) for choice in _get(reply, "choices", list))
        thought = thought or next(filter(None, thoughts), None)
    elif shape == "gemini":
        thought = _gemini_thought(_gemini_parts(reply)[0])
    detail = "; ".join(filter(None, (output.detail, _model_detail(reply))))
    return replace(output, thought=thought if isinstance(thought, str) and thought else None, detail=detail)


# ---- text ------------------------------------------------------------------------------------------------------------


def read_chat_text(reply: Any) -> TextOutput:
    """The first choice of a chat completion.

    Raises:
        BadReplyError: No choices, or null content where a thought has not used up all tokens.
    """
    choice = _get(reply, "choices", list)[:1]
    message = next(_messages(reply))
    num_tokens = _num_tokens(reply)
    if refusal := _optional(message, "refusal"):
        return _refused_text(str(refusal), num_tokens)
    finish = _optional(choice[0], "finish_reason")
    if finish == "content_filter":
        return _refused_text("content_filter", num_tokens)
    thought = _own_thought(message)
    content = _optional(message, "content")
    if not content and thought and finish == "length":
        return _thought_alone(thought, num_tokens)
    if content is None:
        raise BadReplyError(f"the content is null (finish_reason {finish!r})")
    end: Literal["stop", "length"] = "length" if finish == "length" else "stop"
    return TextOutput(
        text=_chat_text(content), num_tokens=num_tokens, finish=end, thought=thought, detail=_model_detail(reply)
    )


def read_gemini_text(reply: Any) -> TextOutput:
    """The first candidate of generateContent, without parts marked as thought.

    Raises:
        BadReplyError: No candidates, or one without parts.
    """
    parts, refusal, finish = _gemini_parts(reply)
    num_tokens, thought = _num_tokens(reply), _gemini_thought(parts)
    if refusal:
        return _refused_text(refusal, num_tokens)
    if thought and finish == "MAX_TOKENS" and all(_optional(part, "thought") for part in parts):
        return _thought_alone(thought, num_tokens)
    text = "".join(str(_optional(part, "text") or "") for part in parts if not _optional(part, "thought"))
    end: Literal["stop", "length"] = "length" if finish == "MAX_TOKENS" else "stop"
    return TextOutput(text=text, num_tokens=num_tokens, finish=end, thought=thought)


def _num_tokens(reply: Any) -> int | None:
    tokens = read_usage(reply).get("tokens")
    return None if tokens is None else int(tokens)


def _refused_text(why: str, num_tokens: int | None) -> TextOutput:
    return TextOutput(
        text=None, num_tokens=num_tokens, finish="none", outcome="refused", detail=f"refused: {cut_middle(why)}"
    )


def _thought_alone(thought: str, num_tokens: int | None) -> TextOutput:
    detail = f"the token limit ended a thought of {len(thought)} characters before an answer began"
    return TextOutput(
        text=None, num_tokens=num_tokens, finish="length", outcome="malformed", detail=detail, thought=thought
    )


# ---- usage -----------------------------------------------------------------------------------------------------------


def read_usage(reply: Any) -> dict[str, float]:
    """What a reply of any shape says it used; what it does not say is absent.

    Returns:
        `prompt_tokens`, `tokens` (all that were written, thoughts too), `reasoning_tokens` (of these, thoughts) and
        `cost` in the server's own unit.
    """
    used, google = _optional(reply, "usage"), _optional(reply, "usageMetadata")
    details = _optional(used, "completion_tokens_details") or _optional(used, "output_tokens_details")
    found: dict[str, float | None] = {
        "prompt_tokens": _number(used, "prompt_tokens", "input_tokens"),
        "tokens": _number(used, "completion_tokens", "output_tokens"),
        "reasoning_tokens": _number(details, "reasoning_tokens"),
        "cost": _number(used, "cost"),
    }
    if google is not None:
        written, thought = _number(google, "candidatesTokenCount"), _number(google, "thoughtsTokenCount")
        # Google counts thoughts apart, OpenAI among what was written.
        both = None if written is None and thought is None else (written or 0) + (thought or 0)
        found |= {"prompt_tokens": _number(google, "promptTokenCount"), "tokens": both, "reasoning_tokens": thought}
    return {name: value for name, value in found.items() if value is not None}


def _number(block: Any, *names: str) -> float | None:
    for name in names:
        value = _optional(block, name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
            return value
    return None


# ---- pieces of replies -----------------------------------------------------------------------------------------------


def _optional(data: Any, name: str) -> Any:
    return data.get(name) if isinstance(data, Mapping) else None


def _get(data: Any, name: str, kind: type) -> Any:
    if not isinstance(value := _optional(data, name), kind):
        error = _optional(_optional(data, "error"), "message")
        raise BadReplyError(f"the reply has no {kind.__name__} {name!r}" + (f"; it says {error!r}" if error else ""))
    return value


def _messages(reply: Any) -> Iterator[Mapping[str, Any]]:
    choices = _get(reply, "choices", list)
    if not choices:
        raise BadReplyError("the reply has no choices")
    for choice in choices:
        message = _get(choice, "message", Mapping)
        if _optional(choice, "finish_reason") == "content_filter" and not _optional(message, "refusal"):
            message = {**message, "refusal": "content_filter"}
        yield message


def _chat_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadReplyError(f"the content is a {type(content).__name__}, not text or a list of parts")
    return "".join(str(_optional(part, "text") or "") for part in content)


def _model_detail(reply: Any) -> str:
    """What the model behind `unigap serve` noted of the first answer or picture."""
    details = _optional(_optional(reply, "metrics"), "details")
    return cut_middle(details[0], 1000) if isinstance(details, list) and details and isinstance(details[0], str) else ""


def _own_thought(message: Any) -> str | None:
    """What a chat message shows of the server's thinking, by either of its two names."""
    own = _optional(message, "reasoning_content") or _optional(message, "reasoning")
    return own if isinstance(own, str) and own.strip() else None


def _gemini_thought(parts: list[Any]) -> str | None:
    return "".join(str(_optional(part, "text") or "") for part in parts if _optional(part, "thought")) or None


def _gemini_parts(reply: Any) -> tuple[list[Any], str, str]:
    """Parts, why it was refused ("" if it was not) and how it ended."""
    if block := _optional(_optional(reply, "promptFeedback"), "blockReason"):
        return [], str(block), ""
    candidates = _get(reply, "candidates", list)
    if not candidates:
        raise BadReplyError("the reply has no candidates")
    finish = str(_optional(candidates[0], "finishReason") or "")
    parts = _optional(_optional(candidates[0], "content"), "parts")
    if finish in GEMINI_REFUSALS and not parts:
        return [], finish, finish
    if not isinstance(parts, list):
        raise BadReplyError(f"the candidate has no parts (finishReason {finish!r})")
    return parts, "", finish
