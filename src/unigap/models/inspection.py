"""Hidden states of a request while its picture is drawn: to look at, and to be replaced by another request's.

A state is what goes into the first layer (0) or comes out of a layer (1, 2, ...) at one position: the residual stream.
Positions have names that all models share, so that one probe fits them all:

    text     "end-3" ... "end": the last four tokens before the picture
    query    "query 1", ...: learned queries behind the text, in order
    image    of the picture itself: tokens that are drawn already ("token 1", ...), or places of a picture that comes
             out of noise ("cell 1", ..., row by row) at a named time

Shape suffixes: N requests, S states (layers + 1), P positions, D width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from unigap.models.protocol import DrawOutput, Model, Request, Sampling

Kind = Literal["text", "query", "image"]

TEXT_POSITIONS = ("end-3", "end-2", "end-1", "end")


@dataclass(frozen=True, eq=False)
class States:
    """Hidden states of N requests at positions of one kind."""

    kind: Kind
    positions: tuple[str, ...]
    values: Tensor
    """(N, S, P, D) float32, on the CPU."""
    time: float | None = None
    """Of a picture that comes out of noise: 1 is noise, 0 the picture."""
    in_words: bool = True
    """The text head reads the last state: it is of the stream that the head was trained on."""

    def rows(self, rows: Sequence[int]) -> "States":
        """Of these requests alone, in this order."""
        return replace(self, values=self.values[list(rows)])

    def at(self, positions: Sequence[str]) -> "States":
        """At these positions alone.

        Raises:
            ValueError: One of them is not there.
        """
        if unknown := [name for name in positions if name not in self.positions]:
            raise ValueError(f"no position {unknown[0]!r} among the {self.kind} positions {', '.join(self.positions)}")
        columns = [self.positions.index(name) for name in positions]
        return replace(self, positions=tuple(positions), values=self.values[:, :, columns])


@dataclass(frozen=True, eq=False)
class Look:
    """What requests led to."""

    drawings: list[DrawOutput]
    states: list[States]
    """One of each kind that the model has; of pictures out of noise, one a time."""


class Inspector(Protocol):
    """Draws, and shows the states on the way."""

    model: Any
    """The `Model` that draws."""

    def look(
        self,
        requests: Sequence[Request],
        *,
        sampling: Sampling,
        seeds: Sequence[int],
        times: Sequence[float] = (),
        put: States | None = None,
    ) -> Look:
        """Draw as the model does, and look on.

        Args:
            times: Of a picture that comes out of noise, when to look: at the step nearest to each.
            put: States of text or queries, row i for request i, that take the place of the request's own in every
                layer; everything after them is computed from them.

        Raises:
            ValueError: A request does not fit the model, or `put` is of a picture.
        """
        ...

    def read_out(self, values: Tensor) -> Tensor:
        """Last states (..., D) through the text head: log p (..., V) of the next text token, in nats."""
        ...

    def first_token(self, text: str) -> int:
        """Id of the token that a text answer begins with."""
        ...


def look_at(
    inspector: Inspector,
    requests: Sequence[Request],
    *,
    sampling: Sampling,
    seeds: Sequence[int],
    times: Sequence[float] = (),
    put: States | None = None,
) -> Look:
    """`Inspector.look` in batches of the model's own size."""
    model: Model = inspector.model
    looks = []
    for start in range(0, len(requests), model.batch_size):
        some = slice(start, start + model.batch_size)
        part = None if put is None else replace(put, values=put.values[some])
        looks.append(inspector.look(requests[some], sampling=sampling, seeds=seeds[some], times=times, put=part))
    return join(looks)


def join(looks: Sequence[Look]) -> Look:
    """Several looks as one, in order."""
    states = [replace(of[0], values=torch.cat([s.values for s in of])) for of in zip(*(look.states for look in looks))]
    return Look([drawing for look in looks for drawing in look.drawings], states)


Visit = Callable[[int, Tensor, tuple[Any, ...]], Tensor | None]
"""(number of the state, the state, the layer's arguments) to the state that takes its place, or None."""


@contextmanager
def visited(layers: Sequence[nn.Module], visit: Visit) -> Iterator[None]:
    """Within it, `visit` sees what goes into the first layer and comes out of each, whenever they run."""

    def before(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        changed = visit(0, arguments[0], arguments)
        return None if changed is None else (changed, *arguments[1:])

    def after(number: int) -> Callable[..., Tensor | None]:
        return lambda _, arguments, output: visit(number, output, arguments)

    handles = [layers[0].register_forward_pre_hook(before)]
    handles += [layer.register_forward_hook(after(number)) for number, layer in enumerate(layers, start=1)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_put(put: States | None, num_requests: int, num_states: int, width: int) -> None:
    """Refuse states that cannot be put.

    Raises:
        ValueError: They are of a picture, or of another shape than the model's.
    """
    if put is None:
        return
    if put.kind == "image":
        raise ValueError("states of a picture are looked at, not put; put those of text or queries")
    wanted = (num_requests, num_states, len(put.positions), width)
    if tuple(put.values.shape) != wanted:
        raise ValueError(f"states to put have shape {tuple(put.values.shape)}, expected {wanted}")


def nearest_steps(steps: Sequence[float], times: Sequence[float]) -> list[int]:
    """Index of the step nearest to each time, none twice."""
    found = (min(range(len(steps)), key=lambda step: abs(steps[step] - time)) for time in times)
    return list(dict.fromkeys(found))
