"""A model whose states are known: a number lies at known places, and the picture is a known function of one of them."""

import random
from collections.abc import Sequence

import numpy as np
import torch
from tests.fakes import FakeModel
from torch import Tensor

from unigap.disk import hash64
from unigap.models.inspection import TEXT_POSITIONS, Look, States, check_put
from unigap.models.protocol import DrawOutput, Request, Sampling
from unigap.scenes.render import place, render
from unigap.scenes.vocabulary import OBJECTS

NUM_STATES, WIDTH = 3, 16
QUERIES = tuple(f"query {number}" for number in range(1, 7))
NUMBER = slice(0, 10)
"""Where a state holds a number, one place for each."""


class KnownModel(FakeModel):
    """Draws the number that the last state at "end" holds, of the object that the request names."""

    name = "known <model>"
    obeys = 1.0
    """Share of the seeds at which it does; at others it draws the request's own number."""

    def inspector(self) -> "KnownInspector":
        return KnownInspector(self)


class KnownInspector:
    """The number of a request is at layer 2 of "end" and of the last three queries, and nowhere else."""

    def __init__(self, model: KnownModel) -> None:
        self.model = model
        self.num_looks = 0

    def look(
        self,
        requests: Sequence[Request],
        *,
        sampling: Sampling,
        seeds: Sequence[int],
        times: Sequence[float] = (),
        put: States | None = None,
    ) -> Look:
        check_put(put, len(requests), NUM_STATES, WIDTH)
        self.num_looks += 1
        read = [self.model._read(request) for request in requests]
        text = self._noise(requests, "text", TEXT_POSITIONS)
        queries = self._noise(requests, "query", QUERIES)
        cells = self._noise(requests, "image", ("cell 1", "cell 2"))
        for row, (n, _) in enumerate(read):
            text.values[row, 2, -1, n] += 6
            queries.values[row, 2, 3:, n] += 6
        for states in (text, queries):
            if put is not None and put.kind == states.kind:
                columns = [states.positions.index(name) for name in put.positions]
                states.values[:, :, columns] = put.values
        drawings = []
        for row, ((own, name), seed) in enumerate(zip(read, seeds, strict=True)):
            held = int(text.values[row, 2, -1, NUMBER].argmax())
            n = held if np.random.default_rng(seed).random() < self.model.obeys else own
            drawings.append(DrawOutput(image=render(place({name: n}, random.Random(seed)))))
        pictures = [States("image", cells.positions, cells.values, time, in_words=False) for time in times]
        return Look(drawings, [text, queries, *pictures])

    def _noise(self, requests: Sequence[Request], kind, positions: tuple[str, ...]) -> States:
        values = [
            torch.randn(
                (NUM_STATES, len(positions), WIDTH),
                generator=torch.Generator().manual_seed(hash64(f"{kind}{request.content}{request.thought}") >> 1),
            )
            for request in requests
        ]
        return States(kind, positions, torch.stack(values))

    def read_out(self, values: Tensor) -> Tensor:
        return values[..., NUMBER].log_softmax(dim=-1)

    def first_token(self, text: str) -> int:
        return int(text) if text.isdigit() else OBJECTS.index(text) % 10
