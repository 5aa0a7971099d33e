"""Low-rank adapters (LoRA) in PEFT's files, to be merged into the matrices that they were trained beside."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unigap.errors import WeightsError
from unigap.models.shards import Stored, read_header, some


@dataclass(frozen=True)
class LowRank:
    """scale x B A, to be added to a matrix (Hu et al. 2021, arXiv 2106.09685)."""

    A: Stored
    B: Stored
    scale: float


def read_adapter(folder: Path, matrices: Mapping[str, Stored]) -> dict[str, LowRank]:
    """The products of a PEFT folder of LoRA by the name of the matrix that each belongs to.

    An adapter names modules as the wrapped model did, e.g. "base_model.model.network.head"; leading parts that none of
    the matrices' names has are left out, the same number for all.

    Raises:
        WeightsError: It is not plain LoRA on matrices of these names and shapes.
    """
    config = _adapter_config(folder)
    stored = read_header(folder / "adapter_model.safetensors")
    modules = sorted({name.rpartition(".lora_")[0] for name in stored})
    for module in modules:
        for which in "AB":
            if f"{module}.lora_{which}.weight" not in stored:
                raise WeightsError(f"{folder}: {module or next(iter(stored))} lacks lora_{which}.weight")
    if len(stored) != 2 * len(modules) or not modules:
        raise WeightsError(f"{folder} holds {len(stored)} tensors; expected lora_A and lora_B of each layer, only")
    names = _matrix_names(folder, modules, matrices)
    scale = config["lora_alpha"] / config["r"]
    found = {}
    for module, name in names.items():
        A, B = (stored[f"{module}.lora_{which}.weight"] for which in "AB")
        expected = matrices[name].shape
        if len(A.shape) != 2 or len(B.shape) != 2 or A.shape[0] != B.shape[1] or (B.shape[0], A.shape[1]) != expected:
            raise WeightsError(
                f"{folder}: {module} is {list(B.shape)} x {list(A.shape)}; {name} has shape {list(expected)}"
            )
        if A.shape[0] != config["r"]:
            raise WeightsError(f"{folder}: {module} has rank {A.shape[0]}, its configuration says {config['r']}")
        found[name] = LowRank(A, B, scale)
    return found


UNSUPPORTED = (
    "use_dora", "use_rslora", "use_qalora", "use_bdlora", "rank_pattern", "alpha_pattern", "modules_to_save",
    "fan_in_fan_out", "layer_replication", "trainable_token_indices", "alora_invocation_tokens", "arrow_config",
    "kasa_config", "monteclora_config",
)  # fmt: skip
"""Settings of PEFT that change what an adapter means, and that the trainer here does not use."""
PLAIN_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")
"""Ways to start an adapter that leave the matrix itself as it was; others (PiSSA, OLoRA, CorDA, LoftQ) take something
out of it first, so that their product belongs to another matrix."""


def _adapter_config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    for name in (path.name, "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise WeightsError(f"{folder} has no {name}; a PEFT folder holds both")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, rank, alpha = config["peft_type"], config["r"], config["lora_alpha"]
        is_plain = kind == "LORA" and rank > 0 and alpha == float(alpha) and config.get("bias", "none") == "none"
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is not the configuration of a LoRA adapter ({error!r})") from None
    if not is_plain:
        raise WeightsError(f"{path}: only plain LoRA without biases is merged; found peft_type {kind!r}, r {rank}")
    used = [name for name in UNSUPPORTED if config.get(name)]
    if (start := config.get("init_lora_weights")) not in PLAIN_STARTS:
        used.append(f"init_lora_weights {start!r}")
    if used:
        raise WeightsError(f"{path} uses {', '.join(used)}, which is not merged here; merge it with PEFT")
    return config


def _matrix_names(folder: Path, modules: Sequence[str], matrices: Mapping[str, Stored]) -> dict[str, str]:
    depth = min(module.count(".") for module in modules)
    for left_out in range(depth + 1):
        names = {module: ".".join(module.split(".")[left_out:]) + ".weight" for module in modules}
        known = [name in matrices for name in names.values()]
        if all(known):
            return names
        if any(known):
            absent = [name for name in names.values() if name not in matrices]
            raise WeightsError(f"{folder} adapts {len(absent)} matrices that the source lacks: {some(absent)}")
    raise WeightsError(f"{folder} adapts {len(modules)} layers, none of them of the source; first: {modules[0]}")
