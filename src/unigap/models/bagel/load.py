"""Checkpoint folders: from files to modules, tensor by tensor, and back.

A folder is that of the released model (docs/bagel.md): three configuration files, a tokenizer, `ae.safetensors`, and
the network as `ema.safetensors` or `model.safetensors`, whole or in shards, with an index or without.
"""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from unigap.disk import sync_folder, write_files
from unigap.errors import WeightsError
from unigap.models.bagel.config import BagelConfig, config_files, read_config
from unigap.models.bagel.network import Bagel
from unigap.models.bagel.pictures import position_table
from unigap.models.bagel.placement import device_of, dispatch, plan_devices, say_memory
from unigap.models.bagel.tokenizer import BagelTokenizer
from unigap.models.bagel.vae import Vae, flux_names
from unigap.models.shards import (
    STEMS,
    Planned,
    Stored,
    find_weights,
    list_weights,
    read_header,
    sha256_of,
    write_weights,
)

VAE_FILE = "ae.safetensors"
TABLES = ("latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed")
"""Constant tables that a checkpoint may leave out, or hold for another size: they are computed."""
SHARD_BYTES = 5 * 10**9

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a folder holds, loaded."""

    config: BagelConfig
    bagel: Bagel
    vae: Vae
    tokenizer: BagelTokenizer
    sha256: str
    """Of all weights, the autoencoder's among them (`unigap.models.shards.sha256_of`)."""


