"""The native BAGEL against golden values of the authors' code: `python bench/bagel_parity.py FOLDER`.

FOLDER is a checkpoint with cases.json and cases.safetensors beside it. Runs every case; prints case, tensor, largest
error, and whether it passes. Exit code 1 if anything is past its tolerance, or was not computed.
"""

import argparse
import json
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from unigap.models.bagel.attention import Chunk
from unigap.models.bagel.config import TransformConfig
from unigap.models.bagel.context import Picture, Reader, latent_ids, vit_ids
from unigap.models.bagel.drawing import Canvas, Step, draw, schedule
from unigap.models.bagel.load import Checkpoint, load_checkpoint
from unigap.models.bagel.network import time_features
from unigap.models.bagel.pictures import choose_size, patchify, position_ids, resize, to_image, to_pixels, to_rgb
from unigap.models.bagel.reading import Reading
from unigap.models.bagel.settings import BagelSampling, Guidance
from unigap.models.bagel.writing import write

TOLERANCE = 2e-4
"""Absolute, of floating-point tensors and numbers."""
NORM_TOLERANCE, NORM_FLOOR = 1e-3, 1e-6
"""Of gradient norms: relative, and the absolute error below which it does not matter."""
LEVEL = 1
"""Of 8-bit pictures."""

Found = dict[str, Any]
"""What was computed: "out.NAME" -> tensor, "outputs.NAME" -> number, string or list, with dots for nesting."""


@dataclass(frozen=True)
class Line:
    """One comparison."""

    case: str
    name: str
    error: float
    passed: bool
    note: str = ""
    compared: bool = True
    """False: what the golden values say of upstream alone, e.g. how its own kernels differ."""

    def __str__(self) -> str:
        verdict = ("pass" if self.passed else "FAIL") if self.compared else "    "
        return f"{self.case:<22} {self.name:<44} {self.error:10.2e}  {verdict} {self.note}".rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--case", help="run this case alone")
    parser.add_argument("--quiet", action="store_true", help="print failures and the summary only")
    arguments = parser.parse_args()
    lines = []
    for line in compare_folder(arguments.folder, arguments.case):
        lines.append(line)
        if not (arguments.quiet and line.passed):
            print(line, flush=True)
    bad = [line for line in lines if not line.passed]
    cases = {line.case for line in lines}
    compared = sum(line.compared for line in lines)
    print(f"{len(cases)} cases, {compared} comparisons, {len(bad)} failed ({len({b.case for b in bad})} cases)")
    return 1 if bad or not lines else 0


def compare_folder(folder: Path, only: str | None = None) -> Iterator[Line]:
    """Every comparison of a fixtures folder, case by case."""
    cases = json.loads((folder / "cases.json").read_text(encoding="utf-8"))["cases"]
    checkpoint = load_checkpoint(folder)
    with safe_open(folder / "cases.safetensors", framework="pt") as file:
        names = list(file.keys())
        for case_name, case in cases.items():
            if only is not None and case_name != only:
                continue
            mine = [name for name in names if name.startswith((f"{case_name}.in.", f"{case_name}.out."))]
            tensors = {name.removeprefix(f"{case_name}."): file.get_tensor(name) for name in mine}
            if case["kind"] not in KINDS:
                yield Line(case_name, "-", float("nan"), False, f"unknown kind {case['kind']!r}")
                continue
            try:
                found = KINDS[case["kind"]](checkpoint, case, tensors)
            except Exception as error:  # noqa: BLE001 (it is printed, the case has failed, and the others still run)
                traceback.print_exc()
                yield Line(case_name, "-", float("nan"), False, f"{type(error).__name__}: {error}")
                continue
            yield from _compare(case_name, case, tensors, found)


def _compare(case_name: str, case: Mapping[str, Any], tensors: Mapping[str, Tensor], found: Found) -> Iterator[Line]:
    golden = {name: value for name, value in tensors.items() if name.startswith("out.")}
    golden |= {f"outputs.{name}": value for name, value in _flatten(case["outputs"])}
    for name, want in golden.items():
        plain = name.removeprefix("out.")
        if name in found:
            yield _line(case_name, plain, want, found[name])
        elif name.startswith("out."):
            yield Line(case_name, plain, float("nan"), False, "not computed")
        else:
            yield Line(case_name, plain, float("nan"), True, "not compared", compared=False)


