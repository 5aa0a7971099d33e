"""`unigap eval --dry-run`: what is left, its time and its price, with nothing asked and nothing written."""

import base64
import io
import json
import random
from pathlib import Path

import pytest
from tests.fakes import FakeModel, make_item
from tests.faulty_server import Answer, Call, FaultyServer, chat

from unigap.cli import main
from unigap.evaluate import EvalConfig, evaluate
from unigap.models.prices import Prices
from unigap.models.protocol import Sampling
from unigap.prompts import find_think_prompt
from unigap.records import RunFolder
from unigap.scenes.render import place, render
from unigap.spending import forecast

FLAGS = ("--families", "plain", "--num-units", "4")


def command(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(["eval", *arguments])
    shown = capfd.readouterr()
    assert isinstance(done.value.code, int)
    return done.value.code, shown.out, shown.err


def drawn() -> str:
    buffer = io.BytesIO()
    render(place({"cup": 2}, random.Random(0))).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


PICTURE = drawn()


def answer(call: Call) -> Answer:
    if call.path == "/v1/models":
        return Answer(body={"data": [{"id": "m", "owned_by": "vllm"}]})
    if "images" in call.path:
        return Answer(body={"data": [{"b64_json": PICTURE}]})
    return Answer(body=chat("2 cups").body | {"usage": {"prompt_tokens": 1000, "completion_tokens": 100}})


def test_nothing_is_asked_and_nothing_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with FaultyServer(answer) as server:
        model = f"openai:m@{server.url}?draw=images&pictures=sandbox&price=1/2&picture_price=0.04&concurrency=3"
        code, out, _ = command(capfd, "--model", model, *FLAGS, "--out", str(tmp_path / "run"), "--dry-run")
        assert [(call.path, call.body) for call in server.calls] == [("/v1/models", b"")]
    assert code == 0
    assert not list(tmp_path.iterdir())
    # Per unit: answers 1 + 2 text calls, drawings 1 text call (think) and 4 drawings; six records.
    assert "24 records in" in out and "0 of them settled" in out
    assert "24 records left: 16 text calls, 16 drawings" in out
    # 32 calls, 3 at once: 11 rounds.
    assert "not known for 32 calls" in out and "with 3 at once, 11 times what one reply takes" in out
    assert "price: at most " in out


def test_a_run_that_is_partly_done_counts_the_rest_and_goes_by_what_it_recorded(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    out = ("--out", str(tmp_path / "run"))
    with FaultyServer(answer) as server:
        model = ("--model", f"openai:m@{server.url}?draw=images&pictures=sandbox&price=1/2&picture_price=0.04")
        assert command(capfd, *model, "--families", "plain", "--num-units", "1", "--arms", "normal", *out)[0] == 0
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        server.calls.clear()
        code, said, _ = command(capfd, *model, *FLAGS, "--arms", "normal", "oracle", *out, "--dry-run")
        assert [call.path for call in server.calls] == ["/v1/models"]
    assert code == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert "12 records in" in said and "2 of them settled" in said
    assert "10 records left: 3 text calls, 7 drawings" in said
    # Three answers at (1000 x 1 + 100 x 2) / 1e6 and three drawings at 0.04 are recorded; four of oracle are not.
    assert f"price: about {3 * 0.0012 + 3 * 0.04:.6g} for 6 records, by the mean cost recorded" in said
    assert f"at most {4 * 0.04:.6g} for 4 calls" in said
    assert " for 6 records, by the mean of those recorded in each arm; not known for 4 calls" in said


def test_the_summary_of_a_run_has_its_usage(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with FaultyServer(answer) as server:
        model = f"openai:m@{server.url}?draw=images&pictures=sandbox&price=1/2&picture_price=0.04"
        code, _, err = command(capfd, "--model", model, *FLAGS, "--arms", "normal", "--out", str(tmp_path / "run"))
    assert code == 0
    # Four answers of 1000 and 100 tokens at 1 and 2 a million, four pictures at 0.04.
    cost = 4 * (0.001 + 0.0002) + 4 * 0.04
    assert f"used: tokens read 4000, written 400; cost {cost:.6g}; " in err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["run"]["usage"] == {
        "lines": 8,
        "tokens_read": 4000,
        "tokens_written": 400,
        "cost": pytest.approx(cost),
        "cost_known": 8,
        "thoughts": {},
    }


def test_a_run_of_another_identity_is_refused_as_the_run_itself_would_be(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    run = ("--families", "plain", "--num-units", "1", "--arms", "normal", "--out", str(tmp_path / "run"))
    assert command(capfd, *run)[0] == 0
    code, _, err = command(capfd, *run, "--seed", "1", "--dry-run")
    assert code == 1 and "another identity" in err
    code, out, _ = command(capfd, *run, "--seed", "1", "--dry-run", "--overwrite")
    assert code == 0 and "2 records left: 1 text calls, 1 drawings" in out
    assert len(list(tmp_path.iterdir())) == 1


def test_a_local_model_has_calls_disk_and_time_and_no_price(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    run = ("--families", "plain", "--arms", "normal", "--out", str(tmp_path / "run"), "--num-units")
    code, out, _ = command(capfd, *run, "2", "--dry-run")
    assert code == 0 and "4 records left: 2 text calls, 2 drawings" in out
    assert "disk:  about 1 MB" in out and "time:  not known for 4 calls" in out and "price" not in out
    assert command(capfd, *run, "2")[0] == 0
    assert "0 records left" in (said := command(capfd, *run, "2", "--dry-run")[1]) and "time:  none" in said
    assert "for 4 records, by the mean of those recorded" in command(capfd, *run, "4", "--dry-run")[1]


# ---- the arithmetic --------------------------------------------------------------------------------------------------


class Priced(FakeModel):
    """A fake with a price list."""

    concurrency = 4
    sampling = Sampling(max_answer_tokens=8, max_think_tokens=100)

    def __init__(self, prices: Prices) -> None:
        super().__init__()
        self.prices = prices


def test_the_upper_bound_is_the_limits_times_the_prices():
    item = make_item(1)
    asked, prompt, caption = (len(text) for text in (item.question, item.prompt, item.caption))
    think = find_think_prompt("plan")
    told_answer, told_draw = (len(text.encode()) for text in (think.understanding, think.generation))
    read = (
        asked  # normal
        + (asked + told_answer) + (asked + 100)  # think: the thought, then the answer that reads it
        + prompt + (prompt + told_draw) + (prompt + 100) + 100 + caption  # drawings: normal, think, refined, oracle
    )  # fmt: skip
    written = 8 + (100 + 8) + 100  # and what drawings write has no limit
    prices = Prices(prompt=3, output=5)
    rest = forecast(Priced(prices), [item], EvalConfig(), None)
    assert rest.price.startswith(f"at most {(3 * read + 5 * written) / 1e6:.6g} for 8 calls")
    assert "4 drawings write" in rest.price
    flat = forecast(Priced(Prices(prompt=0, output=0, picture=0.5)), [item], EvalConfig(), None)
    assert flat.price.startswith("at most 2 for 8 calls") and "drawings write" not in flat.price
    assert "no price" in forecast(Priced(Prices(picture=0.5)), [item], EvalConfig(), None).price
    assert "price=IN/OUT" in forecast(Priced(Prices()), [item], EvalConfig(), None).price


def test_time_is_the_mean_of_each_arm_times_what_is_left(tmp_path: Path):
    model, config = FakeModel(), EvalConfig(arms=("normal",))
    folder = evaluate(model, [make_item(0), make_item(1)], tmp_path / "run", config).folder
    path = folder.path / "records-00000.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        drawing_s = 2.0 if record["item_id"].endswith("0") else 4.0
        record["timing_s"] = 0.5 if record["direction"] == "understanding" else drawing_s
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    items = [make_item(number) for number in range(5_002)]
    # 5,000 answers at 0.5 s and 5,000 drawings at (2 + 4) / 2 s: 17,500 s.
    rest = forecast(model, items, config, RunFolder.open(folder.path))
    assert rest.time == "about 4.9 h for 10000 records, by the mean of those recorded in each arm"
