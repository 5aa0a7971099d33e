"""The rubric judge: a model behind a URL grades by GapEval's rules for each kind of task (arXiv 2602.02140).

    rubric:MODEL@URL                 any server that speaks OpenAI's chat interface and takes several pictures
    rubric:MODEL@URL?twice=yes       texts are graded twice ("are you sure?"); the second grade counts
    rubric:MODEL@URL?body.NAME=VALUE a field of every request; "null" leaves one out that is sent otherwise

One request a submission. A text is shown with the question and its pictures; a picture with the task and, in this
order, the task's pictures, the reference pictures and itself. Which rubric, `rubric_table` says; they are files of our
own wording.

A picture whose pixels are those of a task's or reference picture is "copied" without a call, where a rubric says so.
Of a choice between options the same request also asks whether the picture agrees with what the model said in text;
the verdict is plain correctness, and the agreement stands in the reading (`unigap.report.conditional` counts it).

See docs/judges.md.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from PIL import Image

from unigap.benchmarks.gapeval_results import AGREES, COPIED, find_objects, read_score, read_truth
from unigap.benchmarks.imported import item_picture
from unigap.benchmarks.unisandbox_lines import answer_text
from unigap.errors import ItemFileError, UnknownNameError
from unigap.items import ANSWER_KINDS, Character, Direction, Item
from unigap.judges.asking import not_understood, prompts_sha256, read_reply, tagged, with_usage
from unigap.judges.pictures import show_png
from unigap.judges.protocol import Submission
from unigap.judges.rubric_table import CHOICE, DEFAULT, OWN, RUBRICS, TYPED, Rubric, find_rubric
from unigap.models.http import Fault, Post, RemoteClient, data_uri, read_address, take_http_settings
from unigap.models.protocol import TextOutput
from unigap.models.remote import split_thought, take_fields
from unigap.models.replies import read_chat_text, read_usage
from unigap.prompts import read_prompt
from unigap.records import Ruling

BODY: Final[Mapping[str, Any]] = {"temperature": 0, "max_tokens": 2048}
"""What every request says beside model and messages."""

Talk = Generator[Post, TextOutput | Fault, Ruling]


# ---- the judge -------------------------------------------------------------------------------------------------------


class RubricJudge:
    """See `unigap.judges.protocol.Judge`."""

    version = "1"
    pictures: frozenset[Literal["sandbox", "photo"]] = frozenset({"sandbox", "photo"})
    answer_kinds = frozenset(ANSWER_KINDS)

    def __init__(
        self,
        model: str,
        client: RemoteClient,
        *,
        twice: bool = False,
        agrees: bool = True,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            twice: Ask for every grade of a text a second time; the second one counts.
            agrees: Show, beside a choice's picture, what the model said in text, and ask whether they agree.
            body: Fields of requests, beside or instead of those of BODY; None leaves one out.
        """
        self._client, self._twice, self._agrees = client, twice, agrees
        self._body = {name: value for name, value in {**BODY, **(body or {})}.items() if value is not None}
        self._body["model"] = model
        self.name = f"rubric:{model}@{client.base_url}"
        self._prompts = _read_prompts(twice, agrees)
        self.prompt_sha256: str | None = prompts_sha256(self._prompts, body or {})
        # Two rounds a batch: a slow reply then holds up less than half of what is in flight.
        self.batch_size = 2 * client.settings.concurrency

    @classmethod
    def from_address(cls, address: str) -> "RubricJudge":
        """A judge from "MODEL@URL" with settings behind a question mark.

        Raises:
            ValueError: Not an address, an unknown setting, or a key is missing.
            UnknownNameError: A setting that is yes or no is neither.
        """
        example = 'a rubric judge is "rubric:MODEL@URL", e.g. rubric:m@http://127.0.0.1:8000/v1'
        model, url, given = read_address(address, example)
        body = take_fields(given, "body.")
        settings = take_http_settings(given, ("twice", "agrees", "body.NAME"))
        twice, agrees = _yes(given, "twice", "no"), _yes(given, "agrees", "yes")
        return cls(model, RemoteClient(url, settings=settings), twice=twice, agrees=agrees, body=body)

    def judge(self, submissions: Sequence[Submission]) -> list[Ruling]:
        return self._client.converse([self._talk(submission) for submission in submissions], read_chat_text)

    def _talk(self, submission: Submission) -> Talk:
        """What is asked about one submission, and what comes of it."""
        rubric, used = find_rubric(submission.item), []
        try:
            if submission.image is None:
                asking = self._show_text(submission, rubric)
            else:
                asking = self._show_picture(submission, submission.image, rubric)
        except ItemFileError as error:
            return Ruling.unscored(f"item picture not shown: {error}")
        if isinstance(asking, Ruling):
            return asking
        messages: list[dict[str, Any]] = [{"role": "user", "content": asking.content}]
        reply = yield self._post(messages, used)
        ruling = asking.rule(reply)
        if self._twice and submission.image is None and ruling.verdict != "unscored":
            assert isinstance(reply, TextOutput)
            said = split_thought(reply.text or "")[1]
            messages = [
                *messages,
                {"role": "assistant", "content": said},
                {"role": "user", "content": self._prompts["again"]},
            ]
            ruling = asking.rule((yield self._post(messages, used)), first=ruling)
        return with_usage(ruling, used)

    def _post(self, messages: Sequence[Mapping[str, Any]], used: list[dict[str, float]]) -> Post:
        body = {**self._body, "messages": messages}
        return Post(path="/chat/completions", body=body, on_reply=lambda reply: used.append(read_usage(reply)))

    def _show_text(self, submission: Submission, rubric: Rubric) -> "_Asking | Ruling":
        """What to ask about a text; the ruling, if it is empty."""
        item, prompts = submission.item, self._prompts
        answer = _answer(submission.text)
        if not answer:
            return Ruling.incorrect("unreadable", "empty", reading={"rubric": rubric.text})
        images = [item_picture(item, ref, submission.image_root) for ref in item.images]
        content = [
            _text(f"{prompts['frame.text']}\n\n{prompts[f'{rubric.text}.text']}"),
            _text(tagged("question", item.question)),
            *_numbered([("a picture of the question", image) for image in images]),
            _text(tagged("reference", _reference(item, "understanding"))),
            _text(tagged("answer", answer)),
            _text(prompts["reply"]),
        ]
        return _Asking(rubric, "understanding", content)

    def _show_picture(self, submission: Submission, drawn: Image.Image, rubric: Rubric) -> "_Asking | Ruling":
        """What to ask about a picture; the ruling, if it is a copy."""
        item, prompts = submission.item, self._prompts
        said = _answer(submission.said) if rubric.options and self._agrees else ""
        shown = _shown_beside(submission)
        same = [what for what, image in shown if same_pixels(drawn, image)] if rubric.copies else []
        if same:
            agrees = {AGREES: False} if said else {}  # a copy is no success by either rule
            reading = {"rubric": rubric.picture, "copied": same[0], **agrees}
            return Ruling.incorrect("copied", f"pixel for pixel {same[0]}", reading=reading)
        near = rubric.copies == "near" and bool(shown)
        content = [
            _text(f"{prompts['frame.picture']}\n\n{prompts[f'{rubric.picture}.picture']}"),
            *([_text(prompts["copied"])] if near else []),
            _text(tagged("task", item.prompt)),
            _text(tagged("reference", _reference(item, "generation"))),
            *_numbered([*shown, ("the picture to be graded", drawn)], submission.png),
            _text(prompts["reply"]),
            # Last, so that the grade has been asked for before the model's text is seen.
            *([_text(prompts["agrees"]), _text(tagged("answer", said))] if said else []),
        ]
        return _Asking(rubric, "generation", content, asks_copy=near, asks_agreement=bool(said))


