"""The Inspect bridge: the same numbers as our own evaluation, and judges' errors outside every rate."""

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.fakes import FakeModel, make_item

from unigap.evaluate import EvalConfig, evaluate
from unigap.items import Item
from unigap.judges.exact import ExactJudge
from unigap.judges.protocol import Submission
from unigap.judging import judge_run
from unigap.models import find_model
from unigap.models.protocol import DrawOutput
from unigap.records import Ruling
from unigap.report.scores import collect_scores
from unigap.report.summary import summarize
from unigap.scenes import make_items

pytest.importorskip("inspect_ai", reason='needs the extra "inspect"')

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ChatMessageUser,
    ContentImage,
    GenerateConfig,
    ModelOutput,
)

from unigap.bridges.inspect_asking import drawing_of
from unigap.bridges.inspect_provider import UnigapAPI, read_data_uri, to_data_uri
from unigap.bridges.inspect_tasks import rule, unit_samples, unit_value

ROOT = Path(__file__).parents[2]
FAMILIES = ("plain", "mapping1", "forward")


def by_key(scores: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Score name -> family -> value, from an evaluation log."""
    return {
        score["name"]: {
            metric["name"]: metric["value"] for metric in score["metrics"].values() if metric["name"] != "stderr"
        }
        for score in scores
    }


@pytest.mark.slow
def test_inspect_eval_gives_the_rates_and_gaps_of_our_own_evaluation(tmp_path: Path):
    command = "eval unigap/sandbox --model unigap/tiny -M device=cpu -T num_units=3 --epochs 2 --display none"
    command += f" -T families={','.join(FAMILIES)} -T seed=5 --log-format json --log-dir {tmp_path / 'logs'}"
    subprocess.run(
        [sys.executable, "-c", "from inspect_ai._cli.main import main; main()", *command.split()],
        check=True, cwd=tmp_path, timeout=300,
    )  # fmt: skip
    (file,) = (tmp_path / "logs").glob("*.json")
    log = json.loads(file.read_bytes())
    assert log["status"] == "success"
    theirs = by_key(log["results"]["scores"])

    items = list(make_items(FAMILIES, num_units=3, seed=5))
    model = find_model("tiny", device="cpu")
    report = evaluate(model, items, tmp_path / "run", EvalConfig(seed=5, samples=2), on_progress=lambda steps: None)
    judge_run(report.folder, ExactJudge(), on_progress=lambda steps: None)
    scores = collect_scores(items, report.folder.records(), report.folder.verdicts("exact"))
    ours = summarize(scores, run={}, trained_on={})
    assert len(ours.families) == 3
    rates = set()
    for family in ours.families:
        assert len(family.cells) == 6 and set(family.gaps) == {"normal", "think"}
        for (direction, arm), cell in family.cells.items():
            assert theirs[f"{direction}_{arm}"][family.name] == pytest.approx(cell.rate), (family.name, direction, arm)
            rates.add(cell.rate)
        for arm, gap in family.gaps.items():
            assert theirs[f"gap_{arm}"][family.name] == pytest.approx(gap.rate)
    assert len(rates) > 2  # neither all right nor all wrong, so that equal numbers say something


# ---- a judge that fails ----------------------------------------------------------------------------------------------


def test_a_judge_that_fails_leaves_units_unscored_and_one_that_cannot_read_stops_the_run(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.bridges.inspect_case", str(tmp_path)],
        check=True, cwd=ROOT, timeout=300, capture_output=True, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["status"] == "success" and len(found["scores"]) == 5 + 2
    for name, score in found["scores"].items():
        assert (score["scored"], score["unscored"]) == (2, 1), name
        # 1 of the 2 that were ruled on is right; an error that counts as wrong would make it 1/3.
        assert score["plain"] == pytest.approx(0 if name.startswith("gap") else 1 / 2), name
    assert found["reason"] == "scoring_failed"
    assert "unscored TimeoutError: no reply in 60 s" in found["explanation"]
    assert found["refined_prompt"] == "Draw 1 cup."
    assert found["other_rates"] == {"understanding_normal": 1.0, "understanding_think": 1.0}
    question = "How many are 1 apple?"
    assert [(sent["roles"], sent["text"].split("\n")) for sent in found["other_sent"]] == [
        (["user"], [question]),
        (["system", "user"], [question]),
        (["user"], [question, "1 cup, I think"]),
    ]
    assert all(0 <= sent["seed"] < 2**31 for sent in found["other_sent"])
    assert found["photo_status"] == "error" and "exact reads only sandbox pictures" in found["photo_error"]


def reply(**fields: Any) -> dict[str, Any]:
    return {"outcome": "ok", "text": None, "image": None, "detail": ""} | fields


def test_refused_and_malformed_replies_are_wrong_without_asking_the_judge():
    class Nobody(ExactJudge):
        def judge(self, submissions: Sequence[Submission]) -> list[Ruling]:
            raise AssertionError("asked")

    found = rule(Nobody(), [make_item(0)] * 2, [reply(outcome="refused"), reply(outcome="malformed", detail="cut")])
    assert [(one.verdict, one.error, one.why) for one in found] == [
        ("incorrect", "refused", "refused"),
        ("incorrect", "unreadable", "cut"),
    ]


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["correct", "correct"], 1.0),
        (["correct", "incorrect"], 0.0),
        (["incorrect", "unscored"], math.nan),  # keeping only the known wrong ones would make the rate too low
        ([], math.nan),
    ],
)
def test_a_unit_is_right_if_all_its_items_are_and_unscored_if_one_is(words: list[Any], value: float):
    assert unit_value([Ruling(verdict=word) for word in words]) == pytest.approx(value, nan_ok=True)


def test_a_pair_is_one_sample():
    items = list(make_items(("mapping1",), num_units=2, seed=0))
    samples = unit_samples(items)
    assert [sample.id for sample in samples] == ["mapping1/000000", "mapping1/000001"]
    assert [Item.from_json(data) for data in (samples[0].metadata or {})["items"]] == items[:2]


# ---- the provider ----------------------------------------------------------------------------------------------------


def generate(api: UnigapAPI, messages: list[Any], config: GenerateConfig | None = None, tools: Any = ()) -> Any:
    return asyncio.run(api.generate(messages, list(tools), "none", config or GenerateConfig()))


def test_the_provider_refuses_what_a_model_would_silently_not_read():
    api = UnigapAPI("tests.bridges.inspect_case:OneCup")
    user = ChatMessageUser(content="Draw 1 cup.")
    with pytest.raises(ValueError, match="one message of a user, got: user, assistant, user"):
        generate(api, [user, ChatMessageAssistant(content="ok"), user])
    with pytest.raises(ValueError, match="extra_body: unknown top_k"):
        generate(api, [user], GenerateConfig(extra_body={"top_k": 3}))
    assert isinstance(api.model, FakeModel) and api.model.calls == []


def test_an_offline_model_is_an_error_and_not_an_answer():
    api = UnigapAPI("tests.bridges.inspect_case:OneCup")
    assert isinstance(api.model, FakeModel)
    api.model.online = False
    with pytest.raises(ConnectionError, match="transport_error!"):
        generate(api, [ChatMessageUser(content="offline 1 cup")], GenerateConfig(modalities=["image"]))
    output = generate(api, [ChatMessageUser(content="refuse 1 cup")])  # another event loop, the same model
    assert output.stop_reason == "content_filter"


def test_pictures_travel_as_data_without_loss_and_nothing_is_fetched():
    image = Image.effect_noise((9, 7), 90).convert("RGB")
    assert read_data_uri(to_data_uri(image)).tobytes() == image.tobytes()
    with pytest.raises(ValueError, match="nothing is fetched"):
        read_data_uri("http://127.0.0.1/picture.png")


@pytest.mark.parametrize("data", ["%%%", "iVBORw0KGgo=", ""])
def test_data_that_is_no_picture_is_the_model_s_failure_and_an_address_is_not(data: str):
    def drawn(address: str) -> DrawOutput:
        message = ChatMessageAssistant(content=[ContentImage(image=address)])
        return drawing_of(ModelOutput(model="m", choices=[ChatCompletionChoice(message=message)]))

    output = drawn(f"data:image/png;base64,{data}")
    assert output.image is None and output.outcome == "malformed" and output.detail.startswith("a picture")
    assert drawn(to_data_uri(Image.new("RGB", (4, 4)))).outcome == "ok"
    with pytest.raises(ValueError, match="nothing is fetched"):
        drawn("http://127.0.0.1/picture.png")


def test_the_entry_point_of_the_package_is_the_module_with_the_tasks():
    (point,) = entry_points(group="inspect_ai", name="unigap")
    assert point.value == "unigap.bridges.inspect_tasks"
