"""What is wrong with one labelled line: its label recomputed from its question.

A label is wrong only if no reading of the question gives it. What makes the question itself unanswerable (a value that
is no positive integer, a symbol without a rule) is an error whatever the label.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unigap.benchmarks.arithmetic import readings
from unigap.benchmarks.facts import People, agree, asked_attribute, chosen, describe, named
from unigap.benchmarks.math_words import number_word, read_sentence
from unigap.benchmarks.nouns import is_generic, names, outside_category, same_noun, singulars, words_of
from unigap.benchmarks.phrases import NotUnderstood
from unigap.benchmarks.rules import MappingQuestion, defined_twice, endings, read_mapping

Severity = Literal["error", "note"]
ErrorKind = Literal[
    "wrong_label", "not_an_integer", "non_positive", "object_not_named", "unresolvable", "malformed", "conflict",
    "contradicts_training",
]  # fmt: skip
NoteKind = Literal["grammar", "range", "category", "duplicate", "ambiguous", "chain_length"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing about one line."""

    file: str
    line: int
    id: str
    """As in the file; "" if the line has none."""
    field: str
    """The field it is about: "Answer", "Question_A"."""
    severity: Severity
    """An error makes the line unusable as it stands; a note does not."""
    kind: ErrorKind | NoteKind
    label: str
    """What the line says."""
    computed: str
    """What follows from the question; several readings are separated by " | "."""
    why: str
    """One plain clause."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One labelled line, whatever its family."""

    file: str
    number: int
    id: str
    field: str
    """Field of the question."""
    question: str
    label: str
    """The answer, as a string."""

    def error(self, kind: ErrorKind, computed: str, why: str, *, field: str = "Answer") -> Finding:
        return self._finding("error", kind, computed, why, field)

    def note(self, kind: NoteKind, computed: str, why: str, *, field: str = "Answer") -> Finding:
        return self._finding("note", kind, computed, why, field)

    def _finding(self, severity: Severity, kind: ErrorKind | NoteKind, computed: str, why: str, field: str) -> Finding:
        return Finding(
            file=self.file, line=self.number, id=self.id, field=field, severity=severity, kind=kind,
            label=self.label, computed=computed, why=why,
        )  # fmt: skip


# ---- arithmetic ------------------------------------------------------------------------------------------------------

_LABEL = re.compile(r"(?:(-?[0-9]+(?:[./][0-9]+)?)|([A-Za-z]+(?:-[A-Za-z]+)?))(?:\s+(.*\S))?", re.DOTALL)
_OBJECT = re.compile(
    r"(?:\b(?:as|how|so|that|this) many|\b(?:number|quantity|amount|count) of)\s+(.+?)"
    r"(?=\s+(?:as|equal|equals|equivalent|that|which|whose|match\w*|corresponding|calculated|given|is|are|to)\b|[,.?]|$)",
    re.IGNORECASE,
)


def read_count(label: str) -> tuple[float, str] | None:
    """ "4 cups." -> (4, "cups"), "two" -> (2, ""); None if it does not start with a number."""
    match = _LABEL.fullmatch(label.strip().removesuffix(".").strip())
    if match is None:
        return None
    if match[1]:
        top, _, bottom = match[1].partition("/")
        number = float(top) / float(bottom) if bottom and float(bottom) else float(top)
    elif (number := number_word(match[2].lower())) is None:
        return None
    return number, match[3] or ""


def check_math(line: Line) -> list[Finding]:
    """Recompute the count of an arithmetic question, and compare the object."""
    read = read_count(line.label)
    if read is None:
        return [line.error("malformed", "", "the answer is not of the form 'N objects'")]
    count, noun = read
    return [*_check_count(line, count), *_check_object(line, count, noun)]


