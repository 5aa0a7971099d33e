"""A run as a dataset of the Hugging Face Hub, and its numbers as an `.eval_results` file that links it.

Planning reads and writes nothing but memory; only `upload` talks to the Hub. The files go as they are, but for run.json
and summary.json, in which paths of this machine are cut to their last part, and a card and a table that are made here.

Format of `.eval_results`: https://huggingface.co/docs/hub/eval-results (hub-docs of 2026: dataset.id, dataset.task_id
and value are needed; source.url links the run; the Hub shows results of datasets that are registered benchmarks).
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from huggingface_hub import CommitOperationAdd, DatasetCardData, HfApi
from huggingface_hub.utils import validate_repo_id, yaml_dump

from unigap.errors import RunFolderError
from unigap.records import IMAGES, ITEMS_FILE, RECORD_FILES, RUN_FILE, VERDICTS, RunFolder
from unigap.report.export import ANSWERS, answer_rows, markdown
from unigap.report.page import FILE as PAGE
from unigap.report.run import METADATA, SUMMARY, summarize_run
from unigap.report.summary import Summary

ARM = "normal"
"""The arm whose numbers go into `.eval_results`: the one in which nothing but the question is given."""
FILES_A_COMMIT = 2_000
"""The Hub takes thousands of files in a commit, and not any number."""


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What would be uploaded, and where."""

    repo: str
    files: Mapping[str, Path | bytes]
    """Path in the repository -> file of the run, or what was made for it."""
    num_bytes: int

    @property
    def card(self) -> str:
        made = self.files["README.md"]
        assert isinstance(made, bytes)
        return made.decode()


def plan_publication(folder: RunFolder, judge: str, repo: str) -> Publication:
    """Everything a dataset repository of this run holds.

    Raises:
        RunFolderError: The run has no report of that judge yet, or the folder is not complete.
        ValueError: Not a repository's name.
    """
    validate_repo_id(repo)
    own = list(_own_files(folder.path))
    summary = _reported(folder, judge)
    files: dict[str, Path | bytes] = {
        "README.md": _card(folder, summarize_run(folder, judge), judge).encode("utf-8", "backslashreplace"),
        RUN_FILE: _json(without_paths(folder.run)),
        SUMMARY: _json(without_paths(summary)),
        "answers.csv": _answers(folder, judge),
    }
    files |= {path.relative_to(folder.path).as_posix(): path for path in own}
    sizes = (len(made) if isinstance(made, bytes) else made.stat().st_size for made in files.values())
    return Publication(repo=repo, files=files, num_bytes=sum(sizes))


def _own_files(root: Path) -> Iterator[Path]:
    """What the run wrote; nothing else that lies in its folder, and nothing behind a link."""
    found = [
        root / ITEMS_FILE,
        root / PAGE,
        *sorted(root.glob(RECORD_FILES)),
        *sorted((root / VERDICTS).glob("*.jsonl")),
    ]
    pictures = sorted((root / IMAGES).rglob("*.png"))
    found += [*pictures, root / IMAGES / METADATA] if pictures else []
    for path in found:
        if not path.is_file():
            raise RunFolderError(f'{path} is missing; "unigap report {root}" writes it anew, if it is not a record')
        if not path.resolve().is_relative_to(root.resolve()):
            raise RunFolderError(f"{path} is a link out of the run folder; nothing was uploaded")
        yield path


