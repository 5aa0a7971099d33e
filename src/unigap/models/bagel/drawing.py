"""Drawing: from noise to a latent in the network's own velocity field, with guidance, many pictures at once.

Time t runs from 1 (noise) to 0 (picture); velocities point from picture to noise. Shape suffixes: N latent tokens of a
picture, W numbers of a latent token (p x p x z), B pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from unigap.models.bagel.attention import Chunk, Packed, Span
from unigap.models.bagel.config import BagelConfig
from unigap.models.bagel.context import Block, Embedded, embed_latents, latent_ids, pack, split_by_tokens
from unigap.models.bagel.load import Checkpoint
from unigap.models.bagel.pictures import check_grid, to_image, unpatchify
from unigap.models.bagel.reading import Contexts
from unigap.models.bagel.settings import BagelSampling, Guidance

BRANCHES = ("gen", "cfg_text", "cfg_img")


def schedule(num_points: int, shift: float) -> Tensor:
    """(num_points,) times from 1 to 0: t = s u / (1 + (s - 1) u) of evenly spaced u."""
    u = torch.linspace(1, 0, num_points)
    return shift * u / (1 + (shift - 1) * u)


def guide(v_gen: Tensor, v_text: Tensor | None, v_img: Tensor | None, g: Guidance) -> Tensor:
    """The guided velocity (N, W) of one picture; a branch that is None is off.

    With a = cfg_text_scale, b = cfg_img_scale, and short(x) = x clamp(|v_gen| / (|x| + 1e-8), cfg_renorm_min, 1):
        text_channel      v = v_img + b (short(u) - v_img),  u = v_text + a (v_gen - v_text), lengths per token
        global, channel   v = short(v_img + b (u - v_img)),  lengths over the picture, or per token
    """
    if v_text is None and (v_img is None or not g.cfg_img_alone):
        return v_gen
    dims = (-2, -1) if g.cfg_renorm_type == "global" else (-1,)

    def shortened(x: Tensor) -> Tensor:
        length, own = (torch.linalg.vector_norm(v, dim=dims, keepdim=True) for v in (v_gen, x))
        return x * (length / (own + 1e-8)).clamp(min=g.cfg_renorm_min, max=1.0)

    def away_from_img(x: Tensor) -> Tensor:
        return x if v_img is None else v_img + g.cfg_img_scale * (x - v_img)

    u = v_gen if v_text is None else v_text + g.cfg_text_scale * (v_gen - v_text)
    if g.cfg_renorm_type == "text_channel":
        return away_from_img(shortened(u))
    return shortened(away_from_img(u))


@dataclass(frozen=True, eq=False)
class Canvas:
    """A picture to be drawn."""

    contexts: Contexts
    """Read."""
    size: tuple[int, int]
    """(height, width) in pixels."""
    noise: Tensor
    """Where it starts from: (N, W), standard normal, float32, on the CPU."""
    guidance: Guidance
    sampling: BagelSampling


def check_size(config: BagelConfig, size: tuple[int, int]) -> None:
    """Refuse a (height, width) in pixels that the network cannot draw.

    Raises:
        ValueError: It cannot.
    """
    if any(side % config.latent_stride or side <= 0 for side in size):
        raise ValueError(f"{size[1]} x {size[0]} px: sides of a drawing are multiples of {config.latent_stride} px")
    if not config.interpolate_pos:
        rows, columns = (side // config.latent_stride for side in size)
        check_grid(rows, columns, config.max_latent_size, f"a drawing of {size[1]} x {size[0]} px")


def make_canvas(checkpoint: Checkpoint, contexts: Contexts, sampling: BagelSampling, seed: int) -> Canvas:
    """A canvas whose noise depends on the seed (and size) alone.

    Raises:
        ValueError: The network cannot draw a picture of that size.
    """
    config = checkpoint.config
    size = contexts.size or (sampling.height_px, sampling.width_px)
    check_size(config, size)
    rows, columns = (side // config.latent_stride for side in size)
    generator = torch.Generator().manual_seed(seed)
    noise_NW = torch.randn((rows * columns, config.latent_width), generator=generator)
    guidance = sampling.edit_guidance if contexts.size else sampling.guidance
    return Canvas(contexts, size, noise_NW, guidance, sampling)


@dataclass(frozen=True, eq=False)
class Step:
    """What happened to one picture in one step, for those who look on."""

    canvas: int
    t: float
    branches: dict[str, Tensor]
    """Velocities (N, W) of the branches that ran."""
    v: Tensor
    """(N, W), guided."""
    x: Tensor
    """(N, W), after the step."""


@torch.inference_mode()
def draw(
    checkpoint: Checkpoint,
    canvases: Sequence[Canvas],
    *,
    watch: Callable[[Step], None] | None = None,
    advance: Callable[[int, Tensor, Tensor, float, float], Tensor] | None = None,
    run_idle_branches: bool = False,
) -> list[Tensor]:
    """Latents (z, h, w) of all canvases, drawn side by side; each as if it were alone, up to rounding.

    Args:
        watch: Called for every picture and step.
        advance: (canvas, x_t, guided velocity, t, following time) to the next x, instead of Euler's step.
        run_idle_branches: Also compute what guidance then throws away, as upstream does.
    """
    config = checkpoint.config
    times = [times_of(c) for c in canvases]
    ids = [latent_ids(checkpoint, _latent_shape(checkpoint, c)) for c in canvases]
    x = [c.noise.to(checkpoint.bagel.device) for c in canvases]
    plans: dict[tuple[tuple[int, Chunk], ...], list[_Forward]] = {}
    for step in range(max((len(t) for t in times), default=1) - 1):
        active = [i for i, t in enumerate(times) if step + 1 < len(t)]
        wanted = {i: _branches(canvases[i], times[i][step], run_idle_branches) for i in active}
        # Branches with the same context are one: without pictures and thoughts, cfg_img is gen.
        blocks = tuple(dict.fromkeys((i, chunk) for i in active for chunk in wanted[i].values()))
        if blocks not in plans:
            plans = {blocks: _plan(canvases, blocks)}
        now = [float(times[i][step]) for i in active]
        embedded = embed_latents(checkpoint, [x[i] for i in active], [ids[i] for i in active], now)
        velocities = _velocities(checkpoint, plans[blocks], dict(zip(active, embedded, strict=True)))
        for i in active:
            branches = {name: velocities[i, chunk] for name, chunk in wanted[i].items()}
            v_NW = guide(branches["gen"], branches.get("cfg_text"), branches.get("cfg_img"), canvases[i].guidance)
            if advance is None:
                x[i] = x[i] - v_NW * (times[i][step] - times[i][step + 1]).to(v_NW.device)
            else:
                x[i] = advance(i, x[i], v_NW, float(times[i][step]), float(times[i][step + 1]))
            if watch is not None:
                watch(Step(i, float(times[i][step]), branches, v_NW, x[i]))
    shapes = [_latent_shape(checkpoint, c) for c in canvases]
    patch = config.latent_patch_size
    return [unpatchify(x[i], patch, h // patch, w // patch) for i, (h, w) in enumerate(shapes)]


@torch.inference_mode()
def develop(checkpoint: Checkpoint, latents: Sequence[Tensor]) -> list[Image.Image | None]:
    """Pictures of latents, decoded together where they have one size; None for one that is not finite."""
    finite = [bool(z.isfinite().all()) for z in latents]
    decoded = iter(checkpoint.vae.decode([z for z, good in zip(latents, finite, strict=True) if good]))
    return [to_image(next(decoded)) if good else None for good in finite]


def times_of(canvas: Canvas) -> Tensor:
    """The times of a drawing's steps, and 0."""
    return schedule(_num_points(canvas.sampling), canvas.sampling.timestep_shift)