@dataclass(frozen=True)
class _Asking:
    """One submission as it is shown to the judge."""

    rubric: Rubric
    direction: Direction
    content: list[dict[str, Any]]
    asks_copy: bool = False
    asks_agreement: bool = False

    def rule(self, reply: TextOutput | Fault, *, first: Ruling | None = None) -> Ruling:
        """The ruling that a reply comes to.

        Args:
            first: What the first reply came to, if this is the second.
        """
        said = read_reply(reply)
        if isinstance(said, Ruling):
            return said
        grade = read_grade(said)
        if isinstance(grade, str):
            return not_understood(grade, said)
        reading: dict[str, Any] = {"rubric": self.rubric.name(self.direction), "score": int(grade.right)}
        if self.asks_agreement:
            reading[AGREES] = grade.agrees
        if first is not None and first.reading is not None:
            reading["first"] = {name: first.reading[name] for name in ("score", "reason")}
        reading["reason"] = grade.reason
        if grade.raw or (grade.copied and self.asks_copy):
            reading["copied"] = True
            return Ruling.incorrect("copied", grade.reason or "a copy of a picture beside it", reading=reading)
        if grade.right:
            return Ruling.correct(grade.reason, reading=reading)
        return Ruling.incorrect("judged_no", grade.reason, reading=reading)


