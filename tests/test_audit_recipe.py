"""recipes/audit_assistant.py from the table to the list, against an assistant and a judge behind real sockets."""

import base64
import hashlib
import importlib.util
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from rich.console import Console
from tests.faulty_server import Answer, Call, FaultyServer, chat

from unigap.benchmarks.facts_table import read_facts
from unigap.benchmarks.unisandbox_lines import answer_text
from unigap.cli.common import UnfinishedError
from unigap.errors import ItemFileError
from unigap.items import Item
from unigap.records import RunFolder

RECIPE = Path(__file__).parents[1] / "recipes" / "audit_assistant.py"
KEY = "sk-planted-4711-abcdef"


@pytest.fixture(autouse=True)
def planted_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit_assistant", RECIPE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def picture_of(text: str) -> Image.Image:
    """A picture by which a judge can know what was drawn: one color for one text."""
    red, green, blue = hashlib.sha256(text.encode()).digest()[:3]
    return Image.new("RGB", (32, 32), (red, green, blue))


@dataclass
class Assistant:
    """Knows some facts in text, draws some of them right, and draws others only once it is told."""

    items: list[Item]
    knows: set[int]
    draws: set[int]
    told: set[int]

    def __call__(self, call: Call) -> Answer:
        if call.path == "/v1/models":
            return Answer(body={"data": [{"id": "m", "owned_by": "somebody"}]})
        if call.path == "/v1/images/generations":
            return Answer(body={"data": [{"b64_json": self.draw(call.json["prompt"])}]})
        said = str(call.json["messages"])
        (number,) = [number for number, item in enumerate(self.items) if item.question in said]
        return chat(f"It is {answer_text(self.items[number].answer)}." if number in self.knows else "I am not sure.")

    def draw(self, prompt: str) -> str:
        number = next(n for n, item in enumerate(self.items) if prompt in (item.prompt, item.caption))
        item = self.items[number]
        right = number in (self.draws if prompt == item.prompt else self.told)
        buffer = io.BytesIO()
        picture_of(item.caption if right else "a gray cloud").save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()


class JudgeServer:
    """Puts a picture into words by its color; says YES where what was expected is in what was stated."""

    def __init__(self, items: list[Item], *, broken: bool = False) -> None:
        self.captions = {
            picture_of(text).getpixel((0, 0)): text for text in [i.caption for i in items] + ["a gray cloud"]
        }
        self.broken = broken

    def __call__(self, call: Call) -> Answer:
        content = call.json["messages"][-1]["content"]
        if isinstance(content, list):
            (uri,) = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
            assert not any(caption in str(content[0]) for caption in self.captions.values())  # it is blind
            with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
                return chat(f"Caption: {self.captions[image.convert('RGB').getpixel((0, 0))]}")
        said, expected = re.findall(r"<(?:statement|expected)>\n(.*?)\n</", content, flags=re.DOTALL)
        if self.broken:
            return chat("I would say it is complicated.")
        return chat(f"Answer: {'YES' if expected in said else 'NO'}\nReason: it says {said}.")


@pytest.fixture
def items() -> list[Item]:
    return list(read_facts(RECIPE.with_suffix(".csv")))


@pytest.fixture
def assistant(items: list[Item]) -> Iterator[FaultyServer]:
    with FaultyServer(Assistant(items, knows={0, 1, 2, 3, 4}, draws={0, 5}, told={0, 1, 2, 5, 6})) as server:
        yield server


def flags(assistant: FaultyServer, judge: FaultyServer, out: Path) -> dict[str, object]:
    return {"model": f"openai:m@{assistant.url}?draw=images", "judge": f"vlm:j@{judge.url}", "out": out}


