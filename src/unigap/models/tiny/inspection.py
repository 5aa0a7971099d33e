"""The embedded model's hidden states, whatever it draws with (`unigap.models.inspection`)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from unigap.models.inspection import (
    TEXT_POSITIONS,
    Kind,
    Look,
    States,
    Visit,
    check_put,
    nearest_steps,
    visited,
)
from unigap.models.protocol import Request, Sampling
from unigap.models.tiny import tokenizer as tok
from unigap.models.tiny.flow import schedule
from unigap.models.tiny.model import TinyModel
from unigap.models.tiny.painter import PainterSampling
from unigap.models.tiny.pictures import TOKENS_PER_PICTURE
from unigap.scenes.vocabulary import NUM_CELLS

TOKENS = tuple(f"token {number}" for number in range(1, TOKENS_PER_PICTURE))
"""Picture tokens that are read; nothing reads the last one."""
CELLS = tuple(f"cell {number}" for number in range(1, NUM_CELLS + 1))


class TinyInspector:
    """See `unigap.models.inspection.Inspector`."""

    def __init__(self, model: TinyModel) -> None:
        self.model = model

    @torch.inference_mode()
    def look(
        self,
        requests: Sequence[Request],
        *,
        sampling: Sampling,
        seeds: Sequence[int],
        times: Sequence[float] = (),
        put: States | None = None,
    ) -> Look:
        """See the protocol; `times` mean nothing to a model that draws tokens."""
        model, network, painter = self.model, self.model.network, self.model.painter
        if not requests:
            raise ValueError("there is no request to look at")
        check_put(put, len(requests), len(network.blocks) + 1, network.config.width)
        ends = [len(model.encode(request, tok.DRAW)[0]) for request in requests]
        if max(ends) + TOKENS_PER_PICTURE > network.config.max_tokens or min(ends) < len(TEXT_POSITIONS):
            raise ValueError(f"requests of {min(ends)} to {max(ends)} tokens cannot be drawn and looked at")
        num_queries = painter.num_queries if painter is not None else 0
        places: dict[Kind, dict[str, int]] = {
            "text": {name: index - len(TEXT_POSITIONS) for index, name in enumerate(TEXT_POSITIONS)},
            "query": {f"query {number + 1}": number for number in range(num_queries)},
        }
        trunk = _Trunk(places, torch.tensor(ends, device=network.cos.device), put)
        if painter is None:
            with visited(list(network.blocks), trunk.visit):
                drawings = model.draw(requests, sampling=sampling, seeds=seeds)
            read = torch.stack([torch.stack(states, dim=1) for states in trunk.after], dim=2)
            return Look(drawings, [*trunk.states(), States("image", TOKENS, read.float().cpu())])
        if not isinstance(sampling, PainterSampling):
            raise ValueError(f"{model.name} draws with PainterSampling, found {type(sampling).__name__}")
        when = schedule(sampling.num_steps, sampling.timestep_shift)[:-1]
        cells: dict[int, list[Tensor]] = {step: [] for step in nearest_steps(when, times)}
        with (
            visited(list(network.blocks), trunk.visit),
            visited(list(painter.blocks), _keep_steps(cells, len(requests))),
        ):
            drawings = model.draw(requests, sampling=sampling, seeds=seeds)
        pictures = [
            States("image", CELLS, torch.stack(states, dim=1).float().cpu(), when[step], in_words=False)
            for step, states in cells.items()
        ]
        return Look(drawings, [*trunk.states(), *pictures])

    @torch.inference_mode()
    def read_out(self, values: Tensor) -> Tensor:
        network = self.model.network
        weight = network.head.weight
        return network.head(network.norm(values.to(weight.device, weight.dtype))).float().log_softmax(dim=-1).cpu()

    def first_token(self, text: str) -> int:
        return self.model.tokenizer.encode(text)[0]


def _keep_steps(kept: dict[int, list[Tensor]], num_pictures: int) -> Visit:
    """Fill in the states (N, C, D) of these passes."""
    step = -1

    def visit(number: int, x: Tensor, _: tuple) -> None:
        nonlocal step
        step += number == 0
        if step in kept:
            # Pictures with the condition stand before the same ones without it.
            kept[step].append(x[:num_pictures])

    return visit


class _Trunk:
    """Keeps the states of text and queries of the first pass, puts others there, and keeps what is read afterwards."""

    def __init__(self, places: dict[Kind, dict[str, int]], ends_N: Tensor, put: States | None) -> None:
        self.places, self.ends_N, self.put = places, ends_N, put
        self.first: list[Tensor] = []
        """Of each state (N, P, D), text before queries."""
        self.after: list[list[Tensor]] = []
        """Of each token that is drawn, of each state (N, D)."""
        self.num_passes = 0

    def visit(self, number: int, x: Tensor, _: tuple) -> Tensor | None:
        self.num_passes += number == 0
        if self.num_passes > 1:
            if number == 0:
                self.after.append([])
            self.after[-1].append(x[:, 0])
            return None
        rows_N1 = torch.arange(len(x), device=x.device)[:, None]
        if self.put is not None:
            x = x.clone()
            offsets = [self.places[self.put.kind][name] for name in self.put.positions]
            x[rows_N1, self._at(offsets)] = self.put.values[:, number].to(x.device, x.dtype)
        offsets = [offset for named in self.places.values() for offset in named.values()]
        self.first.append(x[rows_N1, self._at(offsets)])
        return x if self.put is not None else None

    def _at(self, offsets: Sequence[int]) -> Tensor:
        """(N, P): where these positions are in each row."""
        return self.ends_N[:, None] + torch.tensor(offsets, device=self.ends_N.device)

    def states(self) -> list[States]:
        values = torch.stack(self.first, dim=1).float().cpu()
        found, start = [], 0
        for kind, named in self.places.items():
            if named:
                found.append(States(kind, tuple(named), values[:, :, start : start + len(named)]))
            start += len(named)
        return found
