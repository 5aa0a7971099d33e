"""Inspect's side of the main job: `inspect eval unigap/sandbox --model unigap/tiny`.

A sample is one unit (`Item.unit`), asked in every direction and arm as `unigap.arms` asks it, with the seeds that
`unigap eval` gives it; so both count the same. An epoch is a sample of ours. The score of a sample has a value for each
direction and arm ("generation_normal"): 1 if all items of the unit are right, 0 if not, NaN (Inspect's "unscored") if
the judge could not rule on one; and the gap of each arm, understanding minus generation.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import anyio
import anyio.to_thread
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelAPI, get_model, modelapi
from inspect_ai.scorer import Score, Scorer, Target, accuracy, grouped, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from unigap.arms import Asker, Question, Reply, item_seed, why_not
from unigap.arms import Task as Ask
from unigap.bridges.inspect_asking import AskedThroughInspect
from unigap.bridges.inspect_provider import UnigapAPI, read_data_uri, to_data_uri
from unigap.errors import CannotAskError, CannotJudgeError
from unigap.evaluate import EvalConfig
from unigap.items import ARMS, DIRECTIONS, Item, find_suite
from unigap.judges import find_judge
from unigap.judges.protocol import Judge, Submission
from unigap.prompts import find_think_prompt
from unigap.records import Key, ModelRef, Record, Ruling
from unigap.scenes import make_items

REPLIES = "replies"
"""Where a sample's store keeps what came back, for the scorer."""


@modelapi(name="unigap")
def provider() -> type[ModelAPI]:
    return UnigapAPI


def _task_of(suite: str) -> Callable[..., Task]:
    def make(
        families: Sequence[str] | str = (),
        num_units: int = 100,
        seed: int = 0,
        arms: Sequence[str] | str = ARMS,
        directions: Sequence[str] | str = DIRECTIONS,
        think_prompt: str = "plan",
        judge: str = "exact",
    ) -> Task:
        items = make_items(_names(families) or find_suite(suite).families, num_units=num_units, seed=seed)
        return Task(
            dataset=MemoryDataset(unit_samples(items), name=f"{suite} (seed {seed})"),
            solver=ask(arms=arms, directions=directions, think_prompt=think_prompt, seed=seed, judge=judge),
            scorer=verdict(judge=judge),
        )

    make.__doc__ = f'The suite "{suite}", or some of its families; parameters as of `unigap eval`.'
    return task(name=suite)(make)


sandbox, bidirectional = map(_task_of, ("sandbox", "bidirectional"))


def _names(names: Sequence[str] | str) -> tuple[str, ...]:
    """Inspect hands over one name as text and several as a list."""
    return (names,) if isinstance(names, str) else tuple(names)


def unit_samples(items: Iterable[Item]) -> list[Sample]:
    """One sample a unit; items of a unit stand together."""
    samples = []
    for unit, halves in groupby(items, key=lambda item: item.unit):
        members: list[Item] = list(halves)
        texts = [text for item in members for text in (item.question, item.prompt) if text]
        samples.append(
            Sample(
                id=unit,
                input="\n\n".join(texts),
                target=[item.caption for item in members],
                metadata={
                    "family": members[0].family,
                    "cluster": members[0].cluster,
                    "items": [item.to_json() for item in members],
                },
            )
        )
    return samples


# ---- asking ----------------------------------------------------------------------------------------------------------


@solver
def ask(
    arms: Sequence[str] | str = ARMS,
    directions: Sequence[str] | str = DIRECTIONS,
    think_prompt: str = "plan",
    seed: int = 0,
    judge: str = "exact",
) -> Solver:
    """Ask a unit in every direction and arm, and keep the replies in the sample's store."""
    config = EvalConfig(arms=_names(arms), directions=_names(directions), think_prompt=think_prompt, seed=seed)  # type: ignore[arg-type]  (checked by EvalConfig)
    questions, _ = config.questions()
    prompt, ruler = find_think_prompt(think_prompt), find_judge(judge)
    limiters: dict[int, anyio.CapacityLimiter] = {}

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        del generate  # it asks one thing, and takes no further fields
        asked = AskedThroughInspect(get_model())
        if asked.pictures not in ruler.pictures and any(direction == "generation" for direction, _ in questions):
            raise CannotJudgeError(
                f"{ruler.name} reads only {' and '.join(sorted(ruler.pictures))} pictures, and {asked.name} draws "
                f"{asked.pictures} pictures; name another judge with -T judge=..., or ask -T directions=understanding"
            )
        # A thread a unit, since the arms are asked by plain calls; they wait, while the model's own thread works.
        limiter = limiters.setdefault(id(asyncio.get_running_loop()), anyio.CapacityLimiter(2 * asked.batch_size))
        unit = _Unit(Asker(asked, asked.sampling, prompt), state, questions, seed)
        replies = await anyio.to_thread.run_sync(unit.ask_all, limiter=limiter)
        state.store.set(REPLIES, replies)
        if asked.last is not None:
            state.output = asked.last
            state.messages.append(asked.last.message)
        return state

    return solve


