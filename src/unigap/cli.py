"""The `unigap` command. Every command is a dataclass; its fields are the flags and their docstrings the help.

Exit codes: 0 done; 1 failed, or something was left undone; 2 arguments that cannot be carried out (an unknown name, a
malformed item file, a judge that cannot read what is asked); 130 interrupted (the run can be continued).

Nothing heavy is imported here: `unigap --help` must not wait for torch.
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import tyro
from tyro.conf import Positional, arg, subcommand

from unigap.errors import CannotAskError, CannotJudgeError, ItemFileError, UnigapError, UnknownNameError
from unigap.items import ARMS, DIRECTIONS, Arm, Direction, find_suite

if TYPE_CHECKING:
    from rich.console import Console

    from unigap.benchmarks.files import FileItems, MadeItems
    from unigap.evaluate import EvalConfig, RunReport
    from unigap.judges.protocol import Judge
    from unigap.models.protocol import Model
    from unigap.records import RunFolder

BAD_ARGUMENTS, FAILED, INTERRUPTED = 2, 1, 130

RECORD_BYTES, SANDBOX_PICTURE_BYTES, PHOTO_BYTES = 1_500, 600, 1_500_000
"""What a record with its verdict, and a picture, take on disk: rough, for the estimate before a run."""

Folder = Annotated[Path, arg(metavar="FOLDER")]
File = Annotated[Path, arg(metavar="FILE")]
Name = Annotated[str | None, arg(metavar="NAME")]
Names = Annotated[tuple[str, ...], arg(metavar="NAME ...")]
Run = Annotated[Positional[Path], arg(metavar="RUN")]


class ArgumentError(UnigapError):
    """Arguments that are fine one by one and cannot be carried out together."""


class UnfinishedError(UnigapError):
    """The command did its work, and something is left to do."""


# ---- commands --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Ask a model in both directions, judge what comes back, and show the gap.

    Prints the gap table and writes summary.json and report.html into the run folder. A run that was stopped goes on
    when the same command is given again; arms, families, units and samples may be added to it. Under torchrun each
    process asks a share of the items.
    """

    model: str = "tiny"
    """Who is asked: "tiny", "tiny:FOLDER" for other weights, or "their.module:Class"."""
    suite: str = "sandbox"
    """Named list of families to make items of."""
    families: Names = ()
    """Families to ask instead of the whole suite; with --items, those of the files to keep."""
    items: Annotated[tuple[Path, ...], arg(metavar="FILE ...")] = ()
    """Item files to ask instead of a suite, all their units: unigap's JSON lines, or UniSandbox's files as they are."""
    arms: tuple[Arm, ...] = ARMS
    """How to ask; generation think is added where refined needs its thoughts."""
    directions: tuple[Direction, ...] = DIRECTIONS
    """Answer in text, draw, or both."""
    num_units: int = 100
    """Units a family; a pair of mapping items is one unit."""
    samples: int = 1
    """Independent tries at each item; a unit scores their average."""
    seed: int = 0
    """Drives items and sampling."""
    judge: str = "exact"
    """Who judges: "exact", or "their.module:Class". Never, by default, the model itself."""
    think_prompt: str = "plan"
    """Instruction to think: plan, careful, knowledge, or the path of a text file."""
    batch_size: Annotated[int | None, arg(metavar="N")] = None
    """Requests a call; None takes the model's own. Changes speed alone."""
    device: str = "auto"
    """"auto" takes a GPU if there is one; or "cpu", "cuda", "cuda:1", "mps"."""
    dtype: str = "auto"
    """"auto" is the model's own choice; or "float32", "bfloat16", "float16"."""
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Run folder; None is runs/MODEL-SUITE-SEED."""
    overwrite: bool = False
    """Move a run that is in the folder aside (to FOLDER.1, ...) instead of continuing it."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the table as JSON here too."""

    def run(self) -> None:
        judge, items = _find_judge(self.judge), _find_items(self)
        model = _load_model(self)
        items = _keep_inside(items, model)
        config = _check(self, judge, model, items)
        report = _evaluate(self, model, items, config)
        if _rank() > 0:
            return
        num_unscored = _judge_and_show(report.folder, judge, json_path=self.json)
        _print_loose_ends(report, num_unscored)


