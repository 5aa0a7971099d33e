"""Self-training on chains of rules: one, two and three lookups at once, and which order they are learned in.

    python recipes/stars_mapping_curriculum.py                               # all_at_once, curriculum, shuffled
    python recipes/stars_mapping_curriculum.py --arms named partial          # others, in the same folder

The embedded model thinks and draws on rule sets of the training split; what the exact judge accepts is learned as
prompt -> picture, and measured on held-out pairs of objects (a pair is right if both halves are; a coin flip gets a
quarter). The arms take equally many steps, but for the last two.

    all_at_once     mapping1, mapping2 and mapping3 together
    curriculum      mapping1; from a third of the steps mapping2 too; from two thirds mapping3 too
    hardest_only    mapping3 alone
    partial         all at once; half of the examples keep the first one or two lookups of their thought
    shuffled        all at once, each picture under a random half of its pair
    named           all at once, in four more layers behind the model's fourth; behind three of them the token that
                    begins a picture names what each lookup finds (docs/stars.md). It has settings of its own
    named_shuffled  its control; not run

Held-out pairs drawn at once, 300 a family, seed 0 (docs/stars.md has the rest and the intervals):

                                 chance   before   all_at_once   shuffled   named
    mapping1                       .25      .237          .947       .250    .987
    mapping2                       .25      .193          .937       .217    .990
    mapping3                       .25      .240          .257       .263    .960
    plain                          .02      .993          .960       .980    .917

An arm trains for 10 minutes on one core of a two-core machine (AMD EPYC), `named` for 30; sampling, once for all arms,
takes 4 to 5, and measuring a model 1. `curriculum` ends at .950, .873 and .237, `partial` at .977, .933 and .233,
`hardest_only` at .257, .230 and .267.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console

from unigap.report.tuning import print_tuning, tuning_table, write_tuning
from unigap.train.stars import StarsConfig, read_tallies, run_arms

FAMILIES = ("mapping1", "mapping2", "mapping3")
NAMED: dict[str, Any] = {
    "add_layers": 4, "add_after": 4, "add_copies": True,
    "name_steps": 4.0, "name_after": (5, 6, 7), "name_first": True,
    "steps": 1400, "examples_per_step": 112, "replay": 0.28, "muon_lr": 0.012, "lr": 2e-3, "decay_from": 0.65,
}  # fmt: skip
Arm = Literal["all_at_once", "curriculum", "hardest_only", "partial", "shuffled", "named", "named_shuffled"]
ARMS: dict[Arm, dict[str, Any]] = {
    "all_at_once": {},
    "curriculum": {"curriculum": True},
    "hardest_only": {"families": ("mapping3",)},
    "partial": {"partial": 0.5},
    "shuffled": {"arm": "shuffled"},
    "named": NAMED,
    "named_shuffled": NAMED | {"arm": "shuffled"},
}


@dataclass(frozen=True)
class StarsMapping:
    """Train the arms, and print them side by side."""

    out: Path = Path("runs/stars_mapping")
    """Folder for samples, arms and measurements. What is there is continued."""
    arms: tuple[Arm, ...] = ("all_at_once", "curriculum", "shuffled")
    units: int = 2500
    """Pairs a family to think and draw on."""
    steps: int = 750
    """This and the next five are those of all arms but `named` and its control, which have their own."""
    examples_per_step: int = 128
    replay: float = 0.4
    muon_lr: float = 0.01
    lr: float = 1.5e-3
    decay_from: float = 0.3
    score_units: int = 300
    seed: int = 0
    threads: int = 1
    smoke: bool = False
    """Two steps on a few prompts, to see that everything runs."""


def main(recipe: StarsMapping) -> None:
    if recipe.smoke:
        recipe = replace(recipe, units=8, score_units=4)
    shared = StarsConfig(
        families=FAMILIES,
        units=recipe.units,
        steps=recipe.steps,
        examples_per_step=recipe.examples_per_step,
        replay=recipe.replay,
        muon_lr=recipe.muon_lr,
        lr=recipe.lr,
        decay_from=recipe.decay_from,
        score_units=recipe.score_units,
        score_families=(*FAMILIES, "math1", "math2", "math3", "plain", "counting"),
        seed=recipe.seed,
        threads=recipe.threads,
    )
    arms: dict[str, StarsConfig] = {}
    for name in recipe.arms:
        settings = ARMS[name] | ({"steps": 2, "examples_per_step": 16} if recipe.smoke else {})
        config = replace(shared, **settings, out=recipe.out / name)
        # Arms of the same families sample the same drawings, once.
        arms[name] = replace(config, samples_in=recipe.out / ("samples-" + "-".join(config.families)))
    runs = run_arms(arms, recipe.out / "measured")
    for name, config in arms.items():
        for (_, family), tally in read_tallies(config).items():
            print(f"{name}, {family}: {tally}")
    table = tuning_table(runs, shared.judge)
    print_tuning(table, Console(width=150))
    write_tuning(table, recipe.out / "report.json")
    print(f"numbers: {recipe.out / 'report.json'}")


if __name__ == "__main__":
    main(tyro.cli(StarsMapping, description=__doc__))
