"""Three ways to draw, one kind of trunk: which share what they know, and which need the thought?

    python recipes/architectures.py                             # runs/architectures: all stages, all heads, three seeds
    python recipes/architectures.py --stages suite inject       # some of the stages
    python recipes/architectures.py --models tiny:flow          # one head: one process each, then the first command

Image tokens (tiny), rectified flow with weights of its own in every layer (tiny:flow) and learned queries before a
small decoder (tiny:query), asked the same and fine-tuned in the same way (docs/heads.md, docs/architectures.md):

    suite     the main suite in both directions and all arms: rates, gaps on one Rasch scale, ladder
    inject    new characters taught by text, by pictures, by both: said, drawn at once, drawn after a thought
    stars     self-training on rules and, once, its control with shuffled pictures: drawn at once, before and after

Each seed repeats the fine-tuning with its own characters, or prompts. Every number has an interval over items, and what
is repeated also one over repeats. A head that draws worse must not be read as one that knows less: drawings are counted
again among the items that the same model draws right from the true caption ("drawable"). What is done is not done
again, so the same command goes on after a kill. Needs unigap[train].

Expect (three seeds; percent, docs/architectures.md has the intervals and the rest):

    after, drawn at once           tiny        tiny:flow    tiny:query
    characters taught by text      16 -> 17    14 -> 17     13 -> 16      (after a thought: 100, 97, 98)
    characters taught by pictures  16 -> 63    14 -> 34     13 -> 51
    rules, self-trained            22 -> 95    21 -> 22     23 -> 97

22 to 24 CPU minutes a head on one core of an AMD EPYC (commit 52da138).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console

from unigap.arms import Question
from unigap.disk import safe_name
from unigap.environment import describe_environment
from unigap.evaluate import EvalConfig, evaluate
from unigap.gap.repeats import OverRepeats, rate_over_repeats
from unigap.items import ARMS, DIRECTIONS, SUITES, Arm, Direction, Item
from unigap.judges.exact import ExactJudge
from unigap.judging import judge_run
from unigap.models import find_model
from unigap.models.settings import with_weights
from unigap.records import RunFolder
from unigap.report.comparable import LoadedRun, load_run
from unigap.report.estimate import write_json
from unigap.report.repeated import Answers, answers, change, drawable, in_a_word, rate
from unigap.report.run import report_run, write_output
from unigap.report.study import StudyPage, StudyRow, StudyTable, Unit, row
from unigap.report.study_runs import BY_KNOWING, DRAWABLE, DRAWN, FROM_THOUGHT, ITEMS, ORACLE, WORDS, run_tables
from unigap.scenes import make_items
from unigap.train.before_after import BASELINE
from unigap.train.changes import forward_items
from unigap.train.kept import Arm as Pictures
from unigap.train.knowledge import InjectConfig, Side
from unigap.train.knowledge import run as inject
from unigap.train.stars import StarsConfig, read_tallies
from unigap.train.stars import run as self_train

Stage = Literal["suite", "inject", "stars"]
Report = tuple[list[StudyTable], list[str]]
"""Tables, and what they say in sentences."""

TEXT: Question = ("understanding", "normal")
REASONING = ("math1", "math2", "math3", "mapping1", "mapping2", "mapping3")
SIDES: Mapping[Side, str] = {
    "understanding": "taught by text",
    "generation": "taught by pictures",
    "joint": "taught by both",
    "control": "control",
}
CONTROLS: Mapping[str, tuple[str, Question]] = {
    "old characters, text at once": ("old characters, forward", TEXT),
    "plain drawing": ("plain", DRAWN),
    "captions": ("plain", TEXT),
}
"""Name -> group of `unigap.train.before_after` and question: what should not change."""

REPEATS = f"{ITEMS} In parentheses 95% over repeats, Student's t."


@dataclass(frozen=True)
class Architectures:
    """Ask and fine-tune the heads, and put them side by side."""

    out: Path = Path("runs/architectures")
    """Folder for everything. What is there is continued; of other settings, it is refused."""
    models: tuple[str, ...] = ("tiny", "tiny:flow", "tiny:query")
    """The heads: names as for "unigap eval", e.g. tiny:FOLDER."""
    stages: tuple[Stage, ...] = ("suite", "inject", "stars")
    seeds: tuple[int, ...] = (0, 1, 2)
    """Repeats of the fine-tuning, each with its own characters, or prompts."""
    num_units: int = 100
    """suite: units a family."""
    sides: tuple[Side, ...] = ("understanding", "generation", "joint")
    """inject: what is taught (see `unigap.train.knowledge.Side`); others may be added to the same folder."""
    num_characters: int = 20
    inject_steps: int = 100
    """Steps of 64 examples; the joint arm twice as many."""
    control_units: int = 12
    """inject: units a family of what should not have changed."""
    families: tuple[str, ...] = ("mapping1",)
    """stars: what is sampled and learned."""
    stars_units: int = 1500
    """Prompts a family (pairs of them, in rules) to think and draw on."""
    stars_steps: int = 400
    examples_per_step: int = 64
    score_units: int = 100
    """stars: held-out units a family."""
    threads: int = 1
    smoke: bool = False
    """Two steps on a few items with one seed, to see that everything runs."""

    def folder(self, model: str, *parts: str) -> Path:
        return self.out.joinpath(safe_name(model), *parts)


def main(study: Architectures) -> None:
    if study.smoke:
        small: dict[str, Any] = {"num_units": 3, "num_characters": 2, "control_units": 2, "score_units": 4}
        study = replace(study, seeds=study.seeds[:1], inject_steps=2, stars_units=8, stars_steps=2, **small)
    torch.set_num_threads(study.threads)
    loaded = [find_model(model) for model in study.models]
    names = [model.name for model in loaded]
    names = names if len(set(names)) == len(names) else list(study.models)
    facts = {name: f"sha256 {model.sha256[:12]}" for name, model in zip(names, loaded, strict=True)}
    facts |= {"seeds": ", ".join(map(str, study.seeds)), "commit": str(describe_environment()["git_commit"])}
    tables, readings = [], []
    for stage in study.stages:
        found, said = STAGES[stage](study, names)
        tables += found
        readings += said
    page = StudyPage(title="Three ways to draw", readings=readings, facts=facts, tables=tables)
    write_json(study.out / "result.json", page.to_json())
    for name, text in (("result.md", page.markdown()), ("page.html", page.html())):
        write_output(study.out / name, text.encode("utf-8", "backslashreplace"))
    print("\n".join(readings))
    print(f"numbers: {study.out / 'result.json'}, {study.out / 'result.md'}\npage: {study.out / 'page.html'}")


def ask(
    name: str, items: Sequence[Item], out: Path, arms: tuple[Arm, ...], directions: Sequence[Direction] = DIRECTIONS
) -> LoadedRun:
    """A model's judged answers; what is answered already is not asked again."""
    model, judge = find_model(name), ExactJudge()
    about = {"families": list(dict.fromkeys(item.family for item in items)), "pictures": model.pictures}
    asked = EvalConfig(directions=tuple(directions), arms=arms, seed=1)
    report = evaluate(model, items, out, asked, run_config=about | {"samples": 1, "trained_on": model.trained_on})
    judge_run(report.folder, judge)
    return load_run(out, judge.name)