@dataclass(frozen=True, kw_only=True)
class JudgeRun:
    """Judge a run, or judge it again with another judge, and show the gap by its verdicts.

    Verdicts are added beside the records, which stay as they are; what is scored already is not judged twice.
    """

    folder: Run
    """Run folder."""
    judge: str = "exact"
    """Who judges: "exact", or "their.module:Class"."""
    overwrite: bool = False
    """Move verdicts of another version or prompt of this judge aside."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the table as JSON here too."""

    def run(self) -> None:
        from unigap.evaluate import check_judge
        from unigap.records import RunFolder

        folder, judge = RunFolder.open(self.folder), _find_judge(self.judge)
        # The model is not loaded again: a judge asks only for its name and its kind of pictures.
        drawn = folder.run["config"].get("pictures", "sandbox")
        asked = cast("Model", SimpleNamespace(name=folder.identity.model.name, pictures=drawn))
        check_judge(judge, asked, folder.items())
        num_unscored = _judge_and_show(folder, judge, overwrite=self.overwrite, json_path=self.json)
        _print_loose_ends(None, num_unscored)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Show the gap table of a run again, and write summary.json and report.html anew."""

    folder: Run
    """Run folder."""
    judge: Name = None
    """Whose verdicts; needed when the run has several judges."""
    variants: bool = False
    """Give each variant of a family a row of its own."""
    json: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the table as JSON here too."""

    def run(self) -> None:
        from unigap.records import RunFolder
        from unigap.report.run import report_run

        folder = RunFolder.open(self.folder)
        judges = [judge.name for judge in folder.judges()]
        if not judges:
            raise ArgumentError(f'{self.folder} has no verdicts yet; "unigap judge {self.folder}" makes them')
        if self.judge is not None and self.judge not in judges:
            raise UnknownNameError("judge of this run", self.judge, judges)
        if self.judge is None and len(judges) > 1:
            raise ArgumentError(f"{self.folder} has several judges; name one with --judge: {', '.join(judges)}")
        report_run(folder, self.judge or judges[0], _console(), json_path=self.json, variants=self.variants)


@dataclass(frozen=True, kw_only=True)
class MakeItems:
    """Make items of the sandbox and write them as JSON lines."""

    out: File
    """File to write, one item a line."""
    suite: str = "sandbox"
    """Named list of families."""
    families: Names = ()
    """Families to make instead of the whole suite."""
    num_units: int = 100
    """Units a family; a pair of mapping items is one unit."""
    seed: int = 0
    """Another seed gives other items; the same seed always the same."""
    split: Literal["train", "test"] = "test"
    """The two splits never share an item, whatever the seeds."""

    def run(self) -> None:
        from unigap.disk import explain_os_errors
        from unigap.items import items_sha256, write_items
        from unigap.scenes import make_items

        families = _families(self.suite, self.families)
        with _argument_errors():
            items = list(make_items(families, num_units=self.num_units, seed=self.seed, split=self.split))
        with explain_os_errors(self.out.parent, safe="Nothing was lost"):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            write_items(self.out, items)
        print(f"{self.out}: {len(items)} items of {len(families)} families, sha256 {items_sha256(items)}")


@dataclass(frozen=True, kw_only=True)
class ExportItems:
    """Write items, or a run's items and pictures, in the format of another benchmark, for its own scripts."""

    source: Annotated[Positional[Path], arg(metavar="FILE|RUN")]
    """Item file, or run folder: then its pictures are written too."""
    out: Folder
    """Folder to write into."""
    format: Literal["unisandbox"] = "unisandbox"
    """Whose format."""
    judge: Name = None
    """Of a run: write this judge's verdicts as result files too."""

    def run(self) -> None:
        from unigap.benchmarks.files import read_item_file
        from unigap.benchmarks.unisandbox_export import export_run, export_unisandbox
        from unigap.records import RunFolder

        with _argument_errors():
            if self.source.is_dir():
                written = export_run(RunFolder.open(self.source), self.out, judge=self.judge)
            else:
                written = export_unisandbox(read_item_file(self.source).items, self.out)
        if not written:
            raise ArgumentError(f"{self.source} holds nothing that {self.format} has a format for")
        for path in written:
            print(path)


@dataclass(frozen=True)
class Items:
    """Make items, or write them in the formats of others."""

    command: (
        Annotated[MakeItems, subcommand("make", prefix_name=False)]
        | Annotated[ExportItems, subcommand("export", prefix_name=False)]
    )

    def run(self) -> None:
        self.command.run()


@dataclass(frozen=True)
class Train:
    """Train a model; "unigap train pretrain --help" lists the settings."""

    what: Annotated[Positional[Literal["pretrain"]], arg(metavar="{pretrain}")]
    """pretrain: the embedded model from scratch, to the weights in the package."""

    def run(self) -> None:
        raise AssertionError("main hands training to its own parser")


