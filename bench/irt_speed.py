"""Time the Rasch fit with intervals for 15 models on 646 items, GapEval's size.

    python -m bench.irt_speed [--num-models 15] [--num-items 646] [--num-resamples 2000] [--unscored 0.02] [--seed 0]

Seconds after import: the fit, the bootstrap (abilities estimated again in each resample, given the difficulties), and
all of `gap_score`: fit, bootstrap, four more fits for the prior's pull, and intervals and p-values of the rates.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from scipy.special import expit

from unigap.gap.irt import Rasch
from unigap.gap.outcomes import Outcomes
from unigap.gap.score import gap_score


def timed(name: str, work: Callable[[], object]) -> None:
    start = time.perf_counter()
    work()
    print(f"{name:<12} {time.perf_counter() - start:6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-models", type=int, default=15)
    parser.add_argument("--num-items", type=int, default=646)
    parser.add_argument("--num-resamples", type=int, default=2000)
    parser.add_argument("--unscored", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    theta_MD = rng.normal([0.8, 0.0], 1.0, (arguments.num_models, 2))
    b_U = rng.normal(0, 1.5, arguments.num_items)
    right_MUD = (rng.random((arguments.num_models, len(b_U), 2)) < expit(theta_MD[:, None] - b_U[:, None])).astype(
        float
    )
    right_MUD[rng.random(right_MUD.shape) < arguments.unscored] = np.nan
    outcomes = Outcomes(
        models=tuple(f"m{m}" for m in range(len(theta_MD))),
        units=tuple(f"i{u}" for u in range(len(b_U))),
        clusters=tuple(range(len(b_U))),
        right=right_MUD[..., None],
    )
    rasch, owner_U = Rasch(), np.arange(len(b_U))
    timed("fit", lambda: rasch.fit(outcomes))
    timed("bootstrap", lambda: rasch.gap_pivots(owner_U, num_resamples=arguments.num_resamples, seed=0))
    timed("gap_score", lambda: gap_score(outcomes, missing="drop", num_resamples=arguments.num_resamples))


if __name__ == "__main__":
    main()