def _num_points(sampling: BagelSampling) -> int:
    return sampling.num_timesteps + (0 if sampling.steps_between_points else 1)


def _latent_shape(checkpoint: Checkpoint, canvas: Canvas) -> tuple[int, int]:
    height, width = (side // checkpoint.config.vae.downsample for side in canvas.size)
    return height, width


def _branches(canvas: Canvas, t: Tensor, run_idle: bool) -> dict[str, Chunk]:
    """Branches that run at time t, and the contexts they see."""
    g, contexts = canvas.guidance, canvas.contexts
    low, high = g.cfg_interval
    branches = {"gen": contexts.gen}
    if not (t > low and t <= high):
        return branches
    if g.cfg_text_scale > 1:
        branches["cfg_text"] = contexts.cfg_text
    if g.cfg_img_scale > 1 and (g.cfg_text_scale > 1 or g.cfg_img_alone or run_idle):
        branches["cfg_img"] = contexts.cfg_img
    return branches


@dataclass(frozen=True, eq=False)
class _Forward:
    """Noise blocks that go through the decoder together, at every step alike."""

    blocks: list[tuple[int, Chunk]]
    attend: Packed
    positions: list[int]


def _plan(canvases: Sequence[Canvas], blocks: Sequence[tuple[int, Chunk]]) -> list[_Forward]:
    forwards = []
    for some in split_by_tokens(blocks, [len(canvases[i].noise) + 2 for i, _ in blocks]):
        spans: list[Span] = []
        positions: list[int] = []
        for i, chunk in some:
            length = len(canvases[i].noise) + 2
            spans.append(Span(len(positions), length, chunk, causal=False))
            positions += [chunk.rope_after] * length
        forwards.append(_Forward(some, Packed(spans), positions))
    return forwards


def _velocities(
    checkpoint: Checkpoint, forwards: Sequence[_Forward], embedded: dict[int, Tensor]
) -> dict[tuple[int, Chunk], Tensor]:
    """Velocity (N, W) of every block."""
    bagel, found = checkpoint.bagel, {}
    for forward in forwards:
        packed: list[Block] = [Embedded(embedded[i], latent=True) for i, _ in forward.blocks]
        x_TD, gen_T, lengths = pack(checkpoint, packed)
        at_T = torch.tensor(forward.positions, device=x_TD.device)
        hidden_TD = bagel.decode(x_TD, gen_T, at_T, forward.attend)
        velocities = bagel.velocity(hidden_TD[gen_T]).split([length - 2 for length in lengths])
        found |= dict(zip(forward.blocks, velocities, strict=True))
    return found
