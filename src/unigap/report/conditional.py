"""GapEval's conditional rule beside plain correctness, for choices between options.

GapEval asks of a picture whether it marks the right option; but where the same model's text was wrong, whether it marks
the option that the text chose. A success of the second kind says that the two directions agree, not that the picture is
right, and it raises p01. Verdicts here are plain; whether picture and text agree stands in their reading.

Answers that both rules can be applied to are counted, so that the two rates are of the same ones:

    text is      picture      conditional success
    right        any          the picture is right
    wrong        judged       it agrees with the text
    wrong        none         no: refused, unreadable

Left out: pictures that are not scored, without a scored text in the same arm and sample, or whose text is wrong and
chooses no option that they could agree with.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from unigap.benchmarks.gapeval_results import AGREES
from unigap.gap.intervals import Interval, rate_interval
from unigap.items import ARMS_OF, Arm
from unigap.judges.rubric_table import find_rubric
from unigap.records import Key, RunFolder, Verdict


@dataclass(frozen=True, kw_only=True)
class ChoiceRates:
    """Generation rates of one arm's choices by both rules, over the same answers."""

    arm: Arm
    plain: Interval
    """The picture is right."""
    conditional: Interval
    """It is right; or, the text being wrong, it agrees with the text."""
    num_answers: int
    """Pictures counted; several samples of an item are averaged into one unit."""
    num_text_wrong: int
    """Of these, how many have a wrong text, so that the rules differ."""
    num_left_out: int


def choice_rates(folder: RunFolder, judge: str) -> list[ChoiceRates]:
    """Both rates, an entry for each arm with choices; [] if the judge was not asked about agreement.

    Raises:
        RunFolderError: The folder cannot be read.
    """
    verdicts = folder.verdicts(judge)
    if not any(AGREES in (verdict.reading or {}) for verdict in verdicts):
        return []
    items = {item.id: item for item in folder.items() if find_rubric(item).options}
    asked = [verdict for verdict in verdicts if verdict.item_id in items]
    clusters = {item_id: item.cluster for item_id, item in items.items()}
    return list(count_choices(asked, clusters))


def count_choices(verdicts: Iterable[Verdict], clusters: Mapping[str, str]) -> Iterator[ChoiceRates]:
    """Both rates by arm, from the verdicts on choices and the cluster of each item."""
    by_key: dict[Key, Verdict] = {verdict.key: verdict for verdict in verdicts}
    for arm in ARMS_OF["understanding"]:
        pictures = [verdict for key, verdict in by_key.items() if key[1:3] == ("generation", arm)]
        both: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
        num_wrong = 0
        for picture in pictures:
            text = by_key.get(picture.key._replace(direction="understanding"))
            success = _conditional(picture, text)
            if success is not None and text is not None:
                both[picture.item_id].append((picture.verdict == "correct", success))
                num_wrong += text.verdict == "incorrect"
        if not pictures:
            continue
        of_units = [clusters[item_id] for item_id in both]
        plain, conditional = (
            rate_interval([float(np.mean([pair[which] for pair in pairs])) for pairs in both.values()], of_units)
            for which in (0, 1)
        )
        num_answers = sum(map(len, both.values()))
        yield ChoiceRates(
            arm=arm,
            plain=plain,
            conditional=conditional,
            num_answers=num_answers,
            num_text_wrong=num_wrong,
            num_left_out=len(pictures) - num_answers,
        )


def _conditional(picture: Verdict, text: Verdict | None) -> bool | None:
    """Success by GapEval's rule; None if it cannot be applied."""
    if text is None or not (text.settled and picture.settled):
        return None
    if text.verdict == "correct":
        return picture.verdict == "correct"
    if picture.error in ("refused", "unreadable"):  # there is no picture that could agree with anything
        return False
    agrees = (picture.reading or {}).get(AGREES)
    return agrees if isinstance(agrees, bool) else None


def print_choices(rates: Iterable[ChoiceRates], console: Console, *, by: str = "") -> None:
    """One line for each arm; `by` is whose verdicts they are, where there are several judges."""
    whose = f", by {by}" if by else ""
    for row in rates:
        left_out = f"; {row.num_left_out} left out" if row.num_left_out else ""
        line = (
            f"choices, generation {row.arm}{whose}: right {row.plain}; GapEval's conditional rule {row.conditional}; "
            f"{row.num_text_wrong} of {row.num_answers} pictures have a wrong text{left_out}"
        )
        console.print(line, highlight=False, markup=False, soft_wrap=True)
