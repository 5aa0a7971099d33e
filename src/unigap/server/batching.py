"""Requests that arrive together share a forward: one thread runs the model, one queue of texts and one of drawings."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from unigap.models.protocol import DrawOutput, Model, Request, Sampling, TextOutput

Verb = Literal["answer", "draw"]


@dataclass(kw_only=True, eq=False)
class _Call:
    verb: Verb
    request: Request
    sampling: Sampling
    seed: int
    result: asyncio.Future[Any]
    arrived_s: float = field(default_factory=time.monotonic)

    @property
    def batch_key(self) -> tuple[Verb, bool, Sampling]:
        """What calls of one forward share. Thoughts are apart: a short answer must not wait for a long thought."""
        return self.verb, self.request.think_prompt is not None, self.sampling


class Batcher:
    """Turns single calls into batches, the oldest first.

    A forward starts when `batch_size` calls that can share it wait, or when the oldest has waited `wait_s`. A call
    whose waiting task is cancelled leaves the queue; one that is already in a forward runs to its end unread.
    """

    def __init__(self, model: Model, *, batch_size: int, wait_s: float) -> None:
        self._model, self._batch_size, self._wait_s = model, batch_size, wait_s
        self._waiting: list[_Call] = []
        self._arrived = asyncio.Event()
        self.num_forwards = 0

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    async def answer(self, request: Request, *, sampling: Sampling, seed: int) -> TextOutput:
        return await self._call("answer", request, sampling, seed)

    async def draw(self, request: Request, *, sampling: Sampling, seed: int) -> DrawOutput:
        return await self._call("draw", request, sampling, seed)

    async def _call(self, verb: Verb, request: Request, sampling: Sampling, seed: int) -> Any:
        result = asyncio.get_running_loop().create_future()
        call = _Call(verb=verb, request=request, sampling=sampling, seed=seed, result=result)
        self._waiting.append(call)
        self._arrived.set()
        try:
            return await result
        finally:
            if call in self._waiting:  # cancelled before its turn
                self._waiting.remove(call)

    async def run(self) -> None:
        """Serve calls until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="model") as thread:
            while True:
                batch = await self._next_batch()
                if batch:
                    await self._settle(batch, loop, thread)

    async def _next_batch(self) -> list[_Call]:
        """Calls to run now; empty if all that waited were cancelled meanwhile."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        first = self._waiting[0]
        until_s = first.arrived_s + self._wait_s
        while len(self._mates(first)) < self._batch_size and (left_s := until_s - time.monotonic()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left_s)
            except TimeoutError:
                break
        batch = self._mates(first)
        self._waiting = [call for call in self._waiting if call not in batch]
        return batch

    def _mates(self, first: _Call) -> list[_Call]:
        return [call for call in self._waiting if call.batch_key == first.batch_key][: self._batch_size]

    async def _settle(
        self, batch: Sequence[_Call], loop: asyncio.AbstractEventLoop, thread: ThreadPoolExecutor
    ) -> None:
        self.num_forwards += 1
        try:
            outputs = await loop.run_in_executor(thread, self._forward, batch)
        except Exception as error:  # noqa: BLE001 (it is raised again in the task of whoever asked)
            if len(batch) > 1:  # one request that breaks the model must not fail its neighbours
                for call in batch:
                    await self._settle([call], loop, thread)
            elif not batch[0].result.done():
                batch[0].result.set_exception(error)
            return
        for call, output in zip(batch, outputs, strict=True):
            if not call.result.done():
                call.result.set_result(output)

    def _forward(self, batch: Sequence[_Call]) -> Sequence[TextOutput | DrawOutput]:
        verb, _, sampling = batch[0].batch_key
        call = self._model.answer if verb == "answer" else self._model.draw
        outputs = call([call.request for call in batch], sampling=sampling, seeds=[call.seed for call in batch])
        if len(outputs) != len(batch):
            raise RuntimeError(f"{self._model.name}: {len(outputs)} outputs for {len(batch)} requests")
        return outputs
