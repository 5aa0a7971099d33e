"""Checkpoint folders: every layout of the weights gives the same model, and what does not fit is listed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.train.small_bagel import picture, small_bagel, small_config, write_bagel

from unigap.errors import WeightsError
from unigap.models.bagel.config import BagelConfig, SpecialTokens, config_files, read_config
from unigap.models.bagel.load import TABLES, load_checkpoint, save_checkpoint
from unigap.models.bagel.model import BagelModel
from unigap.models.bagel.network import Bagel
from unigap.models.bagel.placement import dispatch, plan_devices, weight_bytes
from unigap.models.bagel.settings import BagelSampling
from unigap.models.bagel.tokenizer import BagelTokenizer
from unigap.models.protocol import Request

SAMPLING = BagelSampling(num_timesteps=3, height_px=16, width_px=16)
REQUESTS = [Request(content=("a cup",), purpose="draw"), Request(content=(picture("cup", 1), "more"), purpose="draw")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bagel(tmp_path_factory.mktemp("bagel"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def pixels(model: BagelModel) -> np.ndarray:
    drawn = model.draw(REQUESTS, sampling=SAMPLING, seeds=[1, 2])
    return np.stack([np.asarray(output.image).astype(int) for output in drawn])


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object], name: str = "model") -> None:
    tensors = load_file(folder / f"{name}.safetensors")
    change(tensors)
    save_file(tensors, folder / f"{name}.safetensors")


def test_what_is_saved_loads_back_as_the_same_model(folder: Path):
    before, after = small_bagel(), BagelModel.from_pretrained(folder)
    assert np.array_equal(pixels(before), pixels(after))
    assert before.log_likelihood(REQUESTS[:1], ["so"])[0] == pytest.approx(
        after.log_likelihood(REQUESTS[:1], ["so"])[0]
    )
    assert after.checkpoint.config == small_config()


def test_saving_gives_the_hash_that_loading_finds(tmp_path: Path):
    model = small_bagel()
    model.save_pretrained(tmp_path / "a", {"trained_on": {"plain": "never"}})
    loaded = BagelModel.from_pretrained(tmp_path / "a")
    assert loaded.sha256 == model.sha256 == loaded.card["sha256"]
    assert loaded.trained_on == {"plain": "never"}
    changed = {f"bagel.{name}": tensor + 0.01 for name, tensor in model.bagel.state_dict().items()}
    loaded.save_pretrained(tmp_path / "b", {}, weights=changed)
    assert BagelModel.from_pretrained(tmp_path / "b").sha256 not in ("", model.sha256)
    with pytest.raises(WeightsError, match=r"1 missing: llm2vae\.bias"):
        loaded.save_pretrained(
            tmp_path / "c", {}, weights={k: v for k, v in changed.items() if k != "bagel.llm2vae.bias"}
        )


@pytest.mark.parametrize("name", ["ema.safetensors", "model.safetensors"])
def test_nothing_is_saved_beside_weights_that_would_be_loaded_instead(copy: Path, name: str):
    if name != "model.safetensors":
        (copy / "model.safetensors").rename(copy / name)
    before = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
    with pytest.raises(WeightsError, match=rf"holds weights already \({name}\)"):
        small_bagel().save_pretrained(copy, {})
    assert {path.name: path.stat().st_mtime_ns for path in copy.iterdir()} == before


@pytest.mark.parametrize("index", [True, False])
def test_shards_with_an_index_and_without_one_are_the_same_model(copy: Path, folder: Path, index: bool):
    whole = load_checkpoint(folder)
    (copy / "model.safetensors").unlink()
    save_checkpoint(copy, whole, shard_bytes=40_000)
    assert len(list(copy.glob("model-*-of-*.safetensors"))) > 3
    if not index:
        (copy / "model.safetensors.index.json").unlink()
    sharded = load_checkpoint(copy)
    for name, tensor in whole.bagel.state_dict().items():
        assert torch.equal(tensor, sharded.bagel.state_dict()[name])
    next(copy.glob("model-00002-of-*.safetensors")).unlink()
    with pytest.raises(WeightsError, match="00002"):
        load_checkpoint(copy)


def test_the_average_is_taken_before_the_raw_weights_unless_a_file_is_named(copy: Path):
    (copy / "model.safetensors").rename(copy / "ema.safetensors")
    rewrite(copy, lambda tensors: tensors["llm2vae.bias"].fill_(1.0), "ema")
    shutil.copyfile(copy / "ema.safetensors", copy / "model.safetensors")
    rewrite(copy, lambda tensors: tensors["llm2vae.bias"].fill_(2.0))
    biases = [load_checkpoint(path).bagel.llm2vae.bias[0].item() for path in (copy, copy / "model.safetensors")]
    assert biases == [1.0, 2.0]


def test_tables_that_are_missing_or_of_another_size_are_computed(copy: Path, folder: Path):
    want = load_checkpoint(folder).bagel.state_dict()

    def cut(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[TABLES[0]]
        tensors[TABLES[1]] = torch.zeros(9, 32)

    rewrite(copy, cut)
    got = load_checkpoint(copy).bagel.state_dict()
    assert all(torch.equal(got[name], want[name]) for name in TABLES)
    assert want[TABLES[0]].abs().max() == 1.0


def test_what_is_missing_unexpected_or_of_another_shape_is_listed_with_numbers(copy: Path):
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("connector.")]:
            del tensors[name]
        tensors["lora_A"] = torch.zeros(1)
        tensors["vae2llm.weight"] = torch.zeros(2, 2)

    rewrite(copy, spoil)
    with pytest.raises(WeightsError) as error:
        load_checkpoint(copy)
    message = str(error.value)
    assert "4 missing: connector.fc1.bias, connector.fc1.weight, connector.fc2.bias, connector.fc2.weight" in message
    assert "1 unexpected: lora_A" in message
    assert "1 of another shape: vae2llm.weight (2, 2) instead of (32, 16)" in message


def test_another_autoencoder_and_a_missing_one_are_refused(copy: Path):
    rewrite(copy, lambda tensors: tensors.pop("decoder.mid.attn_1.q.weight"), "ae")
    with pytest.raises(WeightsError, match=r"1 missing: decoder\.mid\.attn_1\.q\.weight"):
        load_checkpoint(copy)
    (copy / "ae.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"has no ae\.safetensors"):
        load_checkpoint(copy)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_draws_nearly_the_same_pictures(folder: Path, dtype: torch.dtype):
    full, half = BagelModel.from_pretrained(folder), BagelModel.from_pretrained(folder, dtype=dtype)
    assert half.bagel.dtype == dtype
    assert {p.dtype for p in half.bagel.parameters()} == {dtype}
    assert {p.dtype for p in half.vae.parameters()} == {torch.float32}
    difference = np.abs(pixels(full) - pixels(half))
    assert 0 < difference.mean() < 4  # levels of 255


def test_the_older_pair_of_tokenizer_files_is_read_too(tmp_path: Path):
    vocabulary = {"a": 0, "b": 1, "c": 2, "\u0120": 3, "ab": 4, "\u0120c": 5}  # U+0120 stands for a space
    special = SpecialTokens()
    added = {
        str(6 + i): {"content": text, "special": True} | dict.fromkeys(("lstrip", "rstrip", "normalized"), False)
        for i, text in enumerate(vars(special).values())
    }
    config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n\u0120 c\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    pair = BagelTokenizer.from_folder(tmp_path, special)
    assert pair.segment("ab c") == [pair.bos, 4, 5, pair.eos]
    assert pair.decode([4, 5, pair.eos]) == "ab c<|im_end|>"
    pair.save(tmp_path)
    (tmp_path / "merges.txt").unlink()
    assert BagelTokenizer.from_folder(tmp_path, special).segment("ab c") == pair.segment("ab c")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"tokenizer\.json cannot be read"):
        BagelTokenizer.from_folder(tmp_path, special)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "merges.txt").write_text("a b\n")
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(WeightsError, match=r"vocab\.json and merges\.txt cannot be read"):
        BagelTokenizer.from_folder(tmp_path, special)


def test_the_configuration_survives_its_files_and_an_odd_one_is_refused(tmp_path: Path):
    config = replace(small_config(), interpolate_pos=True, timestep_shift=2.0)
    for name, data in config_files(config).items():
        (tmp_path / name).write_text(json.dumps(data))
    assert read_config(tmp_path) == config
    # The file counts the layer that is never built.
    assert json.loads((tmp_path / "vit_config.json").read_text())["num_hidden_layers"] == 2
    (tmp_path / "config.json").unlink()  # what it leaves out is as in the released model
    assert read_config(tmp_path).max_latent_size == 64
    llm = config_files(config)["llm_config.json"]
    for change, why in (
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling is"),
        ({"num_key_value_heads": 3}, "key-value heads"),
    ):
        (tmp_path / "llm_config.json").write_text(json.dumps(llm | change))
        with pytest.raises(WeightsError, match=why):
            read_config(tmp_path)


def test_the_released_sizes_are_fourteen_billion_numbers_and_fit_one_gpu_of_40_gb():
    with torch.device("meta"):
        bagel = Bagel(BagelConfig())
    numbers = sum(p.numel() for p in bagel.parameters())
    assert numbers == pytest.approx(14.6e9, rel=0.02)
    assert weight_bytes(bagel, torch.bfloat16) == 2 * numbers
    placed = plan_devices(bagel, torch.device("cuda"), torch.bfloat16, free=[40 * 10**9])
    assert placed == {"": torch.device("cuda", 0)}


def test_layers_are_laid_over_gpus_in_order_and_in_proportion_to_their_room():
    with torch.device("meta"):
        bagel = Bagel(BagelConfig())
    each = weight_bytes(bagel.language_model.model.layers[0], torch.bfloat16)
    rest = weight_bytes(bagel, torch.bfloat16) - 28 * each
    # Room for 10.5 layers beside the rest, then for 21: 10 + 21 is more than 28, so 28 x 10/31 = 9.03 and the others.
    free = [int((rest + 10.5 * each) / 0.9), int(21.2 * each / 0.9)]
    placed = plan_devices(bagel, torch.device("cuda"), torch.bfloat16, free=free)
    where = [placed[f"language_model.model.layers.{i}"].index for i in range(28)]
    assert where == [0] * 9 + [1] * 19
    others = {device.index for name, device in placed.items() if ".layers." not in name}
    assert others == {0}
    # Every parameter has a place, and accelerate's own check agrees.
    from accelerate.utils import check_device_map

    check_device_map(bagel, {name: device for name, device in placed.items() if name})
    with pytest.raises(WeightsError, match=r"take 29\.\d GB as bfloat16; .* free on 2 GPUs are 9\.0 GB"):
        plan_devices(bagel, torch.device("cuda"), torch.bfloat16, free=[5 * 10**9] * 2)
    with pytest.raises(WeightsError, match="free on 1 GPU are 22"):  # a process of several has the one it names
        plan_devices(bagel, torch.device("cuda:1"), torch.bfloat16, free=[25 * 10**9] * 2)


def test_a_model_spread_by_accelerate_draws_and_writes_as_it_did(folder: Path):
    model = BagelModel.from_pretrained(folder)
    before, texts = pixels(model), model.answer(REQUESTS, sampling=SAMPLING, seeds=[1, 2])
    # One device is all there is here; the hooks that move activations run all the same.
    cpu = torch.device("cpu")
    names = ["language_model.model.embed_tokens", "language_model.model.norm", "language_model.model.norm_moe_gen"]
    names += ["language_model.lm_head", *(n for n, _ in model.bagel.named_children() if n != "language_model")]
    names += [f"language_model.model.layers.{i}" for i in range(2)]
    dispatch(model.bagel, dict.fromkeys(names, cpu), force_hooks=True)
    assert hasattr(model.bagel.language_model.model.layers[1], "_hf_hook")
    assert np.array_equal(pixels(model), before)
    assert model.answer(REQUESTS, sampling=SAMPLING, seeds=[1, 2]) == texts


def test_memory_is_stated_before_anything_is_loaded(folder: Path, capsys: pytest.CaptureFixture[str]):
    model = BagelModel.from_pretrained(folder)
    numbers = sum(p.numel() for p in model.bagel.parameters())
    said = capsys.readouterr().err
    assert str(folder) in said and f"{numbers / 1e9:.2f} billion numbers as float32" in said and "free on cpu" in said


PEAK = """
import resource, sys
from pathlib import Path
import torch
from unigap.models.bagel.load import load_checkpoint
load_checkpoint(Path(sys.argv[1]))  # libraries are in memory from here on
small = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
checkpoint = load_checkpoint(Path(sys.argv[2]), dtype=torch.bfloat16)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - small))
"""


@pytest.mark.slow
def test_loading_peaks_at_the_weights_and_not_at_twice_their_size(folder: Path, tmp_path: Path):
    config = small_config()
    large = replace(config, llm=replace(config.llm, hidden_size=512, intermediate_size=4096, num_hidden_layers=4))
    save_checkpoint(tmp_path, small_bagel(large).checkpoint)
    process = [sys.executable, "-c", PEAK, str(folder), str(tmp_path)]
    grown = int(subprocess.run(process, check=True, capture_output=True, text=True, timeout=300).stdout)
    stored = (tmp_path / "model.safetensors").stat().st_size
    assert stored > 200e6
    # float32 on disk, half of that as bfloat16 in memory; nothing but that, and 30 MB for what reading takes.
    assert grown < stored / 2 + 30e6