def _reported(folder: RunFolder, judge: str) -> dict[str, Any]:
    """summary.json, if it is this judge's: the page and the pictures' metadata were written with it."""
    summary, found = {}, None
    try:
        summary = json.loads((folder.path / SUMMARY).read_bytes())
        found = summary["run"]["judge"]["name"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # said below
    if found != judge:
        raise RunFolderError(
            f"{folder.path / SUMMARY} is {'of the judge ' + str(found) if found else 'missing or damaged'}; "
            f'"unigap report {folder.path} --judge {judge}" writes that of {judge}'
        )
    return summary


def without_paths(value: Any) -> Any:
    """JSON with absolute paths cut to their last part: "/data/w" -> "w", "tiny:/data/w" -> "tiny:w"; in
    a pair's name both."""
    if isinstance(value, Mapping):
        return {name: without_paths(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_paths(inner) for inner in value]
    return _last_part(value) if isinstance(value, str) else value


def _last_part(text: str) -> str:
    kind, path = "", text
    if match := re.fullmatch(r"([\w.+-]{2,}:)(.*)", text, re.DOTALL):  # not "C:"
        kind, path = match.groups()
    if kind == "pair:":  # a plus sign within a path is not followed by the name of a kind
        return kind + "+".join(map(_last_part, re.split(r"\+(?=[\w.-]{2,}:)", path)))
    if path.startswith("//") or "\n" in path:  # an address; a text
        return text
    for pure in (PurePosixPath(path), PureWindowsPath(path)):
        if pure.is_absolute():
            return kind + pure.name
    return text


def _json(data: Any) -> bytes:
    return (json.dumps(data, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "backslashreplace")


def _answers(folder: RunFolder, judge: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(ANSWERS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(answer_rows(folder, judge))
    return text.getvalue().encode("utf-8", "backslashreplace")


def _card(folder: RunFolder, summary: Summary, judge: str) -> str:
    identity = folder.identity
    draws = any((folder.path / IMAGES).rglob("*.png"))
    # Of one kind: all that a repository's configurations name is read by one reader, pictures or tables.
    table = {"config_name": "answers", "data_files": "answers.csv"}
    about = DatasetCardData(
        pretty_name=f"unigap: {identity.model.name}",
        tags=["unigap", "evaluation"],
        task_categories=["visual-question-answering", "text-to-image"],
        configs=[{"config_name": "drawings", "data_dir": IMAGES} if draws else table],
    )
    facts = {
        "model": f"{identity.model.name} (weights sha256 {identity.model.sha256})",
        "suite version": identity.suite_version,
        "seed": identity.seed,
        "judge": judge,
        "unigap": (folder.run.get("packages") or {}).get("unigap"),
        "commit": folder.run.get("git_commit") or "not a checkout",
    }
    return "\n".join(
        [
            f"---\n{about.to_yaml()}\n---",
            f"# {_flat(identity.model.name)}: what it understands and what it draws\n",
            "A run of unigap, in which a fact is asked in text and as a picture.\n",
            *(f"- {name}: {_flat(value)}" for name, value in facts.items()),
            "",
            markdown([summary]),
            "",
            "`records-*.jsonl` holds every answer, `verdicts/` what judges said, `answers.csv` both in one table, and",
            "`report.html` the page of the run.\n",
        ]
    )


def _flat(value: object) -> str:
    """One line of plain text inside Markdown."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(str(value).split()))


# ---- .eval_results ---------------------------------------------------------------------------------------------------


def eval_results(folder: RunFolder, summary: Summary, *, repo: str, benchmark: str) -> tuple[str, str]:
    """Path and content of the file that names this run's numbers in a model's repository.

    Three entries a family of the `normal` arm: task FAMILY_understanding, FAMILY_generation and FAMILY_gap. Values are
    shares, not percentages; the 95% interval is in the notes.

    Args:
        repo: Dataset repository of the run, which every entry links.
        benchmark: Dataset repository of the benchmark; its eval.yaml must have these tasks to show them.

    Raises:
        ValueError: Not a repository's name, or nothing was scored in that arm.
    """
    for name in (repo, benchmark):
        validate_repo_id(name)
    source = {"url": f"https://huggingface.co/datasets/{repo}", "name": f"unigap run {folder.path.name}"}
    entries = [
        {
            "dataset": {"id": benchmark, "task_id": re.sub(r"[^\w-]+", "_", f"{family}_{what}")},
            "value": round(numbers["rate"], 6),
            "source": dict(source),  # else YAML writes a reference to the first
            "notes": f"arm {ARM}, 95% interval {numbers['low']:.4f} to {numbers['high']:.4f}, "
            f"{numbers['scored']} units, judge {summary.run['judge']['name']}",
        }
        for family, what, numbers in _numbers(summary)
    ]
    if not entries:
        raise ValueError(f"{folder.path} has no scored unit of the arm {ARM}, which .eval_results is made of")
    name = re.sub(r"[^\w-]+", "_", folder.path.name)
    return f".eval_results/unigap-{name}.yaml", yaml_dump(entries, sort_keys=False)


def _numbers(summary: Summary) -> Iterable[tuple[str, str, dict[str, Any]]]:
    for family in summary.families:
        found = {what: family.cells.get((what, ARM)) for what in ("understanding", "generation")}
        for what, cell in (*found.items(), ("gap", family.gaps.get(ARM))):
            if cell is not None and cell.scored:
                yield family.name, what, cell.to_json()


# ---- the Hub ---------------------------------------------------------------------------------------------------------


def upload(plan: Publication, api: HfApi, *, public: bool = False) -> str:
    """Make the dataset repository where it is not there, and commit everything; returns its address.

    What is there already and did not change is not sent again, so an upload that broke off is repeated as it was.
    """
    api.create_repo(plan.repo, repo_type="dataset", private=not public, exist_ok=True)
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=made) for name, made in plan.files.items()]
    for start in range(0, len(operations), FILES_A_COMMIT):
        part = operations[start : start + FILES_A_COMMIT]
        message = f"unigap run: files {start + 1} to {start + len(part)} of {len(operations)}"
        api.create_commit(plan.repo, part, commit_message=message, repo_type="dataset")
    return f"{api.endpoint}/datasets/{plan.repo}"


def propose_results(api: HfApi, model: str, path: str, content: str) -> str:
    """Open a pull request that adds the file to a model's repository; returns its address."""
    operation = CommitOperationAdd(path_in_repo=path, path_or_fileobj=content.encode())
    done = api.create_commit(model, [operation], commit_message="Results of a unigap run", create_pr=True)
    return done.pr_url or done.commit_url
