"""The core of three papers on the embedded model: one page of claims, agreed or not.

    python recipes/three_papers.py              # runs/three_papers: page.html, three_papers.md, three_papers.json
    python recipes/three_papers.py --jobs 1     # on one core, in this process

UniSandbox (arXiv 2511.20561), GapEval (2602.02140) and GvU (2603.06043): each claim beside the paper's number, ours
with a 95% interval, and a verdict by a rule that was written down before (`unigap.report.three_papers`). The parts run
two at a time, each a process of one thread; a killed run goes on with the same command. Needs unigap[train].

Smaller than the recipes of the single experiments, as docs/three_papers.md says; trained once each, knowledge with
three seeds. Expect 17 of 22 claims to agree, 2 to differ and 3 that cannot be told, in 39 minutes on two cores of an
AMD EPYC (68 CPU minutes; commit 1d94394, seed 0). Intervals are over items, not over training runs.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from unigap.disk import JsonLog, read_json_lines, write_files
from unigap.evaluate import EvalConfig, evaluate
from unigap.items import SUITES, Arm
from unigap.judges.exact import ExactJudge
from unigap.judging import judge_run
from unigap.models import find_model
from unigap.report.quantities import change, inverse_minus_forward, logit_gap, shifted
from unigap.report.reproduction import (
    Estimate,
    Reproduction,
    Stage,
    judge_claims,
    write_json,
    write_markdown,
    write_page,
)
from unigap.report.three_papers import CLAIMS, NOTES, PAPERS
from unigap.report.three_papers_numbers import (
    BOTH_WAYS,
    DRAWN,
    MAPPING,
    MATH,
    SAID,
    THOUGHT,
    estimates,
    rewarded,
    thinking,
)
from unigap.scenes import make_items
from unigap.train import gvu_run, knowledge, stars
from unigap.train.before_after import BASELINE, pool
from unigap.train.claim import claim
from unigap.train.data import Part, replay
from unigap.train.gvu_run import GvuRun
from unigap.train.kept import Arm as Taught
from unigap.train.kit import Kit
from unigap.train.knowledge import EditConfig, InjectConfig
from unigap.train.loop import TrainConfig, train
from unigap.train.mixture import TRAINED_ON
from unigap.train.pretrain import PretrainConfig, newborn
from unigap.train.stages import Planned, do_all, do_once, end_with_stdin, read_result
from unigap.train.stars import StarsConfig

FORWARD = "forward, held-out wording"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What decides the numbers, with the seed."""

    score_units: int = 300
    """Held-out units of each family."""
    gap_units: int = 200
    gvu_units: int = 1000
    math_units: int = 4000
    mapping_units: int = 2000
    stars_steps: int = 500
    pretrain_steps: int = 1050
    """The further start of GvU; the weak one is at two thirds."""
    pretrain_examples: int = 160
    gvu_steps: int = 300
    gvu_prompts: int = 12
    num_characters: int = 20
    knowledge_steps: int = 100
    knowledge_seeds: int = 3


