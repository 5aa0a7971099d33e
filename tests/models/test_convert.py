"""Checkpoint folders made from others: what is taken from where, what is refused, and what a kill leaves behind."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.train.small import examples, small_model

from unigap.cli import main
from unigap.errors import RunFolderError, UnknownNameError, WeightsError
from unigap.models.convert import convert
from unigap.models.shards import DTYPES, Planned, find_weights, read_header, write_weights
from unigap.models.tiny.model import TinyModel
from unigap.train.data import Examples, Part
from unigap.train.loop import TrainConfig, train


def write(folder: Path, tensors: dict[str, torch.Tensor], name: str = "model.safetensors", **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name)
    for stem, text in files.items():
        (folder / f"{stem}.json").write_text(text, encoding="utf-8")
    return folder


def tensors(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"llm.q.weight": (6, 4), "llm.k.weight": (2, 4), "llm.norm": (4,), "vit.q.weight": (3, 3), "scale": ()}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def load(folder: Path) -> dict[str, torch.Tensor]:
    return {name: stored.load() for name, stored in find_weights(folder).items()}


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name]) for name in expected
    )


# ---- files -----------------------------------------------------------------------------------------------------------

shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.tuples(st.sampled_from([*DTYPES.values()]), shapes), min_size=1, max_size=6),
    max_bytes=st.integers(1, 400),
)
def test_what_is_written_in_pieces_is_what_the_format_s_own_reader_reads(tmp_path_factory, kinds, max_bytes):
    folder = tmp_path_factory.mktemp("pieces")
    expected = {f"t{n}": (torch.rand(shape) * 100).to(dtype) for n, (dtype, shape) in enumerate(kinds)}
    planned = [Planned(name, t.dtype, tuple(t.shape), lambda t=t: iter([t])) for name, t in expected.items()]
    files = write_weights(folder, planned, max_bytes=max_bytes)
    read: dict[str, torch.Tensor] = {}
    for name, sha256 in files.items():
        shard = load_file(folder / name)
        # A shard holds several tensors only if they fit the limit together.
        assert len(shard) == 1 or sum(t.nbytes for t in shard.values()) <= max_bytes
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
        read |= shard
    assert same(read, expected)
    again = {name: b"".join(bytes(p.reshape(-1).view(torch.uint8).numpy()) for p in stored.pieces())
             for name, stored in find_weights(folder).items()}  # fmt: skip
    assert again == {name: bytes(t.reshape(-1).view(torch.uint8).numpy()) for name, t in expected.items()}


def test_a_tensor_is_read_in_pieces_of_whole_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("unigap.models.shards.PIECE_BYTES", 40)  # a row of 4 float32 takes 16: two rows a piece
    write(tmp_path, {"w": torch.arange(20.0).reshape(5, 4)})
    pieces = list(read_header(tmp_path / "model.safetensors")["w"].pieces())
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    assert torch.equal(torch.cat(pieces), torch.arange(20.0).reshape(5, 4))


def test_weights_are_found_under_either_name_and_in_shards(tmp_path):
    write(tmp_path / "ema", {"a": torch.zeros(1)}, "ema.safetensors")
    write(tmp_path / "both", {"a": torch.zeros(1)}, "ema.safetensors")
    write(tmp_path / "both", {"a": torch.ones(1)}, "model.safetensors")
    assert set(find_weights(tmp_path / "ema")) == {"a"}
    assert find_weights(tmp_path / "both", "model")["a"].load().item() == 1
    with pytest.raises(ValueError, match="holds ema and model weights; say which"):
        find_weights(tmp_path / "both")
    with pytest.raises(WeightsError, match="has no weights called 'model'.*it has ema"):
        find_weights(tmp_path / "ema", "model")


def test_shards_are_found_without_their_index_and_all_of_them_must_be_there(tmp_path):
    for number in range(1, 4):
        write(tmp_path, {f"t{number}": torch.tensor(number)}, f"model-{number:05d}-of-00003.safetensors")
    assert {name: stored.load().item() for name, stored in find_weights(tmp_path).items()} == {
        "t1": 1,
        "t2": 2,
        "t3": 3,
    }
    write(tmp_path, {"t1": torch.zeros(1)}, "model-00003-of-00003.safetensors")
    with pytest.raises(WeightsError, match="t1 is in model-00001-of-00003.safetensors as well"):
        find_weights(tmp_path)
    (tmp_path / "model-00001-of-00003.safetensors").unlink()
    with pytest.raises(WeightsError, match="lacks 1 of 3 shards, first: model-00001-of-00003.safetensors"):
        find_weights(tmp_path)
    write(tmp_path, {"t": torch.zeros(1)})
    with pytest.raises(WeightsError, match="remove what is not meant"):
        find_weights(tmp_path)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"a": "../secret.safetensors"}}, "shards lie beside their index"),
        ({"weight_map": {"a": "gone.safetensors"}}, "lacks 1 of 1 shards, first: gone.safetensors"),
        ({"weight_map": {"b": "one.safetensors"}}, "says that a is in None, and one.safetensors has it"),
        ({"weight_map": {"a": "one.safetensors", "c": "one.safetensors"}}, "1 tensors that no shard has, first: c"),
        ({"weights": {}}, "is not an index of shards"),
        ([], "is not an index of shards"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(tmp_path, index, said):
    write(tmp_path / "x", {"a": torch.zeros(1)}, "one.safetensors")
    write(tmp_path, {"a": torch.zeros(1)}, "secret.safetensors")
    (tmp_path / "x" / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(WeightsError, match=said):
        find_weights(tmp_path / "x")


def test_a_truncated_file_is_refused(tmp_path):
    path = write(tmp_path, tensors()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        find_weights(tmp_path)


# ---- completing ------------------------------------------------------------------------------------------------------


def test_what_a_fine_tuned_checkpoint_lacks_comes_from_its_base(tmp_path):
    old, new = tensors(0), tensors(1)
    base = write(tmp_path / "base", old, "ema.safetensors", config='{"of": "base"}', tokenizer="{}")
    (base / "ae.safetensors").write_bytes(b"the autoencoder's bytes are copied")
    tuned = write(tmp_path / "tuned", {name: new[name] for name in ("llm.q.weight", "scale")}, config='{"of": "tuned"}')
    (tuned / "optimizer.00000-of-00008.pt").write_bytes(b"not read")
    before = fingerprint(base), fingerprint(tuned)
    done = convert(tuned, tmp_path / "out", base=base)
    assert same(load(tmp_path / "out"), old | {name: new[name] for name in ("llm.q.weight", "scale")})
    assert (done.from_source, done.from_base, done.merged) == (2, 3, 0)
    assert done.copied == {"config.json": "source", "tokenizer.json": "base", "ae.safetensors": "base"}
    assert done.left_out == ("optimizer.00000-of-00008.pt",)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"of": "tuned"}
    assert (tmp_path / "out" / "ae.safetensors").read_bytes() == (base / "ae.safetensors").read_bytes()
    assert (fingerprint(base), fingerprint(tuned)) == before
    assert {path.name for path in tmp_path.iterdir()} == {"base", "tuned", "out"}


def test_which_weights_are_taken_where_a_folder_has_both(tmp_path):
    base = write(tmp_path / "base", tensors(0), "ema.safetensors")
    tuned = write(tmp_path / "tuned", tensors(1), "ema.safetensors")
    write(tuned, {"scale": torch.tensor(5.0)}, "model.safetensors")
    with pytest.raises(ValueError, match="holds ema and model weights; say which"):
        convert(tuned, tmp_path / "out", base=base)
    done = convert(tuned, tmp_path / "out", base=base, weights="model")
    assert same(load(tmp_path / "out"), tensors(0) | {"scale": torch.tensor(5.0)})
    assert done.left_out == ("ema.safetensors",)
    convert(base, tmp_path / "again", base=tuned, weights="ema")
    assert same(load(tmp_path / "again"), tensors(0))


def test_other_shapes_than_the_base_s_are_refused_and_listed(tmp_path):
    base = write(tmp_path / "base", tensors())
    tuned = write(tmp_path / "tuned", tensors() | {"llm.norm": torch.zeros(5), "llm.k.weight": torch.zeros(4, 2)})
    with pytest.raises(WeightsError, match=r"2 tensors of other shapes.*llm.k.weight: \[4, 2\], in the base \[2, 4\]"):
        convert(tuned, tmp_path / "out", base=base)
    assert not list(tmp_path.glob("out*"))


def test_tensors_that_the_base_does_not_know_are_refused(tmp_path):
    base = write(tmp_path / "base", tensors())
    tuned = write(tmp_path / "tuned", tensors() | {"mystery": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"1 tensors that the base .* does not know \(mystery\)"):
        convert(tuned, tmp_path / "out", base=base)


# ---- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_floating_point_tensors_take_the_precision_asked_for_and_others_keep_theirs(tmp_path, stored, name):
    counts = torch.tensor([1, 2, 3])
    source = write(tmp_path / "in", tensors(0, stored) | {"counts": counts})
    done = convert(source, tmp_path / "out", dtype=name)
    expected = {key: t.to(getattr(torch, name)) for key, t in tensors(0, stored).items()} | {"counts": counts}
    assert same(load(tmp_path / "out"), expected)
    assert done.dtypes == {name: 5, "int64": 1}


def test_auto_leaves_every_tensor_its_own_precision_and_resharding_changes_nothing(tmp_path):
    mixed = tensors(0) | {"half": torch.rand(7).half(), "bf": torch.rand(3, 3).bfloat16()}
    source = write(tmp_path / "in", mixed)
    done = convert(source, tmp_path / "out", max_shard_gb=1e-7)  # 100 bytes
    assert len(done.files) > 1 and (tmp_path / "out" / "model.safetensors.index.json").is_file()
    assert same(load(tmp_path / "out"), mixed)
    convert(tmp_path / "out", tmp_path / "back")
    assert same(load_file(tmp_path / "back" / "model.safetensors"), mixed)


def test_a_value_beyond_float16_is_refused_and_what_is_infinite_already_is_not(tmp_path):
    convert(write(tmp_path / "inf", {"w": torch.tensor([1.0, -torch.inf])}), tmp_path / "fine", dtype="float16")
    source = write(tmp_path / "in", {"w": torch.tensor([1.0, -70000.0])})
    with pytest.raises(WeightsError, match=r"w holds 7e\+04, beyond the largest float16"):
        convert(source, tmp_path / "out", dtype="float16")
    assert not list(tmp_path.glob("out*"))


# ---- adapters --------------------------------------------------------------------------------------------------------


def write_adapter(folder: Path, parts: dict[str, torch.Tensor], **config: Any) -> Path:
    folder.mkdir()
    save_file(parts, folder / "adapter_model.safetensors")
    text = json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 3, "bias": "none"} | config)
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    return folder


def low_rank(module: str, A: list[list[float]], B: list[list[float]]) -> dict[str, torch.Tensor]:
    prefix = f"base_model.model.{module}"
    return {f"{prefix}.lora_A.weight": torch.tensor(A), f"{prefix}.lora_B.weight": torch.tensor(B)}


@pytest.mark.parametrize("piece_bytes", [8, 1 << 20])
def test_an_adapter_s_product_is_added_times_alpha_over_rank(tmp_path, monkeypatch, piece_bytes):
    monkeypatch.setattr("unigap.models.shards.PIECE_BYTES", piece_bytes)
    source = write(tmp_path / "in", {"q.weight": torch.zeros(3, 2).bfloat16(), "k.weight": torch.ones(3, 2)})
    adapter = write_adapter(tmp_path / "adapter", low_rank("wrapped.q", [[1.0, 2.0]], [[1.0], [0.0], [-1.0]]))
    done = convert(source, tmp_path / "out", adapter=adapter)
    # alpha / r = 3; B A = [[1, 2], [0, 0], [-1, -2]]
    expected = torch.tensor([[3.0, 6.0], [0.0, 0.0], [-3.0, -6.0]]).bfloat16()
    assert same(load(tmp_path / "out"), {"q.weight": expected, "k.weight": torch.ones(3, 2)})
    assert done.merged == 1


@pytest.mark.parametrize(
    ("parts", "config", "said"),
    [
        (low_rank("z", [[1.0, 2.0]], [[1.0]]), {}, "adapts 1 layers, none of them of the source"),
        (low_rank("q", [[1.0, 2.0]], [[1.0]]) | low_rank("z", [[1.0]], [[1.0]]), {}, "1 matrices .* lacks: .*z.weight"),
        (low_rank("q", [[1.0, 2.0]], [[1.0], [1.0]]), {}, r"\[2, 1\] x \[1, 2\]; q.weight has shape \[3, 2\]"),
        (low_rank("q", [[1.0, 2.0]], [[1.0]] * 3), {"r": 2}, "has rank 1, its configuration says 2"),
        (low_rank("q", [[1.0, 2.0]], [[1.0]] * 3), {"use_dora": True}, "uses use_dora, which is not merged here"),
        (low_rank("q", [[1.0, 2.0]], [[1.0]] * 3), {"init_lora_weights": "pissa_niter_16"}, "weights 'pissa_niter_16'"),
        (low_rank("q", [[1.0, 2.0]], [[1.0]] * 3), {"alora_invocation_tokens": [5]}, "uses alora_invocation_tokens"),
        (low_rank("q", [[1.0, 2.0]], [[1.0]] * 3), {"peft_type": "IA3"}, "only plain LoRA"),
        (low_rank("q", [[1.0, 2.0]], [[1.0]] * 3), {"lora_alpha": None}, "not the configuration of a LoRA adapter"),
        ({"base_model.model.q.lora_A.weight": torch.zeros(1, 2)}, {}, "base_model.model.q lacks lora_B.weight"),
        (low_rank("q", [[1.0, 2.0]], [[1.0]] * 3) | {"base_model.model.q.bias": torch.zeros(3)}, {}, "lacks lora_A"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(tmp_path, parts, config, said):
    source = write(tmp_path / "in", {"q.weight": torch.zeros(3, 2)})
    with pytest.raises(WeightsError, match=said):
        convert(source, tmp_path / "out", adapter=write_adapter(tmp_path / "adapter", parts, **config))
    assert not list(tmp_path.glob("out*"))


def test_merging_the_trainer_s_adapter_gives_the_model_that_the_trainer_merged(tmp_path):
    small_model().save_pretrained(tmp_path / "base", {"trained_on": {"plain": "direct"}})
    model = TinyModel.from_pretrained(tmp_path / "base")
    parts = {"data": Part(Examples.of(model, examples(), seed=0), 1.0)}
    config = TrainConfig(
        steps=2, examples_per_step=4, trains=("attention",), lora_rank=2, lr=0.1, dtype="float32", warmup_share=0.0
    )
    merged = TinyModel.from_pretrained(train(model, parts, config, tmp_path / "run")).network.state_dict()
    done = convert(tmp_path / "base", tmp_path / "out", adapter=tmp_path / "run" / "model" / "adapter")
    found = TinyModel.from_pretrained(tmp_path / "out")  # which checks the card's hash
    assert done.merged == 4
    before = TinyModel.from_pretrained(tmp_path / "base").network.state_dict()
    assert any((merged[name] - before[name]).abs().max() > 0.01 for name in merged)
    for name, value in found.network.state_dict().items():
        # Both are rounded to float16: at most one step of it apart, 2^-10 of the value.
        torch.testing.assert_close(value, merged[name], rtol=2**-10, atol=1e-7)
    assert found.trained_on == {}  # an adapter does not say which drawings it has seen


def test_a_converted_model_folder_loads_back_with_its_card(tmp_path):
    small_model().save_pretrained(tmp_path / "in", {"trained_on": {"plain": "direct"}, "name": "small"})
    convert(tmp_path / "in", tmp_path / "out", dtype="float32")
    model, again = (TinyModel.from_pretrained(tmp_path / name) for name in ("in", "out"))
    assert same(again.network.state_dict(), model.network.state_dict())
    assert again.card["name"] == "small" and again.trained_on == {"plain": "direct"}
    assert again.card["converted"]["dtypes"] == {"float32": len(model.network.state_dict()), "uint8": 1}
    again.save_pretrained(tmp_path / "saved", again.card)
    assert same(load(tmp_path / "saved"), load(tmp_path / "in"))


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_an_existing_folder_and_one_inside_what_is_read_are_refused(tmp_path):
    source = write(tmp_path / "in", tensors())
    (tmp_path / "there").mkdir()
    for out, said in ((tmp_path / "there", "exists"), (source, "exists"), (source / "out", "is inside")):
        with pytest.raises(ValueError, match=said):
            convert(source, out)
    with pytest.raises(UnknownNameError, match="unknown dtype 'fp8'"):
        convert(source, tmp_path / "out", dtype="fp8")  # type: ignore[arg-type]


def test_a_disk_without_room_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    class Usage:
        free = 10

    source = write(tmp_path / "in", tensors())
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    with pytest.raises(WeightsError, match="needs 0.0 GB, and .* nothing was written"):
        convert(source, tmp_path / "out")


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    source = write(tmp_path / "in", tensors())
    monkeypatch.setattr("unigap.models.shards.os.fsync", full)
    with pytest.raises(RunFolderError, match="No space left.*folders that were read are untouched"):
        convert(source, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


SLOW = """
import sys, time
from pathlib import Path
from unigap.models import shards
from unigap.models.convert import convert

