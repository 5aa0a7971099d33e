"""A judge, shown answers of known truth and broken ones: does it rule on each, in order, and blame whoever failed?"""

import json
from collections.abc import Sequence
from itertools import islice
from random import Random
from typing import Any, get_args

from PIL import Image

from unigap.doctor.checks import (
    COUNT,
    LINE,
    Check,
    Fault,
    NotChecked,
    Noted,
    describe,
    is_sha256,
    misdeclared,
    number_of,
    run_check,
    shorten,
)
from unigap.items import ANSWER_KINDS, Checklist, FreeText, Item, YesNo
from unigap.items import Check as Question
from unigap.judges.probes import Probe, make_probes
from unigap.judges.protocol import Judge, Submission
from unigap.records import Ruling, VerdictWord
from unigap.scenes import make_items

FAMILIES_SHOWN = ("plain", "counting", "mapping1", "inverse", "multihop", "composition/position")
"""One for every kind of answer that probes are made of."""

PROTOCOL = "see unigap.judges.protocol.Judge and docs/adding.md"


def check_judge(judge: Judge) -> list[Check]:
    """Show a judge about 80 texts and pictures, and check its rulings."""
    checks = [run_check("declaration", lambda: _declaration(judge))]
    if checks[0].state == "finding":
        return checks
    probes = _probes(judge)
    shown = [probe.submission for probe in probes] or _beyond_the_sandbox(judge)
    rulings: list[Ruling] = []

    def each() -> str:
        if judge.judge([]):
            raise Fault("no submissions gave rulings", "return [] for []")
        rulings.extend(rule(judge, shown))
        return f"{len(rulings)} rulings for {len(shown)} submissions"

    def scored() -> str:
        need()
        unscored = [ruling for ruling in rulings if ruling.verdict == "unscored"]
        told = (
            f"{len(unscored)} of {len(rulings)} submissions are unscored (first: {shorten(unscored[0].why)})"
            if unscored
            else ""
        )
        if len(unscored) == len(rulings):
            raise Fault(told, "see why; rates would have no denominator")
        if unscored:
            raise Noted(told)
        return f"all {len(rulings)} submissions are scored"

    def company() -> str:
        need()
        other_way = rule(judge, shown[::-1])[::-1]
        different = sum((a.verdict, a.error) != (b.verdict, b.error) for a, b in zip(rulings, other_way, strict=True))
        if different:
            raise Fault(
                f"{different} of {len(rulings)} rulings changed when the same was shown in another order",
                "return rulings in the order of submissions, and let none depend on its neighbours or on luck",
            )
        return f"{len(rulings)} rulings are the same in another order"

    def truth() -> str:
        need()
        if not probes:
            raise NotChecked("it reads no answers or pictures of which right and wrong ones can be made here")
        return _truth(probes, rulings)

    def need() -> None:
        if not rulings:
            raise NotChecked("one ruling per submission is needed first")

    return [
        *checks,
        run_check("one ruling each", each),
        run_check("scored", scored),
        run_check("order and company", company),
        run_check("right and wrong", truth),
        run_check("broken submissions", lambda: _broken(judge, shown[0].item)),
    ]


def rule(judge: Judge, submissions: Sequence[Submission]) -> list[Ruling]:
    """Rulings, checked for shape."""
    try:
        rulings = judge.judge(submissions)
    except Exception as error:  # somebody else's code: whatever it raises is what we are here to report
        raise Fault(
            f"judge() raised on {number_of(len(submissions), 'submission')}: {describe(error)}",
            "a judge does not raise for a failure of its own: return Ruling.unscored(reason) for that submission",
        ) from error
    if not isinstance(rulings, list) or len(rulings) != len(submissions):
        got = number_of(len(rulings), "ruling") if isinstance(rulings, list) else f"a {type(rulings).__name__}"
        raise Fault(
            f"{number_of(len(submissions), 'submission')} gave {got}",
            "return a list of one Ruling per submission, in order; Ruling.unscored(reason) where it has none",
        )
    for ruling in rulings:
        if problem := _malformed(ruling):
            raise Fault(problem, "make rulings by Ruling.correct(), .incorrect(code, why) and .unscored(reason)")
    return rulings


