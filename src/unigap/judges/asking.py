"""What judges behind a URL have in common: material between tags, unusable replies in words, the hash of prompts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from unigap.models.http import Fault
from unigap.models.protocol import TextOutput
from unigap.records import Ruling

TAIL_CHARS: Final = 200
_FAULTS: Final = {"transport": "judge unreachable", "rejected": "request rejected", "bad_reply": "reply unusable"}


def tagged(tag: str, text: str) -> str:
    """Material between tags that it cannot close."""
    return f"<{tag}>\n{text.replace(f'</{tag}', f'< /{tag}')}\n</{tag}>"


def read_reply(reply: TextOutput | Fault) -> str | Ruling:
    """The text of a reply that has one; else what it comes to: unscored, with the reason."""
    if isinstance(reply, Fault):
        return Ruling.unscored(f"{_FAULTS[reply.kind]}: {reply.reason}")
    if reply.text is None:
        what = "judge refused" if reply.outcome == "refused" else "reply not understood"
        return Ruling.unscored(f"{what}: {reply.detail}")
    if reply.finish == "length":
        return not_understood("cut off", reply.text)
    return reply.text


def not_understood(problem: str, text: str) -> Ruling:
    """Unscored, with how the reply ends."""
    line = " ".join(text.split())
    return Ruling.unscored(f"reply not understood: {problem}: {line[-TAIL_CHARS:]!r}" if line else _EMPTY)


_EMPTY: Final = "reply not understood: it is empty"


def with_usage(ruling: Ruling, used: Sequence[Mapping[str, float]]) -> Ruling:
    """The ruling, its reading with what all of its replies used as far as they say (`read_usage`)."""
    names = dict.fromkeys(name for one in used for name in one)
    if not names:
        return ruling
    usage = {name: sum(one.get(name, 0) for one in used) for name in names}
    return replace(ruling, reading={**(ruling.reading or {}), "usage": usage})


def prompts_sha256(prompts: Mapping[str, str], body: Mapping[str, Any]) -> str:
    """Of the texts, of what each is for, and of the body fields that were given: they can change a verdict too."""
    digest = hashlib.sha256()
    for name, text in (*prompts.items(), *((f"body.{name}", json.dumps(body[name])) for name in sorted(body))):
        digest.update(hashlib.sha256(f"{name}\n{text}".encode()).digest())
    return digest.hexdigest()
