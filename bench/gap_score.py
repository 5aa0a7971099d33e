"""The published Gap Score: all models of a file at once against one model at a time: `python -m bench.gap_score`.

One model at a time is the published procedure written plainly: torch autograd, float32, a loop of 2,000 AdamW steps a
model, one thread. Both score the same random file, in one process, one after the other, each once. Times are CPU
seconds of the process, so that other work on the machine does not count.

    python -m bench.gap_score [--models 1 15 60] [--seed 0]
"""

import argparse
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch.nn import functional

from unigap.gap.published import published_gaps, published_scores

T = TypeVar("T")
STEPS, LR, WEIGHT_DECAY, COUNT, EPS = 2000, 0.05, 1e-4, 1000.0, 1e-8
MEAN_SHARES = (2.0, 1.0, 0.5, 1.5)
"""Of p11, p10, p01, p00, as a Dirichlet: mostly right together or wrong together, understanding ahead."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="+", default=[1, 15, 60])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"4 categories, {STEPS} steps, seed {options.seed}, torch {torch.__version__}, numpy {np.__version__}")
    print(f"{'models':>6} {'plain':>9} {'batched':>9} {'faster':>7} {'checked':>9} {'faster':>7} {'inside':>8}")
    for num_models in options.models:
        rng = np.random.default_rng(options.seed)
        rates = {f"model {number}": rng.dirichlet(MEAN_SHARES, 4) for number in range(num_models)}
        plain, plain_s = timed(lambda rates=rates: {model: plain_gaps(rows) for model, rows in rates.items()})
        _, batched_s = timed(lambda rates=rates: published_gaps(rates))
        scores, checked_s = timed(lambda rates=rates: published_scores(rates))
        inside = sum(
            scores[model].mean.range32[0] - 1e-6 <= gaps.mean() <= scores[model].mean.range32[1] + 1e-6
            for model, gaps in plain.items()
        )
        print(
            f"{num_models:6} {plain_s:8.2f}s {batched_s:8.3f}s {plain_s / batched_s:6.0f}x "
            f"{checked_s:8.3f}s {plain_s / checked_s:6.0f}x {inside:4}/{num_models}",
            flush=True,
        )
    print("checked: with the 16 + 16 further fits of the conditioning check")
    print("inside: means of the plain float32 loop that lie in the float32 range of the check")


def timed(call: Callable[[], T]) -> tuple[T, float]:
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def plain_gaps(rows: np.ndarray) -> np.ndarray:
    """One model, as anyone would write docs/published_score.md P1 to P7 with autograd."""
    both, understanding, generation, neither = torch.tensor(rows, dtype=torch.float32).T
    right = COUNT * torch.stack([both + understanding, both + generation], dim=1)
    wrong = COUNT - right
    start = torch.logit((right / COUNT).clamp(1e-5, 1 - 1e-5))
    theta, mu = start.clone().requires_grad_(), start.mean(dim=0).requires_grad_()
    beta = torch.zeros(2, requires_grad=True)
    raw = torch.tensor([[0.1, 0.0], [0.05, 0.1]], requires_grad=True)
    optimizer = torch.optim.AdamW([theta, mu, beta, raw], lr=LR, weight_decay=WEIGHT_DECAY)
    lowest, kept = float("inf"), start
    for _ in range(STEPS):
        optimizer.zero_grad()
        factor = torch.tril(raw, -1) + torch.diag(functional.softplus(raw.diagonal()) + 1e-4)
        precision = torch.linalg.inv(factor @ factor.T)
        p = torch.sigmoid(theta - beta)
        away = theta - mu
        loss = -(right * torch.log(p + EPS) + wrong * torch.log(1 - p + EPS)).sum()
        loss = loss + 0.5 * ((away @ precision) * away).sum() + len(rows) * factor.diagonal().log().sum()
        loss = loss + 1e-3 * (beta.square().sum() + mu.square().sum())
        loss.backward()
        optimizer.step()
        if loss.item() < lowest:
            lowest, kept = loss.item(), theta.detach().clone()
    size = (kept[:, 0] - kept[:, 1]).abs()
    gap = (size / (1 + size)).clamp(1e-6, 1 - 1e-6)
    return torch.sigmoid(torch.logit(gap) + 2.7 * neither - 1.05 * both).numpy()


if __name__ == "__main__":
    main()
