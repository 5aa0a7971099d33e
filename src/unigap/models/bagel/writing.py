"""Writing text: greedy or sampled, many requests at once, each until its own end."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from unigap.models.bagel.attention import Chunk, Rows
from unigap.models.bagel.load import Checkpoint
from unigap.models.sampling import choose

Watch = Callable[[Tensor], None]
"""Called with the logits (B, V) of every step, of the rows still in the batch."""


@torch.inference_mode()
def write(
    checkpoint: Checkpoint,
    contexts: Sequence[Chunk],
    *,
    first: Sequence[int],
    limits: Sequence[int],
    temperature: float,
    seeds: Sequence[int],
    watch: Watch | None = None,
) -> list[list[int] | None]:
    """Continue every context by at most limits[i] tokens, the end token included when it comes; None where logits were
    not finite.

    Args:
        contexts: Read (`unigap.models.bagel.context.Reader.read`).
        first: Token that each is fed first: the start token of a new segment, or the last one of what was begun.
        seeds: Of sampling. A request's text depends on its own seed alone, not on the company it keeps.
    """
    bagel, eos = checkpoint.bagel, checkpoint.tokenizer.eos
    written: list[list[int]] = [[] for _ in contexts]
    broken: set[int] = set()
    alive = np.array([i for i, limit in enumerate(limits) if limit > 0], dtype=np.int64)
    if not len(alive):
        return [*written]
    limit_B = np.array(limits)
    steps = int(limit_B.max())
    uniform_BT = np.stack([np.random.Generator(np.random.Philox(seed)).random(steps) for seed in seeds])
    rows = Rows([contexts[i] for i in alive], steps)
    ids = torch.tensor([first[i] for i in alive], device=bagel.device)
    rope = torch.tensor([contexts[i].rope_after for i in alive], device=bagel.device)
    for step in range(steps):
        und = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        logits_BV = bagel.logits(bagel.decode(bagel.embed_text(ids), und, rope + step, rows))
        rows.advance()
        if watch is not None:
            watch(logits_BV)
        chosen = choose(logits_BV, temperature, uniform_BT[alive, step])
        finite = logits_BV.isfinite().all(dim=-1).tolist()
        for row, token, is_finite in zip(alive, chosen, finite, strict=True):
            if step < limit_B[row]:
                written[row].append(int(token))
                broken.update(() if is_finite else (int(row),))
                limit_B[row] = 0 if token == eos or not is_finite else limit_B[row]
        going = limit_B[alive] > step + 1
        if not going.any():
            break
        ids = torch.from_numpy(chosen).to(ids.device)
        # Rows that are done leave the batch once they are many: copying the cache costs about one step.
        if going.sum() <= 0.75 * len(alive):
            keep = torch.from_numpy(np.flatnonzero(going))
            rows.keep(keep)
            ids, rope, alive = ids[keep.to(ids.device)], rope[keep.to(ids.device)], alive[going]
    return [None if row in broken else ids for row, ids in enumerate(written)]