Command = (
    Annotated[Eval, subcommand("eval")]
    | Annotated[JudgeRun, subcommand("judge")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Items, subcommand("items")]
    | Annotated[Train, subcommand("train")]
)


# ---- the steps of eval -----------------------------------------------------------------------------------------------


def _families(suite: str, names: Sequence[str]) -> tuple[str, ...]:
    from unigap.scenes import FAMILIES, find_family

    families = tuple(names) or find_suite(suite).families
    for family in families:
        try:
            find_family(family)
        except (ImportError, AttributeError) as error:
            raise UnknownNameError("family", family, (*FAMILIES, "their.module:OBJECT")) from error
    return families


def _find_judge(name: str) -> "Judge":
    from unigap.judges import find_judge

    return find_judge(name)


def _find_items(command: Eval) -> "MadeItems | FileItems":
    from unigap.benchmarks.files import FileItems, MadeItems

    if command.items:
        return FileItems.read(command.items, command.families)
    if command.num_units < 1:
        raise ArgumentError(f"--num-units must be at least 1, got {command.num_units}")
    families = _families(command.suite, command.families)
    return MadeItems(families=families, num_units=command.num_units, seed=command.seed)


def _load_model(command: Eval) -> "Model":
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", command.device):
        raise UnknownNameError("device", command.device, ("auto", "cpu", "cuda", "cuda:N", "mps"))
    from unigap.models import find_model

    with _argument_errors():
        return find_model(command.model, device=command.device, dtype=command.dtype)


def _keep_inside(items: "MadeItems | FileItems", model: "Model") -> "MadeItems | FileItems":
    """Items of a benchmark that a model of the sandbox's world can be asked; says what is left out."""
    from unigap.benchmarks.files import FileItems

    if not isinstance(items, FileItems) or model.pictures != "sandbox":
        return items
    for file in items.files if _rank() == 0 else ():
        for line in file.coverage_lines():
            print(line)
    return items.inside()


def _check(command: Eval, judge: "Judge", model: "Model", items: "MadeItems | FileItems") -> "EvalConfig":
    """Refuse what cannot work before any call of the model is spent."""
    from unigap.evaluate import EvalConfig, check_judge

    with _argument_errors():
        check_judge(judge, model, items, command.directions)
        return EvalConfig(
            directions=command.directions,
            arms=command.arms,
            samples=command.samples,
            seed=command.seed,
            think_prompt=command.think_prompt,
            batch_size=command.batch_size,
        )


def _evaluate(command: Eval, model: "Model", items: "MadeItems | FileItems", config: "EvalConfig") -> "RunReport":
    from unigap.benchmarks.files import FileItems
    from unigap.evaluate import evaluate, plan_run

    image_root = items.image_root if isinstance(items, FileItems) else None
    out = command.out or Path("runs") / _run_name(command)
    if _rank() == 0:
        plan = plan_run(items, model.abilities, config, image_root=image_root)
        picture_bytes = PHOTO_BYTES if model.pictures == "photo" else SANDBOX_PICTURE_BYTES
        size_mb = (plan.num_records * RECORD_BYTES + plan.draw_calls * picture_bytes) / 1e6
        print(
            f"{model.name}: {plan.num_records} records ({plan.text_calls} text calls, {plan.draw_calls} drawings), "
            f"about {max(1, round(size_mb))} MB in {out}",
            file=sys.stderr,
        )
    report = evaluate(
        model,
        items,
        out,
        config,
        run_config=_run_config(command, model, items),
        image_root=image_root,
        overwrite=command.overwrite,
    )
    if isinstance(items, FileItems) and items.outside and _rank() == 0:
        _write_outside(report.folder, items)
    return report


def _run_name(command: Eval) -> str:
    """MODEL-SUITE-SEED, in characters that any file system takes."""
    what = command.suite
    if command.items:
        more = len(command.items) - 1
        what = next(iter(command.items)).stem + (f"+{more}" if more else "")
    return "-".join(re.sub(r"[^A-Za-z0-9_.+]+", "_", str(part)) for part in (command.model, what, command.seed))


