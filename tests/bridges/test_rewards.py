"""Verdicts as rewards: the signatures of TRL and flow_grpo, in one process and over a real socket."""

import ast
import base64
import inspect
import json
import math
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fakes import make_item

from unigap.bridges import reward_client
from unigap.bridges.reward_client import (
    Ask,
    UnscoredError,
    ask_server,
    flow_grpo_reward,
    pictures_of,
    trl_reward,
)
from unigap.bridges.rewards import ask_judge, verdict_server
from unigap.items import Count, Item, write_items
from unigap.judges.exact import ExactJudge
from unigap.judges.protocol import Submission
from unigap.records import Ruling
from unigap.scenes import make_items
from unigap.scenes.render import parse_scene, render


class Fickle(ExactJudge):
    """Cannot rule on the item of the number 1."""

    def judge(self, submissions: Sequence[Submission]) -> list[Ruling]:
        rulings = super().judge(submissions)
        lost = Ruling.unscored("timeout")
        return [lost if one.item.id.endswith("1") else ruling for one, ruling in zip(submissions, rulings, strict=True)]


@pytest.fixture(params=["process", "server"])
def ask(request) -> Iterator[Ask]:
    if request.param == "process":
        yield ask_judge(Fickle())
        return
    with verdict_server(Fickle()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield ask_server(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


CUPS = [make_item(number, answer=Count(object="cup", n=2)) for number in range(3)]


def test_trl_gets_1_for_right_0_for_wrong_and_none_for_unscored_texts(ask: Ask):
    reward = trl_reward(ask, name="verdict")
    columns = {"item": [json.dumps(item.to_json()) for item in CUPS], "trainer_state": None, "log_extra": None}
    found = reward(prompts=["?"] * 3, completions=["2 cups", "2 cups", "3 cups"], completion_ids=[[1]] * 3, **columns)
    assert found == [1.0, None, 0.0]
    # Conversational: a completion is a list of messages.
    spoken = [[{"role": "assistant", "content": text}] for text in ("2 cups", "2 cups", "3 cups")]
    assert reward(prompts=[[]] * 3, completions=spoken, completion_ids=[[1]] * 3, **columns) == found
    assert reward.__name__ == "verdict" and not inspect.iscoroutinefunction(reward)  # what TRL logs, and how it calls


def drawings() -> tuple[list[Item], np.ndarray]:
    """Items of the sandbox and the pictures (N, H, W, 3) of their first, second and first answers."""
    items = list(make_items(("counting",), num_units=8, seed=0))
    first, second = items[0], next(item for item in items if item.answer != items[0].answer)
    pictures = [render(parse_scene(item.images[0])) for item in (first, second, first)]
    return [first, first, first], np.stack([np.asarray(picture) for picture in pictures])


def test_flow_grpo_gets_the_same_scores_for_tensors_and_for_arrays():
    items, array_NHWC = drawings()
    reward = flow_grpo_reward(ask_judge(ExactJudge()))
    metadata = [item.to_json() for item in items]
    scores, info = reward(array_NHWC, [item.prompt for item in items], metadata)
    assert scores.tolist() == [1.0, 0.0, 1.0] and info == {}
    tensor_NCHW = torch.from_numpy(array_NHWC).permute(0, 3, 1, 2).float() / 255
    assert reward(tensor_NCHW, [""] * 3, metadata)[0].tolist() == scores.tolist()
    with pytest.raises(ValueError, match="3 images and 2 metadata"):
        reward(array_NHWC, [""] * 3, metadata[:2])


def test_pictures_and_items_cross_the_socket_unchanged(ask: Ask):
    items, array_NHWC = drawings()
    ids = ["x/2", "x/3", "x/4"]
    metadata = [item.to_json() | {"id": name} for item, name in zip(items, ids, strict=True)]
    scores, _ = flow_grpo_reward(ask)(array_NHWC, [""] * 3, metadata)
    assert scores.tolist() == [1.0, 0.0, 1.0]


def test_an_unscored_drawing_stops_flow_grpo_which_has_no_value_for_it(ask: Ask):
    items, array_NHWC = drawings()
    metadata = [item.to_json() | {"id": f"x/{number}"} for number, item in enumerate(items)]
    with pytest.raises(UnscoredError, match="1 of 3 drawings could not be judged: timeout"):
        flow_grpo_reward(ask)(array_NHWC, [""] * 3, metadata)


def test_an_item_file_is_a_metadata_file_of_flow_grpo(tmp_path: Path):
    write_items(tmp_path / "train_metadata.jsonl", CUPS)
    lines = [json.loads(line) for line in (tmp_path / "train_metadata.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == [item.prompt for item in CUPS]
    assert [Item.from_json(line) for line in lines] == CUPS


@pytest.mark.parametrize("images", [np.zeros((2, 4, 4, 3)), np.zeros((2, 3, 4, 4), np.uint8), torch.zeros(2, 1, 4, 4)])
def test_a_batch_of_another_shape_is_refused(images: Any):
    with pytest.raises(ValueError, match="images is"):
        pictures_of(images)


def test_verdicts_are_asked_of_this_machine_alone():
    for url in ("http://judge.example:8010", "https://127.0.0.1:8010", "http://10.0.0.7:8010", "ftp://localhost"):
        with pytest.raises(ValueError, match="this machine alone"):
            ask_server(url)


def test_the_client_needs_nothing_of_unigap_and_never_pickle():
    tree = ast.parse(Path(reward_client.__file__).read_text(encoding="utf-8"), feature_version=(3, 10))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {name for name in names if name.split(".")[0] in ("unigap", "pickle", "torch")}


def test_bodies_that_make_no_sense_are_refused_with_what_was_expected():
    item = CUPS[0].to_json()
    png = base64.b64encode(b"\x89PNG no picture").decode()
    bad: list[tuple[Any, str, int, str]] = [
        (b"{", "application/json", 400, "not JSON"),
        (b"[" * 100_000, "application/json", 400, "not JSON"),
        ({"items": [item | {"answer": {"kind": ["count"]}}], "texts": ["2"]}, "application/json", 400, 'answer "kind"'),
        ({"items": [item], "texts": ["2"]}, "text/plain", 415, "application/json"),
        ({"items": [item], "texts": ["2", "3"]}, "application/json", 400, "a list of 1 strings"),
        ({"items": [item], "texts": ["2"], "images": [png]}, "application/json", 400, "either texts or images"),
        ({"items": [{"id": "x"}], "texts": ["2"]}, "application/json", 400, 'number 0: "family" must be'),
        ({"items": [item], "images": ["%"]}, "application/json", 400, "number 0"),
        ({"items": [item], "images": [png]}, "application/json", 400, "images[0]: 15 bytes that are no readable"),
        ({"items": [item | {"answer": {"kind": "text", "text": "a"}}], "texts": ["2"]}, "application/json", 400,
         "exact reads only sandbox answers"),
    ]  # fmt: skip
    with verdict_server(ExactJudge()) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        for body, kind, status, said in bad:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            request = urllib.request.Request(f"{url}/verdicts", data=data, headers={"Content-Type": kind})
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=10)
            with caught.value as error:
                assert error.code == status and said in json.loads(error.read())["error"]["message"]
        request = urllib.request.Request(f"{url}/health", headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        with caught.value as error:
            assert error.code == 403
        with urllib.request.urlopen(f"{url}/health", timeout=10) as reply:
            assert json.load(reply)["judge"]["name"] == "exact"
        server.shutdown()
        thread.join()


def test_the_command_serves_until_ctrl_c():
    command = [sys.executable, "-m", "unigap", "verdicts", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        found = re.fullmatch(r"exact: (http://127\.0\.0\.1:\d+)/verdicts \(Ctrl-C ends\)\n", line)
        assert found, line
        verdicts = ask_server(found[1])([CUPS[0].to_json()], ["2 cups"])
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert verdicts == [{"verdict": "correct", "error": None, "why": ""}]


def test_values_are_never_guessed():
    assert math.isnan(reward_client.value_of({"verdict": "unscored"}))
    with pytest.raises(KeyError):
        reward_client.value_of({"verdict": "maybe"})
