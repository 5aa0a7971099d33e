"""What a step of self-training learns from: kept examples at random, some with the beginning of their thought."""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from unigap.arms import last_line
from unigap.models.tiny.model import TinyModel
from unigap.models.trainable import Example, Prepared, Trainable, examples_sha256
from unigap.scenes.render import CELL_CONTENTS, Grid
from unigap.train.kept import Kept
from unigap.train.kit import Kit

Row = TypeVar("Row", bound=Prepared)


class Thinning(Generic[Row]):
    """Kept examples at random, by family and with more or less of the thought: a source for `unigap.train.loop`.

    Args:
        rows: family -> examples -> the example without its thought, then with its first line, its first two, ...
        identity: Names their content.
        seed: Each place in the stream has its own generator, from this seed.
        partial: Probability that an example which can be had with some of its thought is.
        stages: How many places the stream is expected to give, if the families come in one by one; 0: all at once.
        first: family -> examples that the first `num_first` places give instead.
    """

    def __init__(
        self,
        rows: Mapping[str, Sequence[Sequence[Row]]],
        *,
        identity: str,
        seed: int,
        partial: float = 0.0,
        stages: int = 0,
        first: Mapping[str, Sequence[Row]] | None = None,
        num_first: int = 0,
    ) -> None:
        counts = ", ".join(f"{name} {len(examples)}" for name, examples in rows.items())
        self.identity = f"{identity}, {counts}, seed {seed}, partial {partial}, stages {stages}"
        if num_first:
            self.identity += f", first {num_first}"
        self._rows, self._families = rows, tuple(rows)
        self._seed, self._partial, self._stages = seed, partial, stages
        self._first, self._num_first = first or {}, num_first

    def families_at(self, place: int) -> Sequence[str]:
        """What a place in the stream is drawn from."""
        if not self._stages or place < self._num_first:
            return self._families
        done = (place - self._num_first) * len(self._families) // self._stages
        return self._families[: 1 + min(done, len(self._families) - 1)]

    def take(self, start: int, num: int) -> list[Row]:
        return [self._at(place) for place in range(start, start + num)]

    def _at(self, place: int) -> Row:
        rng = random.Random(f"kept/{self._seed}/{place}")
        family = rng.choice(self.families_at(place))
        if place < self._num_first:
            return rng.choice(self._first[family])
        variants = rng.choice(self._rows[family])
        partial = len(variants) > 1 and rng.random() < self._partial
        return variants[rng.randrange(1, len(variants)) if partial else 0]


def thinned(
    model: Trainable[Row],
    kept: Kept,
    families: Sequence[str],
    *,
    seed: int,
    partial: float,
    stages: int,
    answers: Mapping[str, Sequence[Example]] | None = None,
    num_first: int = 0,
) -> Thinning[Row]:
    """What a round keeps, prepared for the model; see `Thinning`. `answers` come first."""
    prepare = preparer(model)
    rows: dict[str, list[list[Row]]] = {}
    hashes = []
    for family in families:
        rows[family] = []
        for example, results in zip(kept.examples(family), kept.results(family), strict=True):
            hashes.append(examples_sha256([example])[:16])
            thoughts = [None, *(partial_thoughts(example.thought or "") if partial else ())]
            rows[family].append([prepare(replace(example, thought=thought), results) for thought in thoughts])
    first = {family: [model.prepare(example) for example in said] for family, said in (answers or {}).items()}
    hashes += [examples_sha256(said)[:16] for said in (answers or {}).values()]
    return Thinning(
        rows,
        identity=f"kept pictures sha256:{hashlib.sha256(' '.join(hashes).encode()).hexdigest()}",
        seed=seed,
        partial=partial,
        stages=stages,
        first=first,
        num_first=num_first,
    )


def partial_thoughts(thought: str) -> list[str]:
    """The first line, the first two, ... of a thought, short of the step before its last line ("Draw 3 cups.").

    So at least the last step is left to be made: "9 - 5 = 4" of "9 - 5 = 4", "4 + 1 = 5", "Draw 5 cups.".
    """
    lines = [line for line in thought.splitlines() if line.strip()]
    assert not lines or last_line(thought) is not None
    return ["\n".join(lines[:kept]) for kept in range(1, len(lines) - 1)]


def preparer(model: Trainable[Row]) -> Callable[[Example, Sequence[str]], Row]:
    """How an example and the results of its picture's thought's steps are prepared.

    As the model does, and for the embedded model with shares for a picture of objects: objects lie in random places, so
    each cell is learned as the share of what is still to be drawn, as in pretraining (`unigap.train.kit.Kit`): the same
    expected gradient as that of the picture, with less noise. The results are what it may learn to
    name (`unigap.models.tiny.learning.Naming`).
    """
    if not isinstance(model, TinyModel):
        return lambda example, _: model.prepare(example)
    kit = Kit(model.tokenizer, model.codebook)
    name_of = {tuple(kit.picture(Grid((name, *[None] * 8)))[:2]): name for name in CELL_CONTENTS}

    def prepare(example: Example, results: Sequence[str]) -> Any:
        row = model.prepare(example)
        row = replace(row, named=tuple(model.tokenizer.encode(word)[-1] for word in results))
        halves = row.ids[-18:]
        cells = tuple(name_of.get(tuple(halves[at : at + 2]), "?") for at in range(0, 18, 2))
        if "?" in cells:
            return row
        return replace(row, targets=[*row.targets[:-18], *kit.sample(draw=Grid(cells)).targets[-18:]])

    return prepare
