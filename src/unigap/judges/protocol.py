"""What a judge must do: say of answers and pictures whether they are right, and blame whoever failed.

A model's failure is `Ruling.incorrect`, with a short code of what is wrong. A judge's own failure (a timeout, a reply
it cannot make sense of) is `Ruling.unscored`, with the reason; a judge does not raise for it.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

from PIL.Image import Image

from unigap.items import Item
from unigap.records import Ruling


@runtime_checkable
class Judge(Protocol):
    """Every list it returns has one ruling per item, in order."""

    name: str
    version: str
    """Raised whenever the same answer could get another verdict."""
    prompt_sha256: str | None
    """Hash of the instructions it is given; None if it needs none."""
    pictures: frozenset[Literal["sandbox", "photo"]]
    """Which models' drawings it can read (`Model.pictures`)."""
    answer_kinds: frozenset[str]
    """Which answers it can compare with (keys of `items.ANSWER_KINDS`)."""
    batch_size: int
    """How many it likes to get at once."""

    def judge_texts(self, items: Sequence[Item], texts: Sequence[str]) -> list[Ruling]: ...

    def judge_pictures(self, items: Sequence[Item], images: Sequence[Image]) -> list[Ruling]: ...