def _check_count(line: Line, count: float) -> list[Finding]:
    found = readings(line.question)
    if isinstance(found, NotUnderstood):
        return [line.note("ambiguous", "", f"not understood, so not recomputed: {found.reason}", field=line.field)]
    computed = " | ".join(f"{reading} ({reading.policy})" if len(found) > 1 else str(reading) for reading in found)
    wholes = [reading.whole for reading in found if reading.whole is not None]
    if count in [whole for whole in wholes if whole > 0]:
        if len(found) > 1:
            return [line.note("ambiguous", computed, "the sentence has several readings; the label fits one")]
        return []
    usual = next((reading for reading in found if reading.whole is not None), found[0])
    if usual.value is None:
        return [line.error("unresolvable", computed, f"the expression has no value: {usual.undefined}")]
    if usual.value <= 0:
        return [line.error("non_positive", computed, "the value is no number of things to draw")]
    if usual.whole is None:
        return [line.error("not_an_integer", computed, "the value is not an integer")]
    which = "no reading gives" if len(found) > 1 else "the expression does not give"
    return [line.error("wrong_label", computed, f"{which} {count:g}")]


def _check_object(line: Line, count: float, noun: str) -> list[Finding]:
    if not noun:
        return [line.error("object_not_named", "", "the answer names no object")]
    sentence = read_sentence(line.question)
    match = _OBJECT.search(
        line.question if isinstance(sentence, NotUnderstood) or not sentence.before else sentence.before
    )
    asked = match[1] if match else ""
    named_there = names(noun, line.question)
    if asked and not is_generic(asked):
        if not (same_noun(asked, noun) or named_there):
            return [line.error("object_not_named", asked, f"the question asks for {asked}")]
        return _check_number(line, count, noun, asked)
    # "Show the outcome of 3 + 1" asks for no thing, and an answer of "4 items" does not supply one.
    if is_generic(noun) or not named_there:
        return [line.error("object_not_named", "", "the question names no such object")]
    return []


def _check_number(line: Line, count: float, noun: str, asked: str) -> list[Finding]:
    """Singular and plural, judged by the question's own plural ("as many dogs": then "2 dog" is wrong)."""
    said, plural = words_of(noun)[-1:], words_of(asked)[-1:]
    if not said or not plural:
        return []
    singular_said = said != plural and said[0] in singulars(plural[0])
    plural_said = said == plural and len(singulars(plural[0])) > 1
    if count != 1 and singular_said:
        return [line.note("grammar", asked, "a singular noun with a count that is not one")]
    if count == 1 and plural_said:
        return [line.note("grammar", asked, "a plural noun with a count of one")]
    return []


def essence(question: str) -> str:
    """What a question asks, whatever its wording: object and expression of arithmetic, else its words."""
    sentence, match = read_sentence(question), _OBJECT.search(question)
    if isinstance(sentence, NotUnderstood) or match is None:
        return " ".join(question.lower().split())
    tokens = [*sentence.expression, *(token for step in sentence.steps for token in step)]
    return " ".join((*words_of(match[1]), ":", *(token.text for token in tokens)))


def num_operations(question: str) -> int | None:
    """Operators, roots, sums and later steps of a sentence; None if it is not understood."""
    sentence = read_sentence(question)
    if isinstance(sentence, NotUnderstood):
        return None
    tokens = [*sentence.expression, *(token for step in sentence.steps for token in step)]
    return sum(token.kind in ("op", "root", "scale", "pair") for token in tokens)


# ---- mapping ---------------------------------------------------------------------------------------------------------

_NO_ANSWER = frozenset(("undefined", "n/a", "na", "none", "unknown", "null", "error", ""))


