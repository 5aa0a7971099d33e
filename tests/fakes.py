"""A small real model, hand-made items, and a command that runs the one on the other.

python -m tests.fakes OUT NUM_ITEMS [BATCH_SIZE] [SLEEP_S]
"""

import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from unigap.evaluate import EvalConfig, evaluate
from unigap.items import Count, Item
from unigap.models.protocol import Ability, DrawOutput, Outcome, Request, Sampling, TextOutput
from unigap.scenes.render import place, render
from unigap.scenes.vocabulary import OBJECTS, counted, find_object


class FakeModel:
    """Does what the last "N objects" it reads says; where it puts them follows from the seed alone.

    Words in a request choose other outcomes: "refuse", "garble" (malformed), "offline" (transport error).
    """

    name = "fake"
    sha256 = "f" * 64
    abilities: frozenset[Ability] = frozenset({"answer", "draw", "edit", "think"})
    pictures: Literal["sandbox", "photo"] = "sandbox"
    batch_size = 16
    sampling = Sampling()
    trained_on: dict[str, str] = {}  # noqa: RUF012 (as the protocol declares it)

    def __init__(self, *, sleep_s: float = 0.0) -> None:
        self.sleep_s = sleep_s
        self.online = True
        self.thought_end = "\n"
        self.calls: list[tuple[str, Request]] = []

    def answer(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[TextOutput]:
        self._work("answer", requests)
        return [self._text(request, seed) for request, seed in zip(requests, seeds, strict=True)]

    def _text(self, request: Request, seed: int) -> TextOutput:
        outcome = self._outcome(request)
        if outcome != "ok":
            return TextOutput(text=None, num_tokens=0, finish="none", outcome=outcome, detail=f"{outcome}!")
        n, name = self._read(request)
        if request.think_prompt is None:
            return TextOutput(text=counted(name, n), num_tokens=2, finish="stop")
        thought = f"<think>seed {seed}\nDraw {counted(name, n)}.{self.thought_end}</think>"
        return TextOutput(text=thought, num_tokens=9, finish="stop")

    def draw(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[DrawOutput]:
        self._work("draw", requests)
        outputs = []
        for request, seed in zip(requests, seeds, strict=True):
            outcome = self._outcome(request)
            n, name = self._read(request)
            image = render(place({name: n}, random.Random(seed))) if outcome == "ok" else None
            outputs.append(DrawOutput(image=image, outcome=outcome, detail="" if image else f"{outcome}!"))
        return outputs

    def log_likelihood(self, requests: Sequence[Request], continuations: Sequence[str]) -> list[np.ndarray]:
        raise NotImplementedError

    def _work(self, call: str, requests: Sequence[Request]) -> None:
        self.calls += [(call, request) for request in requests]
        if self.sleep_s:
            time.sleep(self.sleep_s)

    def _outcome(self, request: Request) -> Outcome:
        text = " ".join(part for part in request.content if isinstance(part, str))
        words: dict[str, Outcome] = {"refuse": "refused", "garble": "malformed"}
        if "offline" in text and not self.online:
            return "transport_error"
        return next((outcome for word, outcome in words.items() if word in text), "ok")

    def _read(self, request: Request) -> tuple[int, str]:
        text = " ".join([*(part for part in request.content if isinstance(part, str)), request.thought or ""])
        *_, (n, word) = re.findall(r"(\d+) (\w+)", re.sub(r"seed \d+", "", text))
        name = find_object(word)
        assert name is not None
        return int(n), name


def make_item(number: int, *, family: str = "plain", word: str = "", **fields: object) -> Item:
    """Item number k: "draw N objects", both following from k; `word` makes FakeModel fail at it."""
    name, n = OBJECTS[number % len(OBJECTS)], number % 4 + 1
    text = counted(name, n)
    defaults: dict[str, object] = {
        "id": f"{family}/{number:06d}",
        "unit": f"{family}/{number:06d}",
        "cluster": f"{family}/{number:06d}",
        "question": f"How many are {text}? {word}".strip(),
        "prompt": f"Draw {text}. {word}".strip(),
        "caption": text,
        "answer": Count(object=name, n=n),
    }
    return Item(family=family, **(defaults | fields))  # type: ignore[arg-type]


class ManyItems:
    """Items made anew each time they are gone through."""

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items

    def __iter__(self) -> Iterator[Item]:
        return map(make_item, range(self.num_items))


def main(out: str, num_items: str, batch_size: str = "4", sleep_s: str = "0.0") -> None:
    model = FakeModel(sleep_s=float(sleep_s))
    report = evaluate(model, ManyItems(int(num_items)), Path(out), EvalConfig(batch_size=int(batch_size)))
    print(f"done: {report.num_asked} asked, {report.num_settled_before} before, {report.num_missing} missing")


if __name__ == "__main__":
    main(*sys.argv[1:])