def _run_config(command: Eval, model: "Model", items: "MadeItems | FileItems") -> dict[str, Any]:
    """What run.json keeps: the flags that say what was asked, and what later commands need to know of the model."""
    from unigap.benchmarks.files import FileItems

    config = {name: value for name, value in vars(command).items() if name not in ("out", "overwrite", "json")}
    config |= {"items": [path.name for path in command.items], "pictures": model.pictures}
    config["trained_on"] = model.trained_on
    if isinstance(items, FileItems):
        coverage = [str(file.coverage) for file in items.files if file.coverage]
        config |= {"suite": None, "num_units": None, "coverage": coverage, "num_outside": len(items.outside)}
    else:
        config["families"] = items.families
    return config


def _write_outside(folder: "RunFolder", items: "FileItems") -> None:
    """List every item that was not asked, with the reason, beside the records."""
    from unigap.disk import dump_line, explain_os_errors, write_files

    path = folder.path / "outside.jsonl"
    lines = [dump_line({"item_id": name, "why": why}) for name, why in items.outside.items()]
    with explain_os_errors(folder.path):
        write_files([(path, b"".join(lines))])
    print(f"{len(lines)} items are outside the sandbox's world and were not asked; {path} lists them with reasons")


def _judge_and_show(
    folder: "RunFolder", judge: "Judge", *, overwrite: bool = False, json_path: Path | None = None
) -> int:
    """Judge what is not judged yet, then print and write the summary; returns how many could not be scored."""
    from unigap.evaluate import judge_run
    from unigap.report.run import report_run

    judged = judge_run(folder, judge, overwrite=overwrite)
    report_run(folder, judge.name, _console(), json_path=json_path)
    for why, count in judged.unscored.most_common(5):
        print(f"note: {count} not scored: {why}", file=sys.stderr)
    return judged.unscored.total()


def _console() -> "Console":
    from rich.console import Console

    from unigap.report.table import FULL_WIDTH

    return Console(width=None if sys.stdout.isatty() else FULL_WIDTH)


def _print_loose_ends(report: "RunReport | None", num_unscored: int) -> None:
    """Say what was not asked, and fail if something is left to do."""
    left = [f'{_answers(num_unscored)} could not be scored; "unigap judge" tries again'] if num_unscored else []
    if report is not None:
        for note in report.notes:
            print(f"note: {note}", file=sys.stderr)
        for skip in report.skips:
            line = f"{skip.num_items} items of {skip.family} were not asked ({skip.direction}, {skip.arm}): {skip.why}"
            print(f"note: {line}", file=sys.stderr)
        if report.num_missing:
            left.append(f'{_answers(report.num_missing)} missing; the same "unigap eval" asks again')
    if left:
        raise UnfinishedError("; ".join(left))


def _answers(count: int) -> str:
    return f"{count} answer" if count == 1 else f"{count} answers"


# ---- running a command -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _argument_errors() -> Iterator[None]:
    """A ValueError about what the user asked for is their argument, not our bug."""
    try:
        yield
    except ValueError as error:
        raise ArgumentError(str(error)) from error


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code.

    Raises:
        SystemExit: Always, with the exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without our characters shows others instead
            stream.reconfigure(errors="replace")
    try:
        _run(arguments)
    except KeyboardInterrupt as error:
        _complain(str(error) or "interrupted; the same command continues where it stopped")
        sys.exit(INTERRUPTED)
    except (ArgumentError, CannotAskError, CannotJudgeError, ItemFileError, UnknownNameError) as error:
        _complain(str(error))
        sys.exit(BAD_ARGUMENTS)
    except UnigapError as error:
        _complain(str(error))
        sys.exit(FAILED)
    sys.exit(0)


def _run(arguments: list[str]) -> None:
    if arguments[:2] == ["train", "pretrain"]:
        _pretrain(arguments[2:])
        return
    tyro.cli(
        Command,
        args=arguments,
        prog="unigap",
        description="Measure, explain and close the gap between what a unified multimodal model understands and draws.",
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    ).run()


def _pretrain(arguments: list[str]) -> None:
    """Train, then measure the model on fresh items and write the scores into its card."""
    import json

    from unigap.train.pretrain import PretrainConfig, add_scores, run

    with _argument_errors():
        config = tyro.cli(PretrainConfig, args=arguments, prog="unigap train pretrain")
    run(config)
    if config.score_units:
        out = config.out / "scores"
        Eval(
            model=f"tiny:{config.out / 'model'}",
            num_units=config.score_units,
            seed=config.score_seed,
            out=out,
            overwrite=True,
        ).run()
        add_scores(config.out / "model", json.loads((out / "summary.json").read_text(encoding="utf-8")))


def _complain(message: str) -> None:
    print(f"unigap: {message}", file=sys.stderr)
