"""Self-training on arithmetic: draw at once as many as thinking counts, and what the pictures have to do with it.

    python recipes/stars_math.py                                  # stars, shuffled
    python recipes/stars_math.py --arms unnamed continued oracle  # others, beside them in the same folder

The embedded model thinks and draws on prompts of the training split; what the exact judge accepts is learned as prompt
-> picture. Six layers are put after its second, and while it learns, the token that begins a picture also names the
result of each step of the thought, behind layers 4, 6 and 8 of the twelve: the chain of thought runs through layers
that come before those that draw. Measured on held-out expressions (math), on rules that are not trained on here
(mapping: cross-task), and on what must not be forgotten (plain, counting). The arms take equally many steps, of which
the same share is replayed; `unnamed` is `stars` without the names. At these settings only `stars` and
`shuffled` have been run in full.

Held-out drawings at once that are right, 300 prompts a family, seed 0 (docs/stars.md has the rest and the intervals):

                                 chance   before   stars   shuffled
    math1                          .25      .223    .943       .280
    math2                          .25      .170    .883       .220
    math3                          .20      .200    .580       .210
    mapping1-3 (cross-task)        .25      .223    .232       .230
    plain                          .02      .993    .973       .987

An arm trains for 38 minutes on one core of a two-core machine (AMD EPYC) whose other core is busy; sampling, once for
all arms, takes 6, and measuring a model 1. Without names and layers (`unigap train stars` as it is: 1,250
steps, 12 minutes) the mean of math1-3 is .42 instead of .80.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from unigap.report.tuning import print_tuning, tuning_table, write_tuning
from unigap.train.stars import StarsConfig, read_tallies, run_arms

MATH = ("math1", "math2", "math3")
MAPPING = ("mapping1", "mapping2", "mapping3")
Arm = Literal["stars", "unnamed", "shuffled", "continued", "unfiltered", "oracle"]
ARMS: Mapping[Arm, Mapping[str, Any]] = {
    "stars": {},
    "unnamed": {"name_steps": 0.0, "name_after": ()},
    "shuffled": {"arm": "shuffled"},
    "continued": {"arm": "continued"},
    "unfiltered": {"arm": "unfiltered"},
    "oracle": {"arm": "oracle"},
}


@dataclass(frozen=True)
class StarsMath:
    """Train the arms, and print them side by side."""

    out: Path = Path("runs/stars_math")
    """Folder for samples, arms and measurements. What is there is continued."""
    arms: tuple[Arm, ...] = ("stars", "shuffled")
    units: int = 16000
    """Prompts a family to think and draw on."""
    steps: int = 1600
    add_layers: int = 6
    add_after: int = 2
    name_steps: float = 6.0
    name_after: tuple[int, ...] = (4, 6, 8)
    replay: float = 0.3
    muon_lr: float = 0.01
    lr: float = 2e-3
    decay_from: float = 0.3
    score_units: int = 300
    seed: int = 0
    threads: int = 1
    smoke: bool = False
    """Two steps on a few prompts, to see that everything runs."""


def main(recipe: StarsMath) -> None:
    if recipe.smoke:
        recipe = replace(recipe, units=40, steps=2, score_units=4)
    shared = StarsConfig(
        families=MATH,
        units=recipe.units,
        samples_in=recipe.out / "samples",
        steps=recipe.steps,
        add_layers=recipe.add_layers,
        add_after=recipe.add_after,
        name_steps=recipe.name_steps,
        name_after=recipe.name_after,
        replay=recipe.replay,
        muon_lr=recipe.muon_lr,
        lr=recipe.lr,
        decay_from=recipe.decay_from,
        score_units=recipe.score_units,
        score_families=(*MATH, *MAPPING, "plain", "counting"),
        seed=recipe.seed,
        threads=recipe.threads,
    )
    arms = {name: replace(shared, **ARMS[name], out=recipe.out / name) for name in recipe.arms}
    runs = run_arms(arms, recipe.out / "measured")
    for name, config in arms.items():
        for (_, family), tally in read_tallies(config).items():
            print(f"{name}, {family}: {tally}")
    table = tuning_table(runs, shared.judge)
    print_tuning(table, Console(width=150))
    write_tuning(table, recipe.out / "report.json")
    print(f"numbers: {recipe.out / 'report.json'}")


if __name__ == "__main__":
    main(tyro.cli(StarsMath, description=__doc__))