def _flatten(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _line(case: str, name: str, want: Any, got: Any) -> Line:
    if not isinstance(want, Tensor) and not _is_number(want):
        same = want == got
        return Line(
            case, name, 0.0 if same else float("inf"), same, "" if same else f"{got!r} instead of {want!r}"[:200]
        )
    want, got = (torch.as_tensor(0.0 if x is None else x) for x in (want, got))
    if want.shape != got.shape:
        return Line(case, name, float("inf"), False, f"shape {tuple(got.shape)} instead of {tuple(want.shape)}")
    if not want.numel():
        return Line(case, name, 0.0, True)
    # Equal infinities differ by nothing.
    error = torch.where(want == got, 0.0, (want.double() - got.double()).abs()).max().item()
    if "grad_norms" in name:
        relative = error / max(abs(float(want)), NORM_FLOOR)
        return Line(case, name, relative, error <= NORM_FLOOR or relative <= NORM_TOLERANCE, "relative")
    if want.dtype == torch.uint8:
        return Line(case, name, error, error <= LEVEL, "levels")
    exact = not want.is_floating_point()
    return Line(case, name, error, error <= (0 if exact else TOLERANCE))  # a NaN is not within anything


def _is_number(value: Any) -> bool:
    """Numbers and lists of numbers; a missing gradient is null."""
    if isinstance(value, list):
        return bool(value) and all(_is_number(entry) for entry in value)
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


# ---- cases without the decoder ---------------------------------------------------------------------------------------


def tables(checkpoint: Checkpoint, case: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Found:
    params, bagel = case["params"], checkpoint.bagel
    found: Found = {}
    for height, width, patch, side in params["pos_grid"]:
        for name, interpolate in (("extrapolate", False), ("interpolate", True)):
            ids = position_ids(height // patch, width // patch, side, interpolate=interpolate)
            found[f"out.{name}_{height}x{width}_p{patch}_n{side}"] = ids
    times = torch.tensor(params["timesteps"])
    with torch.inference_mode():
        found["out.timestep_frequency_embedding"] = time_features(times)
        found["out.timestep_embedding"] = bagel.time_embedder(times)
        cos, sin = bagel.language_model.model.rope(torch.tensor(params["rope_positions"]))
    found |= {"out.rope_cos": cos, "out.rope_sin": sin}
    return found | {
        f"out.schedule_n{points}_s{shift}": schedule(points, shift) for points, shift in params["schedules"]
    }


def transforms(checkpoint: Checkpoint, case: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Found:
    config, found = checkpoint.config, {}
    for number in range(case["params"]["num_images"]):
        image = to_rgb(_image(tensors[f"in.image_{number}"]))
        resized = resize(image, config.vae_transform)
        direct = to_pixels(resize(image, config.vit_transform), config.vit_transform)
        found |= {
            f"out.vae_resized_u8_{number}": torch.from_numpy(np.array(resized)),
            f"out.vae_{number}": to_pixels(resized, config.vae_transform),
            f"out.vit_direct_{number}": direct,
            f"out.vit_patches_{number}": patchify(direct, config.vit.patch_size),
            f"out.vit_after_vae_resize_{number}": to_pixels(
                resize(resized, config.vit_transform), config.vit_transform
            ),
        }
    found["outputs.sizes"] = [
        entry | dict(zip(("out_h", "out_w"), _size_of(entry, case["params"]["released_transforms"]), strict=True))
        for entry in case["outputs"]["sizes"]
    ]
    return found


def _size_of(entry: Mapping[str, Any], known: Mapping[str, Any]) -> tuple[int, int]:
    limits = known[entry["transform"]]
    transform = TransformConfig(
        max_image_size=limits["max_size"],
        min_image_size=limits["min_size"],
        image_stride=limits["stride"],
        max_pixels=limits["max_pixels"],
    )
    return choose_size(entry["in_h"], entry["in_w"], transform, entry["img_num"])


@torch.inference_mode()
def autoencoder(checkpoint: Checkpoint, case: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Found:
    vae = checkpoint.vae
    return {
        "out.moments": torch.stack(vae.moments(list(tensors["in.pixels"]))),
        "out.latent": torch.stack(vae.encode(list(tensors["in.pixels"]), list(tensors["in.eps"]))),
        "out.decoded": torch.stack(vae.decode(list(tensors["in.latent"]))),
    }


def _image(pixels_HWC: Tensor) -> Image.Image:
    return Image.fromarray(pixels_HWC.numpy())


# ---- text and understanding ------------------------------------------------------------------------------------------


def text_gen(checkpoint: Checkpoint, case: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Found:
    params, reader = case["params"], Reader(checkpoint, keep_hidden=True)
    reading = Reading(reader, BagelSampling(), draws=False, seed=0)
    reading.add(params["prompts"])
    reader.read()
    chain = reading.contexts.gen.chain()
    return _prefilled(checkpoint, reader, chain) | _generated(checkpoint, reading.contexts.gen, params["max_length"])


@torch.inference_mode()
def und_teacher(checkpoint: Checkpoint, case: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Found:
    params, reader, token = case["params"], Reader(checkpoint, keep_hidden=True), checkpoint.tokenizer
    reading = Reading(reader, BagelSampling(vit_after_vae_resize=False), draws=False, seed=0)
    reading.add([_image(tensors["in.image"]), params["question"]])
    asked = reading.contexts.gen
    ids = token.segment(params["answer"])
    answer = reader.text(asked, ids)
    reader.read()
    found = _prefilled(checkpoint, reader, answer.chain())
    found |= {
        "out.answer_input_ids": torch.tensor(ids),
        "outputs.answer_input_ids": ids,
        "outputs.answer_start_kv": asked.num_tokens,
        "outputs.answer_start_rope": asked.rope_after,
        "out.answer_logits": checkpoint.bagel.logits(reader.hidden[answer]),
    }
    chat = _generated(checkpoint, asked, params["max_length"])
    for name, value in chat.items():
        place, _, plain = name.partition(".")
        found[f"{place}.chat_{plain}"] = value
    return found


def _generated(checkpoint: Checkpoint, context: Chunk, max_length: int) -> Found:
    """Greedy text; upstream's ids start with the start token and lack the last prediction."""
    logits: list[Tensor] = []
    token = checkpoint.tokenizer
    written = write(
        checkpoint,
        [context],
        first=[token.bos],
        limits=[max_length],
        temperature=0.0,
        seeds=[0],
        watch=lambda logits_BV: logits.append(logits_BV[0]),
    )[0]
    assert written is not None, "logits that are not finite"
    fed = [token.bos, *written[:-1]]
    top = torch.stack(logits).topk(2, dim=-1).values
    text = token.reread(written[:-1], through_text=True)[0]
    return {
        "out.gen_ids": torch.tensor(fed),
        "out.gen_logits": torch.stack(logits),
        "outputs.gen_ids": fed,
        "outputs.last_argmax": written[-1],
        "outputs.min_top2_margin": float((top[:, 0] - top[:, 1]).min()),
        "outputs.text": text,
        "outputs.text_ids_reencoded": token.encode(text),
        "outputs.gen_start_rope": context.rope_after,
        "outputs.gen_start_kv": context.num_tokens,
    }


@torch.inference_mode()
def _prefilled(checkpoint: Checkpoint, reader: Reader, chunks: list[Chunk]) -> Found:
    """What was read, in the order of upstream's prefill calls."""
    found, calls, bagel = {}, [], checkpoint.bagel
    for number, chunk in enumerate(chunks):
        content, name = reader.contents[chunk], f"out.prefill_{number}"
        found[f"{name}_hidden"] = reader.hidden[chunk]
        assert chunk.past is not None
        first = chunk.past.rope_after
        call = {
            "kv_before": chunk.num_before,
            "rope_first": first,
            "rope_last": chunk.rope_after - 1,
            "len": chunk.length,
        }
        if not isinstance(content, Picture):
            calls.append({"kind": "text"} | call | {"ids": list(content)})
            continue
        calls.append({"kind": content.kind} | call)
        if content.kind == "vit":
            patches, ids = (
                patchify(content.pixels, checkpoint.config.vit.patch_size),
                vit_ids(checkpoint, content.pixels),
            )
            features = bagel.vit_model(patches, ids, [len(patches)])
            found |= {f"{name}_vit_patches": patches, f"{name}_vit_pos_ids": ids}
            found |= {f"{name}_vit_features": features, f"{name}_vit_connector": bagel.connector(features)}
        else:
            latent = checkpoint.vae.encode([content.pixels], [content.eps])[0]
            found |= {
                f"{name}_vae_pixels": content.pixels[None],
                f"{name}_vae_moments": checkpoint.vae.moments([content.pixels])[0][None],
                f"{name}_vae_latent": latent[None],
                f"{name}_vae_pos_ids": latent_ids(checkpoint, latent.shape[1:]),
            }
    return found | {"outputs.prefill": calls}


# ---- the interleaved flow --------------------------------------------------------------------------------------------


def interleave(checkpoint: Checkpoint, case: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Found:
    params, token = case["params"], checkpoint.tokenizer
    reader = Reader(checkpoint, keep_hidden=True)
    understands = params.get("understanding_output", False)
    eps = [tensors[f"in.vae_eps_{i}"][0] for i in range(len(tensors)) if f"in.vae_eps_{i}" in tensors]
    reading = Reading(reader, BagelSampling(), draws=not understands, seed=0, eps=eps)
    # The prompts that make it think are upstream's; their ids are the first thing that was read.
    system = token.decode(case["outputs"]["prefill"][0]["ids"][1:-1]) if params.get("think") else None
    content = [
        part["text"] if part["type"] == "text" else _image(tensors[f"in.{part['key']}"])
        for part in params["input_list"]
    ]
    reading.add(content, system)
    reader.read()
    found: Found = {}
    if understands or params.get("think"):
        found |= _generated(checkpoint, reading.contexts.gen, params.get("max_think_token_n", 1000))
    if understands:
        return found | _prefilled(checkpoint, reader, reading.chunks)
    if params.get("think"):
        reading.add_thought(found["outputs.text_ids_reencoded"])
        reader.read()
    found |= _prefilled(checkpoint, reader, reading.chunks)
    return found | _drawn(checkpoint, reading, params, tensors)


def _drawn(checkpoint: Checkpoint, reading: Reading, params: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Found:
    contexts, steps = reading.contexts, list[Step]()
    # What a case leaves out has upstream's own default.
    given = Guidance(cfg_text_scale=3.0, cfg_img_scale=1.5)
    named = {name: params[name] for name in vars(given) if name in params}
    guidance = replace(given, **{name: tuple(v) if isinstance(v, list) else v for name, v in named.items()})
    sampling = BagelSampling(
        num_timesteps=params.get("num_timesteps", 50), timestep_shift=params.get("timestep_shift", 3.0)
    )
    size = contexts.size or tuple(params.get("image_shapes", (1024, 1024)))
    canvas = Canvas(contexts, size, tensors["in.init_noise"], guidance, sampling)
    latents = draw(checkpoint, [canvas], watch=steps.append, run_idle_branches=True)
    with torch.inference_mode():
        decoded = checkpoint.vae.decode(latents)[0]
    return {
        "out.decoded": decoded[None],
        "out.image_u8": torch.from_numpy(np.array(to_image(decoded))),
        "out.x_steps": torch.stack([step.x for step in steps]),
        "out.v_steps": torch.stack([step.v for step in steps]),
        "out.v_branches": _branches(steps),
        "outputs.timesteps": [step.t for step in steps],
        "outputs.branches_per_step": [len(step.branches) for step in steps],
    } | {
        f"outputs.contexts.{name}.{what}": number
        for name, chunk in (("gen", contexts.gen), ("cfg_text", contexts.cfg_text), ("cfg_img", contexts.cfg_img))
        for what, number in (("kv_len", chunk.num_tokens), ("rope", chunk.rope_after))
    }


def _branches(steps: list[Step]) -> Tensor:
    """(steps, branches, N, W): conditional first, then the guidance branches that ran; zeros where none did."""
    stacked = [torch.stack([step.branches[name] for name in step.branches]) for step in steps]
    most = max(len(v) for v in stacked)
    return torch.stack([torch.cat((v, v.new_zeros(most - len(v), *v.shape[1:]))) for v in stacked])


def train(checkpoint: Checkpoint, case: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Found:
    from unigap.models.bagel.train_case import train_case

    return dict(train_case(checkpoint, case, tensors))


KINDS = {
    "tables": tables,
    "transforms": transforms,
    "ae": autoencoder,
    "text_gen": text_gen,
    "und_teacher": und_teacher,
    "interleave": interleave,
    "train": train,
}


if __name__ == "__main__":
    sys.exit(main())
