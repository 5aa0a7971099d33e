"""The label audit: every label of UniSandbox-format files recomputed from its own question.

Nothing is known about particular files or items. What a line is follows from its fields and its sentence; the level of
a file, and with it the usual chain length and range of counts, from what most of its lines ask.

    audit = audit_files([Path("math_2.jsonl")])
    audit.findings    # what is wrong (errors) or odd (notes), by file and line
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unigap.benchmarks.arithmetic import readings
from unigap.benchmarks.audit_checks import (
    Finding,
    Line,
    check_knowledge,
    check_mapping,
    check_math,
    essence,
    mapping_question,
    most,
    num_operations,
    target,
)
from unigap.benchmarks.facts import People, TrainingLine, agree, describe, learn, subjects
from unigap.benchmarks.math_words import read_sentence
from unigap.benchmarks.nouns import same_noun
from unigap.benchmarks.phrases import NotUnderstood
from unigap.errors import ItemFileError

LARGEST_COUNT = {1: 4, 2: 4, 3: 5}
"""Operations -> the largest count that UniSandbox's generators ask for."""


@dataclass(frozen=True, kw_only=True)
class FileAudit:
    """One file's part of an audit."""

    file: str
    num_lines: int
    findings: tuple[Finding, ...]
    num_unchecked: int
    """Knowledge lines about people whom no training facts describe."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The audit of several files."""

    files: tuple[FileAudit, ...]
    fact_files: tuple[str, ...]
    """Training files that the facts come from."""

    @property
    def findings(self) -> list[Finding]:
        return [finding for file in self.files for finding in file.findings]

    @property
    def num_errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        files = [
            {"file": file.file, "lines": file.num_lines, "unchecked": file.num_unchecked} | _tally(file.findings)
            for file in self.files
        ]
        return {"findings": [asdict(f) for f in self.findings], "files": files, "facts": list(self.fact_files)}


def _tally(findings: Iterable[Finding]) -> dict[str, int]:
    severities = [finding.severity for finding in findings]
    return {"errors": severities.count("error"), "notes": severities.count("note")}


def audit_files(paths: Sequence[Path], *, facts: Sequence[Path] = ()) -> Audit:
    """Audit benchmark and training files.

    Args:
        paths: Files to audit, JSON lines.
        facts: Training files to take the facts about people from. By default the files of the nearest `data/knowledge`
            folder above a file, and whatever training files are audited themselves.

    Raises:
        ItemFileError: A file cannot be read or is empty. A malformed line is a finding.
    """
    read = {path: _read(path) for path in dict.fromkeys(paths)}
    fact_files = list(facts) or sorted({found for path in read for found in find_fact_files(path)})
    training = [line for path in fact_files for line in _training_lines(read.get(path) or _read(path))]
    if not facts:
        known = {path.resolve() for path in fact_files}
        own = [path for path in read if path.resolve() not in known]
        training += [line for path in own for line in _training_lines(read[path])]
    # Files of pairs repeat the lines of their two people.
    people = learn(list(dict.fromkeys(training)))
    audits = tuple(_audit(path, raw, people) for path, raw in read.items())
    return Audit(files=audits, fact_files=tuple(map(str, fact_files)))


def find_fact_files(path: Path) -> list[Path]:
    """The training files in the nearest `data/knowledge` folder above a file; none if there is no such folder."""
    for folder in path.resolve().parents:
        if found := sorted((folder / "data" / "knowledge").glob("*.jsonl")):
            return found
    return []


# ---- lines -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Raw:
    """A line's JSON value, or why it has none."""

    number: int
    data: Any
    error: str = ""
    text: str = ""


def _read(path: Path) -> list[_Raw]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ItemFileError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ItemFileError(f"{path} is not UTF-8 text ({error})") from None
    raw = [piece for number, line in enumerate(text.split("\n"), start=1) for piece in _objects(number, line.strip())]
    if not raw:
        raise ItemFileError(f"{path} holds no lines")
    return raw


def _objects(number: int, text: str) -> Iterator[_Raw]:
    """The JSON values of a line: several where files without a final newline were joined."""
    decoder = json.JSONDecoder()
    while text:
        try:
            data, end = decoder.raw_decode(text)
        except (ValueError, RecursionError) as error:
            yield _Raw(number, None, f"not JSON ({error})", text)
            return
        yield _Raw(number, data)
        text = text[end:].lstrip()


