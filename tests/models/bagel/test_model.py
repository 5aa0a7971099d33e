"""BAGEL keeps the model protocol: batches do not matter, thoughts are its own, likelihoods are teacher-forced."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.train.small_bagel import picture, small_bagel, write_bagel

from unigap.cli import main
from unigap.errors import UnknownNameError, WeightsError
from unigap.items import ARMS
from unigap.models import find_model
from unigap.models.bagel.context import Reader
from unigap.models.bagel.model import BagelModel
from unigap.models.bagel.settings import BagelSampling, change_settings
from unigap.models.protocol import Model, Request, Sampling
from unigap.records import RunFolder

SAMPLING = BagelSampling(max_answer_tokens=8, num_timesteps=4, height_px=16, width_px=16, max_think_tokens=12)
CUP = picture("cup", 1)


@pytest.fixture(scope="module")
def model() -> BagelModel:
    return small_bagel()


def requests(purpose: str) -> list[Request]:
    """A question or prompt, alone, with a picture, with a thought given, and to be thought about first; two of each."""
    kinds = [
        Request(content=("a cup",)),
        Request(content=(CUP, "how many?")),
        Request(content=("1 and 1",), thought="<think>two</think>"),
        Request(content=("three red books",), think_prompt="Think.", think_first=True),
        Request(content=(CUP, "one more"), think_prompt="Think.", think_first=True),
    ]
    return [replace(request, purpose=purpose) for request in (*kinds, *reversed(kinds))]  # type: ignore[arg-type]


def test_it_is_a_model_whose_pictures_are_as_large_as_the_checkpoint_draws(model: BagelModel):
    assert isinstance(model, Model)
    assert (model.sampling.height_px, model.sampling.width_px) == (16, 16)  # the largest of its transform
    assert {"edit", "draw_with_own_thought", "log_likelihood"} <= model.abilities


@pytest.mark.parametrize("batch_size", [1, 3])
def test_answers_and_drawings_depend_on_the_seed_and_not_on_the_batch(model: BagelModel, batch_size: int):
    asked, drawn = requests("answer"), requests("draw")
    seeds = [50 + i for i in range(len(asked))]
    sampling = replace(SAMPLING, text_temperature=1.0)
    answers = model.answer(asked, sampling=sampling, seeds=seeds)
    drawings = model.draw(drawn, sampling=sampling, seeds=seeds)
    assert len({answer.text for answer in answers}) > 3
    for start in range(0, len(asked), batch_size):
        part = slice(start, start + batch_size)
        assert model.answer(asked[part], sampling=sampling, seeds=seeds[part]) == answers[part]
        for one, other in zip(model.draw(drawn[part], sampling=sampling, seeds=seeds[part]), drawings[part]):
            assert one.thought == other.thought and one.usage == other.usage
            assert one.image is not None and other.image is not None and one.image.size == other.image.size
            difference = np.asarray(one.image).astype(int) - np.asarray(other.image).astype(int)
            assert np.abs(difference).max() <= 1


def test_a_drawing_that_starts_from_a_picture_has_its_size(model: BagelModel):
    wide = Request(content=(CUP.resize((96, 48)), "bluer"), purpose="draw")
    sizes = [o.image.size for o in model.draw([wide, requests("draw")[0]], sampling=SAMPLING, seeds=[0, 0]) if o.image]
    # 48 x 96: 16/96 is less than 8/48, so the short side rules: 8 x 16.
    assert sizes == [(16, 8), (16, 16)]


def say(model: BagelModel, monkeypatch: pytest.MonkeyPatch, text: str, *, end: bool = True) -> None:
    """Have the model write this text, whatever it is asked."""
    ids = [*model.tokenizer.encode(text), *([model.tokenizer.eos] if end else [])]

    def written(checkpoint, contexts, *, limits, **rest) -> list[list[int]]:
        return [ids[:limit] for limit in limits]

    monkeypatch.setattr("unigap.models.bagel.model.write", written)


def test_an_own_thought_is_told_from_the_answer(model: BagelModel, monkeypatch: pytest.MonkeyPatch):
    think = Request(content=("1 and 1",), think_prompt="Think.", think_first=True)
    say(model, monkeypatch, "<think>two</think> 2 cups")
    settings = replace(SAMPLING, max_think_tokens=40)
    output = model.answer([think], sampling=settings, seeds=[0])[0]
    assert (output.thought, output.text, output.finish, output.num_tokens) == ("two", "2 cups", "stop", 26)
    # 40 + 8 tokens are not enough for a thought of 60: it has no end, and there is no answer.
    say(model, monkeypatch, "<think>" + "so " * 20)
    output = model.answer([think], sampling=settings, seeds=[0])[0]
    assert (output.text, output.outcome, output.finish) == (None, "malformed", "length")
    assert output.thought is not None and output.thought.startswith("<think>so so")


def test_a_drawing_comes_with_its_thought_and_says_if_that_was_cut_off(model, monkeypatch: pytest.MonkeyPatch):
    think = Request(content=("a cup",), purpose="draw", think_prompt="Think.", think_first=True)
    say(model, monkeypatch, "red")
    whole = model.draw([think], sampling=SAMPLING, seeds=[0])[0]
    assert (whole.thought, whole.detail, whole.usage) == ("red", "", {"thought_tokens": 4})
    say(model, monkeypatch, "red and round, and more")
    cut = model.draw([think], sampling=SAMPLING, seeds=[0])[0]
    assert (cut.thought, cut.detail) == ("red and roun", "the thought was cut off after 12 tokens")
    assert cut.thought_finish == "length"
    assert whole.image is not None and cut.image is not None and whole.image.tobytes() != cut.image.tobytes()


def test_a_thought_call_gives_the_thought_alone(model: BagelModel, monkeypatch: pytest.MonkeyPatch):
    say(model, monkeypatch, "<think>two</think> 2 cups")
    settings = replace(SAMPLING, max_think_tokens=40)
    for purpose, want in (("answer", "<think>two</think>"), ("draw", "<think>two</think> 2 cups")):
        request = Request(content=("1 and 1",), think_prompt="Think.", purpose=purpose)  # type: ignore[arg-type]
        assert model.answer([request], sampling=settings, seeds=[0])[0].text == want


def test_an_answer_is_as_long_as_its_limit_says(model: BagelModel, monkeypatch: pytest.MonkeyPatch):
    say(model, monkeypatch, "abcdefghijklmnop", end=False)
    output = model.answer([requests("answer")[0]], sampling=SAMPLING, seeds=[0])[0]
    assert (output.text, output.num_tokens, output.finish) == ("abcdefgh", 8, "length")


def test_a_thought_is_cut_at_the_special_tokens_it_holds_unless_read_as_written(model: BagelModel):
    token = model.tokenizer
    written = [*token.encode("ab"), token.bos, *token.encode("cd"), token.eos]
    assert token.reread(written, through_text=True) == ("ab", token.encode("ab"))
    text, ids = token.reread(written, through_text=False)
    assert (text, ids) == ("ab<|im_start|>cd", written[:-1])
    assert token.reread(token.encode("ab"), through_text=True)[0] == "ab"  # cut off by the limit: nothing is lost


def test_a_thought_reaches_the_drawing(model: BagelModel):
    plain = Request(content=("a cup",), purpose="draw")
    thought = replace(plain, thought="a red cup")
    prompted = replace(plain, think_prompt="Think.", thought="a red cup")
    images = [
        o.image.tobytes() for o in model.draw([plain, thought, prompted], sampling=SAMPLING, seeds=[3] * 3) if o.image
    ]
    assert len(set(images)) == 3


@torch.inference_mode()
def test_likelihoods_are_those_of_the_next_token_step_by_step(model: BagelModel):
    asked = [requests("answer")[0], requests("answer")[1], replace(requests("answer")[2], thought="so")]
    texts = ["two", "a longer text", ""]
    token, got = model.tokenizer, model.log_likelihood(asked, texts)
    for request, text, log_p in zip(asked, texts, got, strict=True):
        ids = [*token.encode(text), token.eos]
        assert log_p.shape == (len(ids),) and log_p.dtype == np.float32
        reader = Reader(model.checkpoint, keep_hidden=True)
        context = model._plan(reader, request, SAMPLING, seed=0).contexts.gen
        past = [token.bos, *([] if request.thought is None else token.encode(request.thought))]
        for n, index in enumerate(ids):  # one pass a token, instead of one for all
            chunk = reader.text(context, [*past, *ids[:n]])
            reader.read()
            want = model.bagel.logits(reader.hidden[chunk][-1:]).log_softmax(-1)[0, index].item()
            assert log_p[n] == pytest.approx(want, abs=2e-4)
    assert model.log_likelihood([], []) == []
    with pytest.raises(ValueError, match="1 requests but 2 continuations"):
        model.log_likelihood(asked[:1], texts[:2])


def test_settings_of_any_model_are_understood(model: BagelModel):
    plain = Sampling(max_answer_tokens=2)
    assert model.answer(requests("answer")[:1], sampling=plain, seeds=[0])[0].num_tokens in (1, 2)
    assert model._settings(plain).num_timesteps == model.sampling.num_timesteps


class Placed:
    """Says where it was put."""

    @classmethod
    def from_pretrained(cls, folder: Path | None, *, device: str, dtype: torch.dtype) -> tuple[str, torch.dtype]:
        return device, dtype


def test_each_process_of_a_machine_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    name = f"{__name__}:Placed"
    assert find_model(name) == ("cuda", torch.float32)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "5")
    assert find_model(name) == ("cuda:5", torch.float32)
    assert find_model(name, device="cuda:1") == ("cuda:1", torch.float32)
    assert BagelModel.auto_dtype("cuda:5") == torch.bfloat16


def test_no_folder_and_a_strange_folder_are_refused_in_words(tmp_path: Path):
    with pytest.raises(WeightsError, match='--model "bagel:FOLDER"'):
        find_model("bagel")
    with pytest.raises(WeightsError, match=r"has no llm_config\.json"):
        find_model(f"bagel:{tmp_path}")


def test_the_command_line_measures_a_checkpoint_on_the_sandbox(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder, out = write_bagel(tmp_path / "bagel"), tmp_path / "run"
    named = f"bagel:{folder}?num_timesteps=3&max_think_tokens=16&cfg_text_scale=3"
    command = ["eval", "--model", named, "--suite", "sandbox", "--num-units", "1", "--out", str(out)]

    def run(*more: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main([*command, *more])
        return int(ended.value.code or 0)

    assert run() == 2  # refused before anything is asked
    assert "exact reads only sandbox pictures, and bagel draws photo pictures" in capsys.readouterr().err
    assert not out.exists()
    assert run("--judge", "tests.judges.test_card:PhotoJudge") == 0
    records = list(RunFolder.open(out).records())
    arms = Counter((record.key.direction, record.key.arm) for record in records)
    assert set(arms) == {
        *(("generation", arm) for arm in ARMS),
        ("understanding", "normal"),
        ("understanding", "think"),
    }
    assert len(set(arms.values())) == 1 and arms["generation", "normal"] >= 10
    thinking = [record for record in records if record.key.arm == "think" and record.key.direction == "generation"]
    assert all(record.thought is not None and record.image is not None for record in thinking)
    sampling = json.loads((out / "run.json").read_text())["identity"]["sampling"]
    assert (sampling["guidance"]["cfg_text_scale"], sampling["sample_posterior"]) == (3.0, True)


def test_a_text_or_a_thought_whose_logits_are_no_numbers_is_malformed_and_leaves_the_others_alone():
    model = small_bagel()
    plain, other = Request(content=("a cup",)), Request(content=("3 ~",))
    before = model.answer([plain], sampling=model.sampling, seeds=[1])
    (tilde,) = model.tokenizer.encode("~")
    with torch.no_grad():
        model.bagel.language_model.model.embed_tokens.weight[tilde] = torch.nan
    for sampling in (model.sampling, replace(model.sampling, text_temperature=1.0)):
        same, broken = model.answer([plain, other], sampling=sampling, seeds=[1, 2])
        assert same.outcome == "ok" and (sampling.text_temperature or [same] == before)
        assert (broken.text, broken.outcome, broken.detail) == (
            None,
            "malformed",
            "the logits are not finite (float32)",
        )
    asked = replace(other, purpose="draw", think_prompt="Think.", think_first=True)
    (drawn,) = model.draw([asked], sampling=SAMPLING, seeds=[1])
    assert drawn.image is None and drawn.outcome == "malformed" and drawn.thought is None
    assert drawn.detail.startswith("the thought's logits are not finite")


def test_settings_follow_the_folder_and_what_is_misspelt_is_refused_before_loading(tmp_path: Path):
    settings = change_settings(BagelSampling(), "num_timesteps=25&edit.cfg_interval=[0.2,1]&sample_posterior=false")
    assert settings == replace(
        BagelSampling(num_timesteps=25, sample_posterior=False),
        edit_guidance=replace(BagelSampling().edit_guidance, cfg_interval=(0.2, 1.0)),
    )
    for query, why in (
        ("num_timestep=3", "unknown setting of bagel 'num_timestep'; known: .*num_timesteps"),
        ("num_timesteps=many", "num_timesteps is 'many'; expected something like 50"),
        ("num_timesteps=true", "num_timesteps is 'true'"),
        ("cfg_renorm_type=local", "global, channel, text_channel"),
        ("num_timesteps=1", "at least 2 points"),
        ("cfg_text_scale=NaN", "cfg_text_scale is 'NaN'; expected something like 4.0"),
        ("cfg_interval=[0,Infinity]", "cfg_interval is"),
        ("cfg_interval=[1,0]", "cfg_interval 1.0, 0.0 holds no time; to turn guidance off, set its scales to 1"),
        ("num_timesteps=9&num_timesteps=8", "given twice"),
    ):
        with pytest.raises((UnknownNameError, ValueError), match=why):
            find_model(f"bagel:{tmp_path}/nothing?{query}")


def test_a_folder_that_is_not_there_and_a_size_that_cannot_be_drawn_are_refused_before_asking(tmp_path: Path):
    with pytest.raises(WeightsError, match="there is no .*nothing; name a checkpoint folder"):
        find_model(f"bagel:{tmp_path}/nothing")
    folder = write_bagel(tmp_path / "bagel")
    for query, why in (("height_px=18", "16 x 18 px: sides .* multiples of 4 px"), ("width_px=64", "position table")):
        with pytest.raises(ValueError, match=why):
            find_model(f"bagel:{folder}?{query}")
