"""What a model adds to `unigap.models.protocol.Model` to be trained by `unigap.train.loop`, whatever it is made of.

The loop deals in three things of the model's own: a *prepared* example (light: its tokens and where its pictures are),
a batch of them (tensors), and a module that turns a batch into its share of the step's loss. What is learned is named
by the kind of token, e.g. "text" and "image"; the loop keeps count of each kind and leaves it to the model how they are
weighed against each other.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from PIL.Image import Image
from torch import Tensor, nn

from unigap.models.protocol import Model


@dataclass(frozen=True, kw_only=True)
class Example:
    """One thing to learn, in plain values: what a request would hold, and what is to come after it."""

    id: str
    """Names the example in errors: a file and row, or an item."""
    content: tuple[str | Image, ...]
    """Given: text and pictures in order."""
    thought: str | None = None
    """A thought between the content and what follows; given unless `learn_thought`."""
    learn_thought: bool = False
    answer: str | None = None
    """Text to be learned as the answer."""
    image: Image | None = None
    """Picture to be learned as the drawing."""
    weight: float = 1.0
    """Multiplies the loss of everything learned here; above 0."""

    def __post_init__(self) -> None:
        if self.answer is not None and self.image is not None:
            raise ValueError(f"example {self.id}: an answer and a picture; an example has one of them")
        if self.learn_thought and self.thought is None:
            raise ValueError(f"example {self.id}: a thought is to be learned, and there is none")
        if self.answer is None and self.image is None and not self.learn_thought:
            raise ValueError(f"example {self.id}: nothing to learn: no answer, no picture, no thought to be learned")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"example {self.id}: weight {self.weight}, expected a number above 0")


def examples_sha256(examples: Iterable[Example]) -> str:
    """Hash of everything that is learned from, pictures by their pixels."""
    digest = hashlib.sha256()
    for example in examples:
        parts = (example.id, *example.content, example.thought, example.learn_thought, example.answer, example.image)
        for part in (*parts, example.weight):
            data = (
                f"{part.size}".encode() + part.convert("RGB").tobytes()
                if isinstance(part, Image)
                else repr(part).encode("utf-8", "backslashreplace")
            )
            digest.update(f"{type(part).__name__} {len(data)} ".encode() + data)
    return digest.hexdigest()


class Prepared(Protocol):
    """An example in the model's own form. It stays in memory for a whole run, so it is light: decoding large pictures
    belongs into `collate`."""

    @property
    def id(self) -> str: ...

    @property
    def num_tokens(self) -> int:
        """Its length in a batch, padding aside."""
        ...


Row = TypeVar("Row", bound=Prepared)
Batch = Mapping[str, Tensor]


class Trainable(Model, Protocol[Row]):
    """A model that the trainer can train. Parameters are named as in `loss_module()`."""

    card: dict[str, Any]
    """What is known about the weights; the tuned model's card starts from it."""
    parts: Mapping[str, str]
    """What can be trained by name: part -> regular expression that a parameter's name matches from its start. "all" is
    among them."""
    muon_matrices: str
    """Regular expression for the parameters that the "muon" optimizer takes (matrices inside the network); AdamW has
    the rest."""
    adamw_eps: float
    """Added to the root of AdamW's second moments."""
    loss_kinds: tuple[str, ...]
    """Kinds of what is learned, e.g. ("text", "image"): the order of `weigh` and of the module's sums."""

    @property
    def own_settings(self) -> Mapping[str, Any]:
        """What else decides how it learns, for the card; a run is not resumed with others. {} if nothing does."""
        ...

    @classmethod
    def from_pretrained(cls, folder: Path | None = None, *, device: str = "cpu") -> Self: ...

    def prepare(self, example: Example) -> Row:
        """An example in the model's own form.

        Raises:
            TrainingError: It does not fit the model's context; the message names the example.
        """
        ...

    def weigh(self, row: Row) -> tuple[float, ...]:
        """Loss weight of each kind in `loss_kinds`: how much of it there is to learn in this row."""
        ...

    def collate(self, rows: Sequence[Row], seeds: Sequence[int]) -> Batch:
        """Rows as tensors on the CPU, without changing the order.

        Args:
            seeds: One a row, different in every step: whatever is random about how a row is learned comes from its
                seed, so that it does not depend on batches and ranks.
        """
        ...

    def loss_module(self) -> nn.Module:
        """The part with parameters, as a module whose forward(batch, totals) is what distributed training wraps.

        Its arguments are a batch and, for each kind, the weight in the whole step over all ranks (floats). It returns
        this batch's share of the step's loss, such that the shares of all batches add up to that loss, and the detached
        sum of weight x loss of each kind (K,), float32, from which the loop logs the mean of each kind.
        """
        ...

    def save_pretrained(
        self, folder: Path, card: dict[str, Any], *, weights: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write weights and card (which gains the weights' sha256) for `from_pretrained`.

        Args:
            weights: By their names in `loss_module()`, whole and on the CPU; None takes the model's own.
        """
        ...