def _malformed(ruling: Any) -> str:
    if not isinstance(ruling, Ruling):
        return f"a ruling is a {type(ruling).__name__}"
    if ruling.verdict not in get_args(VerdictWord):
        return f"a verdict is {ruling.verdict!r}"
    if (ruling.verdict == "incorrect") != bool(ruling.error):
        return (
            f"a verdict is {ruling.verdict} with the error code {ruling.error!r}: incorrect has one, others have none"
        )
    if ruling.verdict == "unscored" and not ruling.why:
        return "a ruling is unscored without a reason"
    try:
        json.dumps(ruling.reading)
    except (TypeError, ValueError) as error:
        return f"a reading cannot be written as JSON: {error}"
    return ""


def _declaration(judge: Judge) -> str:
    pictures, kinds = {"sandbox", "photo"}, set(ANSWER_KINDS)
    wrong = misdeclared(
        judge,
        {
            "name": LINE,
            "version": LINE,
            "prompt_sha256": (lambda v: v is None or is_sha256(v), "64 hexadecimal digits, or None"),
            "pictures": (lambda v: isinstance(v, frozenset) and v <= pictures, 'a frozenset of "sandbox" and "photo"'),
            "answer_kinds": (
                lambda v: isinstance(v, frozenset) and bool(v) and v <= kinds,
                f"a frozenset, not empty, of: {', '.join(ANSWER_KINDS)}",
            ),
            "batch_size": COUNT,
        },
    )
    if wrong:
        raise Fault("; ".join(wrong), PROTOCOL)
    return f"{judge.name} version {judge.version}, reads {', '.join(sorted(judge.answer_kinds))}"


# ---- what is shown ---------------------------------------------------------------------------------------------------


def _probes(judge: Judge) -> list[Probe]:
    """Right and wrong texts and pictures of the sandbox, of the kinds that the judge reads."""
    items = [item for family in FAMILIES_SHOWN for item in islice(make_items([family], num_units=1, seed=0), 1)]
    return [
        probe
        for item in items
        if item.answer.kind in judge.answer_kinds
        for probe in make_probes(item)
        if probe.image is None or "sandbox" in judge.pictures
    ]


def _beyond_the_sandbox(judge: Judge) -> list[Submission]:
    """Texts about items whose answers are of a kind that the sandbox does not have."""
    answers = (FreeText(text="Paris"), YesNo(yes=True), Checklist(checks=(Question(id=1, question="Is it red?"),)))
    items = [
        Item(
            id=f"doctor/{answer.kind}",
            family="doctor",
            unit=f"doctor/{answer.kind}",
            cluster=f"doctor/{answer.kind}",
            question="What is the capital of France?",
            prompt="Draw the capital of France.",
            caption="Paris",
            answer=answer,
        )
        for answer in answers
        if answer.kind in judge.answer_kinds
    ]
    return [Submission(item=item, text=text) for item in items for text in ("Paris", "It is Rome.", "yes")]


def _truth(probes: Sequence[Probe], rulings: Sequence[Ruling]) -> str:
    """Accepts right answers more often than wrong ones; how often is for the judge card to measure."""
    accepted = {True: [0, 0], False: [0, 0]}
    for probe, ruling in zip(probes, rulings, strict=True):
        if ruling.verdict != "unscored":
            accepted[probe.right][0] += ruling.verdict == "correct"
            accepted[probe.right][1] += 1
    (right, num_right), (wrong, num_wrong) = accepted[True], accepted[False]
    told = f"accepted are {right} of {num_right} right answers and {wrong} of {num_wrong} wrong ones"
    if not num_right or not num_wrong:
        raise NotChecked(told)
    if right / num_right <= wrong / num_wrong:
        raise Fault(f"it cannot tell right from wrong: {told}", "see what it reads; unigap judge --card measures it")
    return told


def _broken(judge: Judge, item: Item) -> str:
    """What a model may hand in: nothing, too much, characters that are none, pictures of no size or kind."""
    texts = ("", " \n\t", "?" * 50_000, "\ud800\x00\u202e", "[]{}<think>")
    noise = Image.frombytes("RGB", (7, 300), Random(0).randbytes(7 * 300 * 3))
    pictures = (Image.new("RGB", (1, 1)), Image.new("RGB", (64, 64), "white"), noise)
    shown = [Submission(item=item, text=text) for text in texts]
    shown += [Submission(item=item, image=image) for image in pictures if judge.pictures]
    for submission in shown:
        (ruling,) = rule(judge, [submission])
        if ruling.verdict == "correct":
            what = (
                f"the text {shorten(repr(submission.text), 40)}" if submission.image is None else "a picture of nothing"
            )
            raise Fault(f"{what} is ruled correct", "an answer that cannot be read is incorrect")
    return f"{len(shown)} broken texts and pictures: none raised, none is correct"
