"""Models with one direction, and pairs of them: what they can do is measured, what they cannot is said."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from tests.fakes import FakeModel, make_item
from tests.models.hf.small import NO_SYSTEM, write_llava
from transformers import AutoProcessor, LlavaForConditionalGeneration, Qwen2_5_VLForConditionalGeneration

from unigap.arms import Asker, Task
from unigap.cli import main
from unigap.errors import CannotAskError, UnknownNameError, WeightsError
from unigap.models import find_model
from unigap.models.hf.pipeline import PipelineModel, PipelineSampling
from unigap.models.hf.reader import Reader
from unigap.models.pair import PairModel, PairSampling, split_pair
from unigap.models.protocol import Model, Request
from unigap.prompts import find_think_prompt
from unigap.records import Key, RunFolder

GREEN = Image.new("RGB", (20, 16), (20, 200, 40))
QUESTIONS = [Request(content=(GREEN, "how many?")), Request(content=("1 and 1",)), Request(content=("a", GREEN, GREEN))]
PROMPTS = [Request(content=(text,), purpose="draw") for text in ("a cup", "two books", "a pen")]


@pytest.fixture(scope="module")
def reader(llava_folder: Path) -> Reader:
    found = find_model(f"hf:{llava_folder}", device="cpu")
    assert isinstance(found, Reader)
    return found


@pytest.fixture(scope="module")
def pipeline(pipeline_folder: Path) -> PipelineModel:
    found = find_model(f"hf:{pipeline_folder}?num_inference_steps=2", device="cpu")
    assert isinstance(found, PipelineModel)
    return found


# ---- reading alone ---------------------------------------------------------------------------------------------------


def test_greedy_text_is_that_of_the_library(reader: Reader, llava_folder: Path):
    network = LlavaForConditionalGeneration.from_pretrained(llava_folder).eval()
    processor = AutoProcessor.from_pretrained(llava_folder, backend="pil")
    content = [{"type": "image", "image": GREEN}, {"type": "text", "text": "how many?"}]
    inputs = processor.apply_chat_template(
        [[{"role": "user", "content": content}]],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = network.generate(**inputs, do_sample=False, max_new_tokens=8)[0, inputs["input_ids"].shape[1] :]
    (answer,) = reader.answer(QUESTIONS[:1], sampling=replace(reader.sampling, max_answer_tokens=8), seeds=[0])
    assert answer.text == processor.tokenizer.decode(ids, skip_special_tokens=True).strip() and answer.text
    labels = [*processor.tokenizer.encode(" 2"), 2]
    whole = torch.cat([inputs["input_ids"], torch.tensor([labels])], dim=1)
    with torch.no_grad():
        logits = network(**{**inputs, "input_ids": whole, "attention_mask": torch.ones_like(whole)}).logits
    log_p = logits[0, -len(labels) - 1 : -1].log_softmax(dim=-1)
    expected = [log_p[i, label].item() for i, label in enumerate(labels)]
    assert reader.log_likelihood(QUESTIONS, ["2", "3 cups", "a"])[0] == pytest.approx(expected, abs=1e-4)


def test_answers_depend_on_the_seed_and_not_on_the_batch(reader: Reader):
    sampling = replace(reader.sampling, text_temperature=1.0)
    together = reader.answer(QUESTIONS, sampling=sampling, seeds=[1, 2, 3])
    alone = [reader.answer([q], sampling=sampling, seeds=[s])[0] for q, s in zip(QUESTIONS, (1, 2, 3), strict=True)]
    assert together == alone and len({answer.text for answer in together}) == 3
    assert reader.answer(QUESTIONS[:1], sampling=sampling, seeds=[9])[0].text != together[0].text


def test_a_model_whose_processor_wants_videos_is_read_without_torchvision(qwen_folder: Path):
    model = find_model(f"hf:{qwen_folder}", device="cpu")
    assert isinstance(model, Reader)
    wide = Request(content=(GREEN.resize((40, 16)), "how many?"))
    some = [*QUESTIONS, wide]  # pictures of two sizes in one batch
    answers = model.answer(some, sampling=replace(model.sampling, max_answer_tokens=8), seeds=[0] * 4)
    found = model.log_likelihood(some, ["2", "3 cups", "a", "2"])
    network = Qwen2_5_VLForConditionalGeneration.from_pretrained(qwen_folder).eval()
    for request, answer, log_p_T, text in zip(some, answers, found, ("2", "3 cups", "a", "2"), strict=True):
        inputs = model.encode([request])
        ids = network.generate(**inputs, do_sample=False, max_new_tokens=8)[0, inputs["input_ids"].shape[1] :]
        assert answer.text == model.tokenizer.decode(ids, skip_special_tokens=True).strip()
        for index, log_p in zip([*model.tokenizer.encode(" " + text), 2], log_p_T, strict=True):
            with torch.no_grad():
                logits = network(**inputs).logits[0, -1]
            assert logits.log_softmax(dim=-1)[index].item() == pytest.approx(log_p, abs=1e-4)
            for name, more in (("input_ids", index), ("attention_mask", 1), ("mm_token_type_ids", 0)):
                inputs[name] = torch.cat([inputs[name], torch.tensor([[more]])], dim=1)


def test_a_template_without_a_system_message_gets_the_think_prompt_in_the_turn(tmp_path: Path):
    model = find_model(f"hf:{write_llava(tmp_path / 'plain', NO_SYSTEM)}", device="cpu")
    assert isinstance(model, Reader)
    ids = model.encode([Request(content=("1 and 1",), think_prompt="Think.")])["input_ids"][0]
    assert model.tokenizer.decode(ids) == "USER: Think. 1 and 1 ASSISTANT:"


def test_what_only_reads_does_not_draw_and_says_so(reader: Reader, llava_folder: Path, tmp_path: Path):
    assert isinstance(reader, Model) and reader.abilities == {"answer", "think", "log_likelihood"}
    with pytest.raises(CannotAskError, match="hf:llava does not draw"):
        reader.draw(PROMPTS[:1], sampling=reader.sampling, seeds=[0])
    bare = shutil.copytree(llava_folder, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(WeightsError, match="has no chat template"):
        find_model(f"hf:{bare}", device="cpu")


# ---- drawing alone ---------------------------------------------------------------------------------------------------


def test_a_drawing_is_the_pipelines_own_with_the_requests_seed(pipeline: PipelineModel, pipeline_folder: Path):
    own = StableDiffusionPipeline.from_pretrained(pipeline_folder)
    own.set_progress_bar_config(disable=True)
    expected = own("two books", num_inference_steps=2, generator=torch.Generator().manual_seed(7)).images[0]
    found = [output.image for output in pipeline.draw(PROMPTS, sampling=pipeline.sampling, seeds=[5, 7, 5])]
    assert found[1] is not None and found[1].size == (16, 16)
    difference = np.asarray(found[1]).astype(int) - np.asarray(expected).astype(int)
    assert np.abs(difference).max() <= 1
    assert found[0] != found[2]  # one seed, two prompts


def test_settings_of_a_pipeline_are_its_own_defaults_and_those_asked_for(
    pipeline: PipelineModel, pipeline_folder: Path
):
    assert pipeline.sampling == PipelineSampling(num_inference_steps=2, guidance_scale=7.5)
    wide = replace(pipeline.sampling, width_px=32, height_px=16)
    (output,) = pipeline.draw(PROMPTS[:1], sampling=wide, seeds=[0])
    assert output.image is not None and output.image.size == (32, 16)
    with pytest.raises(UnknownNameError, match="unknown setting of hf 'steps'"):
        find_model(f"hf:{pipeline_folder}?steps=2", device="cpu")


def test_a_prompt_longer_than_the_encoder_reads_is_noted(pipeline: PipelineModel):
    long = Request(content=("a cup and a book and a pen and a box",), purpose="draw")
    short, cut = pipeline.draw([PROMPTS[0], long], sampling=pipeline.sampling, seeds=[0, 0])
    assert (short.detail, cut.detail) == ("", "the prompt has 36 tokens, of which 24 were read")  # one a byte


def test_what_a_safety_checker_takes_away_is_refused(pipeline: PipelineModel, monkeypatch: pytest.MonkeyPatch):
    class Made:
        images, nsfw_content_detected = np.zeros((2, 16, 16, 3)), [False, True]

    monkeypatch.setattr(type(pipeline.pipeline), "__call__", lambda self, **_: Made())
    outputs = pipeline.draw(PROMPTS[:2], sampling=pipeline.sampling, seeds=[0, 1])
    assert [output.outcome for output in outputs] == ["ok", "refused"]


def test_a_pipeline_that_brings_code_or_needs_a_picture_is_refused(pipeline_folder: Path, tmp_path: Path):
    folder = shutil.copytree(pipeline_folder, tmp_path / "changed")
    index = json.loads((folder / "model_index.json").read_text())
    for change, said in (
        ({"_class_name": ["my_pipeline", "Mine"]}, "code is not run"),
        ({"unet": ["my_unet", "Unet"]}, "its unet is from 'my_unet'; code in a folder is not run"),
        ({"_class_name": "StableVideoDiffusionPipeline"}, "does not draw from text alone"),
    ):
        (folder / "model_index.json").write_text(json.dumps(index | change))
        with pytest.raises(WeightsError, match=said):
            find_model(f"hf:{folder}", device="cpu")


def test_a_setting_that_a_pipeline_does_not_take_is_refused_before_it_is_loaded(tmp_path: Path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "UnCLIPPipeline"}))
    with pytest.raises(ValueError, match="UnCLIPPipeline takes no guidance_scale, height; leave that setting out"):
        find_model(f"hf:{tmp_path}?guidance_scale=3&height_px=64", device="cpu")


# ---- pairs -----------------------------------------------------------------------------------------------------------


def test_a_pair_answers_as_its_first_and_draws_as_its_second(
    reader: Reader, pipeline: PipelineModel, llava_folder: Path, pipeline_folder: Path
):
    name = f"pair:hf:{llava_folder}+hf:{pipeline_folder}?num_inference_steps=2"
    pair = find_model(name, device="cpu")
    assert isinstance(pair, PairModel) and isinstance(pair, Model)
    assert pair.name == "pair:hf:llava+hf:pipeline"
    assert pair.abilities == {"answer", "think", "log_likelihood", "draw"}
    assert isinstance(pair.sampling, PairSampling) and pair.sampling.generator == pipeline.sampling
    longer = replace(pair.sampling, max_answer_tokens=3)
    expected = reader.answer(QUESTIONS[:1], sampling=replace(reader.sampling, max_answer_tokens=3), seeds=[1])
    assert pair.answer(QUESTIONS[:1], sampling=longer, seeds=[1]) == expected
    one, other = (m.draw(PROMPTS[:1], sampling=m.sampling, seeds=[1])[0].image for m in (pair, pipeline))
    assert one == other
    with pytest.raises(CannotAskError, match="hf:pipeline does not answer"):
        PairModel(pipeline, reader)


def test_before_a_drawing_the_first_of_a_pair_thinks_though_the_second_could():
    thinker, painter = FakeModel(), FakeModel()
    painter.abilities = frozenset({"answer", "draw", "think", "draw_with_own_thought"})
    pair = PairModel(thinker, painter)
    item = make_item(0)
    task = Task(item, Key(item.id, "generation", "think", 0), 7, None)
    (reply,) = Asker(pair, pair.sampling, find_think_prompt("plan")).ask(("generation", "think"), [task])
    assert [verb for verb, _ in thinker.calls] == ["answer"] and [verb for verb, _ in painter.calls] == ["draw"]
    assert reply.thought and painter.calls[0][1].thought == reply.thought


def test_the_two_names_of_a_pair_are_found_whatever_stands_in_them():
    def is_model(text: str) -> bool:
        return text.partition(":")[0] in ("tiny", "hf", "openai")

    assert split_pair("tiny+hf:a+b", is_model) == ("tiny", "hf:a+b")
    assert split_pair("openai:m@http://h/v1?x=1+2+tiny", is_model) == ("openai:m@http://h/v1?x=1+2", "tiny")
    with pytest.raises(ValueError, match="no two models"):
        split_pair("tiny", is_model)
    with pytest.raises(ValueError, match="2 ways to read it"):
        split_pair("hf:a+hf:b+tiny", is_model)


def test_a_pair_is_evaluated_by_the_command(llava_folder: Path, tmp_path: Path):
    out = tmp_path / "run"
    command = ["eval", "--model", f"pair:hf:{llava_folder}+tiny", "--families", "plain", "--arms", "normal", "think"]
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--num-units", "1", "--seed", "3", "--device", "cpu", "--out", str(out)])
    records = RunFolder.open(out).records()
    asked = {(record.direction, record.arm) for record in records}
    assert asked == {(d, a) for d in ("understanding", "generation") for a in ("normal", "think")}
    assert {record.model.name for record in records} == {"pair:hf:llava+tiny"}