pieces = shards.Stored.pieces
def slow(stored):
    for number, piece in enumerate(pieces(stored)):
        if stored.name == "t3":
            print("half way", flush=True)
            time.sleep(60)
        yield piece
shards.Stored.pieces = slow
convert(Path(sys.argv[1]), Path(sys.argv[2]), max_shard_gb=1e-6)
"""


def test_a_kill_half_way_leaves_no_folder_of_that_name_and_the_next_attempt_is_whole(tmp_path):
    expected = {f"t{n}": torch.full((10, 10), float(n)) for n in range(6)}  # 400 bytes each, two to a shard
    source = write(tmp_path / "in", expected, config="{}")
    child = subprocess.Popen([sys.executable, "-c", SLOW, source, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "half way\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait(timeout=30)
    child.stdout.close()
    assert not (tmp_path / "out").exists()
    with pytest.raises(WeightsError, match="lacks 1 of 3 shards"):  # nor is the leftover taken for one
        find_weights(tmp_path / "out.partial")
    convert(source, tmp_path / "out", max_shard_gb=1e-6)
    assert same(load(tmp_path / "out"), expected)
    assert not (tmp_path / "out.partial").exists()


def test_ctrl_c_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    source = write(tmp_path / "in", tensors())
    monkeypatch.setattr("unigap.models.convert._write_card", lambda *_, **__: interrupted())
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


MEASURE = """
import re, sys
from pathlib import Path
import torch
from unigap.models.convert import convert

