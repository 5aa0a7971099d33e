"""The main job: items x directions x arms x samples, asked of one model, into a run folder; and judging such a folder.

Items stream through one queue per direction and arm; a queue that holds a batch is asked and recorded at once, so
memory does not grow with the number of items and a crash costs at most the batch in flight. A refined drawing waits
until the thought of the same item and sample is recorded. What comes back depends on an item's own seed only, so how
batches are cut, in which order items come and how many ranks share them changes nothing.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice, repeat
from pathlib import Path
from typing import Any

from PIL import Image

from unigap.arms import CALLS, Asker, Question, Reply, Task, check_picture, count_calls, item_seed, missing_abilities
from unigap.disk import KeyedLines
from unigap.errors import CannotAskError, CannotJudgeError, RunFolderError, UnknownNameError
from unigap.items import ARMS, ARMS_OF, DIRECTIONS, SUITE_VERSION, Arm, Direction, Item
from unigap.judges.protocol import Judge, Submission
from unigap.models.protocol import Ability, Model, Sampling
from unigap.progress import Advance, show_progress
from unigap.prompts import find_think_prompt
from unigap.ranks import meet, wait_until_unlocked, world_from_env
from unigap.records import (
    JudgeRef,
    Key,
    ModelRef,
    Outcome,
    Record,
    RecordWriter,
    Ruling,
    RunFolder,
    RunIdentity,
    Verdict,
    VerdictWord,
)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What is asked, and how."""

    directions: tuple[Direction, ...] = DIRECTIONS
    arms: tuple[Arm, ...] = ARMS
    """An arm that a direction does not have is asked in the other alone."""
    samples: int = 1
    """Independent tries at each item, direction and arm."""
    seed: int = 0
    think_prompt: str = "plan"
    """Name of a think prompt, or the path of a text file."""
    sampling: Sampling | None = None
    """None takes the model's own."""
    batch_size: int | None = None
    """Requests a call; None takes the model's own. Changes nothing but speed."""

    def __post_init__(self) -> None:
        for kind, names, known in (("direction", self.directions, DIRECTIONS), ("arm", self.arms, ARMS)):
            for name in names:
                if name not in known:
                    raise UnknownNameError(kind, name, known)
        if self.samples < 1 or (self.batch_size is not None and self.batch_size < 1):
            raise ValueError(f"samples and batch_size must be at least 1; got {self.samples} and {self.batch_size}")

    def questions(self) -> tuple[list[Question], list[str]]:
        """The questions to ask, in order, and what had to be added to those named."""
        wanted = {(way, arm) for way in self.directions for arm in self.arms if arm in ARMS_OF[way]}
        notes = []
        if ("generation", "refined") in wanted and ("generation", "think") not in wanted:
            wanted.add(("generation", "think"))
            notes.append("generation think was added: refined draws from the thoughts recorded there")
        return [question for question in CALLS if question in wanted], notes


@dataclass(frozen=True, kw_only=True)
class Skip:
    """Items that were not asked in one direction and arm, and why."""

    family: str
    direction: Direction
    arm: Arm
    why: str
    num_items: int

    def __str__(self) -> str:
        return f"{self.num_items} items of {self.family} were not asked ({self.direction}, {self.arm}): {self.why}"


