"""BAGEL's hidden states (`unigap.models.inspection`): the end of its text, and its latents at a time.

The text is the last one that the drawing's own context holds: the prompt, or the thought behind it. A picture has
thousands of latents, so a "cell" is the mean of a ninth of them: three rows and three columns, or as many as there are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from unigap.models.bagel.attention import Chunk, Packed, Span
from unigap.models.bagel.context import Reader
from unigap.models.bagel.drawing import Canvas, develop, draw, make_canvas, times_of
from unigap.models.bagel.model import BagelModel
from unigap.models.bagel.network import Route
from unigap.models.inspection import TEXT_POSITIONS, Look, States, check_put, join, nearest_steps, visited
from unigap.models.protocol import DrawOutput, Request, Sampling

SIDE = 3
"""Most rows, and columns, of cells."""


class BagelInspector:
    """See `unigap.models.inspection.Inspector`. One drawing at a time: requests that begin alike share what they have
    read, and each may have other states put there."""

    def __init__(self, model: BagelModel) -> None:
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
        """See the protocol.

        Raises:
            ValueError: Also where a request is to be thought about first: give it the thought.
        """
        if not requests:
            raise ValueError("there is no request to look at")
        llm = self.model.bagel.language_model.model
        check_put(put, len(requests), len(llm.layers) + 1, llm.config.hidden_size)
        looks = []
        for row, (request, seed) in enumerate(zip(requests, seeds, strict=True)):
            looks.append(self._one(request, seed, sampling, times, None if put is None else put.rows([row])))
        return join(looks)

    def _one(self, request: Request, seed: int, sampling: Sampling, times: Sequence[float], put: States | None) -> Look:
        model, checkpoint = self.model, self.model.checkpoint
        if request.think_first:
            raise ValueError("a request that is thought about first is looked at with its thought: set `thought`")
        settings = model._settings(sampling)
        reader = Reader(checkpoint)
        reading = model._plan(reader, request, settings, seed)
        if request.thought is not None:
            reading.add_thought(model.tokenizer.encode(request.thought))
        end = reading.contexts.gen
        if end.length < len(TEXT_POSITIONS) or not isinstance(reader.contents[end], tuple):
            raise ValueError(f"{request.content}: expected a text of at least {len(TEXT_POSITIONS)} tokens at the end")
        canvas = make_canvas(checkpoint, reading.contexts, settings, seed)
        when = times_of(canvas)[:-1].tolist()
        steps = nearest_steps(when, times)
        watch = _Watch(end, canvas, self._grid(canvas), steps, put)
        with visited(list(model.bagel.language_model.model.layers), watch.visit):
            reader.read()
            image = develop(checkpoint, draw(checkpoint, [canvas]))[0]
        drawing = (
            DrawOutput(image=image)
            if image is not None
            else DrawOutput(image=None, outcome="malformed", detail="the latents are not finite")
        )
        text = States("text", TEXT_POSITIONS, torch.stack(watch.text)[None].float().cpu())
        cells = tuple(f"cell {number + 1}" for number in range(watch.num_cells))
        pictures = [
            States("image", cells, torch.stack(watch.cells[step])[None].float().cpu(), when[step], in_words=False)
            for step in steps
        ]
        return Look([drawing], [text, *pictures])

    def _grid(self, canvas: Canvas) -> tuple[int, int]:
        """Rows and columns of a drawing's latents."""
        stride = self.model.checkpoint.config.latent_stride
        return canvas.size[0] // stride, canvas.size[1] // stride

    @torch.inference_mode()
    def read_out(self, values: Tensor) -> Tensor:
        bagel = self.model.bagel
        final = bagel.language_model.model.norm(values.to(bagel.device, bagel.dtype))
        return bagel.logits(final).log_softmax(dim=-1).cpu()

    def first_token(self, text: str) -> int:
        return self.model.tokenizer.encode(text)[0]


class _Watch:
    """Keeps states of the end of one text and of the latents drawn behind it, and puts others at the former."""

    def __init__(
        self, end: Chunk, canvas: Canvas, grid: tuple[int, int], steps: Sequence[int], put: States | None
    ) -> None:
        self.end, self.grid, self.put = end, grid, put
        self.num_latents = len(canvas.noise)
        self.num_cells = min(SIDE, grid[0]) * min(SIDE, grid[1])
        self.text: list[Tensor] = []
        self.cells: dict[int, list[Tensor]] = {step: [] for step in steps}
        self.step = -1

    def visit(self, number: int, x: Tensor, arguments: tuple) -> Tensor | None:
        route, attend = arguments[1], arguments[4]
        assert isinstance(route, Route) and isinstance(attend, Packed)
        for span in (span for group in attend.groups for span in group.spans):
            if span.keep is self.end:
                return self._read(number, x, route, span)
            if span.keep is None and span.past is self.end:
                self.step += number == 0
                if self.step in self.cells:
                    # Within its start and end token.
                    rows = slice(span.start + 1, span.start + 1 + self.num_latents)
                    self.cells[self.step].append(_means(x[route.back][rows], self.grid))
        return None

    def _read(self, number: int, x: Tensor, route: Route, span: Span) -> Tensor | None:
        x_TD, last = x[route.back], span.start + span.length
        if self.put is not None:
            at = [last - len(TEXT_POSITIONS) + TEXT_POSITIONS.index(name) for name in self.put.positions]
            x_TD[at] = self.put.values[0, number].to(x.device, x.dtype)
        self.text.append(x_TD[last - len(TEXT_POSITIONS) : last].clone())
        return x_TD[route.order] if self.put is not None else None


def _means(latents_ND: Tensor, grid: tuple[int, int]) -> Tensor:
    """(cells, D) of latents row by row."""
    rows = latents_ND.float().unflatten(0, grid).tensor_split(min(SIDE, grid[0]), dim=0)
    cells = [cell for row in rows for cell in row.tensor_split(min(SIDE, grid[1]), dim=1)]
    return torch.stack([cell.mean(dim=(0, 1)) for cell in cells])