def test_what_is_known_and_not_drawn_is_counted_and_listed(
    recipe: ModuleType, items: list[Item], assistant: FaultyServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert len(items) == 8
    out = io.StringIO()
    with FaultyServer(JudgeServer(items)) as judge:
        audit = recipe.Audit(**flags(assistant, judge, tmp_path / "audit"))
        recipe.main(audit, Console(file=out, width=250))
        asked = len(assistant.calls), len(judge.calls)
        recipe.main(audit, Console(file=io.StringIO()))
        # Nothing is asked or judged twice; the model is looked up each time.
        assert [call.path for call in assistant.calls[asked[0] :]] == ["/v1/models"]
        assert len(judge.calls) == asked[1]
    shown = out.getvalue()
    # Known: 0-4. Drawn: 0 and 5. So 1-4 are known and not drawn, 5 is drawn and not known, 6 and 7 are neither.
    assert (
        "8 facts judged both ways: 5 known in text, 2 drawn right; 4 known and not drawn, 1 drawn and not known"
        in shown
    )
    rows = [line for line in shown.splitlines() if "images/" in line]
    assert len(rows) == 4
    for item, told, row in zip(items[1:5], ("correct", "correct", "incorrect", "incorrect"), rows, strict=True):
        assert item.question[:20] in row and f" {told} " in row
    # Text 5 of 8, drawing 2 of 8, told 5 of 8; by family in the table.
    folder = RunFolder.open(tmp_path / "audit" / "run")
    verdicts = list(folder.verdicts(audit.judge))
    right = [(v.direction, v.arm) for v in verdicts if v.verdict == "correct"]
    assert [right.count(key) for key in (recipe.KNOWS, recipe.DRAWS, recipe.TOLD)] == [5, 2, 5]
    assert len(verdicts) == 24
    printed = capfd.readouterr()
    assert "items.jsonl: 8 items of 3 families in 4 clusters, 7 asked by rule" in printed.out
    assert re.search(r"^ products +\*100%", printed.out, flags=re.MULTILINE)
    assert KEY not in shown + printed.out + printed.err
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


def test_a_judge_that_fails_leaves_facts_unscored_and_the_next_run_judges_them(
    recipe: ModuleType, items: list[Item], assistant: FaultyServer, tmp_path: Path
):
    out = io.StringIO()
    with FaultyServer(JudgeServer(items, broken=True)) as judge:
        audit = recipe.Audit(**flags(assistant, judge, tmp_path))
        with pytest.raises(UnfinishedError, match="24 answers could not be scored"):
            recipe.main(audit, Console(file=out, width=250))
        assert "0 facts judged both ways" in out.getvalue()
        assert "8 facts lack a verdict in one direction" in out.getvalue()
        judge.answer = JudgeServer(items)
        recipe.main(audit, Console(file=out, width=250))
    assert "8 facts judged both ways: 5 known in text" in out.getvalue()


def test_a_dry_run_asks_nothing(
    recipe: ModuleType, items: list[Item], assistant: FaultyServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    with FaultyServer(JudgeServer(items)) as judge:
        recipe.main(recipe.Audit(**flags(assistant, judge, tmp_path), dry_run=True), Console(file=io.StringIO()))
        assert not judge.calls
    assert {call.path for call in assistant.calls} == {"/v1/models"}
    assert "8 text calls, 16 drawings" in capfd.readouterr().out


def test_a_bad_table_stops_before_anything_is_asked(
    recipe: ModuleType, items: list[Item], assistant: FaultyServer, tmp_path: Path
):
    (tmp_path / "mine.csv").write_text("subject,relation,answer\nZamiro,looks,\n")
    with FaultyServer(JudgeServer(items)) as judge:
        audit = recipe.Audit(**flags(assistant, judge, tmp_path / "out"), facts=tmp_path / "mine.csv")
        with pytest.raises(ItemFileError, match="line 2, column answer"):
            recipe.main(audit, Console(file=io.StringIO()))
    assert not assistant.calls


def test_what_models_say_cannot_steer_the_terminal(recipe: ModuleType):
    assert recipe.printable("a\x1b[2Jb\nc\x07" + "d" * 999) == "a [2Jb c " + "d" * 291