def check_mapping(line: Line, question: MappingQuestion | None, other: str | None) -> list[Finding]:
    """Follow the rules from the asked symbol; `other` is what the pair's other half leads to, if it is one object."""
    if question is None:
        return [line.error("malformed", "", "the question has no rules", field=line.field)]
    if question.symbol is None:
        return [line.error("malformed", "", "the question asks about no symbol", field=line.field)]
    ends = endings(question)
    computed = " | ".join(map(str, ends))
    reached = [end for end in ends if end.reaches_object]
    fitting = [end for end in reached if same_noun(end.path[-1], line.label)]
    if fitting:
        findings = []
        if len(ends) > 1:
            findings.append(
                line.note("ambiguous", computed, "a symbol is defined more than once; the label fits one way")
            )
        if question.category and outside_category(question.category, line.label):
            findings.append(line.note("category", computed, f"the question calls it {question.category}"))
        return findings
    if question.not_understood:
        rules = "; ".join(question.not_understood)
        return [
            line.note("ambiguous", computed, f"not recomputed, as a rule was not understood: {rules}", field=line.field)
        ]
    if not reached:
        why = "the rules lead round in a circle" if any(end.loops for end in ends) else "a symbol has no rule"
        if line.label.strip().lower() in _NO_ANSWER:
            why += ", and the label says so: nothing can be drawn"
        return [line.error("unresolvable", computed, why)]
    if len({end.path[-1].lower() for end in reached}) > 1:
        twice = ", ".join(defined_twice(question))
        return [line.error("conflict", computed, f"rules disagree about {twice}, and the label fits none")]
    swapped = other is not None and same_noun(other, line.label)
    return [
        line.error(
            "wrong_label", computed, "the label is the other half's answer" if swapped else "the rules lead elsewhere"
        )
    ]


def target(question: MappingQuestion | None) -> tuple[str, int] | None:
    """(object, rules applied) if the asked symbol leads to one object; else None."""
    ends = endings(question) if question is not None else []
    return (ends[0].path[-1], ends[0].num_rules) if len(ends) == 1 and ends[0].reaches_object else None


def mapping_question(line: Line) -> MappingQuestion | None:
    """The line's rules and query."""
    return read_mapping(line.question)


# ---- knowledge -------------------------------------------------------------------------------------------------------


def check_knowledge(line: Line, people: People) -> list[Finding] | None:
    """Compare an answer with the training facts; None if they hold nobody whom the question names."""
    who = named(line.question, people)
    if not who:
        return None
    fits = chosen(line.question, who, people)
    if fits is not None:
        if len(fits) != 1:
            return [
                line.error("unresolvable", " ".join(fits), f"{len(fits)} of {', '.join(who)} fit", field=line.field)
            ]
        who = fits
    facts = people[who[0]]
    asked = asked_attribute(line.question)
    if asked is not None:
        if asked not in facts:
            return [line.note("ambiguous", "", f"training says nothing of {who[0]}'s {asked}")]
        value = facts[asked].value
        if same_noun(value, line.label):
            return []
        return [line.error("contradicts_training", value, f"training says {who[0]}'s {asked} is {value}")]
    said = describe(line.label)
    if not said:
        return [line.note("ambiguous", "", "not understood, so not compared with training")]
    return _contradictions(line, who[0], said, people)


def _contradictions(line: Line, name: str, said: dict[str, frozenset[str]], people: People) -> list[Finding]:
    facts = people[name]
    differ = [
        (attribute, facts[attribute].value, value)
        for attribute, values in said.items()
        for value in sorted(values)
        if attribute in facts and not agree(attribute, facts[attribute].value, value)
    ]
    if not differ:
        return []
    swapped = [
        other
        for other in named(line.question, people)
        if other != name and all(a in people[other] and agree(a, people[other][a].value, v) for a, _, v in differ)
    ]
    why = "; ".join(f"training says {name}'s {attribute} is {fact}, not {value}" for attribute, fact, value in differ)
    if swapped:
        why += f" (that is {swapped[0]}'s)"
    computed = ", ".join(f"{attribute} {fact}" for attribute, fact, _ in differ)
    return [line.error("contradicts_training", computed, why)]


def most(values: Sequence[int]) -> int | None:
    """The most frequent value, the smaller of equals; None of none."""
    return min(set(values), key=lambda value: (-values.count(value), value)) if values else None
