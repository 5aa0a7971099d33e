"""How fast the embedded model answers, thinks and draws: `python -m bench.tiny_speed`.

Prints outputs a second by batch size, the best of three tries each, on every core that torch takes.
"""

import time
from itertools import islice

import torch

from unigap.models.protocol import Request
from unigap.models.tiny.model import TinyModel
from unigap.scenes import make_items

TRIES = 3


def main() -> None:
    model = TinyModel.from_pretrained()
    items = list(islice(make_items(["math2", "mapping2"], num_units=200, seed=9), 256))
    kinds = {
        "answers": (model.answer, [Request(content=(item.question,)) for item in items]),
        "thoughts": (model.answer, [Request(content=(item.prompt,), think_prompt="plan") for item in items]),
        "drawings": (model.draw, [Request(content=(item.prompt,)) for item in items]),
    }
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for kind, (call, requests) in kinds.items():
        for batch in (1, 16, 64, 256):
            some = requests[: max(batch, 16)]
            best = min(_seconds(call, some, batch, model) for _ in range(TRIES))
            print(f"{kind:9} batch {batch:3}: {len(some) / best:7.1f} a second")


def _seconds(call, requests, batch, model) -> float:
    start = time.perf_counter()
    for first in range(0, len(requests), batch):
        some = requests[first : first + batch]
        call(some, sampling=model.sampling, seeds=range(first, first + len(some)))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