def load_checkpoint(
    path: Path, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> Checkpoint:
    """Load a folder; every tensor is read, cast and placed in pieces, so that nothing is held twice.

    Args:
        path: The folder; of two sets of weights in it, "ema" is taken. Or one of its weight files, to choose.
        device: "cuda" without a number lays a network that one GPU cannot hold over all of them.
        dtype: Of the network. The autoencoder stays in float32: it is 84 million numbers.

    Raises:
        WeightsError: Something is missing, unexpected or damaged, or there is not enough memory.
        ValueError: Libraries of the extra "hf" are missing.
    """
    if absent := [name for name in ("accelerate", "diffusers", "transformers") if find_spec(name) is None]:
        raise ValueError(f'BAGEL needs {", ".join(absent)}, of the extra "hf": pip install "unigap[hf]"')
    folder = path if path.is_dir() else path.parent
    if folder != path and not path.is_file():
        raise WeightsError(f"there is no {path}; name a checkpoint folder, or a file of weights in one (docs/bagel.md)")
    config = read_config(folder)
    stored = find_weights(folder, _stem(path))
    tokenizer = BagelTokenizer.from_folder(folder, config.special_tokens)
    with torch.device("meta"):
        bagel, vae = Bagel(config), Vae(config.vae)
    expected = shapes_of(bagel)
    found = {name: tensor.shape for name, tensor in stored.items()}
    check_tensors(expected, found, folder, optional=TABLES)
    decoder = _read_vae(vae, folder / VAE_FILE)

    placed = plan_devices(bagel, torch.device(device), dtype)
    say_memory(folder, bagel, vae, dtype, placed)
    for name, shape in expected.items():
        where = device_of(name, placed)
        if found.get(name) == shape:
            _assign(bagel, name, _fetch(stored[name], shape, where, dtype))
        else:
            _assign(bagel, name, position_table(shape[1], math.isqrt(shape[0])).to(where, dtype))
    for name, tensor in decoder.items():
        shape = tuple(vae.autoencoder.get_parameter(name).shape)
        _assign(vae.autoencoder, name, _fetch(tensor, shape, placed[""], torch.float32))
    if len(set(placed.values())) > 1:
        dispatch(bagel, placed)
    sha256 = _hash({tensor.path for tensor in (*stored.values(), *decoder.values())})
    return Checkpoint(config, bagel.eval(), vae.eval().requires_grad_(False), tokenizer, sha256)


def _stem(path: Path) -> str | None:
    """Which weights of a folder: those of the file that is named, else "ema" if there are any."""
    if not path.is_dir():
        return re.sub(r"(-\d+-of-\d+)?\.safetensors(\.index\.json)?$", "", path.name)
    return next((stem for stem in STEMS if any(path.glob(f"{stem}*.safetensors"))), None)


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of every tensor that a checkpoint of the module holds."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def check_tensors(expected: Shapes, found: Shapes, where: Path, optional: Iterable[str] = ()) -> None:
    """Refuse a checkpoint whose tensors are not exactly those of the network.

    Raises:
        WeightsError: Lists what is missing, unexpected or of another shape.
    """
    free = set(optional)
    problems = {
        "missing": sorted(set(expected) - set(found) - free),
        "unexpected": sorted(set(found) - set(expected)),
        "of another shape": [
            f"{name} {found[name]} instead of {shape}"
            for name, shape in sorted(expected.items())
            if name in found and found[name] != shape and name not in free
        ],
    }
    if any(problems.values()):
        lines = [
            f"  {len(names)} {what}: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
            for what, names in problems.items()
            if names
        ]
        raise WeightsError(
            f"{where}: the tensors do not fit the configuration beside them:\n" + "\n".join(lines) + "\nIs this the "
            'whole model, with its own *.json files? A fine-tuned part is completed by "unigap convert".'
        )


def _read_vae(vae: Vae, path: Path) -> dict[str, Stored]:
    """The autoencoder's tensors by their names in the module.

    Raises:
        WeightsError: The file is missing, or is another autoencoder's.
    """
    if not path.is_file():
        raise WeightsError(f"{path.parent} has no {path.name}: the autoencoder, without which nothing is drawn")
    stored, own = read_header(path), vae.autoencoder.state_dict()
    flux = flux_names(own, len(vae.config.ch_mult))
    # The file keeps the attention's matrices as 1 x 1 convolutions; diffusers has them as linear layers.
    found = {name: _linear(name, tensor.shape) for name, tensor in stored.items()}
    check_tensors({flux[name]: tuple(tensor.shape) for name, tensor in own.items()}, found, path)
    return {name: stored[flux[name]] for name in own}


def _linear(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if ".attn_1." in name and shape[2:] == (1, 1) else shape


def _fetch(stored: Stored, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    tensor = torch.empty(shape, device=device, dtype=dtype)
    row = 0
    for piece in stored.pieces():
        tensor[row : row + len(piece)] = piece.reshape(len(piece), *shape[1:])
        row += len(piece)
    return tensor


def _assign(module: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    old = module.get_parameter(name)
    setattr(module.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=old.requires_grad))


def _hash(files: Iterable[Path]) -> str:
    hashes = {}
    for path in files:
        with path.open("rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sha256_of(hashes)


# ---- writing ---------------------------------------------------------------------------------------------------------


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, *, weights: Mapping[str, Tensor] | None = None, shard_bytes: int = SHARD_BYTES
) -> str:
    """Write a folder that `load_checkpoint` reads; weights appear under their names once they are whole.

    Args:
        weights: By their names in the network; None takes the network's own.
        shard_bytes: Most bytes of a file.

    Returns:
        The sha256 that the loaded folder will have.

    Raises:
        WeightsError: The folder holds weights already, which might be loaded instead; or `weights` do not fit.
    """
    if folder.is_dir() and (there := list_weights(folder)):
        names = ", ".join(sorted(name for kinds in there.values() for name in kinds))
        raise WeightsError(f"{folder} holds weights already ({names}); save into a folder of its own")
    state = dict(checkpoint.bagel.state_dict() if weights is None else weights)
    with torch.device("meta"):  # the module itself may hold adapters that are merged in `weights`
        expected = shapes_of(Bagel(checkpoint.config))
    check_tensors(expected, {name: tuple(tensor.shape) for name, tensor in state.items()}, folder)
    config = config_files(checkpoint.config)
    write_files([(folder / name, (json.dumps(data, indent=2) + "\n").encode()) for name, data in config.items()])
    checkpoint.tokenizer.save(folder)
    own = checkpoint.vae.autoencoder.state_dict()
    flux = flux_names(own, len(checkpoint.config.vae.ch_mult))
    decoder = {flux[name]: _convolution(flux[name], tensor) for name, tensor in own.items()}
    temp = folder / "weights.tmp"
    shutil.rmtree(temp, ignore_errors=True)  # what an interrupted save left behind
    temp.mkdir()
    hashes = write_weights(temp, _planned(decoder), max_bytes=sum(t.nbytes for t in decoder.values()))
    (temp / "model.safetensors").replace(folder / VAE_FILE)
    hashes = {VAE_FILE: hashes["model.safetensors"]} | write_weights(temp, _planned(state), max_bytes=shard_bytes)
    for path in sorted(temp.iterdir()):  # the index, if there is one, comes last
        path.replace(folder / path.name)
    temp.rmdir()
    sync_folder(folder)
    return sha256_of(hashes)


def _convolution(name: str, tensor: Tensor) -> Tensor:
    return tensor[..., None, None] if ".attn_1." in name and tensor.ndim == 2 else tensor


def _planned(tensors: Mapping[str, Tensor]) -> Sequence[Planned]:
    def pieces(tensor: Tensor) -> Iterable[Tensor]:
        yield tensor.cpu()

    return [Planned(name, t.dtype, tuple(t.shape), lambda t=t: pieces(t)) for name, t in tensors.items()]