# ---- suite -----------------------------------------------------------------------------------------------------------


def suite(study: Architectures, names: Sequence[str]) -> Report:
    items = list(make_items(SUITES["sandbox"].families, num_units=study.num_units, seed=1))
    runs = [ask(model, items, study.folder(model, "suite"), ARMS) for model in study.models]
    for run in runs:
        report_run(RunFolder.open(run.path), "exact", Console(width=118))  # its own page, beside ours
    readings = []
    for name, run in zip(names, runs, strict=True):
        oracle, said = answers(run, ORACLE), answers(run, TEXT, REASONING)
        thought, once = (drawable(answers(run, question, REASONING), oracle) for question in (FROM_THOUGHT, DRAWN))
        gap, help_of = in_a_word(change([said], [once])), in_a_word(change([thought], [once]))
        readings.append(f"{name}: what needs reasoning it says at once more than it draws it at once: {gap}")
        readings.append(f"{name}: a thought helps it to draw what needs reasoning: {help_of}")
    return run_tables(runs, names), readings


# ---- injection -------------------------------------------------------------------------------------------------------

Repeat = Mapping[tuple[str, Any], Answers]
"""(what was trained on, question or name in `CONTROLS`) -> what came of it, in one repeat of one head."""


def injection(study: Architectures, names: Sequence[str]) -> Report:
    heads = [[inject_once(study, model, seed) for seed in study.seeds] for model in study.models]
    sides = {side: SIDES[side] for side in study.sides}
    columns = {BASELINE: "before", **sides}

    def rows(of: Callable[[list[Repeat], str, Any], OverRepeats], sides: Mapping, what: Mapping) -> list[StudyRow]:
        return [
            row(f"{side_words}: {words}", [of(head, side, one) for head in heads])
            for side, side_words in sides.items()
            for one, words in what.items()
        ]

    rates = rows(lambda head, side, question: rate([repeat[side, question] for repeat in head]), columns, WORDS)
    by_knowing = {question: WORDS[question] for question in BY_KNOWING}
    relative = rows(lambda head, side, question: rate(learned(head, side, question)), columns, by_knowing)
    effects = rows(effect, sides, {question: words for question, words in WORDS.items() if question != ORACLE})
    beside = rows(effect, sides, {name: name for name in CONTROLS})
    readings = []
    for name, head in zip(names, heads, strict=True):
        if "understanding" in sides:
            once, thought = effect(head, "understanding", DRAWN), worth_of_thought(head)
            readings.append(f"{name}: taught by text, it draws it at once: {in_a_word(once)}")
            readings.append(f"{name}: taught by text, a thought adds to its drawing: {in_a_word(thought)}")
        if "generation" in sides:
            said = in_a_word(effect(head, "generation", TEXT))
            readings.append(f"{name}: taught by pictures, it says it at once: {said}")
    if "understanding" in sides:
        worth = [worth_of_thought(head) for head in heads]
        effects.append(row("taught by text: what the thought adds to drawing", worth))

    def table(title: str, note: str, rows: Sequence[StudyRow], unit: Unit = "rate") -> StudyTable:
        return StudyTable(title=title, note=f"{note} {REPEATS}", columns=names, rows=rows, unit=unit)

    paired = "Paired by item; of drawings, on what is drawable before and after."
    who = "New characters, each asked in a wording held out for it."
    tables = [
        table("Injection", who, rates),
        table("Injection, drawable", f"{who} {DRAWABLE}", relative),
        table("Injection, change from before", paired, effects, "points"),
        table("Injection, what else changed", "Paired by item.", beside, "points"),
    ]
    return tables, readings


