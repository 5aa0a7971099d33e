"""STARS (self-training with rejection sampling): learn to draw at once what can be drawn after thinking.

A round takes fresh prompts of the training split, lets the model think and draw, keeps the pictures that a judge
accepts, drops repeats, and fine-tunes on prompt -> picture without the thought (Niu et al. 2025, arXiv 2511.20561;
docs/stars.md). Teacher and student are the same weights. A round's sampling is a run folder like any other and its
judging a verdict file, so both are resumed and inspected with the usual commands; its kept pictures are a data folder
that `unigap train sft --data` reads as well.

The arms separate what the pictures teach: see `Arm`. All of them take the same number of examples and steps.

    OUT/stars.json              the settings that decide the result
    OUT/round-1/samples/        run folder: think drawings of fresh prompts, and the judge's verdicts
    OUT/round-1/kept.json       which of them are learned from; acceptance and cost of each family
    OUT/round-1/data/           the same as prompt-picture parquet
    OUT/round-1/train/          log, checkpoint and model of the fine-tuning
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar, cast, get_args

import torch
from PIL.Image import Image

from unigap.arms import last_line
from unigap.disk import explain_os_errors, safe_name, write_files
from unigap.errors import CannotAskError, TrainingError, UnknownNameError
from unigap.evaluate import EvalConfig, check_judge, evaluate, judge_run
from unigap.gap.intervals import Interval, rate_interval
from unigap.items import Count, Item
from unigap.judges import find_judge
from unigap.models import find_model
from unigap.models.tiny.model import TinyModel
from unigap.models.tiny.network import Network
from unigap.models.trainable import Example, Prepared, Trainable, examples_sha256
from unigap.ranks import world_from_env
from unigap.records import Key, RunFolder
from unigap.scenes import find_family, make_items, make_units
from unigap.scenes.render import CELL_CONTENTS, Grid, render
from unigap.train import loop
from unigap.train.data import Part, replay
from unigap.train.files import write_prompt_images
from unigap.train.loop import OptimizerName, TrainConfig, train
from unigap.train.mixture import Kit, scene_of
from unigap.train.sft import load_trainable

Arm = Literal["stars", "unfiltered", "shuffled", "oracle", "continued"]
"""What is learned from.