def _yes(given: Mapping[str, str], name: str, default: str) -> bool:
    if (word := given.get(name, default)) not in ("yes", "no"):
        raise UnknownNameError(name, word, ("yes", "no"))
    return word == "yes"


# ---- replies ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Grade:
    """What a reply says."""

    right: bool
    reason: str
    raw: bool
    """The score is the word for a copy."""
    copied: bool
    """What the field "copied" says, whether or not it was asked for."""
    agrees: bool | None


def read_grade(text: str) -> Grade | str:
    """The grade in a reply, or why there is none.

    Taken: JSON alone, in prose or fences, behind a thought in its tags; a score that is a number, a truth value or a
    word ("yes"), or whose key is misspelled; "raw" for a copy. Of several objects with the same score the last counts.
    Not taken: two scores that differ, any other score, and prose without JSON.
    """
    said = split_thought(text)[1]
    if "<think>" in said:
        return "its thought does not end"
    graded = [(data, score) for data in find_objects(said) if (score := read_score(data)) is not None]
    if len({score for _, score in graded}) > 1:
        return "it says both right and wrong"
    if not graded:
        return "no score"
    data, score = graded[-1]
    return Grade(
        right=score is True,
        reason=str(data.get("reason", "")),
        raw=score == COPIED,
        copied=read_truth(data.get("copied")) is True,
        agrees=read_truth(data.get(AGREES)),
    )


# ---- what is shown ---------------------------------------------------------------------------------------------------


def same_pixels(drawn: Image.Image, shown: Image.Image) -> bool:
    """Whether two pictures have the same RGB pixels, the larger one reduced to the size of the smaller.

    Sizes whose sides are not in the same proportion are two pictures. Reducing averages, so one that was enlarged with
    smooth edges is another picture here too.
    """
    small, large = sorted((drawn.convert("RGB"), shown.convert("RGB")), key=lambda image: image.width)
    if small.width * large.height != small.height * large.width:
        return False
    if small.size != large.size:
        large = large.resize(small.size, Image.Resampling.BOX)
    return small.tobytes() == large.tobytes()


def _shown_beside(submission: Submission) -> list[tuple[str, Image.Image]]:
    """The pictures that go before the drawn one, each with what it is."""
    item, root = submission.item, submission.image_root
    problem = dict.fromkeys((*item.prompt_images, *item.images))
    return [
        *(("a picture of the task", item_picture(item, ref, root)) for ref in problem),
        *(("a reference picture", item_picture(item, ref, root)) for ref in item.reference_images),
    ]


def _reference(item: Item, direction: Direction) -> str:
    if isinstance(item.answer, Character):
        return item.answer.name if direction == "understanding" else f"{item.answer.name}: {answer_text(item.answer)}"
    return answer_text(item.answer)


def _answer(text: str | None) -> str:
    """What a model answered, without a thought that it left in its tags."""
    return split_thought(text or "")[1].strip()


def _numbered(pictures: Sequence[tuple[str, Image.Image]], png: bytes | None = None) -> list[dict[str, Any]]:
    """Pictures in order, each behind a line that says what it is; `png` is the file of the last."""
    parts = []
    for number, (what, image) in enumerate(pictures, start=1):
        parts.append(_text(f"Picture {number} of {len(pictures)}, {what}:"))
        uri = data_uri(show_png(image, png if number == len(pictures) else None))
        parts.append({"type": "image_url", "image_url": {"url": uri}})
    return parts


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


# ---- prompts ---------------------------------------------------------------------------------------------------------


def _read_prompts(twice: bool, agrees: bool) -> dict[str, str]:
    """Every text that can be sent, by file."""
    rubrics = (*RUBRICS.values(), *OWN.values(), CHOICE, TYPED, DEFAULT)
    names = {"frame.text", "frame.picture", "reply", "copied"}
    names |= {name for name, wanted in (("again", twice), ("agrees", agrees)) if wanted}
    names |= {f"{rubric.text}.text" for rubric in rubrics} | {f"{rubric.picture}.picture" for rubric in rubrics}
    return {name: read_prompt(f"judges/rubric/{name}.txt") for name in sorted(names)}
