"""What a judge must do: say of answers and pictures whether they are right, and blame whoever failed.

A model's failure is `Ruling.incorrect`, with a short code of what is wrong. A judge's own failure (a timeout, a reply
it cannot make sense of) is `Ruling.unscored`, with the reason; a judge does not raise for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from PIL.Image import Image

from unigap.items import Direction, Item
from unigap.records import Ruling


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What a model handed in for an item: a text or a picture, with what a judge may look at beside it."""

    item: Item
    text: str | None = None
    image: Image | None = None
    png: bytes | None = None
    """The picture's own file, if it is a PNG of just these pixels."""
    said: str | None = None
    """Beside a picture: what the same model answered in text, in the same arm and sample; None if it did not."""
    image_root: Path | None = None
    """Folder that paths of the item's own pictures start from."""

    def __post_init__(self) -> None:
        if (self.text is None) == (self.image is None):
            raise ValueError(f"item {self.item.id!r}: a submission is either a text or a picture")

    @property
    def direction(self) -> Direction:
        return "understanding" if self.image is None else "generation"


@runtime_checkable
class Judge(Protocol):
    """Says what is right."""

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

    def judge(self, submissions: Sequence[Submission]) -> list[Ruling]:
        """One ruling per submission, in order; texts and pictures may be mixed."""
        ...