stars: the accepted pictures. unfiltered: as many of all pictures, whatever the judge said. shuffled: the accepted
pictures under wrong prompts, in groups in which the sentence alone does not tell the answer (the same object of a math
family, the halves of a mapping pair): the format without the reasoning. oracle: pictures rendered from the items'
answers, for the accepted prompts: an upper bound. continued: none; as many more steps of the pretraining mixture.
"""

WATCHED = ("plain", "counting")
"""Families that show what is forgotten: plain drawing, captions and counting."""

KEPT, SETTINGS = "kept.json", "stars.json"

Row = TypeVar("Row", bound=Prepared)


@dataclass(frozen=True, kw_only=True)
class StarsConfig(TrainConfig):
    """Teach a model to draw at once what it can draw after thinking."""

    out: Path = Path("runs/stars")
    """Folder for samples, data, checkpoints and the tuned model. One of the same settings is resumed."""
    model: str = "tiny"
    """Who is taught: "tiny", "tiny:FOLDER", or "their.module:Class"."""
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
    add_layers: int = 0
    """Layers put on top of the embedded model before the first round; they change nothing until they are trained."""
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
        if not (0 <= self.replay < 1 and 0 <= self.partial <= 1):
            raise ValueError(f"replay must be in [0, 1) and partial in [0, 1]; got {self.replay} and {self.partial}")
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
    model = load_trainable(config.model)
    if missing := {"think", "draw"} - model.abilities:
        raise CannotAskError(f"{model.name} cannot {' or '.join(sorted(missing))}; self-training needs both")
    _claim(config)
    path = config.out
    for number in range(1, config.rounds + 1):
        folder = config.out / f"round-{number}"
        parts: dict[str, Part[Any]] = {}
        sampled: dict[str, Any] = {}
        if config.arm != "continued":
            kept = sample_and_judge(model, config, number, folder)
            sampled = {name: tally.to_json() for name, tally in kept.tallies.items()}
            parts["kept"] = Part(_source(model, kept, config, number), 1 - config.replay)
        if config.replay or not parts:
            source = replay(cast(TinyModel, model), seed=config.seed + number - 1)
            parts["replay"] = Part(source, config.replay if parts else 1.0)
        if number == 1 and config.add_layers:
            deepen(cast(TinyModel, model), config.add_layers)
        path = train(
            model,
            parts,
            config.for_loop(),
            folder / "train",
            card={"command": "unigap train stars", "stars": _settings(config) | {"round": number, "sampled": sampled}},
            trained_on={} if config.arm == "continued" else dict.fromkeys(config.families, "direct"),
            title=f"training, round {number} of {config.rounds}",
        )
        # What is sampled next is what was saved, not what training left in memory.
        model = type(model).from_pretrained(path, device="cpu")
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
    kind = first.model.partition(":")[0]
    models = {"before": first.model} | {name: f"{kind}:{run(config)}" for name, config in arms.items()}
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


def _claim(config: StarsConfig) -> None:
    """Make the folder this run's.

    Raises:
        TrainingError: It is another run's, or cannot be written.
    """
    path = config.out / SETTINGS
    ours = json.loads(json.dumps(_settings(config), default=str))
    if path.exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        # More rounds may be added to a run.
        differs = [name for name in ours if name != "rounds" and theirs.get(name) != ours[name]]
        if differs:
            lines = "; ".join(f"{name}: {theirs.get(name)} there, {ours[name]} here" for name in differs)
            raise TrainingError(f"{config.out} holds a run of other settings ({lines}); name another --out")
    with explain_os_errors(config.out, safe="Nothing was lost"):
        write_files([(path, json.dumps(ours, indent=1).encode() + b"\n")])


# ---- sampling and judging --------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What became of a family's drawings in one round."""

    drawings: int = 0
    """Settled records: prompts x samples, less what a transport error left out."""
    scored: int = 0
    """Of these, how many the judge could score."""
    accepted: int = 0
    repeats: int = 0
    """Accepted drawings that were the same picture for the same prompt as another."""
    kept: int = 0
    text_calls: int = 0
    draw_calls: int = 0
    seconds: float = 0.0
    """Of the model's calls."""
    errors: Counter[str] = field(default_factory=Counter)
    """Error codes of what was not accepted; "unscored" for what the judge could not score."""

    @property
    def acceptance(self) -> Interval:
        """Accepted out of scored; drawings of one prompt, and of the halves of a pair, are taken as independent."""
        return rate_interval([1.0] * self.accepted + [0.0] * (self.scored - self.accepted), range(self.scored))

    def to_json(self) -> dict[str, Any]:
        rate = self.acceptance
        data = asdict(self) | {"errors": dict(self.errors.most_common()), "seconds": round(self.seconds, 1)}
        return data | {"acceptance": [round(value, 4) for value in (rate.rate, rate.low, rate.high)]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Tally":
        fields = {name: value for name, value in data.items() if name not in ("acceptance", "errors")}
        return cls(**fields, errors=Counter(data["errors"]))

    def __str__(self) -> str:
        left_out = [f"{self.repeats} repeats"] if self.repeats else []
        left_out += [f"{count} {code}" for code, count in self.errors.most_common(4)]
        return (
            f"{self.drawings} drawings, accepted {self.acceptance}, {self.kept} kept"
            f"{' (not: ' + ', '.join(left_out) + ')' if left_out else ''}; "
            f"{self.text_calls} text calls and {self.draw_calls} drawings in {self.seconds:.0f} s"
        )


class Choice(NamedTuple):
    """An example to be learned: the prompt and thought of one drawing, and whose picture stands under it."""

    item_id: str
    sample: int
    picture_item_id: str
    picture_sample: int


@dataclass(frozen=True)
class Kept:
    """What a round learns from."""

    folder: RunFolder
    choices: Mapping[str, Sequence[Choice]]
    """By family, in the order in which they were drawn."""
    tallies: Mapping[str, Tally]
    oracle: bool
    seed: int

    def examples(self, family: str) -> Iterator[Example]:
        """Prompt, whole thought and picture of each choice, one at a time."""
        records = self.folder.records()
        for number, choice in enumerate(self.choices[family]):
            item = self.folder.item(choice.item_id)
            thought = records.get(Key(choice.item_id, "generation", "think", choice.sample))
            drawn = records.get(Key(choice.picture_item_id, "generation", "think", choice.picture_sample))
            assert thought is not None and drawn is not None
            if self.oracle:
                image: Image = render(scene_of(item.answer, random.Random(f"oracle/{self.seed}/{family}/{number}")))
            else:
                image = self.folder.load_image(drawn)
            yield Example(
                id=f"{choice.item_id}#{choice.sample}", content=(item.prompt,), thought=thought.thought, image=image
            )


def sample_and_judge(model: Trainable[Any], config: StarsConfig, number: int, folder: Path) -> Kept:
    """Think drawings of a round's fresh prompts, judged; what is kept is written down once and then read again.

    Raises:
        TrainingError: Nothing of a family was accepted, or nothing could be judged.
    """
    path = folder / KEPT
    if path.exists():
        return _read_kept(path, config, number)
    items = fresh_items(config, number)
    judge = find_judge(config.judge)
    check_judge(judge, model, items, ("generation",))
    asked = EvalConfig(
        directions=("generation",),
        arms=("think",),
        samples=config.samples,
        seed=config.seed,
        think_prompt=config.think_prompt,
    )
    where = samples_folder(config, number)
    report = evaluate(model, items, where, asked, run_config={"pictures": model.pictures})
    judge_run(report.folder, judge)
    kept = choose(report.folder, judge.name, config, number)
    examples = ((str(e.content[0]), e.image) for name in config.families for e in kept.examples(name) if e.image)
    write_prompt_images(folder / "data" / "kept.parquet", examples)
    _write_kept(path, kept)
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


def choose(folder: RunFolder, judge: str, config: StarsConfig, number: int) -> Kept:
    """What is learned from, given the judge's verdicts.

    What could not be scored is left out and counted. Two drawings of one prompt that are the same picture count once.

    Raises:
        TrainingError: Nothing of a family could be scored, or nothing was accepted; the message says what to try.
    """
    verdicts = folder.verdicts(judge)
    tallies = {name: Tally() for name in config.families}
    accepted: dict[str, list[Choice]] = {name: [] for name in config.families}
    drawn: dict[str, list[Choice]] = {name: [] for name in config.families}
    group_of: dict[str, str] = {}
    seen: set[tuple[str, str | None]] = set()
    for record in sorted((r for r in folder.records() if r.settled), key=lambda r: (r.item_id, r.sample)):
        item = folder.item(record.item_id)
        tally = tallies[item.family]
        tally.drawings += 1
        tally.text_calls += 1
        tally.draw_calls += record.thought is not None
        tally.seconds += record.timing_s
        group_of[item.id] = _group(item)
        verdict = verdicts.get(record.key)
        choice = Choice(item.id, record.sample, item.id, record.sample)
        if record.outcome == "ok":
            drawn[item.family].append(choice)
        if verdict is None or verdict.verdict == "unscored":
            tally.errors["unscored"] += 1
            continue
        tally.scored += 1
        if verdict.verdict != "correct":
            tally.errors[verdict.error or ""] += 1
            continue
        tally.accepted += 1
        if (item.prompt, record.image_sha256) in seen:
            tally.repeats += 1
            continue
        seen.add((item.prompt, record.image_sha256))
        accepted[item.family].append(choice)
    for name, tally in tallies.items():
        if not accepted[name]:
            raise TrainingError(_nothing_accepted(name, tally, folder))
    rng = random.Random(f"stars/{config.seed}/{number}/{config.arm}")
    if config.arm == "shuffled":
        accepted = {name: _shuffle(choices, group_of, rng) for name, choices in accepted.items()}
    elif config.arm == "unfiltered":
        accepted = {name: sorted(rng.sample(drawn[name], len(choices))) for name, choices in accepted.items()}
    for name, tally in tallies.items():
        tally.kept = len(accepted[name])
        if not tally.kept:
            raise TrainingError(
                f"{name}: none of {tally.accepted} accepted drawings can be exchanged with another (of the same object "
                "or pair); take more --units"
            )
    return Kept(folder, accepted, tallies, config.arm == "oracle", config.seed)


def _nothing_accepted(family: str, tally: Tally, folder: RunFolder) -> str:
    if not tally.scored:
        return (
            f"{family}: the judge could score none of {tally.drawings} drawings in {folder.path}; nothing was trained. "
            "The same command asks the judge again."
        )
    errors = ", ".join(f"{code} {count}" for code, count in tally.errors.most_common(4))
    return (
        f"{family}: none of {tally.scored} drawings was accepted ({errors}), so there is nothing to learn from. Look "
        f'at them ("unigap view {folder.path}"). Then try an easier family first, more --samples, or another '
        "--think-prompt; self-training only carries over what thinking can already do."
    )


def _group(item: Item) -> str:
    """Items among which pictures can be exchanged without the sentence alone giving the exchange away."""
    return item.answer.object if isinstance(item.answer, Count) else item.unit


def _shuffle(choices: Sequence[Choice], group_of: Mapping[str, str], rng: random.Random) -> list[Choice]:
    """The choices with their pictures permuted within groups; a group of one picture would keep it, and is left out."""
    groups: dict[str, list[Choice]] = defaultdict(list)
    for choice in choices:
        groups[group_of[choice.item_id]].append(choice)
    shuffled = []
    for members in groups.values():
        if len(members) > 1:
            pictures = rng.sample(members, len(members))
            shuffled += [
                choice._replace(picture_item_id=other.item_id, picture_sample=other.sample)
                for choice, other in zip(members, pictures)
            ]
    return sorted(shuffled)


def _write_kept(path: Path, kept: Kept) -> None:
    data = {
        "families": {name: tally.to_json() for name, tally in kept.tallies.items()},
        "choices": {name: [list(choice) for choice in choices] for name, choices in kept.choices.items()},
    }
    with explain_os_errors(path.parent):
        write_files([(path, json.dumps(data, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")])


def samples_folder(config: StarsConfig, number: int) -> Path:
    if number == 1 and config.samples_in is not None:
        return config.samples_in
    return config.out / f"round-{number}" / "samples"


def _read_kept(path: Path, config: StarsConfig, number: int) -> Kept:
    data = json.loads(path.read_text(encoding="utf-8"))
    tallies = {name: Tally.from_json(saved) for name, saved in data["families"].items()}
    choices = {name: [Choice(*choice) for choice in rows] for name, rows in data["choices"].items()}
    folder = RunFolder.open(samples_folder(config, number))
    return Kept(folder, choices, tallies, config.arm == "oracle", config.seed)


def read_tallies(config: StarsConfig) -> dict[tuple[int, str], Tally]:
    """Round and family -> what became of its drawings; {} for the arm that samples nothing."""
    paths = {number: config.out / f"round-{number}" / KEPT for number in range(1, config.rounds + 1)}
    return {
        (number, family): tally
        for number, path in paths.items()
        if path.exists()
        for family, tally in _read_kept(path, config, number).tallies.items()
    }


# ---- the model -------------------------------------------------------------------------------------------------------


def deepen(model: TinyModel, num_layers: int) -> None:
    """Put layers on top of the embedded model; with the zero output projections of birth, they change nothing yet."""
    if not isinstance(model, TinyModel):
        raise CannotAskError(f"{model.name} cannot be given more layers here; only the embedded model can")
    old = model.network
    config = replace(old.config, num_layers=old.config.num_layers + num_layers)
    torch.manual_seed(0)
    network = Network(config)
    missing, unexpected = network.load_state_dict(old.state_dict(), strict=False)
    assert not unexpected and all(int(name.split(".")[1]) >= old.config.num_layers for name in missing)
    model.network = network.to(old.embed.weight.device).eval()


# ---- what a step learns from -----------------------------------------------------------------------------------------


class Thinning(Generic[Row]):
    """Kept examples at random, by family and with more or less of the thought: a source for `unigap.train.loop`.

    Args:
        rows: family -> examples -> the example without its thought, then with its first line, its first two, ...
        identity: Names their content.
        seed: Each place in the stream has its own generator, from this seed.
        partial: Probability that an example which can be had with some of its thought is.
        stages: How many places the stream is expected to give, if the families come in one by one; 0: all at once.
    """

    def __init__(
        self,
        rows: Mapping[str, Sequence[Sequence[Row]]],
        *,
        identity: str,
        seed: int,
        partial: float = 0.0,
        stages: int = 0,
    ) -> None:
        counts = ", ".join(f"{name} {len(examples)}" for name, examples in rows.items())
        self.identity = f"{identity}, {counts}, seed {seed}, partial {partial}, stages {stages}"
        self._rows, self._families = rows, tuple(rows)
        self._seed, self._partial, self._stages = seed, partial, stages

    def families_at(self, place: int) -> Sequence[str]:
        """What a place in the stream is drawn from."""
        if not self._stages:
            return self._families
        return self._families[: 1 + min(place * len(self._families) // self._stages, len(self._families) - 1)]

    def take(self, start: int, num: int) -> list[Row]:
        return [self._at(place) for place in range(start, start + num)]

    def _at(self, place: int) -> Row:
        rng = random.Random(f"kept/{self._seed}/{place}")
        variants = rng.choice(self._rows[rng.choice(self.families_at(place))])
        partial = len(variants) > 1 and rng.random() < self._partial
        return variants[rng.randrange(1, len(variants)) if partial else 0]


def _source(model: Trainable[Row], kept: Kept, config: StarsConfig, number: int) -> Thinning[Row]:
    prepare = preparer(model)
    rows: dict[str, list[list[Row]]] = {}
    hashes = []
    for family in config.families:
        rows[family] = []
        for example in kept.examples(family):
            hashes.append(examples_sha256([example])[:16])
            thoughts = [None, *(partial_thoughts(example.thought or "") if config.partial else ())]
            rows[family].append([prepare(replace(example, thought=thought)) for thought in thoughts])
    identity = f"kept pictures sha256:{_sha256(hashes)}"
    places = config.steps * round(config.examples_per_step * (1 - config.replay))
    return Thinning(
        rows,
        identity=identity,
        seed=config.seed + number - 1,
        partial=config.partial,
        stages=places if config.curriculum else 0,
    )


def _sha256(parts: Iterable[str]) -> str:
    import hashlib

    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def partial_thoughts(thought: str) -> list[str]:
    """The first line, the first two, ... of a thought, short of the step before its last line ("Draw 3 cups.").

    So at least the last step is left to be made: "9 - 5 = 4" of "9 - 5 = 4", "4 + 1 = 5", "Draw 5 cups.".
    """
    lines = [line for line in thought.splitlines() if line.strip()]
    assert not lines or last_line(thought) is not None
    return ["\n".join(lines[:kept]) for kept in range(1, len(lines) - 1)]


def preparer(model: Trainable[Row]) -> Callable[[Example], Row]:
    """How an example is prepared: as the model does, and for the embedded model with shares for a picture of objects.

    Objects lie in random places, so each cell is learned as the share of what is still to be drawn, as in pretraining
    (`unigap.train.mixture.Kit`): the same expected gradient as that of the picture, with less noise.
    """
    if not isinstance(model, TinyModel):
        return model.prepare
    kit = Kit(model.tokenizer, model.codebook)
    name_of = {tuple(kit.picture(Grid((name, *[None] * 8)))[:2]): name for name in CELL_CONTENTS}

    def prepare(example: Example) -> Any:
        row = model.prepare(example)
        halves = row.ids[-18:]
        cells = tuple(name_of.get(tuple(halves[at : at + 2]), "?") for at in range(0, 18, 2))
        if "?" in cells:
            return row
        return replace(row, targets=[*row.targets[:-18], *kit.sample(draw=Grid(cells)).targets[-18:]])

    return prepare