def _training_lines(raws: Iterable[_Raw]) -> list[TrainingLine]:
    return [line for raw in raws if (line := _training_line(raw.data)) is not None]


def _training_line(data: Any) -> TrainingLine | None:
    turns = data.get("conversations") if isinstance(data, Mapping) else None
    if not isinstance(turns, list) or not all(
        isinstance(t, Mapping) and isinstance(t.get("value"), str) for t in turns
    ):
        return None
    asked = " ".join(turn["value"] for turn in turns if turn.get("from") in ("human", "user"))
    taught = " ".join(turn["value"] for turn in turns if turn.get("from") not in ("human", "user", "system"))
    return TrainingLine(asked, taught) if asked and taught else None


def _id(data: Any) -> str:
    name = (
        next((name for name in ("id", "ID", "Question_id") if name in data), None)
        if isinstance(data, Mapping)
        else None
    )
    value = data[name] if name is not None else ""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


# ---- one file --------------------------------------------------------------------------------------------------------


def _audit(path: Path, raws: Sequence[_Raw], people: People) -> FileAudit:
    findings: list[Finding] = []
    math, mapping, knowledge = [], [], []
    training: list[tuple[Line, TrainingLine]] = []
    for raw in raws:
        shown = _Shown(str(path), raw)
        if raw.error or not isinstance(raw.data, Mapping):
            findings.append(shown.malformed("", raw.error or f"a JSON {type(raw.data).__name__}, not an object"))
        elif "conversations" in raw.data:
            taught = _training_line(raw.data)
            if taught is None:
                findings.append(shown.malformed("conversations", "no question and answer"))
            else:
                training.append((shown.line("conversations", taught.question, taught.answer), taught))
        elif problem := _problem(raw.data):
            findings.append(shown.malformed(*problem))
        else:
            field = next(name for name in ("Question_A", "Question_B", "Question") if name in raw.data)
            line = shown.line(field, raw.data[field], str(raw.data["Answer"]))
            kind = mapping if field != "Question" else math if _is_math(line.question, people) else knowledge
            kind.append(line)
            if "Question_A" in raw.data and "Question_B" in raw.data:
                findings.append(shown.malformed("Question_B", "both halves' questions in one line, with one answer"))
    findings += [f for line in math for f in check_math(line)]
    findings += _ranges(math)
    findings += _pairs(mapping)
    checks = [check_knowledge(line, people) for line in knowledge]
    findings += [finding for check in checks if check is not None for finding in check]
    findings += _training(training)
    wrong = {(finding.line, finding.id) for finding in findings if finding.severity == "error"}
    computed = {(line.number, line.id) for line in (*math, *mapping)}
    findings += _repeated([*math, *mapping, *knowledge, *(line for line, _ in training)], wrong, computed)
    return FileAudit(
        file=str(path),
        num_lines=len(raws),
        findings=tuple(sorted(findings, key=lambda f: (f.line, f.severity, f.field))),
        num_unchecked=checks.count(None),
    )


@dataclass(frozen=True)
class _Shown:
    """A raw line, as findings show it."""

    file: str
    raw: _Raw

    def line(self, field: str, question: str, label: str) -> Line:
        return Line(
            file=self.file, number=self.raw.number, id=_id(self.raw.data), field=field, question=question, label=label
        )

    def malformed(self, field: str, why: str) -> Finding:
        value = self.raw.data.get(field, "") if isinstance(self.raw.data, Mapping) else self.raw.text or self.raw.data
        label = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return self.line(field, "", label[:200]).error("malformed", "", why, field=field)


def _problem(data: Mapping[str, Any]) -> tuple[str, str] | None:
    """(field, what is wrong) of a line that lacks what every format has."""
    if _id(data) == "":
        return "id", "no id"
    questions = [name for name in ("Question_A", "Question_B", "Question") if name in data]
    if not questions:
        return "Question", "no question"
    for name in questions:
        if not isinstance(data[name], str) or not data[name].strip():
            return name, "the question is not a text"
    answer = data.get("Answer")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not str(answer).strip():
        return "Answer", "no answer"
    return None