class _Unit:
    """One unit, asked in a thread."""

    def __init__(self, asker: Asker, state: TaskState, questions: Sequence[Question], seed: int) -> None:
        self._asker, self._seed, self._sample = asker, seed, state.epoch - 1
        self._items = [Item.from_json(data) for data in state.metadata["items"]]
        abilities = asker.model.abilities
        why = {question: {why_not(item, question, abilities) for item in self._items} for question in questions}
        self._why = {question: "; ".join(sorted(filter(None, reasons))) for question, reasons in why.items()}
        if all(self._why.values()):
            raise CannotAskError(f"nothing is left to ask of {state.sample_id}: {'; '.join(set(self._why.values()))}")

    def ask_all(self) -> dict[str, list[dict[str, Any]]]:
        """Replies as JSON, by question; none to what the model or the items do not do. Think stands before refined."""
        found: dict[str, list[dict[str, Any]]] = {}
        thoughts: dict[str, Record] = {}
        for question, why in self._why.items():
            direction, arm = question
            if why:
                found[name_of(question)] = []
                continue
            keys = [Key(item.id, direction, arm, self._sample) for item in self._items]
            tasks = [
                Ask(item, key, item_seed(self._seed, key), thoughts.get(item.id) if arm == "refined" else None)
                for item, key in zip(self._items, keys, strict=True)
            ]
            replies = self._asker.ask(question, tasks)
            if question == ("generation", "think"):
                thoughts = {task.key.item_id: self._record(task, reply) for task, reply in zip(tasks, replies)}
            found[name_of(question)] = [_reply_json(reply) for reply in replies]
        return found

    def _record(self, task: Ask, reply: Reply) -> Record:
        model = self._asker.model
        return Record(
            **task.key._asdict(),
            seed=task.seed,
            model=ModelRef(name=model.name, sha256=model.sha256),
            sampling={},
            outcome=reply.outcome,
            thought=reply.thought,
            usage=reply.usage,
            detail="; ".join(filter(None, reply.details)),
        )


def name_of(question: Question) -> str:
    return "_".join(question)


def _reply_json(reply: Reply) -> dict[str, Any]:
    return {
        "outcome": reply.outcome,
        "text": reply.text,
        "image": None if reply.image is None else to_data_uri(reply.image),
        "thought": reply.thought,
        "refined_prompt": reply.refined_prompt,
        "detail": "; ".join(filter(None, reply.details)),
    }


# ---- judging ---------------------------------------------------------------------------------------------------------


@scorer(
    metrics={
        "understanding_*": [grouped(accuracy(), "family"), stderr(cluster="cluster")],
        "generation_*": [grouped(accuracy(), "family"), stderr(cluster="cluster")],
        "gap_*": [grouped(mean(), "family"), stderr(cluster="cluster")],
    }
)
def verdict(judge: str = "exact") -> Scorer:
    """Judge the replies of `ask`. What the judge cannot rule on is unscored, with the reason, and never wrong."""
    ruler = find_judge(judge)

    async def score(state: TaskState, target: Target) -> Score:
        del target  # the items say what is right
        items = [Item.from_json(data) for data in state.metadata["items"]]
        replies: Mapping[str, list[dict[str, Any]]] = state.store.get(REPLIES, {})
        rulings = {
            name: await anyio.to_thread.run_sync(rule, ruler, items, found, replies.get(_beside(name)))
            for name, found in replies.items()
            if found
        }
        # All samples have the same keys: those of what was not asked are unscored.
        values = {name: unit_value(rulings.get(name, ())) for name in replies}
        for name in [name for name in values if name.startswith("understanding_")]:
            arm = name.removeprefix("understanding_")
            if (drawn := values.get(f"generation_{arm}")) is not None:
                values[f"gap_{arm}"] = values[name] - drawn
        lines = [
            f"{name} {item.id}: {' '.join(filter(None, (ruling.verdict, ruling.error, ruling.why)))}"
            for name, found in rulings.items()
            for item, ruling in zip(items, found, strict=True)
        ]
        answer = next((found[0]["text"] for found in replies.values() if found and found[0]["text"]), None)
        unscored = any(ruling.verdict == "unscored" for found in rulings.values() for ruling in found)
        return Score(
            value=dict(values),
            answer=answer,
            explanation="\n".join(lines),
            reason="scoring_failed" if unscored else None,
            metadata={"judge": ruler.name, "version": ruler.version, "prompt_sha256": ruler.prompt_sha256},
        )

    return score


def _beside(name: str) -> str:
    """The question whose text stands beside a drawing of this one."""
    return name.replace("generation_", "understanding_") if name.startswith("generation_") else ""


def rule(
    judge: Judge,
    items: Sequence[Item],
    replies: Sequence[Mapping[str, Any]],
    said: Sequence[Mapping[str, Any]] | None = None,
) -> list[Ruling]:
    """One ruling per item, as `unigap.judging` gives it; a judge that fails leaves its items unscored."""
    rulings: dict[int, Ruling] = {}
    shown: dict[int, Submission] = {}
    for index, (item, reply) in enumerate(zip(items, replies, strict=True)):
        if reply["outcome"] != "ok":
            code = "refused" if reply["outcome"] == "refused" else "unreadable"
            rulings[index] = Ruling.incorrect(code, reply["detail"] or reply["outcome"])
        elif reply["image"] is None:
            shown[index] = Submission(item=item, text=reply["text"])
        else:
            beside = said[index]["text"] if said else None
            shown[index] = Submission(item=item, image=read_data_uri(reply["image"]), said=beside)
    if shown:
        try:
            rulings.update(zip(shown, judge.judge(list(shown.values())), strict=True))
        except CannotJudgeError:  # nothing that trying again would change
            raise
        except Exception as error:  # noqa: BLE001 (Inspect would lose the scores of all samples)
            failed = Ruling.unscored(f"{type(error).__name__}: {error}")
            rulings.update(dict.fromkeys(shown, failed))
    return [rulings[index] for index in range(len(items))]


def unit_value(rulings: Sequence[Ruling]) -> float:
    """1 if all are right, 0 if one is wrong, NaN if one is unscored, whatever the others are, or there is none."""
    words = [ruling.verdict for ruling in rulings]
    return math.nan if "unscored" in words or not words else float(all(word == "correct" for word in words))
