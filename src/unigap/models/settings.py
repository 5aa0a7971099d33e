"""A model's own settings behind its name: FOLDER?NAME=VALUE&..."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from unigap.errors import UnknownNameError
from unigap.models.protocol import Sampling

S = TypeVar("S", bound=Sampling)


def split_settings(folder: Path) -> tuple[Path, str]:
    """A folder, and the settings that follow it; "" if none do."""
    if folder.exists() or "?" not in str(folder):
        return folder, ""
    name, _, query = str(folder).partition("?")
    return Path(name), query


def with_weights(name: str, folder: Path) -> str:
    """A model's name with the weights of another folder and its own settings: "tiny:flow?num_steps=48" becomes
    "tiny:FOLDER?num_steps=48"."""
    kind, _, rest = name.partition(":")
    query = split_settings(Path(rest))[1]
    return f"{kind}:{folder}" + (f"?{query}" if query else "")


def read_query(query: str) -> dict[str, str]:
    """
    Raises:
        ValueError: A setting is given twice, or has no value.
    """
    given: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else ():
        if name in given:
            raise ValueError(f"setting {name!r} is given twice")
        given[name] = value
    return given


def change_settings(settings: S, query: str, *, of: str) -> S:
    """Settings with those of a query changed, e.g. "cfg_scale=3&max_answer_tokens=16".

    Args:
        of: The model, for errors.

    Raises:
        UnknownNameError: There is no such setting.
        ValueError: A value is not of the setting's kind, or is given twice.
    """
    given, known = read_query(query), [field.name for field in fields(settings)]
    for name in given:
        if name not in known:
            raise UnknownNameError(f"setting of {of}", name, known)
    return replace(settings, **{name: value_like(name, text, getattr(settings, name)) for name, text in given.items()})


def value_like(name: str, text: str, now: Any) -> Any:
    """A setting's value from JSON or text, of the kind that it has now.

    Raises:
        ValueError: It is of another kind.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    match now, value:
        case (bool(), bool()) | (str(), str()):
            return value
        case (int(), int()) if not isinstance(now, bool) and not isinstance(value, bool):
            return value
        case (float(), int() | float()) if not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        case (tuple(), [int() | float(), int() | float()]) if all(map(math.isfinite, value)):
            return tuple(map(float, value))
    raise ValueError(f"setting {name} is {text!r}; expected something like {json.dumps(now)}")
