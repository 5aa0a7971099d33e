"""STARS (self-training with rejection sampling): learn to draw at once what can be drawn after thinking.

A round takes fresh prompts of the training split, lets the model think and draw, keeps the pictures that a judge
accepts, drops repeats, and fine-tunes on prompt -> picture without the thought (Niu et al. 2025, arXiv 2511.20561;
docs/stars.md). Teacher and student are the same weights. A round's sampling is a run folder like any other and its
judging a verdict file, so both are resumed and inspected with the usual commands; its kept pictures are a data folder
that `unigap train sft --data` reads as well.

The arms separate what the pictures teach: see `unigap.train.kept.Arm`. All of them take the same number of examples
and steps.

    OUT/stars.json              the settings that decide the result
    OUT/round-1/samples/        run folder: think drawings of fresh prompts, and the judge's verdicts
    OUT/round-1/kept.json       which of them are learned from; acceptance and cost of each family
    OUT/round-1/data/           the same as prompt-picture parquet
    OUT/round-1/train/          log, checkpoint and model of the fine-tuning
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, cast, get_args

import torch

from unigap.disk import hold_folder, safe_name
from unigap.errors import CannotAskError, TrainingError, UnknownNameError
from unigap.evaluate import EvalConfig, evaluate
from unigap.items import Direction, Item
from unigap.judges import find_judge
from unigap.judging import check_judge, judge_run
from unigap.models import find_device, find_model
from unigap.models.settings import with_weights
from unigap.models.tiny.learning import Naming
from unigap.models.tiny.model import TinyModel
from unigap.models.tiny.network import Block, Network
from unigap.models.trainable import Trainable
from unigap.ranks import world_from_env
from unigap.scenes import find_family, make_items, make_units
from unigap.train import loop
from unigap.train.claim import claim
from unigap.train.data import Part, replay
from unigap.train.files import write_prompt_images
from unigap.train.kept import Arm, Kept, Tally, choose, load_kept, save_kept, with_answers
from unigap.train.loop import OptimizerName, TrainConfig, train
from unigap.train.sft import load_trainable
from unigap.train.thinning import thinned

WATCHED = ("plain", "counting")
"""Families that show what is forgotten: plain drawing, captions and counting."""

KEPT, SETTINGS = "kept.json", "stars.json"


@dataclass(frozen=True, kw_only=True)
class StarsConfig(TrainConfig):
    """Teach a model to draw at once what it can draw after thinking."""

    out: Path = Path("runs/stars")
    """Folder for samples, data, checkpoints and the tuned model. One of the same settings is resumed."""
    model: str = "tiny"
    """Who is taught: "tiny", "tiny:FOLDER", "bagel:FOLDER", or "their.module:Class"."""
    families: tuple[str, ...] = ("math1", "math2", "math3")
    """What is sampled and learned, easiest first."""
    arm: Arm = "stars"
    """stars, or a control: unfiltered (no rejection), shuffled (pictures under wrong prompts), oracle (rendered from
    the answers), continued (the pretraining mixture alone)."""
    rounds: int = 1
    """Each round samples from the model of the round before, on prompts of its own."""
    units: int = 8000
    """Fresh units of the training split that a round draws, a family; a pair of mapping items is one unit."""
    samples: int = 1
    """Drawings of each prompt."""
    samples_in: Path | None = None
    """Run folder for the samples of round 1; None is OUT/round-1/samples. Arms that name the same one sample once."""
    judge: str = "exact"
    """Who accepts or rejects."""
    think_prompt: str = "plan"
    """Instruction to think: plan, careful, knowledge, or the path of a text file."""
    curriculum: bool = False
    """Start with the first family and let the others in one by one, each after an equal share of the steps."""
    partial: float = 0.0
    """Share of the examples that keep some first lines of their thought (any number that leaves a step to be made)."""
    text_first: float = 0.0
    """Share of the steps, at the start, in which the same prompts' questions are answered in text at once: what the
    model said after a thought, where the judge accepted it. The pictures come after; in [0, 1)."""
    add_layers: int = 0
    """Layers added to the embedded model before the first round; they change nothing until they are trained."""
    add_after: int | None = None
    """Behind which of its layers these come (0: before all); None puts them on top."""
    add_copies: bool = False
    """Start them as copies of the layer before them, but for what they give out, which stays zero."""
    name_steps: float = 0.0
    """Loss weight of each result of the thought (the words that end its steps), for the embedded model's token that
    begins a picture to name between the layers; 0 leaves that out."""
    name_after: tuple[int, ...] = ()
    """Behind how many of its layers, those added included, the results are named: the last result at the last of them,
    the one before it at the one before; see name_first."""
    name_first: bool = False
    """Name the first result at the first of them instead, the next at the next, and the last again at all that are
    left."""
    replay: float = 0.35
    """Share of each step that is the embedded model's pretraining mixture, against forgetting; in [0, 1)."""
    score_units: int = 300
    """Units of the test split, a family, on which the model is measured before and after; 0 measures nothing."""
    score_seed: int = 1
    """Seed of these units."""
    score_families: tuple[str, ...] = ()
    """What it is measured on; none named: the families it learns, and plain and counting, to see what it forgets."""
    threads: int = 0
    """CPU threads of each process; 0 leaves it to torch."""
    steps: int = 1250
    """Optimizer steps of a round."""
    seed: int = 0
    """Drives prompts, sampling, shuffling and the order of the data."""
    optimizer: OptimizerName = "muon"
    """muon: Muon on the network's matrices, AdamW on the rest of what trains."""
    lr: float = 1.5e-3
    """Peak rate of AdamW."""
    muon_lr: float = 0.007
    """Peak rate of Muon; unused with adamw."""
    decay_from: float = 0.15
    """Share of a round after which the rates fall linearly to zero; 1 keeps them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.arm not in get_args(Arm):
            raise UnknownNameError("arm", self.arm, get_args(Arm))
        if not self.families or len(set(self.families)) < len(self.families):
            raise ValueError(f"families must be named once each, at least one; found {list(self.families)}")
        if min(self.rounds, self.units, self.samples) < 1 or min(self.score_units, self.add_layers) < 0:
            raise ValueError("rounds, units and samples must be at least 1, score_units and add_layers at least 0")
        if not (0 <= self.replay < 1 and 0 <= self.partial <= 1 and 0 <= self.text_first < 1):
            raise ValueError(
                "replay and text_first must be in [0, 1) and partial in [0, 1]; "
                f"got {self.replay}, {self.text_first} and {self.partial}"
            )
        if self.add_after is not None and (self.add_after < 0 or not self.add_layers):
            raise ValueError(f"add_after {self.add_after} must be at least 0, and add_layers say how many")
        if self.add_copies and (not self.add_layers or self.add_after == 0):
            raise ValueError("add_copies needs add_layers, and a layer before them: add_after above 0")
        if not 0 <= self.name_steps < float("inf") or (self.name_steps > 0) != bool(self.name_after):
            raise ValueError(f"name_steps {self.name_steps} must be at least 0, and above it if name_after is given")
        if any(here >= there for here, there in pairwise((0, *self.name_after))):
            raise ValueError(f"name_after must be numbers of layers from 1, increasing; got {list(self.name_after)}")
        for family in (*self.families, *self.score_families):
            find_family(family)

    def for_loop(self) -> TrainConfig:
        """The settings of the loop alone."""
        return TrainConfig(**{field.name: getattr(self, field.name) for field in fields(TrainConfig)})


def run(config: StarsConfig) -> Path:
    """All rounds, going on where a killed run stopped; returns the folder of the last model.

    Raises:
        TrainingError: The folder holds a run of other settings; nothing was accepted; training cannot go on.
        CannotAskError: The model cannot think, draw or be trained.
        CannotJudgeError: The judge cannot read the model's pictures, or the families' answers.
        ValueError: A family has too few training prompts.
    """
    if world_from_env()[1] > 1:
        raise TrainingError(
            "self-training samples and judges in one process. Run it alone; to train with several, take what it kept: "
            f'"unigap train sft --data {config.out / "round-1" / "data"}" under torchrun.'
        )
    if config.threads:
        torch.set_num_threads(config.threads)
    model = load_trainable(config.model, device="auto")
    if missing := {"think", "draw"} - model.abilities:
        raise CannotAskError(f"{model.name} cannot {' or '.join(sorted(missing))}; self-training needs both")
    claim(config.out / SETTINGS, _settings(config), free=["rounds"])  # more rounds may be added to a run
    path = config.out
    for number in range(1, config.rounds + 1):
        folder = config.out / f"round-{number}"
        if config.name_steps:  # before sampling, so that what cannot work says so at once
            naming = Naming(config.name_after, config.name_steps, config.name_first)
            name_between(cast(TinyModel, model), naming, to_come=config.add_layers if number == 1 else 0)
        parts: dict[str, Part[Any]] = {}
        sampled: dict[str, Any] = {}
        if config.arm != "continued":
            kept = sample_and_judge(model, config, number, folder)
            sampled = {name: tally.to_json() for name, tally in kept.tallies.items()}
            places = config.steps * round(config.examples_per_step * (1 - config.replay))
            num_first = round(config.text_first * places)
            source = thinned(
                model,
                kept,
                config.families,
                seed=config.seed + number - 1,
                partial=config.partial,
                stages=places - num_first if config.curriculum else 0,
                answers={name: list(kept.said(name)) for name in config.families if num_first},
                num_first=num_first,
            )
            parts["kept"] = Part(source, 1 - config.replay)
        if config.replay or not parts:
            source = replay(cast(TinyModel, model), seed=config.seed + number - 1)
            parts["replay"] = Part(source, config.replay if parts else 1.0)
        if number == 1 and config.add_layers:
            deepen(cast(TinyModel, model), config.add_layers, config.add_after, copies=config.add_copies)
        path = train(
            model,
            parts,
            config.for_loop(),
            folder / "train",
            card={"command": "unigap train stars", "stars": _settings(config) | {"round": number, "sampled": sampled}},
            trained_on={} if config.arm == "continued" else dict.fromkeys(config.families, "direct"),
            title=f"training, round {number} of {config.rounds}",
        )
        # What is sampled next is what was saved, not what training left in memory; asked as the model before it.
        kind, device, sampling = type(model), find_device(), model.sampling
        del model  # two of them may not fit
        model = kind.from_pretrained(path, device=device)
        model.sampling = sampling
    return path


def run_arms(arms: Mapping[str, StarsConfig], out: Path) -> dict[str, Path]:
    """Train each arm, and ask the untrained model and each arm's the same held-out items; resumable.

    Args:
        arms: Settings by name; the model and what it is measured on are those of the first.
        out: Folder for the measurements.

    Returns:
        "before" and the arms' names -> judged run folders.
    """
    first = next(iter(arms.values()))
    models = {"before": first.model} | {name: with_weights(first.model, run(config)) for name, config in arms.items()}
    runs = {name: out / safe_name(name) for name in models}
    for name, model in models.items():
        measure(first, model, runs[name])
    return runs


def measure(config: StarsConfig, name: str, out: Path) -> None:
    """Ask a model the held-out items at once and after thinking, in both directions, and judge.

    Args:
        config: Says which items, and who judges.
        name: As for `find_model`.
        out: The run folder; continued if it is there.
    """
    families = config.score_families or (*config.families, *(f for f in WATCHED if f not in config.families))
    items = list(make_items(families, num_units=config.score_units, seed=config.score_seed))
    asked = EvalConfig(arms=("normal", "think"), seed=config.score_seed, think_prompt=config.think_prompt)
    model = find_model(name)
    run_config = {"families": families, "num_units": config.score_units, "samples": 1, "pictures": model.pictures}
    report = evaluate(model, items, out, asked, run_config=run_config | {"trained_on": model.trained_on})
    judge_run(report.folder, find_judge(config.judge))


# ---- settings --------------------------------------------------------------------------------------------------------

RESULT_FREE = (*loop.RESULT_FREE, "out", "samples_in", "threads", "score_units", "score_seed", "score_families")
"""Settings that do not change what is learned."""


def _settings(config: StarsConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name not in RESULT_FREE}


# ---- sampling and judging --------------------------------------------------------------------------------------------


def sample_and_judge(model: Trainable[Any], config: StarsConfig, number: int, folder: Path) -> Kept:
    """Think drawings of a round's fresh prompts, judged; what is kept is written down once and then read again.

    Raises:
        TrainingError: Nothing of a family was accepted, or nothing could be judged.
    """
    if (kept := kept_before(config, number)) is not None:
        return kept
    items = fresh_items(config, number)
    judge = find_judge(config.judge)
    directions: tuple[Direction, ...] = ("understanding", "generation") if config.text_first else ("generation",)
    check_judge(judge, model, items, directions)
    asked = EvalConfig(
        directions=directions,
        arms=("think",),
        samples=config.samples,
        seed=config.seed,
        think_prompt=config.think_prompt,
    )
    where = samples_folder(config, number)
    # Arms at work at the same time may name the same samples: one draws and judges them, the others wait.
    with hold_folder(where, waiting=f"another process samples in {where}; waiting for it"):
        report = evaluate(model, items, where, asked, run_config={"pictures": model.pictures})
        judge_run(report.folder, judge)
    kept = choose(report.folder, judge.name, config.families, arm=config.arm, seed=config.seed, number=number)
    if config.text_first:
        kept = with_answers(kept, judge.name)
    examples = ((str(e.content[0]), e.image) for name in config.families for e in kept.examples(name) if e.image)
    write_prompt_images(folder / "data" / "kept.parquet", examples)
    save_kept(folder / KEPT, kept)
    return kept


def fresh_items(config: StarsConfig, number: int) -> list[Item]:
    """A round's prompts, of the training split; no prompt comes in two rounds.

    Raises:
        ValueError: A family has no more of them.
    """
    items: list[Item] = []
    first = (number - 1) * config.units
    for family in config.families:
        units = list(islice(make_units(family, seed=config.seed, split="train"), first, first + config.units))
        if len(units) < config.units:
            raise ValueError(
                f"family {family} has only {first + len(units)} distinct units in its training split; round {number} "
                f"needs {first} to {first + config.units}. Take fewer --units or --rounds."
            )
        items += [item for unit in units for item in unit]
    return items


def samples_folder(config: StarsConfig, number: int) -> Path:
    if number == 1 and config.samples_in is not None:
        return config.samples_in
    return config.out / f"round-{number}" / "samples"


def kept_before(config: StarsConfig, number: int) -> Kept | None:
    """What a round learns from; None if that is not settled yet."""
    path = config.out / f"round-{number}" / KEPT
    return load_kept(path, samples_folder(config, number), arm=config.arm, seed=config.seed) if path.exists() else None


def read_tallies(config: StarsConfig) -> dict[tuple[int, str], Tally]:
    """Round and family -> what became of its drawings; {} for the arm that samples nothing."""
    return {
        (number, family): tally
        for number in range(1, config.rounds + 1)
        if (kept := kept_before(config, number)) is not None
        for family, tally in kept.tallies.items()
    }


# ---- the model -------------------------------------------------------------------------------------------------------


def name_between(model: TinyModel, naming: Naming, *, to_come: int = 0) -> None:
    """Have the embedded model learn to name words between its layers.

    Args:
        to_come: Layers that will be added before it is trained.

    Raises:
        CannotAskError: No token of its trunk begins its pictures.
        ValueError: It has fewer layers.
    """
    if not isinstance(model, TinyModel) or model.painter is not None:
        raise CannotAskError(
            f"{model.name} cannot name steps between its layers; only the embedded model can, in codes"
        )
    if naming.after[-1] > (layers := model.network.config.num_layers + to_come):
        raise ValueError(f"nothing can be named behind layer {naming.after[-1]}: {model.name} has {layers}")
    model.naming = naming


def deepen(model: TinyModel, num_layers: int, after: int | None = None, *, copies: bool = False) -> None:
    """Add layers to the embedded model; with the zero output projections of birth, they change nothing yet.

    Args:
        after: How many of its own layers stay before them; None: all.
        copies: What they compute is what the layer before them computes, though they give out nothing of it yet.

    Raises:
        CannotAskError: The model has no layers to which others can be added.
        ValueError: It has fewer layers than `after`.
    """
    if not isinstance(model, TinyModel):
        raise CannotAskError(f"{model.name} cannot be given more layers here; only the embedded model can")
    if model.painter is not None:
        raise CannotAskError(f"{model.name} cannot be given more layers: its painter is of the trunk's shape")
    old = model.network
    own = old.config.num_layers
    after = own if after is None else after
    if not 0 <= after <= own:
        raise ValueError(f"layers cannot be added after layer {after}: {model.name} has {own}")
    torch.manual_seed(0)
    network = Network(replace(old.config, num_layers=own + num_layers))
    kept = [network.blocks[place if place < after else place + num_layers] for place in range(own)]
    for block, theirs in zip(kept, old.blocks, strict=True):
        block.load_state_dict(theirs.state_dict())
    if copies:
        for block in network.blocks[after : after + num_layers]:
            assert isinstance(block, Block)
            block.load_state_dict(old.blocks[after - 1].state_dict())
            torch.nn.init.zeros_(block.out.weight)
            torch.nn.init.zeros_(block.down.weight)
    outside = {name: value for name, value in old.state_dict().items() if not name.startswith("blocks.")}
    missing, unexpected = network.load_state_dict(outside, strict=False)
    assert not unexpected and all(name.startswith("blocks.") for name in missing)
    model.network = network.to(old.embed.weight.device).eval()