def inject_once(study: Architectures, model: str, seed: int) -> Repeat:
    out = study.folder(model, "inject", f"seed-{seed}")
    config = InjectConfig(
        out=out,
        model=model,
        arms=study.sides,
        num_characters=study.num_characters,
        character_seed=seed,
        seed=seed,
        steps=study.inject_steps,
        control_units=study.control_units,
        threads=study.threads,
    )
    result = inject(config)
    items = list(forward_items(config.changes(), held_out=True))
    found: dict[tuple[str, Any], Answers] = {}
    for (side, _), cells in result.measured.items():
        weights = model if side == BASELINE else with_weights(model, out / side / "training" / "model")
        asked = ask(weights, items, out / side / "oracle", ("oracle",), ("generation",))
        found[side, ORACLE] = answers(asked, ORACLE)
        groups = {question: ("forward, held-out wording", question) for question in WORDS if question != ORACLE}
        for what, key in (groups | dict(CONTROLS)).items():
            found[side, what] = cells[key].scores
    return found


def learned(head: Sequence[Repeat], side: str, what: Any) -> list[Answers]:
    """Of each repeat; of drawings of what was taught, the drawable ones."""
    if what in BY_KNOWING:
        return [drawable(repeat[side, what], repeat[side, ORACLE]) for repeat in head]
    return [repeat[side, what] for repeat in head]


def effect(head: Sequence[Repeat], side: str, what: Any) -> OverRepeats:
    return change(learned(head, side, what), learned(head, BASELINE, what))


def worth_of_thought(head: Sequence[Repeat]) -> OverRepeats:
    return change(*(learned(head, "understanding", question) for question in (FROM_THOUGHT, DRAWN)))


# ---- self-training ---------------------------------------------------------------------------------------------------