@dataclass(kw_only=True)
class Plan:
    """What a run is going to ask, before any call is spent."""

    num_records: int = 0
    num_own: int = 0
    """Of these, how many are this rank's."""
    text_calls: int = 0
    draw_calls: int = 0
    skips: list[Skip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What one session of a run did; with several ranks, what this rank did."""

    folder: RunFolder
    num_asked: int
    num_settled_before: int
    outcomes: Counter[Outcome]
    num_missing: int
    """Asked in vain (transport errors), or not asked because of one. The same command asks them again."""
    skips: list[Skip]
    notes: list[str]
    elapsed_s: float


def plan_run(
    items: Iterable[Item],
    abilities: frozenset[Ability],
    config: EvalConfig,
    *,
    image_root: Path | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Plan:
    """Count what will be asked, and check what can be checked before a model is.

    Raises:
        ItemFileError: A picture that an item shows does not exist.
        CannotAskError: Nothing is left to ask; the message says why.
        ValueError: There are no items.
    """
    questions, notes = config.questions()
    plan, skips = Plan(notes=notes), Counter[tuple[str, Question, str]]()
    rank, size = shard
    num_items = 0
    for num_items, item in enumerate(items, start=1):
        for ref in (*item.images, *item.prompt_images):
            check_picture(item, ref, image_root)
        for question in questions:
            if missing := missing_abilities(item, question, abilities):
                skips[item.family, question, f"the model cannot {' or '.join(missing)}"] += 1
                continue
            text, draw = count_calls(question, abilities)
            plan.text_calls += text * config.samples
            plan.draw_calls += draw * config.samples
            plan.num_records += config.samples
            plan.num_own += config.samples if (num_items - 1) % size == rank else 0
    plan.skips = [
        Skip(family=family, direction=direction, arm=arm, why=why, num_items=count)
        for (family, (direction, arm), why), count in skips.items()
    ]
    if not num_items:
        raise ValueError("there are no items to ask")
    if not plan.num_records:
        why = "; ".join(sorted({f"{s.direction} {s.arm}: {s.why}" for s in plan.skips}))
        raise CannotAskError(f"nothing is left to ask of {num_items} items: {why or 'no arm of a chosen direction'}")
    return plan


def run_identity(model: Model, config: EvalConfig) -> RunIdentity:
    """What a run of this model and configuration shares with no other."""
    return RunIdentity(
        model=ModelRef(name=model.name, sha256=model.sha256),
        sampling=asdict(config.sampling or model.sampling),
        think_prompt_sha256=find_think_prompt(config.think_prompt).sha256,
        seed=config.seed,
        suite_version=SUITE_VERSION,
    )


def evaluate(
    model: Model,
    items: Iterable[Item],
    out: Path,
    config: EvalConfig | None = None,
    *,
    run_config: Mapping[str, Any] | None = None,
    image_root: Path | None = None,
    overwrite: bool = False,
    on_progress: Advance | None = None,
) -> RunReport:
    """Ask a model everything that is not settled yet, and record it.

    Under RANK and WORLD_SIZE (torchrun) each rank asks a share; give all of them the same items. Rank 0 returns when
    the last rank is done, others when they themselves are.

    Args:
        model: Who is asked.
        items: Gone through more than once, so memory stays flat for anything that can be (a list, or an object whose
            `__iter__` makes items anew); a one-shot iterator is copied into a list first.
        out: The run folder; one of the same identity is continued.
        config: What is asked.
        run_config: What run.json keeps as the resolved configuration; None keeps `config`.
        image_root: Folder that relative paths of the items' pictures start from.
        overwrite: Move an existing run aside instead of continuing it.
        on_progress: Told how many more records are settled; None shows progress on stderr.

    Raises:
        CannotAskError: The model lacks what every item needs.
        IdentityError: The folder holds a run of another identity.
        RunFolderError: The folder cannot be written; what was recorded is safe.
        KeyboardInterrupt: As from Ctrl-C, with a message that says what is safe.
    """
    start = time.monotonic()
    config = config or EvalConfig()
    if not isinstance(items, Collection) and iter(items) is items:
        items = list(items)
    rank, size = world_from_env()
    think_prompt = find_think_prompt(config.think_prompt)
    sampling = config.sampling or model.sampling
    plan = plan_run(items, model.abilities, config, image_root=image_root, shard=(rank, size))
    identity = run_identity(model, config)
    if rank == 0:
        kept = asdict(config) if run_config is None else run_config
        kept = {**kept, "world_size": size, "image_root": image_root}
        folder = RunFolder.start(out, identity, config=kept, overwrite=overwrite)
        folder.add_items(items)
        meet(out, rank, size)
    else:
        meet(out, rank, size)
        folder = RunFolder.open(out)
        folder.check_identity(identity)
    asker = Asker(model, sampling, think_prompt, image_root)
    with folder.record_writer(rank) as writer:
        meet(out, rank, size)
        quiet = on_progress or (None if rank == 0 else _ignore)
        bar = nullcontext(quiet) if quiet else show_progress(f"asking {model.name}", plan.num_own)
        with bar as advance:
            session = _Session(asker, writer, folder.records(), config, identity, advance)
            session.run(islice(items, rank, None, size))
    if rank == 0:
        wait_until_unlocked([out / f"records-{other:05d}.jsonl" for other in range(1, size)])
    return RunReport(
        folder=folder,
        num_asked=session.num_asked,
        num_settled_before=session.num_settled_before,
        outcomes=session.outcomes,
        num_missing=plan.num_own - session.num_settled,
        skips=plan.skips,
        notes=plan.notes,
        elapsed_s=time.monotonic() - start,
    )


def _ignore(steps: int) -> None:
    del steps


class _Session:
    """One rank's pass over its items: queues them, asks full queues, records what comes back."""

    def __init__(
        self,
        asker: Asker,
        writer: RecordWriter,
        recorded: KeyedLines[Record],
        config: EvalConfig,
        identity: RunIdentity,
        advance: Advance,
    ) -> None:
        self._asker, self._writer, self._recorded = asker, writer, recorded
        self._config, self._identity, self._advance = config, identity, advance
        self._questions, _ = config.questions()
        self._batch_size = config.batch_size or asker.model.batch_size
        self._queues: dict[Question, list[Task]] = defaultdict(list)
        self.num_asked = self.num_settled_before = 0
        self.outcomes: Counter[Outcome] = Counter()

    @property
    def num_settled(self) -> int:
        return self.num_settled_before + self.num_asked - self.outcomes["transport_error"]

    def run(self, items: Iterable[Item]) -> None:
        try:
            for item in items:
                self._enqueue(item)
                # Think stands before refined, so what a think batch makes ready is asked in the same pass.
                for question in self._questions:
                    self._drain(question, leave=self._batch_size - 1)
            for question in self._questions:
                self._drain(question, leave=0)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; {self._safe()}") from None
        except Exception as error:
            error.add_note(self._safe())
            raise

    def _safe(self) -> str:
        return (
            f"{self.num_asked} records of this session and all earlier ones are safe in {self._writer.path.parent}; "
            "the same command continues the run."
        )

    def _enqueue(self, item: Item) -> None:
        for sample in range(self._config.samples):
            for direction, arm in self._questions:
                if missing_abilities(item, (direction, arm), self._asker.model.abilities):
                    continue
                key = Key(item.id, direction, arm, sample)
                if key in self._recorded:
                    self.num_settled_before += 1
                    self._advance(1)
                elif arm != "refined":
                    self._put(item, key)
                elif (think := Key(item.id, direction, "think", sample)) in self._recorded:
                    self._put(item, key, self._recorded.get(think))

    def _put(self, item: Item, key: Key, thought_from: Record | None = None) -> None:
        task = Task(item, key, item_seed(self._config.seed, key), thought_from)
        self._queues[key.direction, key.arm].append(task)

    def _drain(self, question: Question, *, leave: int) -> None:
        queue = self._queues[question]
        while len(queue) > leave:
            batch = queue[: self._batch_size]
            del queue[: self._batch_size]
            self._ask(question, batch)

    def _ask(self, question: Question, batch: list[Task]) -> None:
        start = time.perf_counter()
        replies = self._asker.ask(question, batch)
        share_s = round((time.perf_counter() - start) / len(batch), 6)
        records = [self._record(task, reply, share_s) for task, reply in zip(batch, replies, strict=True)]
        images = [reply.image for reply in replies]
        records = self._writer.write(records, images, [task.item.family for task in batch])
        self.num_asked += len(batch)
        self.outcomes.update(record.outcome for record in records)
        self._advance(len(batch))
        if question == ("generation", "think") and ("generation", "refined") in self._questions:
            for task, record in zip(batch, records, strict=True):
                refined = task.key._replace(arm="refined")
                if record.settled and refined not in self._recorded:
                    self._put(task.item, refined, record)

    def _record(self, task: Task, reply: Reply, share_s: float) -> Record:
        return Record(
            **task.key._asdict(),
            seed=task.seed,
            model=self._identity.model,
            sampling=self._identity.sampling,
            outcome=reply.outcome,
            text=reply.text,
            thought=reply.thought,
            refined_prompt=reply.refined_prompt,
            timing_s=share_s,
            usage=reply.usage,
            detail="; ".join(dict.fromkeys(filter(None, reply.details))),
        )


# ---- judging ---------------------------------------------------------------------------------------------------------


def check_judge(
    judge: Judge, model: Model, items: Iterable[Item], directions: Collection[Direction] = DIRECTIONS
) -> None:
    """Refuse, before any call is spent, what the judge cannot read.

    Raises:
        CannotJudgeError: The model's kind of pictures, or answers of some items.
    """
    if "generation" in directions and model.pictures not in judge.pictures:
        raise CannotJudgeError(
            f"{judge.name} reads only {' and '.join(sorted(judge.pictures)) or 'no'} pictures, and {model.name} draws "
            f"{model.pictures} pictures; name another with --judge"
        )
    num_items = num_unreadable = 0
    first: Item | None = None
    for item in items:
        num_items += 1
        if item.answer.kind not in judge.answer_kinds:
            num_unreadable += 1
            first = first or item
    if first is not None:
        raise CannotJudgeError(
            f"{judge.name} reads only {'sandbox answers' if judge.pictures == {'sandbox'} else 'answers'} of kind "
            f"{', '.join(sorted(judge.answer_kinds))}; {num_unreadable} of {num_items} items have another (first: "
            f"{first.id[:80]!r}, {first.answer.kind}). Leave them out, or name another with --judge"
        )


@dataclass(frozen=True, kw_only=True)
class JudgeReport:
    """What one session of judging did."""

    verdicts: Counter[VerdictWord]
    num_settled_before: int
    unscored: Counter[str]
    """Reason (up to its first colon) -> how many; judging again tries these again."""


def judge_run(
    folder: RunFolder,
    judge: Judge,
    *,
    image_root: Path | None = None,
    overwrite: bool = False,
    on_progress: Advance | None = None,
) -> JudgeReport:
    """Judge every settled record that this judge has not scored, into verdicts/<judge>.jsonl.

    A refused record is incorrect ("refused") and a malformed one too ("unreadable"), without asking the judge. A
    picture that is missing or damaged on disk is unscored, with the reason, and the rest goes on.

    Args:
        image_root: Folder that paths of the items' own pictures start from; None takes what run.json says.
        overwrite: Move verdicts of another version or prompt of the judge aside instead of refusing.

    Raises:
        IdentityError: The file holds verdicts of another version or prompt of the judge.
        RunFolderError: The folder cannot be read or written; verdicts written before are safe.
    """
    ref = JudgeRef(name=judge.name, version=judge.version, prompt_sha256=judge.prompt_sha256)
    folder.prepare_verdicts(ref, overwrite=overwrite)
    verdicts, unscored = Counter[VerdictWord](), Counter[str]()
    num_before = 0
    if image_root is None and (noted := folder.run["config"].get("image_root")):
        image_root = Path(noted)
    with folder.verdict_log(judge.name) as log:
        records, done = folder.records(), folder.verdicts(judge.name)
        shown = _Shown(folder, records, image_root)
        bar = nullcontext(on_progress) if on_progress else show_progress(f"judging by {judge.name}", len(records))
        # The pictures of a batch are decoded while the judge is busy with the one before.
        with bar as advance, ThreadPoolExecutor(max_workers=4) as pool:
            ready: list[_Pending] = []
            batch: list[_Pending] = []

            def flush(pending: Sequence[_Pending]) -> None:
                rulings = _rule(judge, shown, pending)
                made = map(Verdict.of, (record.key for record, _ in pending), rulings, repeat(ref))
                log.append(verdict.to_json() for verdict in made)
                verdicts.update(ruling.verdict for ruling in rulings)
                unscored.update(ruling.why.partition(":")[0] for ruling in rulings if ruling.verdict == "unscored")
                advance(len(pending))

            for record in records:
                if not record.settled or record.key in done:
                    num_before += record.settled
                    advance(1)
                    continue
                batch.append((record, pool.submit(shown.picture, record)))
                if len(batch) >= judge.batch_size:
                    flush(ready)
                    ready, batch = batch, []
            flush(ready)
            flush(batch)
    return JudgeReport(verdicts=verdicts, num_settled_before=num_before, unscored=unscored)


_Picture = tuple[Image.Image | None, bytes | None] | RunFolderError
_Pending = tuple[Record, "Future[_Picture]"]


@dataclass(frozen=True)
class _Shown:
    """What a judge is shown of a run."""

    folder: RunFolder
    records: KeyedLines[Record]
    image_root: Path | None

    def picture(self, record: Record) -> _Picture:
        """The record's picture and its file; (None, None) if it has none, or why it cannot be had."""
        if record.image is None:
            return None, None
        try:
            return self.folder.load_picture(record)
        except RunFolderError as error:
            return error

    def submission(self, record: Record, picture: _Picture) -> Submission | RunFolderError:
        if isinstance(picture, RunFolderError):
            return picture
        image, png = picture
        beside = None if image is None else self.records.get(record.key._replace(direction="understanding"))
        return Submission(
            item=self.folder.item(record.item_id),
            text=record.text if image is None else None,
            image=image,
            png=png,
            said=beside.text if beside else None,
            image_root=self.image_root,
        )


def _rule(judge: Judge, shown: _Shown, pending: Sequence[_Pending]) -> list[Ruling]:
    """One ruling per record: what needs no judge at once, the rest in one call."""
    rulings: dict[int, Ruling] = {}
    submissions: dict[int, Submission] = {}
    for index, (record, picture) in enumerate(pending):
        if record.outcome != "ok":
            code = "refused" if record.outcome == "refused" else "unreadable"
            rulings[index] = Ruling.incorrect(code, record.detail or record.outcome)
            continue
        one = shown.submission(record, picture.result())
        if isinstance(one, RunFolderError):
            rulings[index] = Ruling.unscored(str(one))
        else:
            submissions[index] = one
    if submissions:
        rulings.update(zip(submissions, judge.judge(list(submissions.values())), strict=True))
    return [rulings[index] for index in range(len(pending))]
