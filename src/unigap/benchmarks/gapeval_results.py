"""What GapEval's judge wrote (`new_res.json`), as rulings.

    {"text_eval":  {"status": ..., "parsed": {"reason": ..., "score": 0 or 1}, "raw_response": ...},
     "image_eval": [the same, one per picture]}

Read as leniently as their own parser: the score may be called `judge_result`, or misspelled; it may be a truth value, a
number or a word ("yes"); and where nothing was parsed, the JSON is looked for inside the raw reply. What still says
nothing, says two things, or has the status "error" is the judge's failure: unscored.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from unigap.benchmarks.imported import read_json
from unigap.errors import ItemFileError
from unigap.records import Ruling

SCORE_KEYS = ("score", "judge_result", "result")
WORDS: Mapping[str, bool] = {
    "1": True, "1.0": True, "true": True, "yes": True, "correct": True,
    "0": False, "0.0": False, "false": False, "no": False, "incorrect": False,
}  # fmt: skip
COPIED = "raw"
"""What their judge says of a picture that is the problem picture itself."""

AGREEMENT = {"rule": "agreement with the text answer, which is wrong"}
"""Reading of a verdict that does not say whether the picture is right."""

AGREES = "agrees_with_text"
"""In the reading of a verdict on a choice: whether the picture marks the option that the same model's text chose."""
PLAIN = "plain_score"
"""Beside such a score, in files that we wrote: whether the picture is right."""

_MAX_REPLY = 20_000


@dataclass(frozen=True, kw_only=True)
class Rulings:
    """What one new_res.json says."""

    text: Ruling | None
    """None if there is no result."""
    pictures: tuple[Ruling | None, ...]
    """One per picture, in order. Those whose reading is AGREEMENT do not say whether the picture is right."""


def read_rulings(path: Path, pictures: Sequence[str], *, choice: bool = False) -> Rulings:
    """Read one file.

    Args:
        path: The file.
        pictures: Names of the model's pictures, in the order of its results.
        choice: The item is a choice between options: once the text is wrong, their judge asks whether the picture
            marks the option that the text chose.

    Raises:
        ItemFileError: Not such a file.
    """
    data = read_json(path)
    if not isinstance(data, Mapping) or not {"text_eval", "image_eval"} & data.keys():
        raise ItemFileError(f'{path}: no "text_eval" or "image_eval"; expected the results of GapEval\'s judge')
    texts, images = _entries(path, data, "text_eval"), _entries(path, data, "image_eval")
    text = read_ruling(texts[0]) if texts else None
    if images and len(images) != len(pictures):
        why = f"{len(images)} results for {len(pictures)} pictures"
        return Rulings(text=text, pictures=(Ruling.unscored(why),) * len(pictures))
    agreement = choice and text is not None and text.verdict == "incorrect"
    reading = AGREEMENT if agreement else None
    rulings = tuple(read_ruling(entry, reading=reading) for entry in images)
    return Rulings(text=text, pictures=rulings or (None,) * len(pictures))


def _entries(path: Path, data: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = data.get(key)
    entries = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(entry, Mapping) for entry in entries):
        raise ItemFileError(
            f'{path}: "{key}" is {str(value)[:80]!r}; expected an object with status, or a list of them'
        )
    return entries


def read_ruling(entry: Mapping[str, Any], *, reading: Mapping[str, Any] | None = None) -> Ruling:
    """One result as a ruling; a reading is what it says if the file does not say more."""
    if str(entry.get("status", "")).lower() == "error":
        said = entry.get("error") or entry.get("raw_response") or "no reason given"
        return Ruling.unscored(f"their judge failed: {str(said)[:200]}")
    for source in (entry.get("parsed"), entry.get("raw_response")):
        said = list(find_objects(source))
        scores = {score for data in said if (score := read_score(data)) is not None}
        if len(scores) > 1:
            return Ruling.unscored("their judge's reply says both right and wrong")
        if scores:
            why = next((str(data["reason"]) for data in reversed(said) if "reason" in data), "")
            score = scores.pop()
            if reading == AGREEMENT and (plain := read_truth(said[-1].get(PLAIN))) is not None:
                # Ours: the plain verdict is known, and what the score says of the agreement goes into the reading.
                agrees = read_truth(said[-1].get(AGREES))
                score, reading = plain, None if agrees is None else {AGREES: agrees}
            if score == COPIED:
                return Ruling.incorrect("copied", why or "the problem picture itself", reading=reading)
            return (
                Ruling.correct(why, reading=reading) if score else Ruling.incorrect("judged_no", why, reading=reading)
            )
    return Ruling.unscored("no score in their judge's reply")


def find_objects(source: Any) -> Iterator[Mapping[str, Any]]:
    """The object itself, or every JSON object inside a text."""
    if isinstance(source, Mapping):
        yield source
    if not isinstance(source, str):
        return
    decoder, text = json.JSONDecoder(), source[-_MAX_REPLY:]
    start = text.find("{")
    while start >= 0:
        try:
            data, end = decoder.raw_decode(text, start)
            yield data
        except (ValueError, RecursionError):
            end = start + 1
        start = text.find("{", end)


def read_score(data: Mapping[str, Any]) -> bool | str | None:
    """The score that a reply's object holds: True, False, or COPIED; None if it says no such thing."""
    keys = {key.strip().lower(): key for key in data}
    key = next((keys[name] for name in SCORE_KEYS if name in keys), None)
    if key is None:
        close = (match for name in SCORE_KEYS for match in get_close_matches(name, keys, n=1, cutoff=0.8))
        if (match := next(close, None)) is None:
            return None
        key = keys[match]
    return COPIED if str(data[key]).strip().lower() == COPIED else read_truth(data[key])


def read_truth(value: Any) -> bool | None:
    """A truth value, also as a number or a word; None if it is none."""
    return WORDS.get(str(value).strip().lower())
