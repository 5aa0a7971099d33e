"""The embedded model keeps the protocol: batches do not matter, likelihoods are teacher-forced, damage is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from unigap.errors import WeightsError
from unigap.models import find_model
from unigap.models.protocol import Model, Request, Sampling
from unigap.models.tiny import tokenizer as tok
from unigap.models.tiny.model import TinyModel
from unigap.scenes import make_items
from unigap.scenes.read import read_picture
from unigap.scenes.render import Grid, render

SAMPLING = Sampling(max_think_tokens=96)


@pytest.fixture(scope="module")
def tiny() -> TinyModel:
    return TinyModel.from_pretrained()


def sandbox_requests(num_units: int) -> list[Request]:
    return [
        Request(content=(item.prompt,))
        for item in make_items(["math2", "mapping1", "plain"], num_units=num_units, seed=5)
    ]


def test_it_is_a_model(tiny: TinyModel):
    assert isinstance(tiny, Model)
    assert set(tiny.trained_on.values()) <= {"direct", "parts", "never"}


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_drawings_and_thoughts_depend_on_the_seed_and_not_on_the_batch(tiny: TinyModel, batch_size: int):
    requests = sandbox_requests(16)
    thinking = [Request(content=request.content, think_prompt="think") for request in requests]
    seeds = [1000 + i for i in range(len(requests))]
    whole = tiny.draw(requests, sampling=SAMPLING, seeds=seeds)
    thoughts = tiny.answer(thinking, sampling=SAMPLING, seeds=seeds)
    order = np.random.default_rng(0).permutation(len(requests))
    flipped = 0
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        drawn = tiny.draw([requests[i] for i in part], sampling=SAMPLING, seeds=[seeds[i] for i in part])
        again = tiny.answer([thinking[i] for i in part], sampling=SAMPLING, seeds=[seeds[i] for i in part])
        for i, picture, text in zip(part, drawn, again, strict=True):
            flipped += not np.array_equal(np.asarray(picture.image), np.asarray(whole[i].image))
            flipped += text.text != thoughts[i].text
    assert flipped == 0


def test_another_seed_gives_another_picture(tiny: TinyModel):
    requests = [Request(content=("Draw 3 apples.",))] * 8
    drawn = tiny.draw(requests, sampling=SAMPLING, seeds=range(8))
    assert len({np.asarray(output.image).tobytes() for output in drawn}) > 1


def test_a_mixed_batch_of_answers_and_thoughts_gives_what_each_gives_alone(tiny: TinyModel):
    question = Request(content=("How many cups are as many as the result of 2 + 1?",))
    thinking = Request(content=question.content, think_prompt="think")
    together = tiny.answer([question, thinking], sampling=SAMPLING, seeds=[1, 2])
    alone = tiny.answer([question], sampling=SAMPLING, seeds=[1]) + tiny.answer(
        [thinking], sampling=SAMPLING, seeds=[2]
    )
    assert together == alone


def test_log_likelihood_is_that_of_one_token_after_another(tiny: TinyModel):
    request = Request(content=(render(Grid(("cup", "cup") + (None,) * 7)), "What is in the picture?"))
    text = "2 cups"
    (log_p,) = tiny.log_likelihood([request], [text])
    ids, _ = tiny.encode(request, tok.ANSWER)
    expected = []
    for token in [*tiny.tokenizer.encode(text), tiny.tokenizer[tok.EOS]]:
        with torch.inference_mode():
            expected.append(tiny.network(torch.tensor([ids]))[0, -1].log_softmax(-1)[token].item())
        ids = [*ids, token]
    np.testing.assert_allclose(log_p, expected, atol=1e-4)


def test_log_likelihood_does_not_depend_on_the_company(tiny: TinyModel):
    requests = [Request(content=("Draw 3 apples.",)), Request(content=("Rule 1: # means apple.",))]
    texts = ["3 apples", "1 apple and 2 cups"]
    together = tiny.log_likelihood(requests, texts)
    for request, text, log_p in zip(requests, texts, together, strict=True):
        np.testing.assert_allclose(tiny.log_likelihood([request], [text])[0], log_p, atol=1e-4)


def test_the_true_caption_is_likelier_than_a_false_one(tiny: TinyModel):
    request = Request(content=(render(Grid(("cup", "cup", "cup") + (None,) * 6)), "What is in the picture?"))
    true, false = (log_p.sum() for log_p in tiny.log_likelihood([request] * 2, ["3 cups", "2 cups"]))
    assert true > false + 1


def test_a_plain_prompt_is_drawn(tiny: TinyModel):
    (output,) = tiny.draw([Request(content=("Draw 2 cups.",))], sampling=SAMPLING, seeds=[0])
    assert output.image is not None and read_picture(output.image).counts == {"cup": 2}


def test_foreign_phrasing_is_rewritten_and_the_output_says_so(tiny: TinyModel):
    request = Request(content=("Provide the same number of kittens as calculated by 2 + 1.",))
    (output,) = tiny.draw([request], sampling=SAMPLING, seeds=[0])
    assert output.outcome == "ok" and output.detail.startswith("rewritten: ")


def test_a_prompt_past_the_context_is_malformed_and_says_why_without_hurting_its_neighbours(tiny: TinyModel):
    long = Request(content=("Draw 2 cups. " * 200,))
    short = Request(content=("Draw 2 cups.",))
    outputs = tiny.draw([long, short], sampling=SAMPLING, seeds=[0, 0])
    assert outputs[0].outcome == "malformed" and "context" in outputs[0].detail
    assert outputs[1].image is not None
    texts = tiny.answer([long, short], sampling=SAMPLING, seeds=[0, 0])
    assert texts[0].outcome == "malformed" and texts[1].outcome == "ok"


def test_an_empty_batch_is_an_empty_list(tiny: TinyModel):
    assert tiny.draw([], sampling=SAMPLING, seeds=[]) == []
    assert tiny.answer([], sampling=SAMPLING, seeds=[]) == []
    assert tiny.log_likelihood([], []) == []


def copy_of_the_weights(tmp_path: Path) -> Path:
    from importlib import resources

    folder = tmp_path / "weights"
    shutil.copytree(str(resources.files("unigap.models.tiny") / "weights"), folder)
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "card.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str):
    folder = copy_of_the_weights(tmp_path)
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=name):
        TinyModel.from_pretrained(folder)


def test_weights_that_are_not_the_cards_are_refused(tmp_path: Path):
    folder = copy_of_the_weights(tmp_path)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(WeightsError, match="sha256"):
        find_model(f"tiny:{folder}")


def test_saved_and_loaded_weights_are_the_same_bytes(tiny: TinyModel, tmp_path: Path):
    tiny.save_pretrained(tmp_path / "again", {k: v for k, v in tiny.card.items() if k != "sha256"})
    assert TinyModel.from_pretrained(tmp_path / "again").sha256 == tiny.sha256


def test_the_card_says_how_the_weights_were_made_and_what_they_score(tiny: TinyModel):
    assert {
        "command",
        "config",
        "parameters",
        "samples",
        "mixture",
        "trained_on",
        "sha256",
        "scores",
    } <= tiny.card.keys()
    json.dumps(tiny.card)
