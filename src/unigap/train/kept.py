"""What a round of self-training keeps: which drawings are learned from, and under whose prompt their pictures stand.

What the judge could not score is left out and counted; two drawings of one prompt that are the same picture count once.
`Arm` says which of the others are taken.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL.Image import Image

from unigap.arms import load_picture
from unigap.disk import explain_os_errors, write_files
from unigap.errors import TrainingError
from unigap.gap.intervals import Interval, rate_interval
from unigap.items import Count, Item
from unigap.models.trainable import Example
from unigap.records import Key, RunFolder
from unigap.scenes.render import render
from unigap.train.kit import scene_of

Arm = Literal["stars", "unfiltered", "shuffled", "oracle", "continued"]
"""What is learned from.

stars: the accepted pictures. unfiltered: as many of all pictures, whatever the judge said. shuffled: the accepted
pictures under wrong prompts, in groups in which the sentence alone does not tell the answer (the same object of a math
family, the halves of a mapping pair): the format without the reasoning. oracle: pictures rendered from the items'
answers, for the accepted prompts: an upper bound. continued: none; as many more steps of the pretraining mixture.
"""


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
    answers: int = 0
    """Settled answers in text after a thought, where these are learned too."""
    answers_kept: int = 0
    """Of these, how many the judge accepted, each once."""
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
            f"{f'{self.answers} answers in text, {self.answers_kept} kept; ' if self.answers else ''}"
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
    answers: Mapping[str, Sequence[tuple[str, int]]] = field(default_factory=dict)
    """family -> (item, sample) of the answers in text that are learned too; see `with_answers`."""

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

    def results(self, family: str) -> Iterator[list[str]]:
        """Of the thought that the picture of each example was drawn from, the word that ends each step.

        ["4", "5"] of "9 - 5 = 4", "4 + 1 = 5", "Draw 5 cups."; ["cup"] of "7 means cup", "Draw 1 cup.".
        """
        records = self.folder.records()
        for choice in self.choices[family]:
            drawn = records.get(Key(choice.picture_item_id, "generation", "think", choice.picture_sample))
            assert drawn is not None
            lines = [line for line in (drawn.thought or "").splitlines() if line.strip()]
            yield [line.split()[-1] for line in lines[:-1]]

    def said(self, family: str) -> Iterator[Example]:
        """Question -> answer of each of `answers`, without the thought."""
        records = self.folder.records()
        for item_id, sample in self.answers[family]:
            item = self.folder.item(item_id)
            record = records.get(Key(item_id, "understanding", "think", sample))
            assert record is not None
            content = (*(load_picture(item, ref, None) for ref in item.images), item.question)
            # Few tokens beside a picture's, so they count twice, as in the embedded model's pretraining.
            yield Example(id=f"{item_id}#{sample}, text", content=content, answer=record.text, weight=2.0)


def choose(folder: RunFolder, judge: str, families: Sequence[str], *, arm: Arm, seed: int, number: int) -> Kept:
    """What is learned from, given a judge's verdicts.

    Args:
        folder: A round's think drawings, judged.
        judge: Whose verdicts count.
        families: Those of the drawings.
        arm: What is taken.
        seed: The run's.
        number: The round's, from 1.

    Raises:
        TrainingError: Nothing of a family could be scored, nothing was accepted, or the folder holds other families;
            the message says what to try.
    """
    verdicts = folder.verdicts(judge)
    tallies = {name: Tally() for name in families}
    accepted: dict[str, list[Choice]] = {name: [] for name in families}
    drawn: dict[str, list[Choice]] = {name: [] for name in families}
    group_of: dict[str, str] = {}
    seen: set[tuple[str, str | None]] = set()
    drawings = (r for r in folder.records() if r.settled and (r.direction, r.arm) == ("generation", "think"))
    for record in sorted(drawings, key=lambda r: (r.item_id, r.sample)):
        item = folder.item(record.item_id)
        if item.family not in tallies:
            raise TrainingError(
                f"{folder.path} also holds drawings of {item.family}, which is not among {', '.join(families)}; name "
                "another --samples-in"
            )
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
    rng = random.Random(f"stars/{seed}/{number}/{arm}")
    if arm == "shuffled":
        accepted = {name: _shuffle(choices, group_of, rng) for name, choices in accepted.items()}
    elif arm == "unfiltered":
        accepted = {name: sorted(rng.sample(drawn[name], len(choices))) for name, choices in accepted.items()}
    for name, tally in tallies.items():
        tally.kept = len(accepted[name])
        if not tally.kept:
            raise TrainingError(
                f"{name}: none of {tally.accepted} accepted drawings can be exchanged with another (of the same object "
                "or pair); take more --units"
            )
    return Kept(folder, accepted, tallies, arm == "oracle", seed)


def with_answers(kept: Kept, judge: str) -> Kept:
    """Beside the drawings, what the model said in text after a thought, where the judge accepted it; each answer once.

    What was said is counted in the tallies.

    Raises:
        TrainingError: Of a family nothing could be scored, or nothing was accepted.
    """
    folder, verdicts = kept.folder, kept.folder.verdicts(judge)
    tallies = {name: replace(tally) for name, tally in kept.tallies.items()}
    accepted: dict[str, dict[tuple[str, str | None], tuple[str, int]]] = {name: {} for name in tallies}
    num_scored = Counter[str]()
    said = (r for r in folder.records() if r.settled and (r.direction, r.arm) == ("understanding", "think"))
    for record in sorted(said, key=lambda r: (r.item_id, r.sample)):
        family = folder.item(record.item_id).family
        if (tally := tallies.get(family)) is None:
            continue
        tally.answers += 1
        tally.text_calls += 1 + (record.thought is not None)
        tally.seconds += record.timing_s
        verdict = verdicts.get(record.key)
        if verdict is None or verdict.verdict == "unscored":
            continue
        num_scored[family] += 1
        if verdict.verdict == "correct":
            accepted[family].setdefault((record.item_id, record.text), (record.item_id, record.sample))
    for name, tally in tallies.items():
        tally.answers_kept = len(accepted[name])
        if tally.answers and not num_scored[name]:
            raise TrainingError(
                f"{name}: the judge could score none of {tally.answers} answers in text in {folder.path}; nothing was "
                "trained. The same command asks the judge again."
            )
        if not tally.answers_kept:
            raise TrainingError(
                f"{name}: none of {tally.answers} answers in text was accepted, so there is nothing to learn first. "
                f'Look at them ("unigap view {folder.path}"), or leave --text-first out.'
            )
    return replace(kept, tallies=tallies, answers={name: list(found.values()) for name, found in accepted.items()})


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


def save_kept(path: Path, kept: Kept) -> None:
    """Write down what is learned from; `load_kept` reads it."""
    data = {
        "families": {name: tally.to_json() for name, tally in kept.tallies.items()},
        "choices": {name: [list(choice) for choice in choices] for name, choices in kept.choices.items()},
        "answers": {name: [list(answer) for answer in answers] for name, answers in kept.answers.items()},
    }
    with explain_os_errors(path.parent):
        write_files([(path, json.dumps(data, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")])


def load_kept(path: Path, samples: Path, *, arm: Arm, seed: int) -> Kept:
    """What `save_kept` wrote, of the drawings in the run folder `samples`."""
    data = json.loads(path.read_text(encoding="utf-8"))
    tallies = {name: Tally.from_json(saved) for name, saved in data["families"].items()}
    choices = {name: [Choice(*choice) for choice in rows] for name, rows in data["choices"].items()}
    answers = {name: [(item, sample) for item, sample in rows] for name, rows in data.get("answers", {}).items()}
    return Kept(RunFolder.open(samples), choices, tallies, arm == "oracle", seed, answers)
