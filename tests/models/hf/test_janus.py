"""A small random Janus, loaded as a user would: what it answers and draws is what transformers' own `generate` does."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, JanusForConditionalGeneration

from unigap.errors import CannotAskError, UnknownNameError, WeightsError
from unigap.models import find_model
from unigap.models.hf.unified import JanusSampling, UnifiedModel
from unigap.models.protocol import Model, Request

RED = Image.new("RGB", (20, 10), (200, 30, 30))
QUESTIONS = [
    Request(content=("how many?",)),
    Request(content=(RED, "a cup and a much longer question")),
    Request(content=("and now?",), think_prompt="Think."),
    Request(content=("1 and 1",), thought="two"),
]
PROMPTS = [
    Request(content=(text,), purpose="draw") for text in ("a cup", "two red books and a pen", "a box", "one more cup")
]


@pytest.fixture(scope="module")
def model(janus_folder: Path) -> UnifiedModel:
    found = find_model(f"hf:{janus_folder}", device="cpu")
    assert isinstance(found, UnifiedModel)
    return found


@pytest.fixture(scope="module")
def library(janus_folder: Path):
    """transformers alone."""
    processor = AutoProcessor.from_pretrained(janus_folder, backend="pil")
    processor.tokenizer.padding_side = "left"
    return JanusForConditionalGeneration.from_pretrained(janus_folder).eval(), processor


def ask_library(library, requests: list[Request], **how):
    _, processor = library
    chats = [
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
                    for part in request.content
                ],
            }
        ]
        for request in requests
    ]
    return processor.apply_chat_template(
        chats,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, **how},
    )


def test_it_is_a_model_that_answers_and_draws(model: UnifiedModel):
    assert isinstance(model, Model)
    assert model.name == "hf:janus" and len(model.sha256) == 64
    assert model.abilities == {"answer", "think", "log_likelihood", "draw"}
    assert model.sampling == JanusSampling(cfg_scale=5.0)


@pytest.mark.parametrize("some", [QUESTIONS[:1] * 2, QUESTIONS[1:2]])
def test_greedy_text_is_that_of_the_library(model: UnifiedModel, library, some: list[Request]):
    inputs = ask_library(library, some)
    ids = library[0].generate(**inputs, do_sample=False, max_new_tokens=12)[:, inputs["input_ids"].shape[1] :]
    expected = [text.strip() for text in library[1].tokenizer.batch_decode(ids, skip_special_tokens=True)]
    answers = model.answer(some, sampling=replace(model.sampling, max_answer_tokens=12), seeds=[0] * len(some))
    assert [answer.text for answer in answers] == expected and len(expected[0]) > 3


@pytest.mark.parametrize("cfg_scale", [1.5, 5.0])
def test_greedy_image_tokens_are_those_of_the_library(model: UnifiedModel, library, cfg_scale: float):
    inputs = ask_library(library, PROMPTS, generation_mode="image")
    expected = library[0].generate(
        **inputs, generation_mode="image", do_sample=False, guidance_scale=cfg_scale, max_length=512
    )
    settings = replace(model.sampling, cfg_scale=cfg_scale, image_temperature=0.0)
    codes_NT, _ = model.write(model.contexts(PROMPTS, settings), settings, seeds=[0] * 4)
    assert codes_NT.tolist() == expected.tolist()
    assert len(set(map(tuple, codes_NT.tolist()))) > 1


def test_pixels_are_the_decoders_numbers_from_minus_one_to_one(model: UnifiedModel, library):
    codes_NT = np.arange(32).reshape(2, 16) % 24
    with torch.no_grad():
        decoded = library[0].decode_image_tokens(torch.from_numpy(codes_NT)).numpy()
    expected = ((decoded.clip(-1, 1) + 1) * 127.5).astype(int)  # mean 0.5, width 0.5: (x + 1) / 2 x 255
    found = np.stack([np.asarray(image) for image in model.decode(codes_NT, model.sampling)])
    assert found.shape == (2, 8, 8, 3)
    assert np.abs(found - expected).max() <= 1 and found.std() > 20


@pytest.mark.parametrize("batch_size", [1, 3])
def test_answers_and_drawings_depend_on_the_seed_and_not_on_the_batch(model: UnifiedModel, batch_size: int):
    settings = replace(model.sampling, text_temperature=1.0, max_think_tokens=5)
    seeds = [50, 51, 52, 53]
    answers = model.answer(QUESTIONS, sampling=settings, seeds=seeds)
    drawings = [output.image for output in model.draw(PROMPTS, sampling=settings, seeds=seeds)]
    assert len({answer.text for answer in answers}) == 4
    assert answers[2].num_tokens == 5  # a thought, and its own limit
    for start in range(0, 4, batch_size):
        part = slice(start, start + batch_size)
        assert model.answer(QUESTIONS[part], sampling=settings, seeds=seeds[part]) == answers[part]
        again = [output.image for output in model.draw(PROMPTS[part], sampling=settings, seeds=seeds[part])]
        assert again == drawings[part]
    other = model.draw(PROMPTS[:1], sampling=settings, seeds=[99])[0].image
    assert other is not None and other != drawings[0] and other.size == (8, 8)


def test_log_likelihood_is_that_of_one_token_after_the_other(model: UnifiedModel, library):
    request, text = QUESTIONS[1], "2 cups"
    # "ASSISTANT:" ends within a line, so a space comes first; the last token is the end.
    ids = [*library[1].tokenizer.encode(" " + text), 2]
    inputs = ask_library(library, [request])
    expected = []
    for index in ids:
        with torch.no_grad():
            expected.append(library[0](**inputs).logits[0, -1].log_softmax(dim=-1)[index].item())
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[index]])], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    found = model.log_likelihood([QUESTIONS[0], request, QUESTIONS[3]], ["a", text, "a cup"])
    assert [len(log_p_T) for log_p_T in found] == [3, 8, 7]
    assert found[1] == pytest.approx(expected, abs=1e-4)
    assert len(model.token_texts(text)) == 7


def test_text_that_spells_a_control_token_is_plain_text(model: UnifiedModel):
    ids = model.encode([Request(content=("a <s></s> b",))])["input_ids"][0].tolist()
    assert 2 not in ids and ids.count(1) == 1  # </s>, and the <s> that the template begins with
    assert model.tokenizer.decode(ids).startswith("<s>USER: a <s></s> b")


def test_thoughts_and_think_prompts_reach_the_model(model: UnifiedModel):
    def asked(request: Request) -> str:
        return model.tokenizer.decode(model.encode([request])["input_ids"][0])

    assert asked(QUESTIONS[2]) == "<s>SYSTEM: Think. USER: and now? ASSISTANT:"
    assert asked(QUESTIONS[3]) == "<s>USER: 1 and 1 two ASSISTANT:"
    (context,) = model.contexts([replace(QUESTIONS[3], purpose="draw")], model.sampling)
    assert model.tokenizer.decode(context.prompt) == "<s>USER: 1 and 1\ntwo ASSISTANT:<begin_of_image>"
    pads = len(context.prompt) - 2
    assert model.tokenizer.decode(context.blank) == "<s>" + "<pad>" * pads + "<begin_of_image>"


def test_a_drawing_from_a_picture_is_refused(model: UnifiedModel):
    with pytest.raises(CannotAskError, match="draw from text alone"):
        model.draw([Request(content=(RED, "bluer"), purpose="draw")], sampling=model.sampling, seeds=[0])


def test_what_does_not_fit_the_context_is_malformed_and_its_neighbors_are_not(model: UnifiedModel):
    # The context holds 512 tokens: <s>, "USER: ", 480 letters and " ASSISTANT:" are 1 + 6 + 480 + 11 = 498, so 14 are
    # left, and no picture of 16 fits.
    long = Request(content=("a" * 480,))
    outputs = model.answer([long, QUESTIONS[0]], sampling=replace(model.sampling, max_answer_tokens=40), seeds=[0, 0])
    assert [(output.num_tokens, output.finish) for output in outputs] == [(14, "length"), (40, "length")]
    drawn = model.draw([long, PROMPTS[0]], sampling=model.sampling, seeds=[0, 0])
    assert [output.outcome for output in drawn] == ["malformed", "ok"]
    assert drawn[1].image == model.draw(PROMPTS[:1], sampling=model.sampling, seeds=[0])[0].image
    (output,) = model.answer([Request(content=("a" * 500,))], sampling=model.sampling, seeds=[0])
    assert (output.outcome, output.text) == ("malformed", None)
    with pytest.raises(ValueError, match="514 tokens with the continuation; the model's context holds 512"):
        model.log_likelihood([long], ["b" * 14])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_text_whose_logits_are_no_numbers_is_malformed_and_leaves_the_others_alone(
    janus_folder: Path, temperature: float
):
    broken = find_model(f"hf:{janus_folder}", device="cpu")
    assert isinstance(broken, UnifiedModel)
    settings = replace(broken.sampling, text_temperature=temperature, max_answer_tokens=6)
    before = broken.answer(QUESTIONS[:1], sampling=settings, seeds=[3])
    odd = Request(content=("~",))
    only = set(broken.encode([odd])["input_ids"][0].tolist()) - set(
        broken.encode(QUESTIONS[:1])["input_ids"][0].tolist()
    )
    with torch.no_grad():
        for index in only:
            broken.network.get_input_embeddings().weight[index] = torch.nan
    same, malformed = broken.answer([QUESTIONS[0], odd], sampling=settings, seeds=[3, 4])
    assert [same] == before and same.outcome == "ok" and only
    assert (malformed.text, malformed.outcome) == (None, "malformed")
    assert malformed.detail == "the logits are not finite (float32)"


def test_numbers_that_are_not_finite_are_a_malformed_drawing(janus_folder: Path):
    model = find_model(f"hf:{janus_folder}", device="cpu")
    assert isinstance(model, UnifiedModel)
    with torch.no_grad():
        model.network.model.generation_head.vision_head.bias[3] = torch.nan
    (output,) = model.draw(PROMPTS[:1], sampling=model.sampling, seeds=[0])
    assert (output.image, output.outcome) == (None, "malformed")
    assert output.detail == "the logits are not finite (float32)"


def test_settings_behind_the_folder_count_and_misspelt_ones_are_refused(janus_folder: Path):
    assert find_model(f"hf:{janus_folder}?cfg_scale=2", device="cpu").sampling == JanusSampling(cfg_scale=2.0)
    with pytest.raises(UnknownNameError, match="unknown setting of janus 'cfg'; known: .*cfg_scale"):
        find_model(f"hf:{janus_folder}?cfg=2", device="cpu")
    with pytest.raises(ValueError, match="cfg_scale is 0.5, expected at least 1"):
        find_model(f"hf:{janus_folder}?cfg_scale=0.5", device="cpu")


def test_a_folder_that_is_not_whole_is_refused_in_words(janus_folder: Path, tmp_path: Path):
    with pytest.raises(WeightsError, match="hf download ORG/NAME --local-dir FOLDER"):
        find_model("hf:org/name", device="cpu")
    broken = shutil.copytree(janus_folder, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights["model.generation_head.vision_head.bias"]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 weights are missing \(first: model.generation_head.vision_head.bias\)"):
        find_model(f"hf:{broken}", device="cpu")
    (broken / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="weights in other formats are not read"):
        find_model(f"hf:{broken}", device="cpu")
    tokens = json.loads((janus_folder / "tokenizer_config.json").read_text())
    (broken / "tokenizer_config.json").write_text(json.dumps(tokens | {"auto_map": {"AutoTokenizer": ["t.Own", None]}}))
    shutil.copy(janus_folder / "model.safetensors", broken)
    with pytest.raises(WeightsError, match="its tokenizer is code in the folder, which is not run"):
        find_model(f"hf:{broken}", device="cpu")
    (broken / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(WeightsError, match="no model of type 'bert' that reads pictures"):
        find_model(f"hf:{broken}", device="cpu")


# ---- the canary ------------------------------------------------------------------------------------------------------


def test_canary_what_is_drawn_has_not_changed_with_the_library(model: UnifiedModel):
    """Weights are numbers from a formula, so codes and pixels are the same with every release that draws as 5.23 did.

    Image output of both models has broken in releases before: an error here, or another picture, is such a release.
    """
    settings = replace(model.sampling, image_temperature=0.0)
    codes_NT, log_p_NT = model.write(model.contexts(PROMPTS[:1], settings), settings, seeds=[0])
    pixels = np.asarray(model.decode(codes_NT, settings)[0]).astype(int)
    assert codes_NT[0].tolist() == CANARY_CODES
    assert log_p_NT[0].sum() == pytest.approx(CANARY_LOG_P, abs=1e-2)
    assert np.abs(pixels[::4, ::4].flatten() - CANARY_PIXELS).max() <= 1


CANARY_CODES = [10, 15, 3, 13, 23, 14, 4, 23, 23, 23, 14, 15, 17, 4, 23, 23]
CANARY_LOG_P = -11.202
CANARY_PIXELS = [148, 147, 149, 108, 255, 84, 174, 170, 128, 93, 253, 80]
"""Red, green, blue of every fourth row and column. Written down from transformers 5.23.0 and torch 2.13.0 on a CPU."""
