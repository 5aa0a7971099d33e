"""Two models behind one name, the one answering and the other drawing: `find_model("pair:UNDERSTANDER+GENERATOR")`.

Nothing is shared between them. What such a pair scores says how much of a gap has to do with being one network.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np

from unigap.errors import CannotAskError
from unigap.models.protocol import Ability, DrawOutput, Model, Request, Sampling, TextOutput

READS: frozenset[Ability] = frozenset({"answer", "think", "answer_with_own_thought", "log_likelihood"})
DRAWS: frozenset[Ability] = frozenset({"draw", "edit"})
"""Not `draw_with_own_thought`: before a drawing the first thinks, also where the second could."""


@dataclass(frozen=True, kw_only=True)
class PairSampling(Sampling):
    """What both understand (of texts as the first has it, of image tokens as the second), and each one's own."""

    understander: Sampling = field(default_factory=Sampling)
    generator: Sampling = field(default_factory=Sampling)


class PairModel:
    """See `unigap.models.protocol.Model` for the contract.

    Args:
        understander: Answers and thinks, also before a drawing.
        generator: Draws.

    Raises:
        CannotAskError: The first does not answer, or the second does not draw.
    """

    def __init__(self, understander: Model, generator: Model) -> None:
        self.understander, self.generator = understander, generator
        for model, ability in ((understander, "answer"), (generator, "draw")):
            if ability not in model.abilities:
                raise CannotAskError(f"pair:UNDERSTANDER+GENERATOR: {model.name} does not {ability}")
        self.name = f"pair:{understander.name}+{generator.name}"
        self.sha256 = hashlib.sha256(f"{understander.sha256}+{generator.sha256}".encode()).hexdigest()
        self.abilities: frozenset[Ability] = (understander.abilities & READS) | (generator.abilities & DRAWS)
        self.pictures: Literal["sandbox", "photo"] = generator.pictures
        self.batch_size = min(understander.batch_size, generator.batch_size)
        self.trained_on: dict[str, str] = dict(generator.trained_on)
        plain = {f.name: getattr(understander.sampling, f.name) for f in fields(Sampling)}
        plain["image_temperature"] = generator.sampling.image_temperature
        self.sampling: Sampling = PairSampling(
            **plain, understander=understander.sampling, generator=generator.sampling
        )

    def answer(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[TextOutput]:
        return self.understander.answer(requests, sampling=self._of("understander", sampling), seeds=seeds)

    def draw(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[DrawOutput]:
        return self.generator.draw(requests, sampling=self._of("generator", sampling), seeds=seeds)

    def log_likelihood(self, requests: Sequence[Request], continuations: Sequence[str]) -> list[np.ndarray]:
        return self.understander.log_likelihood(requests, continuations)

    def _of(self, who: Literal["understander", "generator"], sampling: Sampling) -> Sampling:
        """The settings of one of the two: its own, with what both understand as it was asked for."""
        own: Sampling = getattr(sampling if isinstance(sampling, PairSampling) else self.sampling, who)
        return replace(own, **{f.name: getattr(sampling, f.name) for f in fields(Sampling)})


def split_pair(argument: str, is_model: Callable[[str], bool]) -> tuple[str, str]:
    """The two names of "UNDERSTANDER+GENERATOR"; a plus sign within one of them does not count.

    Args:
        is_model: Whether a text begins like the name of a model.

    Raises:
        ValueError: There are not two names, or it can be read in several ways.
    """
    places = [i for i, letter in enumerate(argument) if letter == "+"]
    found = [(argument[:i], argument[i + 1 :]) for i in places]
    found = [(one, other) for one, other in found if is_model(one) and is_model(other)]
    if len(found) != 1:
        said: Any = "no two models" if not found else f"{len(found)} ways to read it"
        raise ValueError(f'pair:{argument}: {said}; expected UNDERSTANDER+GENERATOR, e.g. "pair:hf:A+hf:B"')
    return found[0]