def kb(what):  # not getrusage, in whose maximum the parent's memory counts
    return int(re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text()).group(1))

torch.set_num_threads(1)
before = kb("VmRSS")
convert(Path(sys.argv[1]), Path(sys.argv[2]), base=Path(sys.argv[3]), adapter=Path(sys.argv[4]), dtype="float32",
        max_shard_gb=0.3)
print((kb("VmHWM") - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_less_than_one_and_a_half_times_the_largest_shard(tmp_path):
    # Two shards of 134 MB, one of a single matrix; with an adapter, and doubled in precision on the way.
    big = torch.zeros(8192, 8192, dtype=torch.bfloat16)
    base = write(tmp_path / "base", {"big.weight": big, **{f"w{n}": big[:1024].clone() for n in range(8)}})
    source = write(tmp_path / "in", {"big.weight": big})
    parts = low_rank("big", [[1.0] * 8192], [[1.0]] * 8192)
    adapter = write_adapter(tmp_path / "adapter", parts)
    began = time.monotonic()
    said = subprocess.run(
        [sys.executable, "-c", MEASURE, source, tmp_path / "out", base, adapter],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    peak = int(said.splitlines()[-1])
    print(f"{peak / 1e6:.0f} MB above the imports, in {time.monotonic() - began:.1f} s")
    assert peak < 1.5 * big.nbytes
    assert peak < 0.5 * big.nbytes  # and in fact independent of the size of a tensor
    assert find_weights(tmp_path / "out")["big.weight"].dtype == torch.float32


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_came_from_where(tmp_path, capsys):
    base = write(tmp_path / "base", tensors(), config="{}")
    tuned = write(tmp_path / "tuned", {"scale": torch.tensor(2.0)})
    arguments = ["convert", str(tuned), "--out", str(tmp_path / "out"), "--base", str(base), "--dtype", "bfloat16"]
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert f"tensors: 1 from {tuned} (0 merged), 4 from the base" in said
    assert "written: 5 bfloat16;" in said and "copied from the base: config.json" in said
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "exists; name a folder that does not" in capsys.readouterr().err
