"""Does what is learned on one side reach the other? Knowledge injected, or edited, by text, by pictures or by both.

Injection teaches new fictional characters, an edit overwrites one fact of characters that the model knows. Either is
taught on the understanding side (questions with text answers), on the generation side (prompts with pictures), or
jointly; then both sides are measured, in every arm of asking, with what should not have changed beside them
(UniSandbox, arXiv 2511.20561; GapEval, arXiv 2602.02140, its tables of trained on x measured on; docs/knowledge.md).

"Side" is what is learned, not where: by default every weight trains (`trains` names parts that do, the rest is frozen).

    OUT/settings.json               what decides the result
    OUT/baseline/knowledge/ ...     run folders of the model as it was
    OUT/understanding/training/     log, checkpoint and model of the arm
    OUT/understanding/knowledge/    run folder: what was taught, and old characters; looks/ and naming/ likewise
    OUT/result.json                 the printed table, with intervals and paired changes against the baseline
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast, get_args

import torch

from unigap.errors import UnknownNameError
from unigap.judges import find_judge
from unigap.models import find_device
from unigap.models.trainable import Example, Prepared, Trainable
from unigap.train import loop
from unigap.train.before_after import BASELINE, Cells, Result, measure
from unigap.train.changes import (
    KINDS,
    Change,
    Kind,
    TextForm,
    edits,
    naming_examples,
    new_characters,
    picture_examples,
    text_examples,
)
from unigap.train.claim import claim
from unigap.train.data import Examples, Part, Source, replay
from unigap.train.loop import OptimizerName, TrainConfig, train
from unigap.train.sft import load_trainable

Side = Literal["understanding", "generation", "joint", "control"]
"""What is trained on. understanding: text alone. generation: pictures alone. joint: both, each as much as alone, so in
twice the steps. control: neither, but as many steps on what the others have beside it (the replayed mixture, the form
of naming questions)."""

SETTINGS, RESULT = "settings.json", "result.json"

Row = TypeVar("Row", bound=Prepared)


@dataclass(frozen=True, kw_only=True)
class KnowledgeConfig(TrainConfig, ABC):
    """What injection and editing have in common."""

    out: Path
    """Folder for everything. One of the same settings is continued; arms may be added to it."""
    model: str = "tiny"
    """Who is taught: "tiny", "tiny:FOLDER", "bagel:FOLDER", or "their.module:Class"."""
    arms: tuple[Side, ...] = ("understanding", "generation", "joint")
    """What is trained on: understanding (text alone), generation (pictures alone), joint (both, in twice the steps), or
    control (the replayed mixture alone). Each starts from the model as it is."""
    num_characters: int = 20
    """How many are taught."""
    character_seed: int = 0
    """Which ones."""
    text: tuple[TextForm, ...] = ("facts", "answers")
    """Forms of text training: facts (question-answer templates), answers (the families' questions in a word or two),
    thoughts (the same questions, and drawing prompts, with a thought that states the fact)."""
    languages: tuple[str, ...] = ("en",)
    """Languages of the facts' questions: en, zh, es, fr, ja. The embedded model reads en alone."""
    pictures: int = 4
    """Pictures of each prompt, objects in random places."""
    replay: float = 0.5
    """Share of each step that is the embedded model's pretraining mixture, against forgetting; in [0, 1)."""
    naming: float = 0.0
    """Share of each step that teaches the form of naming questions (whose portrait?) on old characters; in [0, 1)."""
    successive: bool = False
    """Teach one character after the other, each on top of the last and of `steps` steps; measure after 1, 2, 4, ..."""
    control_units: int = 60
    """Units a family of old characters, plain drawing and counting, to see what is forgotten."""
    score_seed: int = 1
    """Seed of these units and of all sampling."""
    judge: str = "exact"
    threads: int = 0
    """CPU threads; 0 leaves it to torch."""
    steps: int = 100
    """Optimizer steps of an arm (the joint one: twice as many); with `successive`, of each character."""
    examples_per_step: int = 64
    checkpoint_every: int = 25
    """Steps between checkpoints to resume from; the last step always has one."""
    tokens_per_batch: int = 1024
    """Padded tokens of one forward pass; on a CPU small batches are the faster ones."""
    optimizer: OptimizerName = "muon"
    """muon: Muon on the network's matrices, AdamW on the rest of what trains."""
    lr: float = 1e-3
    """Peak rate of AdamW."""
    muon_lr: float = 0.008
    """Peak rate of Muon; unused with adamw."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, found, known in (("arm", self.arms, Side), ("text form", self.text, TextForm)):
            for value in found:
                if value not in get_args(known):
                    raise UnknownNameError(name, value, get_args(known))
        if not self.arms or not self.text:
            raise ValueError("arms and text each name at least one")
        if min(self.replay, self.naming) < 0 or self.replay + self.naming >= 1:
            raise ValueError(f"replay and naming must leave room for what is taught; got {self.replay}, {self.naming}")
        if "control" in self.arms and not self.replay:
            raise ValueError("the control arm trains on the replayed mixture; give replay a share")
        if min(self.pictures, self.control_units) < 1:
            raise ValueError("pictures and control_units must be at least 1")

    @abstractmethod
    def changes(self) -> list[Change]:
        """What is taught, in order."""

    def for_loop(self, arm: Side) -> TrainConfig:
        """The settings of the loop alone; the joint arm learns as much of each side as it is in arms of its own."""
        settings = TrainConfig(**{field.name: getattr(self, field.name) for field in fields(TrainConfig)})
        return replace(settings, steps=self.steps * (2 if arm == "joint" else 1))


@dataclass(frozen=True, kw_only=True)
class InjectConfig(KnowledgeConfig):
    """Teach a model characters that it has never heard of, on one side or both, and measure both."""

    out: Path = Path("runs/inject")
    """Folder for everything. One of the same settings is continued; arms may be added to it."""

    def changes(self) -> list[Change]:
        return new_characters(self.num_characters, seed=self.character_seed)


@dataclass(frozen=True, kw_only=True)
class EditConfig(KnowledgeConfig):
    """Overwrite a fact of characters that a model knows, on one side or both, and measure both."""

    out: Path = Path("runs/edit")
    """Folder for everything. One of the same settings is continued; arms may be added to it."""
    kinds: tuple[Kind, ...] = KINDS
    """What is overwritten, in turn: portrait, fruit, flower."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kinds or any(kind not in KINDS for kind in self.kinds):
            raise ValueError(f"kinds must be some of {', '.join(KINDS)}; found {list(self.kinds)}")

    def changes(self) -> list[Change]:
        return edits(self.num_characters, self.kinds, seed=self.character_seed)


def run(config: KnowledgeConfig) -> Result:
    """Train every arm, going on where a killed run stopped, and measure before and after.

    Raises:
        TrainingError: The folder holds a run of other settings, or training cannot go on.
        CannotAskError: The model cannot be trained here.
        ValueError: There are not so many characters.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    changes = config.changes()
    claim(config.out / SETTINGS, _settings(config))
    stages = _stages(len(changes)) if config.successive else [len(changes)]
    base = load_trainable(config.model, device="auto")
    measured = {(BASELINE, 0): _measure(base, changes, changes, config, config.out / BASELINE)}
    del base  # two of them may not fit
    for arm in config.arms:
        model, learned = load_trainable(config.model, device="auto"), 0
        while learned < len(changes):
            taught = changes[learned : learned + 1] if config.successive else changes
            learned += len(taught)
            folder = config.out / arm / (f"{learned:03d}" if config.successive else "")
            title = f"{arm}, character {learned}" if config.successive else arm
            path = _train(model, taught, changes, arm, config, folder / "training", title)
            # What is measured, and trained further, is what was saved; asked as the model before it.
            kind, sampling = type(model), model.sampling
            del model
            model = kind.from_pretrained(path, device=find_device())
            model.sampling = sampling
            if learned in stages:
                earlier = [n for n in stages if n < learned] if config.successive else []
                newest = changes[earlier[-1] if earlier else 0 : learned]
                measured[arm, learned] = _measure(model, changes[:learned], newest, config, folder)
    settings = {name: value for name, value in asdict(config).items() if name not in ("out", "threads")}
    result = Result(settings, config.successive, measured)
    result.write(config.out / RESULT)
    return result


def _measure(
    model: Trainable[Any], changes: Sequence[Change], newest: Sequence[Change], config: KnowledgeConfig, out: Path
) -> Cells:
    return measure(
        model,
        changes,
        newest,
        out,
        control_units=config.control_units,
        seed=config.score_seed,
        judge=find_judge(config.judge),
    )


def _stages(num: int) -> list[int]:
    """1, 2, 4, ... and the last."""
    powers = [2**n for n in range(num.bit_length()) if 2**n < num]
    return [*powers, num]


# ---- settings --------------------------------------------------------------------------------------------------------

RESULT_FREE = (*loop.RESULT_FREE, "out", "threads", "arms")
"""Settings that do not change what an arm gives."""


def _settings(config: KnowledgeConfig) -> dict[str, Any]:
    settings = {name: value for name, value in asdict(config).items() if name not in RESULT_FREE}
    return {"what": type(config).__name__, **settings}


# ---- training --------------------------------------------------------------------------------------------------------


def examples_of(changes: Sequence[Change], arm: Side, config: KnowledgeConfig) -> dict[str, list[Example]]:
    """What an arm learns: by part, "text" or "pictures"; {} for the control."""
    parts: dict[str, list[Example]] = {}
    if arm in ("understanding", "joint"):
        parts["text"] = [one for change in changes for one in text_examples(change, config.text, config.languages)]
    if arm in ("generation", "joint"):
        parts["pictures"] = [one for change in changes for one in picture_examples(change, config.pictures)]
    return parts


def _train(
    model: Trainable[Any],
    taught: Sequence[Change],
    everyone: Sequence[Change],
    arm: Side,
    config: KnowledgeConfig,
    out: Path,
    title: str,
) -> Path:
    examples = examples_of(taught, arm, config)
    share = 1 - config.replay - config.naming
    parts: dict[str, Part[Any]] = {
        name: Part(Examples.of(model, rows, seed=config.seed), share / len(examples)) for name, rows in examples.items()
    }
    if config.replay:
        parts["replay"] = Part(_replay(model, everyone, config), config.replay if parts else 1 - config.naming)
    if config.naming:
        rows = naming_examples(2000, seed=config.character_seed)
        parts["naming"] = Part(Examples.of(model, rows, seed=config.seed), config.naming)
    command = "unigap train " + ("edit" if isinstance(config, EditConfig) else "inject")
    characters = [change.person.name for change in taught]
    card = {"command": command, "knowledge": {"trained on": arm, "characters": characters}}
    drawn = {"forward": "direct"} if "pictures" in parts else {}
    return train(model, parts, config.for_loop(arm), out, card=card, trained_on=drawn, title=title)


class Without(Generic[Row]):
    """A source without the examples that mention someone: in their place others of the same source, far ahead."""

    def __init__(self, source: Source[Row], names: Sequence[str], text_of: Callable[[Row], str]) -> None:
        self.identity = f"{source.identity}, without {', '.join(names)}"
        self._source, self._names, self._text_of = source, names, text_of

    def take(self, start: int, num: int) -> list[Row]:
        return [self._at(start + place, row) for place, row in enumerate(self._source.take(start, num))]

    def _at(self, place: int, row: Row) -> Row:
        while any(name in self._text_of(row) for name in self._names):
            place += 1_000_000_000
            row = self._source.take(place, 1)[0]
        return row


def _replay(model: Trainable[Any], changes: Sequence[Change], config: KnowledgeConfig) -> Source[Any]:
    """The pretraining mixture, which says the old facts of edited characters: examples that name them are left out."""
    source = replay(cast(Any, model), seed=config.seed)
    names = [change.person.name for change in changes if change.before]
    return Without(source, names, lambda row: cast(Any, model).tokenizer.decode(row.ids)) if names else source
