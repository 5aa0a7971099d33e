"""A small random Emu3, loaded as a user would: what it answers and draws is what transformers' own `generate` does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.models.hf.small import write_emu3
from transformers import AutoProcessor, Emu3ForConditionalGeneration

from unigap.models import find_model
from unigap.models.hf.unified import Emu3Sampling, UnifiedModel
from unigap.models.protocol import Request

HEIGHT, WIDTH = 3, 4
"""Of drawings, in codes."""
PROMPTS = [Request(content=(text,), purpose="draw") for text in ("a cup", "two red books and a pen")]
BLUE = Image.new("RGB", (24, 16), (20, 30, 200))


@pytest.fixture(scope="module")
def model(emu3_folder: Path) -> UnifiedModel:
    found = find_model(f"hf:{emu3_folder}?height_px=24&width_px=32", device="cpu")
    assert isinstance(found, UnifiedModel)
    return found


@pytest.fixture(scope="module")
def library(emu3_folder: Path):
    """transformers alone."""
    processor = AutoProcessor.from_pretrained(emu3_folder)
    return Emu3ForConditionalGeneration.from_pretrained(emu3_folder).eval(), processor


def test_its_settings_are_the_folders_and_those_behind_it(model: UnifiedModel):
    assert model.sampling == Emu3Sampling(height_px=24, width_px=32)
    with pytest.raises(ValueError, match="a drawing of 24 x 30 px: sides are multiples of 8"):
        replace(model.sampling, width_px=30)


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
@pytest.mark.parametrize("prompt", PROMPTS, ids=("short", "long"))
def test_greedy_image_tokens_and_pixels_are_those_of_the_library(
    model: UnifiedModel, library, prompt: Request, cfg_scale: float
):
    network, processor = library
    # Alone: the library's mask for padded rows of the context without the prompt is the caller's business.
    size = {"ratio": f"{WIDTH}:{HEIGHT}", "image_area": HEIGHT * WIDTH * 64}
    how = {"return_for_image_generation": True, "return_tensors": "pt", **size}
    inputs, blank = (processor(text=[text], **how) for text in (prompt.content[0], "bad picture"))
    assert inputs.pop("image_sizes") == [[HEIGHT, WIDTH]]
    prompt_length = inputs["input_ids"].shape[1]
    visual = network.vocabulary_mapping.image_tokens
    names = ("<|extra_200|>", "<|extra_201|>", "<eoi>", "</s>")
    row_end, *ends = (processor.tokenizer.convert_tokens_to_ids(name) for name in names)

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        at = len(ids) - prompt_length
        if at >= HEIGHT * (WIDTH + 1):
            return [ends[at - HEIGHT * (WIDTH + 1)]]
        return [row_end] if at % (WIDTH + 1) == WIDTH else visual

    guidance = {"negative_prompt_ids": blank["input_ids"], "negative_prompt_attention_mask": blank["attention_mask"]}
    found = network.generate(
        **inputs,
        **(guidance if cfg_scale > 1 else {}),
        guidance_scale=cfg_scale,
        prefix_allowed_tokens_fn=allowed,
        max_new_tokens=HEIGHT * (WIDTH + 1) + 3,
        do_sample=False,
    )[:, prompt_length:]
    expected = network.vocabulary_mapping.convert_bpe2img(found[:, :-3].view(1, HEIGHT, WIDTH + 1)).flatten()
    settings = replace(model.sampling, cfg_scale=cfg_scale, image_temperature=0.0, negative_prompt="bad picture")
    codes_NT, _ = model.write(model.contexts(PROMPTS, settings), settings, seeds=[0, 0])
    assert codes_NT[PROMPTS.index(prompt)].tolist() == expected.tolist()
    decoded = network.decode_image_tokens(image_tokens=found, height=HEIGHT, width=WIDTH).numpy()[0]
    pixels = ((decoded.clip(-1, 1) + 1) * 127.5).astype(int).transpose(1, 2, 0)
    picture = np.asarray(model.decode(codes_NT, settings)[PROMPTS.index(prompt)])
    assert picture.shape == (24, 32, 3) and np.abs(picture - pixels).max() <= 1


def test_greedy_text_about_a_picture_is_that_of_the_library(model: UnifiedModel, library):
    network, processor = library
    content = [{"type": "image", "image": BLUE}, {"type": "text", "text": "how many?"}]
    inputs = processor.apply_chat_template(
        [[{"role": "user", "content": content}]],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = network.generate(**inputs, do_sample=False, max_new_tokens=8)[0, inputs["input_ids"].shape[1] :]
    expected = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
    settings = replace(model.sampling, max_answer_tokens=8)
    (answer,) = model.answer([Request(content=(BLUE, "how many?"))], sampling=settings, seeds=[0])
    assert answer.text == expected and answer.text


def test_drawings_depend_on_the_seed_and_not_on_the_batch(model: UnifiedModel):
    both = model.draw(PROMPTS, sampling=model.sampling, seeds=[4, 5])
    alone = [model.draw([p], sampling=model.sampling, seeds=[s])[0] for p, s in zip(PROMPTS, (4, 5), strict=True)]
    assert [output.image for output in both] == [output.image for output in alone]
    assert both[0].image is not None and both[0].image.size == (32, 24)
    assert model.draw(PROMPTS[:1], sampling=model.sampling, seeds=[6])[0].image != both[0].image


def test_a_checkpoint_without_a_chat_template_draws_alone(tmp_path: Path):
    model = find_model(f"hf:{write_emu3(tmp_path / 'gen', template=None)}?height_px=8&width_px=8", device="cpu")
    assert model.abilities == {"draw"}
    (output,) = model.draw(PROMPTS[:1], sampling=model.sampling, seeds=[0])
    assert output.image is not None and output.image.size == (8, 8)


# ---- the canary ------------------------------------------------------------------------------------------------------


def test_canary_what_is_drawn_has_not_changed_with_the_library(model: UnifiedModel):
    """See the canary in test_janus.py."""
    settings = replace(model.sampling, image_temperature=0.0)
    codes_NT, log_p_NT = model.write(model.contexts(PROMPTS[1:], settings), settings, seeds=[0])
    pixels = np.asarray(model.decode(codes_NT, settings)[0]).astype(int)
    assert codes_NT[0].tolist() == CANARY_CODES
    assert log_p_NT[0].sum() == pytest.approx(CANARY_LOG_P, abs=1e-2)
    assert np.abs(pixels[::12, ::16].flatten() - CANARY_PIXELS).max() <= 1


CANARY_CODES = [11, 7, 8, 4, 11, 6, 11, 4, 1, 9, 4, 1]
CANARY_LOG_P = -6.298
CANARY_PIXELS = [135, 141, 136, 129, 154, 140, 137, 147, 133, 129, 145, 127]
"""Red, green, blue of rows 0 and 12, columns 0 and 16. Written down from transformers 5.23.0 and torch 2.13.0."""