def stars(study: Architectures, names: Sequence[str]) -> Report:
    items = list(make_items((*study.families, "plain"), num_units=study.score_units, seed=1))
    before = [ask_tuned(model, items, study.folder(model, "stars", "before")) for model in study.models]
    after = [[tune(study, model, seed, "stars", items) for seed in study.seeds] for model in study.models]
    control = [tune(study, model, study.seeds[0], "shuffled", items) for model in study.models]
    rates, changes, readings = [], [], []

    def add(family: str, question: Question, *, among_drawable: bool = False) -> list[OverRepeats]:
        def of(run: LoadedRun) -> Answers:
            given = answers(run, question, [family])
            return drawable(given, answers(run, ORACLE)) if among_drawable else given

        what = f"{family}: {WORDS[question]}" + (", drawable" if among_drawable else "")
        rates.append(row(f"{what}, before", [rate([of(run)]) for run in before]))
        rates.append(row(f"{what}, stars", [rate([of(run) for run in head]) for head in after]))
        rates.append(row(f"{what}, shuffled", [rate([of(run)]) for run in control]))
        gained = [change([of(run) for run in head], [of(was)] * len(head)) for head, was in zip(after, before)]
        over = [change([of(head[0])], [of(run)]) for head, run in zip(after, control)]
        changes.append(row(f"{what}, stars", gained))
        changes.append(row(f"{what}, stars over shuffled, first seed", over))
        return gained

    for family in study.families:
        for name, gained in zip(names, add(family, DRAWN, among_drawable=True), strict=True):
            readings.append(f"{name}: its own pictures teach it to draw {family} at once: {in_a_word(gained)}")
        for question in (DRAWN, FROM_THOUGHT, ORACLE, TEXT):
            add(family, question)
    add("plain", DRAWN)
    accepted = [row(family, [accepted_of(study, model, family) for model in study.models]) for family in study.families]

    def table(title: str, note: str, rows: Sequence[StudyRow], unit: Unit = "rate") -> StudyTable:
        return StudyTable(title=title, note=f"{note} {REPEATS}", columns=names, rows=rows, unit=unit)

    note = f"Held-out units; of rules, pairs with both halves right (a coin flip has .25). {DRAWABLE}"
    paired = "Paired by unit; of the drawable, those that are so in both. The control was trained once."
    kept = "Share of the drawings after a thought that the judge accepted, and so learned from."
    tables = [
        table("Self-training", note, rates),
        table("Self-training, change from before", paired, changes, "points"),
        table("What self-training learns from", kept, accepted),
    ]
    return tables, readings


def ask_tuned(name: str, items: Sequence[Item], out: Path) -> LoadedRun:
    return ask(name, items, out, ("normal", "think", "oracle"))


def tune(study: Architectures, model: str, seed: int, arm: Pictures, items: Sequence[Item]) -> LoadedRun:
    config = stars_config(study, model, seed, arm)
    return ask_tuned(with_weights(model, self_train(config)), items, config.out / "measured")


def stars_config(study: Architectures, model: str, seed: int, arm: Pictures) -> StarsConfig:
    folder = study.folder(model, "stars", f"seed-{seed}")
    return StarsConfig(
        out=folder / arm,
        model=model,
        families=study.families,
        arm=arm,
        samples_in=folder / "samples",
        units=study.stars_units,
        steps=study.stars_steps,
        examples_per_step=study.examples_per_step,
        replay=0.35,
        muon_lr=0.01,
        decay_from=0.3,
        seed=seed,
        threads=study.threads,
    )


def accepted_of(study: Architectures, model: str, family: str) -> OverRepeats:
    tallies = [read_tallies(stars_config(study, model, seed, "stars"))[1, family] for seed in study.seeds]
    scores = [[1.0] * tally.accepted + [0.0] * (tally.scored - tally.accepted) for tally in tallies]
    return rate_over_repeats(
        scores, [[(number, place) for place in range(len(one))] for number, one in enumerate(scores)]
    )


STAGES: Mapping[Stage, Callable[[Architectures, Sequence[str]], Report]] = {
    "suite": suite,
    "inject": injection,
    "stars": stars,
}

if __name__ == "__main__":
    main(tyro.cli(Architectures, description=__doc__))
