"""What a server of `unigap serve` says about its model, in its list of models."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from unigap.models.http import Fault, Post, RemoteClient
from unigap.models.protocol import Ability, Sampling

LOOK_TIMEOUT_S, LOOK_BUDGET_S = 10.0, 1.0


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model behind `unigap serve`."""

    sha256: str
    abilities: frozenset[Ability]
    pictures: Literal["sandbox", "photo"]
    trained_on: dict[str, str]
    sampling: dict[str, Any]
    """The model's own settings of the protocol, by name; those that it does not state are absent."""


def look_up(client: RemoteClient, model: str) -> Served | None:
    """What serves a model, if it is `unigap serve`; None of any other server.

    Asks for /models. A server that does not give it changes nothing, and a line on stderr says so.
    """
    settings = replace(
        client.settings,
        timeout_s=min(client.settings.timeout_s, LOOK_TIMEOUT_S),
        retry_budget_s=min(client.settings.retry_budget_s, LOOK_BUDGET_S),
    )
    found = client.with_settings(settings).post_many([Post(path="/models", method="GET")], lambda reply: (reply,))[0]
    if isinstance(found, Fault):
        print(
            f"note: {client.base_url}/models gave no list ({found.reason}), so nothing is known of the model but what "
            "its address says. If it is unigap serve, start it first: a run's identity holds what its list says.",
            file=sys.stderr,
        )
        return None
    return _read(found[0], model)


def _read(reply: Any, model: str) -> Served | None:
    entries = reply.get("data") if isinstance(reply, Mapping) else None
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping) and (entry.get("id"), entry.get("owned_by")) == (model, "unigap"):
            return _served(entry)
    return None


def _served(entry: Mapping[str, Any]) -> Served | None:
    """None if the entry is not as our server writes it: then it is somebody else's."""
    sha256, pictures, abilities = entry.get("sha256"), entry.get("pictures"), entry.get("abilities")
    trained_on, stated = entry.get("trained_on"), entry.get("sampling")
    if not (
        isinstance(sha256, str)
        and re.fullmatch(r"[0-9a-f]{64}|unknown", sha256)
        and pictures in ("sandbox", "photo")
        and isinstance(abilities, list)
        and isinstance(trained_on, Mapping)
        and isinstance(stated, Mapping)
    ):
        return None
    known: dict[str, type] = {field.name: type(field.default) for field in fields(Sampling)}
    return Served(
        sha256=sha256,
        abilities=frozenset(name for name in get_args(Ability) if name in abilities),
        pictures=pictures,
        trained_on={str(family): str(what) for family, what in trained_on.items()},
        sampling={name: stated[name] for name, kind in known.items() if type(stated.get(name)) is kind},
    )
