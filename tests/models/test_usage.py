"""What calls used and cost: as the server says, nothing invented, tries in vain counted apart, totals at the end."""

from pathlib import Path
from typing import Any

import pytest
from tests.fakes import FakeModel, make_item
from tests.faulty_server import Answer, Call, FaultyServer, chat
from tests.models.test_own_thought import b64

from unigap.evaluate import EvalConfig, evaluate
from unigap.models import find_model
from unigap.models.http import HttpSettings, RemoteClient
from unigap.models.prices import Prices, sum_up
from unigap.models.remote import RemoteModel, RemoteSampling
from unigap.models.replies import read_usage
from unigap.records import Record, RunFolder
from unigap.spending import read_spent

QUICK = HttpSettings(timeout_s=20, retry_budget_s=60, first_wait_s=0.01, longest_wait_s=0.05)
PICTURE: dict[str, Any] = {"data": [{"b64_json": b64()}]}
TEXT_USED = {"prompt_tokens": 100, "completion_tokens": 20, "completion_tokens_details": {"reasoning_tokens": 5}}


def said(text: str | None, **usage: Any) -> Answer:
    reply = chat(text)
    return Answer(body=reply.body | {"usage": usage})


def run(answer: Any, out: Path, *arms: str, prices: Prices | None = None, text: bool = True) -> RunFolder:
    """One item, drawn by `images` and, with `text`, answered."""
    with FaultyServer(answer) as server:
        client = RemoteClient(server.url, settings=QUICK)
        model = RemoteModel("m", client, sampling=RemoteSampling(draw="images"), prices=prices)
        directions = ("understanding", "generation") if text else ("generation",)
        config = EvalConfig(directions=directions, arms=arms)  # type: ignore[arg-type]
        return evaluate(model, [make_item(1)], out / "run", config).folder


def only(folder: RunFolder) -> Record:
    (record,) = folder.records()
    return record


# ---- what replies say ------------------------------------------------------------------------------------------------