def _is_math(question: str, people: People) -> bool:
    # A sentence of arithmetic that is not understood is still told from one about a person.
    about = any(word in question for word in ("character", "portrait", "favorite", "favourite", "photorealistic"))
    return not isinstance(read_sentence(question), NotUnderstood) or not (about or any(n in question for n in people))


def _ranges(lines: Sequence[Line]) -> Iterator[Finding]:
    """Right counts beyond what the level of the file asks for."""
    level = most([n for line in lines if (n := num_operations(line.question)) is not None])
    largest = LARGEST_COUNT[min(3, max(1, level or 1))]
    for line in lines:
        found = readings(line.question)
        whole = None if isinstance(found, NotUnderstood) else found[0].whole
        if whole is not None and whole > largest and line.label.split()[0] == str(whole):
            yield line.note("range", str(whole), f"more than the {largest} that files of {level} operations ask for")


def _pairs(lines: Sequence[Line]) -> Iterator[Finding]:
    questions = [mapping_question(line) for line in lines]
    targets = [target(question) for question in questions]
    usual = most([found[1] for found in targets if found is not None])
    halves: dict[str, dict[str, int]] = defaultdict(dict)
    for at, line in enumerate(lines):
        halves[line.id].setdefault(line.field, at)
    for at, line in enumerate(lines):
        pair, found = halves[line.id], targets[at]
        other = next((targets[i] for field, i in pair.items() if field != line.field), None)
        yield from check_mapping(line, questions[at], other[0] if other else None)
        if found is not None and found[1] != usual:
            yield line.note("chain_length", str(found[1]), f"{usual} rules in most lines of the file", field=line.field)
        if len(pair) == 1:
            yield line.error(
                "malformed", "", "the pair's other half is missing, so it can never score", field=line.field
            )
        elif line.field == "Question_B" and found and other and same_noun(found[0], other[0]):
            yield line.note("duplicate", found[0], "both halves of the pair have the same answer")


def _training(lines: Sequence[tuple[Line, TrainingLine]]) -> Iterator[Finding]:
    """Training lines that differ from what most lines of the file say about the same person."""
    people = learn([taught for _, taught in lines])
    for (line, taught), name in zip(lines, subjects([taught for _, taught in lines]), strict=True):
        if name is None:
            yield line.note("ambiguous", "", "whom the line is about was not understood", field=line.field)
            continue
        for attribute, values in describe(taught.answer).items():
            fact = people[name][attribute]
            for value in sorted(values):
                if not agree(attribute, fact.value, value):
                    votes = f"{fact.votes[fact.value]} lines to {fact.votes[value]}"
                    why = f"{name}'s {attribute} is {value} here and {fact.value} elsewhere ({votes})"
                    yield line.error("conflict", f"{attribute} {fact.value}", why, field=line.field)


def _repeated(lines: Sequence[Line], wrong: set[tuple[int, str]], computed: set[tuple[int, str]]) -> Iterator[Finding]:
    """Ids and questions that come twice; an error where the two lines cannot both be right."""
    ids: dict[tuple[str, str], Line] = {}
    questions: dict[tuple[str, str], Line] = {}
    for line in lines:
        first = ids.setdefault((line.id, line.field), line)
        text = " ".join(line.question.lower().split())
        if first is not line:
            same = text == " ".join(first.question.lower().split()) and same_label(line, first)
            why = f"the id is already on line {first.number}"
            yield line.note("duplicate", "", why, field="id") if same else line.error("conflict", "", why, field="id")
            continue
        # Training asks the same question in many lines on purpose; only a whole conversation is a repetition.
        taught = " ".join(line.label.lower().split()) if line.field == "conversations" else ""
        key = (essence(line.question) if line.field == "Question" else text, taught)
        earlier = questions.setdefault(key, line)
        if earlier is line:
            continue
        why = f"line {earlier.number} (id {earlier.id}) asks the same"
        if same_label(line, earlier):
            yield line.note("duplicate", "", why, field=line.field)
        elif not {(line.number, line.id), (earlier.number, earlier.id)} & (wrong | computed):
            yield line.error("conflict", earlier.label, f"{why}, with another answer")


def same_label(a: Line, b: Line) -> bool:
    """Whether two labels say the same, but for case and a final period."""
    return a.label.strip().lower().removesuffix(".") == b.label.strip().lower().removesuffix(".")