SMOKE = Sizes(
    score_units=4, gap_units=4, gvu_units=20, math_units=20, mapping_units=6, stars_steps=1, pretrain_steps=3,
    pretrain_examples=8, gvu_steps=1, gvu_prompts=2, num_characters=4, knowledge_steps=1, knowledge_seeds=1,
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """Do what is not done yet, and write the page."""

    out: Path = Path("runs/three_papers")
    """Folder for everything. What is there is continued."""
    jobs: int = 2
    """Parts at work at the same time, a process each; 1 works in this process."""
    seed: int = 0
    smoke: bool = False
    """A step or two on a few items, to see that everything runs."""
    stage: str | None = None
    """What this command starts for each part: do it alone, and end when standard input does."""

    @property
    def sizes(self) -> Sizes:
        return SMOKE if self.smoke else Sizes()

    def start(self, name: str) -> Path:
        """The checkpoint that GvU starts from: weak or further."""
        steps = self.sizes.pretrain_steps * {"weak": 2, "further": 3}[name] // 3
        return self.out / "pretrain" / "training" / "snapshots" / f"{steps:06d}"


def main(recipe: Recipe) -> None:
    torch.set_num_threads(1)
    if recipe.stage:
        end_with_stdin()
        do(recipe, recipe.stage)
        return
    began = time.time()
    claim(recipe.out / "settings.json", {"seed": recipe.seed, **asdict(recipe.sizes)})
    with JsonLog(recipe.out / "wall.jsonl") as log:  # refuses a second run in the same folder

        def done() -> None:
            log.append([{"began": began, "seconds": time.time() - began}])

        do_all(
            STAGES,
            recipe.out,
            jobs=recipe.jobs,
            here=lambda name: do(recipe, name),
            command=lambda name: command(recipe, name),
            on_done=done,
        )
    page = make_page(recipe)
    files = {
        "page.html": write_page(page),
        "three_papers.md": write_markdown(page),
        "three_papers.json": json.dumps(write_json(page), ensure_ascii=False, indent=1) + "\n",
    }
    write_files([(recipe.out / name, text.encode()) for name, text in files.items()])
    for row in page.rows:
        print(f"{row.verdict:>10}  {row.value:>6} [{row.interval}]  {row.claim.paper}: {row.claim.text}")
    print(page.sentence)
    print(f"page: {recipe.out / 'page.html'}")


def do(recipe: Recipe, name: str) -> None:
    folder = recipe.out / name

    def work() -> dict[str, Any]:
        estimates = STAGES[name].run(recipe, folder) or {}
        return {key: asdict(estimate) for key, estimate in estimates.items()}

    do_once(folder, work)


def command(recipe: Recipe, name: str) -> list[str]:
    """Does a part in a process of its own."""
    found = [sys.executable, str(Path(__file__).resolve()), "--stage", name, "--out", str(recipe.out)]
    return [*found, "--seed", str(recipe.seed), *(["--smoke"] if recipe.smoke else [])]


# ---- the parts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Work(Planned):
    """A part of the job."""

    run: Callable[[Recipe, Path], Mapping[str, Estimate] | None]
    """Recipe, folder -> the estimates that it gives by itself."""


def before(recipe: Recipe, out: Path) -> dict[str, Estimate]:
    sizes = recipe.sizes
    ask("tiny", (*MATH, *MAPPING, *BOTH_WAYS), sizes.score_units, out / "sandbox", arms=("normal", "think"))
    ask("tiny", SUITES["bidirectional"].families, sizes.gap_units, out / "bidirectional")
    return {"gap_logit": logit_gap(out / "bidirectional")}


def self_train(arm: Taught, families: tuple[str, ...], *, curriculum: bool = False):
    def work(recipe: Recipe, out: Path) -> None:
        is_math = families == MATH
        config = StarsConfig(
            out=out / "run",
            arm=arm,
            families=families,
            curriculum=curriculum,
            units=recipe.sizes.math_units if is_math else recipe.sizes.mapping_units,
            samples_in=recipe.out / ("math" if is_math else "mapping") / "samples",
            steps=recipe.sizes.stars_steps,
            examples_per_step=160 if is_math else 128,
            replay=0.35 if is_math else 0.4,
            muon_lr=0.01,
            lr=1.5e-3,
            decay_from=0.3,
            seed=recipe.seed,
        )
        ask(f"tiny:{stars.run(config)}", families, recipe.sizes.score_units, out / "measured")

    return work


def pretrain(recipe: Recipe, out: Path) -> None:
    sizes = recipe.sizes
    model = newborn(Kit.build(), PretrainConfig(seed=recipe.seed))
    settings = TrainConfig(
        steps=sizes.pretrain_steps,
        examples_per_step=sizes.pretrain_examples,
        seed=recipe.seed,
        optimizer="muon",
        muon_lr=0.02,
        lr=3e-3,
        warmup_share=min(1.0, 40 / sizes.pretrain_steps),
        decay_from=1.0,
        snapshot_every=sizes.pretrain_steps // 3,
    )
    parts = {"mixture": Part(replay(model, seed=recipe.seed), 1.0)}
    card = {"command": "recipes/three_papers.py"}
    train(model, parts, settings, out / "training", card=card, trained_on=TRAINED_ON, title="pretraining")
    for name in ("weak", "further"):
        ask(f"tiny:{recipe.start(name)}", BOTH_WAYS, sizes.gvu_units, out / name, seed=31)


def reward_itself(start: str, *, reward: str = "geometric_mean"):
    def work(recipe: Recipe, out: Path) -> None:
        config = GvuRun(
            out=out / "run",
            model=f"tiny:{recipe.start(start)}",
            reward=reward,
            steps=recipe.sizes.gvu_steps,
            prompts_per_step=recipe.sizes.gvu_prompts,
            group_size=8,
            lr=3e-4,
            kl_coef=0.01,
            decay_from=0.5,
            alarm="warn",
            num_watched=40,
            seed=recipe.seed,
        )
        ask(f"tiny:{gvu_run.run(config)}", BOTH_WAYS, recipe.sizes.gvu_units, out / "measured", seed=31)

    return work


def teach(recipe: Recipe, out: Path, kind: type[InjectConfig] | type[EditConfig]):
    """What was measured before, after training on text, and after training on pictures; seeds pooled."""
    sizes = recipe.sizes
    first = recipe.seed * sizes.knowledge_seeds  # no two runs share one
    results = [
        knowledge.run(
            kind(
                out=out / f"seed-{seed}",
                arms=("understanding", "generation"),
                num_characters=sizes.num_characters,
                character_seed=seed,
                steps=sizes.knowledge_steps,
                control_units=4,
                seed=seed,
                threads=1,
            )
        )
        for seed in range(first, first + sizes.knowledge_seeds)
    ]
    measured = pool(results).measured
    taught = sizes.num_characters
    return measured[BASELINE, 0], measured["understanding", taught], measured["generation", taught]


def inject(recipe: Recipe, out: Path) -> dict[str, Estimate]:
    was, by_text, by_pictures = teach(recipe, out, InjectConfig)
    thought, inverse = by_text[FORWARD, THOUGHT], by_text["inverse", THOUGHT]
    rate = inverse.interval()
    return {
        "inject_text": change(by_text[FORWARD, DRAWN], was[FORWARD, DRAWN]),
        "inject_pictures": change(by_pictures[FORWARD, SAID], was[FORWARD, SAID]),
        "knowledge_thought": change(thought, by_text[FORWARD, DRAWN], ("at once", "after a thought")),
        "inverse_harder": inverse_minus_forward(inverse, thought),
        "inverse_low": shifted(rate, -0.5, f"right {rate.rate:.0%}"),
    }


def edit(recipe: Recipe, out: Path) -> dict[str, Estimate]:
    was, by_text, by_pictures = teach(recipe, out, EditConfig)
    return {
        "edit_text": change(by_text[FORWARD, DRAWN], was[FORWARD, DRAWN]),
        "edit_pictures": change(by_pictures[FORWARD, SAID], was[FORWARD, SAID]),
    }


CURRICULUM = self_train("stars", MAPPING, curriculum=True)
STAGES: Mapping[str, Work] = {
    "pretrain": Work(what="two early checkpoints, to start GvU from", minutes=14, run=pretrain),
    "mapping": Work(what="STARS on rules", minutes=10, run=self_train("stars", MAPPING)),
    "math": Work(what="STARS on arithmetic", minutes=7, run=self_train("stars", MATH)),
    "mapping-curriculum": Work(what="the same, one by one", minutes=6, run=CURRICULUM, needs="mapping"),
    "mapping-shuffled": Work(
        what="STARS on rules, pictures shuffled", minutes=6, run=self_train("shuffled", MAPPING), needs="mapping"
    ),
    "math-shuffled": Work(
        what="STARS on arithmetic, pictures shuffled", minutes=6, run=self_train("shuffled", MATH), needs="math"
    ),
    "inject": Work(what="new characters by text and by pictures, three seeds", minutes=7, run=inject),
    "edit": Work(what="overwritten facts by text and by pictures, three seeds", minutes=6, run=edit),
    "gvu-weak": Work(what="GvU from the weak start", minutes=5, run=reward_itself("weak"), needs="pretrain"),
    "gvu-random": Work(
        what="the same with random grades", minutes=5, run=reward_itself("weak", reward="random"), needs="pretrain"
    ),
    "gvu-further": Work(what="GvU from the further start", minutes=5, run=reward_itself("further"), needs="pretrain"),
    "before": Work(what="the model as it is: both directions, at once and after a thought", minutes=3, run=before),
}
"""In the order in which they are begun: what others wait for comes early."""


def ask(
    name: str, families: Sequence[str], num_units: int, out: Path, *, arms: tuple[Arm, ...] = ("normal",), seed: int = 1
) -> None:
    """Ask a model held-out items in both directions, and judge; resumable."""
    model = find_model(name)
    items = list(make_items(families, num_units=num_units, seed=seed))
    about = {"families": list(families), "num_units": num_units, "pictures": model.pictures}
    about["trained_on"] = model.trained_on
    report = evaluate(model, items, out, EvalConfig(arms=arms, seed=seed), run_config=about)
    judge_run(report.folder, ExactJudge())


# ---- from records to the page ----------------------------------------------------------------------------------------


def make_page(recipe: Recipe) -> Reproduction:
    out = recipe.out
    done = {name: read_result(out / name) for name in STAGES}
    alone = {key: Estimate(**numbers) for stage in done.values() for key, numbers in stage["numbers"].items()}
    # A session's last line says how long it was; a killed one counts up to the last part that it finished.
    wall = {line["began"]: line["seconds"] for _, line in read_json_lines(out / "wall.jsonl")}
    sessions = f" in {len(wall)} sessions" if len(wall) > 1 else ""
    # What killed sessions of a part took is not known.
    least = "at least " if any(stage["sessions"] > 1 for stage in done.values()) else ""
    cpu_minutes = sum(stage["cpu_minutes"] for stage in done.values())
    facts = {
        "command": shlex.join(["python", "recipes/three_papers.py", *sys.argv[1:]]),
        "commit": ", ".join(sorted({stage["commit"] or "not from a checkout" for stage in done.values()})),
        "seed": str(recipe.seed),
        "machine": f"{', '.join(sorted({stage['cpu'] for stage in done.values()}))} ({os.cpu_count()} cores)",
        "time": f"{sum(wall.values()) / 60:.0f} min{sessions}, {recipe.jobs} at a time",
        "CPU time": f"{least}{cpu_minutes:.0f} min",
    }
    return Reproduction(
        title="Three papers on one small model" + (", smoke run: no number means anything" if recipe.smoke else ""),
        papers=PAPERS,
        rows=judge_claims(CLAIMS, alone | estimates(out)),
        facts=list(facts.items()),
        stages=[
            Stage(name=name, what=work.what, minutes=done[name]["minutes"], sessions=done[name]["sessions"])
            for name, work in STAGES.items()
        ],
        notes=NOTES,
        examples={"At once, after a thought, after STARS": thinking(out), "Before and after GvU": rewarded(out)},
    )


if __name__ == "__main__":
    main(tyro.cli(Recipe, description=__doc__))