REPLIES: dict[str, tuple[Any, dict[str, float]]] = {
    "chat": ({"usage": TEXT_USED}, {"prompt_tokens": 100, "tokens": 20, "reasoning_tokens": 5}),
    "images and responses": (
        {"usage": {"input_tokens": 9, "output_tokens": 4160, "output_tokens_details": {"reasoning_tokens": 64}}},
        {"prompt_tokens": 9, "tokens": 4160, "reasoning_tokens": 64},
    ),
    # Google counts 30 of thought beside 1290 of picture.
    "gemini": (
        {"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 1290, "thoughtsTokenCount": 30}},
        {"prompt_tokens": 7, "tokens": 1320, "reasoning_tokens": 30},
    ),
    "a gateway's cost": ({"usage": {"completion_tokens": 3, "cost": 0.0125}}, {"tokens": 3, "cost": 0.0125}),
    "nothing": ({}, {}),
    "null": ({"usage": {"prompt_tokens": None, "completion_tokens": 3}}, {"tokens": 3}),
    "nonsense": (
        {"usage": {"prompt_tokens": True, "completion_tokens": "3", "cost": -1, "input_tokens": float("nan")}},
        {},
    ),
    "not an object": ([1], {}),
}


@pytest.mark.parametrize("name", REPLIES)
def test_usage_is_what_the_reply_says_and_no_more(name: str):
    reply, expected = REPLIES[name]
    assert read_usage(reply) == expected


# ---- records ---------------------------------------------------------------------------------------------------------


def test_a_record_says_what_each_of_its_calls_used(tmp_path: Path):
    def answer(call: Call) -> Answer:
        if call.path.endswith("generations"):
            return Answer(body=PICTURE | {"usage": {"input_tokens": 12, "output_tokens": 4160}})
        return said("A plan.\nDraw 2 cups.", **TEXT_USED)

    record = only(run(answer, tmp_path, "think", text=False))
    assert record.usage == {
        "thought_tokens": 20,
        "thought_finish": "stop",
        "thought_prompt_tokens": 100,
        "thought_reasoning_tokens": 5,
        "draw_prompt_tokens": 12,
        "draw_tokens": 4160,
    }


def test_a_server_that_counts_nothing_has_no_zeros_put_into_its_mouth(tmp_path: Path):
    def answer(call: Call) -> Answer:
        return Answer(body=PICTURE) if "images" in call.path else said("2 cups")

    folder = run(answer, tmp_path, "normal", prices=Prices(prompt=1, output=1))
    assert [record.usage for record in folder.records()] == [{"answer_finish": "stop"}, {}]
    (line,) = read_spent(folder).lines(Prices(prompt=1, output=1))
    assert line.startswith("used: tokens read not known, written not known; cost not known; ")


def test_a_model_in_process_records_what_it_did_before(tmp_path: Path):
    folder = evaluate(FakeModel(), [make_item(1)], tmp_path / "run", EvalConfig(arms=("normal", "think"))).folder
    usage = {(record.direction, record.arm): record.usage for record in folder.records()}
    answer = {"answer_tokens": 2, "answer_finish": "stop"}
    thought = {"thought_tokens": 9, "thought_finish": "stop"}
    assert usage == {
        ("understanding", "normal"): answer,
        ("understanding", "think"): thought | answer,
        ("generation", "normal"): {},
        ("generation", "think"): thought,
    }
    assert read_spent(folder).lines(Prices()) == []


# ---- costs -----------------------------------------------------------------------------------------------------------


def test_the_cost_of_a_record_is_that_of_all_its_calls(tmp_path: Path):
    def answer(call: Call) -> Answer:
        return Answer(body=PICTURE) if "images" in call.path else said("Draw 2 cups.", **TEXT_USED)

    folder = run(answer, tmp_path, "think", prices=Prices(prompt=2, output=10, picture=0.04))
    answered, drawn = (record.usage["cost"] for record in folder.records())
    # 100 tokens at 2 and 20 at 10 a million are 0.0002 + 0.0002; two such calls, or one and a picture at 0.04.
    assert answered == pytest.approx(2 * 0.0004)
    assert drawn == pytest.approx(0.0004 + 0.04)


@pytest.mark.parametrize(
    ("prices", "used", "picture", "cost"),
    [
        (Prices(), {"prompt_tokens": 1, "tokens": 1}, None, None),
        (Prices(prompt=2, output=10), {"prompt_tokens": 100, "tokens": 20}, None, 0.0004),
        (Prices(prompt=2, output=10), {"tokens": 20}, None, None),  # how many were read is not known
        (Prices(prompt=0, output=10), {"tokens": 20}, None, 0.0002),  # and does not matter
        (Prices(prompt=2, output=10), {"prompt_tokens": 0, "tokens": 4000}, True, 0.04),
        (Prices(picture=0.04), {}, True, 0.04),
        (Prices(picture=0.04), {}, False, 0.0),
        (Prices(picture=0.04), {"prompt_tokens": 1, "tokens": 1}, None, None),  # a text has no price here
        (Prices(prompt=2, output=10, picture=0.04), {"prompt_tokens": 100, "tokens": 4000}, True, 0.04),
        (Prices(prompt=2, output=10), {"prompt_tokens": 100, "tokens": 20, "cost": 7.0}, None, 7.0),  # as stated
    ],
)
def test_a_cost_is_stated_or_computed_and_absent_where_a_number_is_missing(
    prices: Prices, used: dict[str, float], picture: bool | None, cost: float | None
):
    got = sum_up([used], prices, answered=True, picture=picture).get("cost")
    assert got == (None if cost is None else pytest.approx(cost))


def test_replies_in_vain_are_counted_apart_and_paid_for(tmp_path: Path):
    def answer(call: Call) -> Answer:
        return said("2 cups" if call.number else None, prompt_tokens=100, completion_tokens=20)

    with FaultyServer(answer) as server:
        client = RemoteClient(server.url, settings=QUICK)
        model = RemoteModel("m", client, prices=Prices(prompt=2, output=10))
        config = EvalConfig(directions=("understanding",), arms=("normal",))
        record = only(evaluate(model, [make_item(1)], tmp_path / "run", config).folder)
    assert record.text == "2 cups"
    assert record.usage == {
        "answer_tokens": 20,
        "answer_finish": "stop",
        "answer_prompt_tokens": 100,
        "answer_retried_tokens": 20,
        "answer_retried_prompt_tokens": 100,
        "cost": pytest.approx(0.0008),
    }


def test_totals_hold_every_try_and_say_what_is_not_known(tmp_path: Path):
    """A thought of 20 tokens whose drawing fails, asked again: both thoughts were paid for."""
    broken = True

    def answer(call: Call) -> Answer:
        if call.path.endswith("generations"):
            return Answer(status=400) if broken else Answer(body=PICTURE)
        return said("Draw 2 cups.", **TEXT_USED)

    prices = Prices(prompt=2, output=10, picture=0.04)
    assert only(run(answer, tmp_path, "think", prices=prices, text=False)).outcome == "transport_error"
    broken = False
    # Another port is another run, so the second session's lines are put beside the first's.
    second = run(answer, tmp_path / "again", "think", prices=prices, text=False)
    (tmp_path / "run" / "records-00001.jsonl").write_bytes((second.path / "records-00000.jsonl").read_bytes())
    spent = read_spent(RunFolder.open(tmp_path / "run"))
    assert (spent.num_records, spent.tokens_read, spent.tokens_written) == (2, 200, 40)
    # Nobody said what the failed drawing cost, so the cost of that record is not known.
    (line,) = spent.lines(prices)
    assert line.startswith("used: tokens read 200, written 40; cost 0.0404 (that of 1 of 2 records is not known); ")


@pytest.mark.parametrize("setting", ["price=3", "price=a/b", "price=-1/2", "price=1/nan", "picture_price=inf"])
def test_a_price_that_is_none_is_refused(setting: str):
    with pytest.raises(ValueError, match="price"):
        find_model(f"openai:m@http://127.0.0.1:1/v1?{setting}")


def test_prices_are_no_part_of_the_identity():
    url = "openai:m@http://127.0.0.1:1/v1"
    dear, cheap = find_model(f"{url}?price=1/2&picture_price=0.04"), find_model(url)
    assert isinstance(dear, RemoteModel)
    assert dear.prices == Prices(prompt=1, output=2, picture=0.04)
    assert (dear.name, dear.sampling) == (cheap.name, cheap.sampling)
