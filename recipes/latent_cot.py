"""Is the answer in the hidden states before it is drawn? Linear probes, read-out in words, and patching.

    python recipes/latent_cot.py                                     # runs/latent_cot: latent.html and latent.json
    python recipes/latent_cot.py --model tiny tiny:flow tiny:query   # the three heads on one page
    python recipes/latent_cot.py --model tiny tiny:FOLDER            # before and after, say, recipes/stars_math.py

Drawing prompts whose answer has to be worked out (math, mapping), recalled (forward) or only read (plain, which shows
what probes can find at all), at once and, as a reference, with the model's own thought in the request. docs/probe.md
says what is done and how to read it. A study that was stopped goes on with the same command, family by family.

Expect (normal arm, seed 0; percent of held-out items; all of it in docs/probe.md):

    mapping1, which object (coin flip 50)    drawn    text             queries          picture
    tiny                                     48       80 [76, 84]                       61 [56, 66]
    tiny:query                               56       83 [78, 86]      58 [53, 63]      56 [51, 60]
    tiny:flow                                50       96 [93, 97]                       53 [48, 58]

    tiny:query, self-trained on mapping1    100      93 [90, 95]      100 [99, 100]      100 [98, 100]

    math2, count (constant 29, words 34): 26 to 37 everywhere, before self-training.

Measured with --arms normal --families plain math1 math2 mapping1 --threads 1, commit 906ada0 (self-trained: ac2ae44),
about 2 minutes a model on one core of an AMD EPYC.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from rich.console import Console

from unigap.disk import safe_name
from unigap.judges import find_judge
from unigap.models import find_model
from unigap.probe.facets import FAMILIES
from unigap.probe.study import ARMS, ProbeArm, ProbeConfig, study
from unigap.report.latent import print_latent, write_latent


@dataclass(frozen=True)
class LatentCot:
    """Probe one model or several, and show them on one page."""

    model: tuple[str, ...] = ("tiny",)
    """Names as `unigap eval --model` takes them; e.g. a model before and after STARS."""
    judge: str = "exact"
    """Who says what is drawn, as `unigap eval --judge` takes it; photos want a vlm:MODEL@URL."""
    out: Path = Path("runs/latent_cot")
    """Folder for steps and pages. What is there is continued."""
    families: tuple[str, ...] = FAMILIES
    arms: tuple[ProbeArm, ...] = ARMS
    num_train: int = 1600
    """Items of the training split that probes are fitted on, a family."""
    num_test: int = 400
    """Items of the test split that they are asked of."""
    num_trials: int = 200
    """Drawings that are patched."""
    seed: int = 0
    threads: int = 2
    smoke: bool = False
    """A few items of three families, to see that everything runs."""


def main(recipe: LatentCot) -> None:
    if recipe.smoke:
        few = ("math1", "mapping1", "plain")
        recipe = replace(recipe, families=few, arms=("normal",), num_train=160, num_test=32, num_trials=4)
    torch.set_num_threads(recipe.threads)
    config = ProbeConfig(
        families=recipe.families,
        arms=recipe.arms,
        num_train=recipe.num_train,
        num_test=recipe.num_test,
        num_trials=recipe.num_trials,
        seed=recipe.seed,
    )
    judge = find_judge(recipe.judge)
    studies = []
    for name in recipe.model:
        found = study(find_model(name), judge, config, recipe.out / safe_name(name))
        studies.append(found | {"name": name})
    print_latent(studies, Console(width=170))
    numbers, page = write_latent(recipe.out, studies)
    print(f"page: {page}\nnumbers: {numbers}")


if __name__ == "__main__":
    main(tyro.cli(LatentCot, description=__doc__))
