"""Remote models over real sockets: five reply shapes, one result; and every fault, through the whole loop."""

import base64
import io
import random
import struct
import sys
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.fakes import make_item
from tests.faulty_server import Answer, Call, FaultyServer, chat

from unigap.cli import main
from unigap.errors import UnknownNameError
from unigap.evaluate import EvalConfig, RunReport, evaluate
from unigap.models import find_model
from unigap.models.http import BadReplyError, Fault, HttpSettings, RemoteClient, cut_middle
from unigap.models.protocol import Request
from unigap.models.remote import RemoteModel, RemoteSampling
from unigap.models.replies import decode_picture
from unigap.records import Outcome, RunFolder
from unigap.scenes.render import place, render

KEY = "sk-planted-4711-abcdef"
FAST = HttpSettings(concurrency=4, timeout_s=0.4, retry_budget_s=1.0, first_wait_s=0.01, longest_wait_s=0.05)
PATIENT = replace(FAST, timeout_s=20.0, retry_budget_s=60.0)
"""Never out of time on a busy machine; for tests in which nothing hangs."""


@pytest.fixture(autouse=True)
def planted_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def png(color: str = "red", size: tuple[int, int] = (8, 6)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def uri(data: bytes) -> str:
    return "data:image/png;base64," + b64(data)


def image_part(data: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": uri(data)}}


def model_at(url: str, draw: str = "images", settings: HttpSettings = PATIENT) -> RemoteModel:
    sampling = RemoteSampling(draw=draw)  # type: ignore[arg-type]
    return RemoteModel("m", RemoteClient(url, settings=settings), sampling=sampling)


def draw_one(model: RemoteModel, *content: Any):
    (output,) = model.draw([Request(content=content, purpose="draw")], sampling=model.sampling, seeds=[5])
    return output


# ---- the five shapes -------------------------------------------------------------------------------------------------

SHAPES: dict[str, tuple[str, Any]] = {
    "images": ("/v1/images/generations", {"data": [{"b64_json": b64(png())}]}),
    "responses": ("/v1/responses", {"output": [{"type": "image_generation_call", "result": b64(png())}]}),
    "vllm-omni": (
        "/v1/chat/completions",
        {
            "choices": [
                {"index": 0, "message": {"content": "a plan"}},
                {"index": 0, "message": {"content": [image_part(png())]}},
            ]
        },
    ),
    "openrouter": ("/v1/chat/completions", {"choices": [{"message": {"content": "", "images": [image_part(png())]}}]}),
    "gemini": (
        "/v1/models/m:generateContent",
        {"candidates": [{"content": {"parts": [{"text": "hm"}, {"inlineData": {"data": b64(png())}}]}}]},
    ),
}
NO_PICTURE: dict[str, Any] = {
    "images": {"data": []},
    "responses": {"output": [{"type": "message", "content": [{"type": "output_text", "text": "no images"}]}]},
    "vllm-omni": {"choices": [{"message": {"content": "Image generation completed but no images were produced."}}]},
    "openrouter": {"choices": [{"message": {"content": "I would rather not."}}]},
    "gemini": {"candidates": [{"content": {"parts": [{"text": "no images"}]}}]},
}
REFUSED: dict[str, Answer] = {
    "images": Answer(status=400, body={"error": {"message": "blocked", "code": "moderation_blocked"}}),
    "responses": Answer(
        body={
            "output": [{"type": "image_generation_call", "status": "failed", "error": {"code": "moderation_blocked"}}]
        }
    ),
    "vllm-omni": Answer(body={"choices": [{"finish_reason": "content_filter", "message": {"content": None}}]}),
    "openrouter": chat(None, refusal="I cannot draw that."),
    "gemini": Answer(body={"promptFeedback": {"blockReason": "SAFETY"}}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_gives_the_same_picture_and_carries_prompt_and_seed(shape: str):
    path, reply = SHAPES[shape]
    with FaultyServer(lambda call: Answer(body=reply)) as server:
        output = draw_one(model_at(server.url, shape), "Draw a red field.")
    assert (output.outcome, output.image.size, output.image.getpixel((0, 0))) == ("ok", (8, 6), (255, 0, 0))
    (call,) = server.calls
    assert call.path == path
    assert b"Draw a red field." in call.body
    assert (call.json["generationConfig"] if shape == "gemini" else call.json)["seed"] == 5


@pytest.mark.parametrize("shape", SHAPES)
def test_editing_sends_the_input_picture(shape: str):
    with FaultyServer(lambda call: Answer(body=SHAPES[shape][1])) as server:
        assert draw_one(model_at(server.url, shape), Image.new("RGB", (3, 3), "blue"), "Make it red.").outcome == "ok"
    (call,) = server.calls
    sent = png("blue", (3, 3))
    if shape == "images":  # multipart carries the file itself
        assert call.path == "/v1/images/edits"
        assert sent in call.body
        assert b'name="image"' in call.body
    else:
        assert b64(sent).encode() in call.body
    assert b"Make it red." in call.body


@pytest.mark.parametrize("shape", SHAPES)
def test_a_reply_without_a_picture_is_malformed_and_moderation_is_refused(shape: str):
    answers = {"plain": Answer(body=NO_PICTURE[shape]), "bad": REFUSED[shape]}
    with FaultyServer(lambda call: answers["bad" if b"bad" in call.body else "plain"]) as server:
        model = model_at(server.url, shape)
        assert draw_one(model, "plain").outcome == "malformed"
        assert draw_one(model, "bad").outcome == "refused"
    assert len(server.calls) == 2  # neither is asked again: both are answers


# ---- pictures that are none ------------------------------------------------------------------------------------------


def huge_png(side: int) -> bytes:
    """A valid header that promises side x side pixels, and no data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BAD_PICTURES = {
    "truncated base64": b64(png())[:-3],
    "truncated file": b64(png(size=(300, 300))[:-60]),
    "0 bytes": "",
    "not an image": b64(b"<svg/>"),
    "40,000 px": b64(huge_png(40_000)),
    "10,000 px": b64(huge_png(10_000)),
    "not base64": "no picture today",
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_picture_that_is_none_is_malformed(name: str):
    output = decode_picture(BAD_PICTURES[name])
    assert (output.outcome, output.image) == ("malformed", None)
    assert output.detail


def test_a_picture_by_url_is_not_fetched():
    with pytest.raises(BadReplyError, match="not fetched"):
        decode_picture("http://127.0.0.1:1/picture.png")


# ---- the fault table, through the whole loop -------------------------------------------------------------------------

GOOD = Answer(body={"data": [{"b64_json": b64(png())}]})


def nth(*answers: Answer) -> Any:
    """The answers one after the other, the last one for ever."""
    return lambda call: answers[min(call.number, len(answers) - 1)]


def error(status: int, **headers: str) -> Answer:
    return Answer(status=status, body={"error": {"message": f"status {status}"}}, headers=headers)


def picture(encoded: str) -> Answer:
    return Answer(body={"data": [{"b64_json": encoded}]})


HTML = Answer(body=b"<html>welcome</html>", headers={"Content-Type": "text/html"})
FAULTS: dict[str, tuple[Any, Outcome]] = {
    "500-twice": (nth(error(500), error(500), GOOD), "ok"),
    "429-once": (nth(error(429, **{"Retry-After": "0.05"}), GOOD), "ok"),
    "closed-once": (nth(Answer(close=True), GOOD), "ok"),
    "html-once": (nth(HTML, GOOD), "ok"),
    "status-400": (nth(error(400)), "transport_error"),
    "always-500": (nth(error(500)), "transport_error"),
    "html-always": (nth(HTML), "transport_error"),
    "bad-json": (nth(Answer(body=b'{"data": [')), "transport_error"),
    "redirect": (nth(Answer(status=307, headers={"Location": "http://127.0.0.1:1/v1"})), "transport_error"),
    "echoed-key": (lambda call: Answer(status=400, body=str(call.headers).encode()), "transport_error"),
    "moderation": (nth(REFUSED["images"]), "refused"),
    "no-picture": (nth(Answer(body=NO_PICTURE["images"])), "malformed"),
    **{f"picture-{k}": (nth(picture(encoded)), "malformed") for k, encoded in enumerate(BAD_PICTURES.values())},
}
ITEMS = [make_item(number, word=f"({word})") for number, word in enumerate(["fine", *FAULTS])]
DRAW = EvalConfig(directions=("generation",), arms=("normal",))


def misbehave(call: Call) -> Answer:
    return next((answer(call) for word, (answer, _) in FAULTS.items() if f"({word})".encode() in call.body), GOOD)


def outcomes(report: RunReport) -> dict[str, Outcome]:
    """Fault -> outcome, as recorded."""
    words = {item.id: item.prompt.rpartition("(")[2].rstrip(")") for item in ITEMS}
    return {words[record.item_id]: record.outcome for record in report.folder.records()}


def test_every_fault_ends_as_the_table_says_and_only_transport_errors_are_asked_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    with FaultyServer(misbehave) as server:
        model = model_at(server.url, settings=replace(PATIENT, retry_budget_s=0.5))
        first = evaluate(model, ITEMS, tmp_path / "run", DRAW)
        expected = {"fine": "ok"} | {word: outcome for word, (_, outcome) in FAULTS.items()}
        lost = [word for word, outcome in expected.items() if outcome == "transport_error"]
        assert first.outcomes == Counter(expected.values())
        assert first.num_missing == len(lost)
        rejected = [call for call in server.calls if b"(status-400)" in call.body]
        assert len(rejected) == 1
        server.answer = lambda call: GOOD
        again = evaluate(model, ITEMS, tmp_path / "run", DRAW)
    assert (again.num_asked, again.num_missing) == (len(lost), 0)
    assert outcomes(again) == expected | dict.fromkeys(lost, "ok")
    # The key went to the server, and nowhere else.
    assert {call.headers["authorization"] for call in server.calls} == {f"Bearer {KEY}"}
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path
    shown = capfd.readouterr()
    assert KEY not in shown.out + shown.err
    assert "[key]" in "".join(path.read_text() for path in (tmp_path / "run").glob("records-*.jsonl"))


TEXT_FAULTS: dict[str, tuple[Any, Outcome]] = {
    "empty-choices": (nth(Answer(body={"choices": []})), "transport_error"),
    "null-content": (nth(chat(None)), "transport_error"),
    "null-once": (nth(chat(None), chat("2 cups")), "ok"),
    "html": (nth(HTML), "transport_error"),
    "list-not-object": (nth(Answer(body=[1, 2])), "transport_error"),
    "filtered": (nth(chat(None, refusal="no")), "refused"),
}


def test_faults_of_text_replies_are_retried_and_never_an_answer(tmp_path: Path):
    items = [make_item(number, word=f"({word})") for number, word in enumerate(TEXT_FAULTS)]

    def answer(call: Call) -> Answer:
        return next(reply(call) for word, (reply, _) in TEXT_FAULTS.items() if f"({word})".encode() in call.body)

    with FaultyServer(answer) as server:
        config = EvalConfig(directions=("understanding",), arms=("normal",))
        report = evaluate(model_at(server.url), items, tmp_path / "run", config)
    assert report.outcomes == Counter(outcome for _, outcome in TEXT_FAULTS.values())
    # Three times in all, as bad_reply_tries says.
    assert sum(b"(empty-choices)" in call.body for call in server.calls) == 3
    (fine,) = (record for record in report.folder.records() if record.outcome == "ok")
    # The tokens of the reply that could not be used count apart.
    used = {"answer_tokens": 3, "answer_finish": "stop", "answer_retried_tokens": 3}
    assert (fine.text, fine.usage) == ("2 cups", used)


def test_a_hang_past_the_budget_is_a_transport_error_and_others_are_answered(tmp_path: Path):
    items = [make_item(0, word="(hang)"), make_item(1)]
    with FaultyServer(lambda call: Answer(hang=True) if b"(hang)" in call.body else GOOD) as server:
        report = evaluate(model_at(server.url, settings=FAST), items, tmp_path / "run", DRAW)
    assert report.outcomes == {"ok": 1, "transport_error": 1}


def test_a_server_gone_for_good_costs_one_budget_and_a_later_session_finishes_the_run(tmp_path: Path):
    items = [make_item(number) for number in range(40)]
    with FaultyServer(lambda call: GOOD) as server:
        url, port = server.url, server.port
    model = model_at(url, settings=replace(FAST, retry_budget_s=0.3))
    report = evaluate(model, items, tmp_path / "run", DRAW)
    assert (report.outcomes, report.num_missing) == ({"transport_error": 40}, 40)
    with FaultyServer(lambda call: GOOD, port=port):
        again = evaluate(model, items, tmp_path / "run", DRAW)
    assert (again.outcomes, again.num_missing) == ({"ok": 40}, 0)


def test_after_one_request_lost_its_budget_others_are_sent_once_until_one_is_answered():
    with FaultyServer(nth(error(503))) as server:
        settings = replace(PATIENT, concurrency=1, retry_budget_s=0.2)
        client = RemoteClient(server.url, settings=settings)
        faults = client.chat_many([{"n": 0}, {"n": 1}, {"n": 2}], lambda reply: reply)
        assert all(isinstance(fault, Fault) and fault.kind == "transport" for fault in faults)
        tries = Counter(call.json["n"] for call in server.calls)
        assert (tries[0] > 1, tries[1], tries[2]) == (True, 1, 1)
        server.answer = lambda call: chat("x")
        assert client.chat_many([{"n": 3}], lambda reply: reply["usage"]) == [{"completion_tokens": 3}]
        server.answer = nth(error(503), chat("x"))
        assert client.chat_many([{"n": 4}], lambda reply: 4) == [4]


# ---- the client ------------------------------------------------------------------------------------------------------


def test_order_is_kept_and_no_more_requests_are_in_flight_than_allowed():
    with FaultyServer(lambda call: chat(str(call.json["n"]))) as server:
        client = RemoteClient(server.url, settings=replace(PATIENT, concurrency=3))
        got = client.chat_many([{"n": n} for n in range(30)], lambda reply: reply["choices"][0]["message"]["content"])
    assert got == [str(n) for n in range(30)]
    assert server.most_at_once <= 3


def test_a_retry_after_beyond_the_budget_ends_the_request_at_once():
    with FaultyServer(nth(error(429, **{"Retry-After": "3600"}), chat("x"))) as server:
        (fault,) = RemoteClient(server.url, settings=PATIENT).chat_many([{}], lambda reply: reply)
    assert fault == Fault(kind="transport", reason="HTTP 429: status 429")
    assert len(server.calls) == 1


def test_a_long_text_of_a_server_is_quoted_with_its_beginning_and_its_end_and_never_the_key():
    # The key lies across the places where the text is cut, so that half of it would be left were it cut first.
    words = "the beginning " + "x" * 120 + KEY + "y" * 2000 + KEY + "z" * 130 + " the end"
    with FaultyServer(lambda call: Answer(status=400, body={"error": {"message": words}})) as server:
        (fault,) = RemoteClient(server.url, settings=PATIENT).chat_many([{}], lambda reply: reply)
    assert isinstance(fault, Fault)
    assert len(fault.reason) == 300
    assert fault.reason.startswith("HTTP 400: the beginning x") and fault.reason.endswith("zz the end")
    assert " [...] " in fault.reason
    assert not any(KEY[k : k + 6] in fault.reason for k in range(len(KEY) - 5))
    assert cut_middle("short") == "short"


def test_a_retry_after_is_waited_out():
    with FaultyServer(nth(error(503, **{"Retry-After": "0.3"}), chat("x"))) as server:
        settings = replace(PATIENT, retry_budget_s=0.29)
        (fault,) = RemoteClient(server.url, settings=settings).chat_many([{}], lambda reply: reply)
        assert isinstance(fault, Fault)  # the wait of 0.3 s does not fit into 0.29 s; the back-off of 0.01 s would
        assert RemoteClient(server.url, settings=PATIENT).chat_many([{"n": 1}], lambda reply: 1) == [1]


def test_a_redirect_is_not_followed_with_the_key():
    with FaultyServer(lambda call: GOOD) as other:
        target = Answer(status=307, headers={"Location": other.url + "/chat/completions"})
        with FaultyServer(lambda call: target) as server:
            (fault,) = RemoteClient(server.url, settings=PATIENT).chat_many([{}], lambda reply: reply)
    assert isinstance(fault, Fault)
    assert fault.kind == "rejected"
    assert not other.calls


def test_only_servers_beyond_loopback_need_a_key(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert RemoteClient("http://127.0.0.1:8000/v1").base_url
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        RemoteClient("https://models.example/v1")


@pytest.mark.parametrize("url", ["", "ftp://h/v1", "http://", f"http://user:{KEY}@h/v1", f"http://h/v1?key={KEY}"])
def test_a_url_that_is_none_or_carries_a_secret_is_refused_without_repeating_it(url: str):
    with pytest.raises(ValueError, match="looks like") as caught:
        RemoteClient(url)
    assert KEY not in str(caught.value)


# ---- addresses and arms ----------------------------------------------------------------------------------------------


def test_an_address_says_everything_about_a_model():
    url = "http://127.0.0.1:8000/v1"
    plain = find_model(f"openai:org/m@{url}")
    assert (plain.name, plain.abilities, plain.pictures) == (f"openai:org/m@{url}", {"answer", "think"}, "photo")
    model = find_model(
        f"openai:m@{url}?draw=vllm-omni&size=64x48&seed=no&pictures=sandbox&concurrency=3&body.think=true"
    )
    assert isinstance(model, RemoteModel)
    assert model.abilities == {"answer", "think", "draw", "edit"}
    assert model.pictures == "sandbox"
    assert model.batch_size == 6
    assert model.sampling == RemoteSampling(draw="vllm-omni", size="64x48", send_seed=False, draw_body={"think": True})
    with FaultyServer(lambda call: Answer(body=SHAPES["vllm-omni"][1])) as server:
        assert draw_one(find_model(model.name.replace(url, server.url) + "?draw=vllm-omni&size=64x48&seed=no"), "x")
    look, call = server.calls
    assert (look.path, look.body) == ("/v1/models", b"")
    assert {"width": 64, "height": 48, "modalities": ["image"]}.items() <= call.json.items()
    assert "seed" not in call.json


@pytest.mark.parametrize(
    "address",
    [
        "",
        "m",
        "m@",
        "m@not-a-url",
        "m@http://h/v1?speed=9",
        "m@http://h/v1?size=big",
        "m@http://h/v1?concurrency=0",
        "m@http://h/v1?draw=gemini&size=8x8",
    ],
)
def test_an_address_that_is_none_is_refused(address: str):
    with pytest.raises(ValueError, match=r".+"):
        find_model(f"openai:{address}")


@pytest.mark.parametrize(("draw", "sent"), [("images", "max_tokens"), ("gemini", "maxOutputTokens")])
def test_a_text_request_has_a_limit_and_a_temperature(draw: str, sent: str):
    reply = chat("2").body | {"candidates": [{"content": {"parts": [{"text": "2"}]}}]}
    with FaultyServer(lambda call: Answer(body=reply)) as server:
        model = model_at(server.url, draw)
        model.answer([Request(content=("1+1?",))], sampling=model.sampling, seeds=[0])
    body = server.calls[0].json
    assert (body["generationConfig"] if draw == "gemini" else body).items() >= {sent: 64, "temperature": 0.0}.items()


def test_a_model_that_takes_neither_gets_the_newer_limit_and_no_temperature():
    """OpenAI's reasoning models reject `max_tokens` and every temperature but their own with 400."""
    with FaultyServer(lambda call: chat("2")) as server:
        model = find_model(f"openai:m@{server.url}?limit=max_completion_tokens&temperature=no")
        model.answer([Request(content=("1+1?",))], sampling=model.sampling, seeds=[0])
    body = server.calls[-1].json
    assert body["max_completion_tokens"] == 64
    assert not {"max_tokens", "temperature"} & body.keys()


@pytest.mark.parametrize("setting", ["draw=paint", "pictures=film", "seed=maybe", "temperature=hot", "limit=sky"])
def test_an_unknown_choice_lists_the_known_ones(setting: str):
    with pytest.raises(UnknownNameError, match="known: "):
        find_model(f"openai:m@http://127.0.0.1:8000/v1?{setting}")


def test_thinking_is_a_text_call_whose_thought_goes_into_the_drawing_request(tmp_path: Path):
    def answer(call: Call) -> Answer:
        return GOOD if call.path.endswith("generations") else chat("<think>one cup\nA cup.</think>")

    with FaultyServer(answer) as server:
        config = EvalConfig(directions=("generation",), arms=("think",), think_prompt="careful")
        report = evaluate(model_at(server.url), [make_item(1)], tmp_path / "run", config)
    (record,) = report.folder.records()
    assert (record.outcome, record.thought) == ("ok", "<think>one cup\nA cup.</think>")
    think, draw = server.calls
    assert think.json["messages"][0]["role"] == "system"
    assert draw.json["prompt"].endswith("\n\n<think>one cup\nA cup.</think>")


def test_the_command_measures_a_remote_model_and_shows_its_key_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    def answer(call: Call) -> Answer:
        if call.path.endswith("generations"):
            return picture(b64(scene))
        return chat("2 cups") if call.number else Answer(status=500, body=str(call.headers).encode())

    buffer = io.BytesIO()
    render(place({"cup": 2}, random.Random(0))).save(buffer, "PNG")
    scene = buffer.getvalue()
    with FaultyServer(answer) as server:
        model = f"openai:m@{server.url}?draw=images&pictures=sandbox&concurrency=2"
        flags = ["--arms", "normal", "--families", "plain", "--num-units", "3", "--out", str(tmp_path / "run")]
        with pytest.raises(SystemExit) as done:
            main(["eval", "--model", model, *flags])
    assert done.value.code == 0
    folder = RunFolder.open(tmp_path / "run")
    assert {record.outcome for record in folder.records()} == {"ok"}
    assert {(record.model.name, record.model.sha256) for record in folder.records()} == {
        (f"openai:m@{server.url}", "unknown")
    }
    shown = capfd.readouterr()
    assert KEY not in shown.out + shown.err
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


def test_a_servers_own_thinking_is_noted(tmp_path: Path):
    with FaultyServer(lambda call: chat("2", reasoning_content="hmm")) as server:
        model = model_at(server.url)
        (output,) = model.answer([Request(content=("1+1?",))], sampling=model.sampling, seeds=[0])
    assert (output.text, output.detail) == ("2", "the server thought by itself: 3 characters")


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    for name in ("unigap.models.remote", "unigap.models.http", "unigap.models.replies"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ValueError, match=r"unigap\[remote\]"):
        find_model("openai:m@http://127.0.0.1:8000/v1")
