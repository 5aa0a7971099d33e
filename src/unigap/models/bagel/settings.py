"""How BAGEL is sampled. Names with `cfg_` are upstream's; what is odd about upstream has a switch and a note."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from unigap.errors import UnknownNameError
from unigap.models.protocol import Sampling
from unigap.models.settings import read_query, value_like

Renorm = Literal["global", "channel", "text_channel"]


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Classifier-free guidance of the drawing (`unigap.models.bagel.drawing.guide` has the equations)."""

    cfg_text_scale: float = 4.0
    """Away from a context without the last text; 1 is off."""
    cfg_img_scale: float = 1.0
    """Away from a context without pictures (and without the thought); 1 is off."""
    cfg_interval: tuple[float, float] = (0.4, 1.0)
    """Guidance is on at times t with low < t <= high; t runs from 1 (noise) to 0."""
    cfg_renorm_min: float = 0.0
    """Least factor by which a guided velocity is shortened to the length of the unguided one; 1 turns that off."""
    cfg_renorm_type: Renorm = "global"
    """Lengths over the whole picture ("global") or of each token ("channel"); "text_channel" shortens, token by token,
    before the image guidance instead of after it."""
    cfg_img_alone: bool = False
    """False, as upstream: `cfg_img_scale` does nothing unless `cfg_text_scale` is above 1. True: it guides alone."""

    def __post_init__(self) -> None:
        if self.cfg_renorm_type not in get_args(Renorm):
            raise ValueError(f"cfg_renorm_type {self.cfg_renorm_type!r}: known are {', '.join(get_args(Renorm))}")
        low, high = self.cfg_interval
        if not low < high:
            raise ValueError(f"cfg_interval {low}, {high} holds no time; to turn guidance off, set its scales to 1")


@dataclass(frozen=True, kw_only=True)
class BagelSampling(Sampling):
    """Settings of BAGEL. Defaults are those of UniSandbox's release, and for editing those of BAGEL's own demo."""

    max_answer_tokens: int = 512
    """An answer may be sentences."""
    height_px: int = 1024
    """Of a drawing from text alone; one that starts from a picture has the size of the last picture shown."""
    width_px: int = 1024
    num_timesteps: int = 50
    """Points in time, from 1 to 0. See `steps_between_points`."""
    timestep_shift: float = 3.0
    """Above 1 spends more steps near the noise: t = s u / (1 + (s - 1) u) of evenly spaced u."""
    guidance: Guidance = field(default_factory=Guidance)
    """Of a drawing from text alone."""
    edit_guidance: Guidance = field(
        default_factory=lambda: Guidance(cfg_img_scale=2.0, cfg_interval=(0.0, 1.0), cfg_renorm_type="text_channel")
    )
    """Of a drawing with a picture in the request."""
    steps_between_points: bool = True
    """True, as upstream: N points in time are N - 1 updates. False: N updates, between N + 1 points."""
    sample_posterior: bool = True
    """True, as upstream: a picture that is edited is encoded with fresh noise, from the request's seed. False: by the
    mean, so that requests with the same picture also share what is computed for it."""
    vit_after_vae_resize: bool = True
    """True, as upstream's interleaved flow: the vision tower sees the picture resized for the autoencoder, and resized
    once more. False, as upstream's chat flow: resized once, for the tower."""
    reread_thought: bool = True
    """True, as upstream: a thought's tokens become a string, cut at the first end token and at a second start token,
    and the string becomes tokens again. False: the tokens that were written are read."""
    shrink_by_area: bool = True
    """True, as upstream: see `unigap.models.bagel.pictures.PixelBudget`."""

    def __post_init__(self) -> None:
        if self.num_timesteps < 2:
            raise ValueError(f"num_timesteps is {self.num_timesteps}; at least 2 points make a step")
        if self.timestep_shift <= 0:
            raise ValueError(f"timestep_shift is {self.timestep_shift}, expected a number above 0")


def change_settings(settings: BagelSampling, query: str) -> BagelSampling:
    """Settings with those of a query changed, e.g. "num_timesteps=25&cfg_text_scale=3&edit.cfg_interval=[0.2,1]".

    Args:
        query: NAME=VALUE of the fields of `BagelSampling`, of its guidance ("cfg_..."), and of guidance when editing
            ("edit.cfg_..."); values are JSON, or text.

    Raises:
        UnknownNameError: There is no such setting.
        ValueError: A value is not of the setting's kind, or is given twice.
    """
    given = read_query(query)
    own = {f.name for f in fields(BagelSampling)} - {"guidance", "edit_guidance"}
    guided = {f.name for f in fields(Guidance)}
    for name in given:
        if name not in own and name.removeprefix("edit.") not in guided:
            raise UnknownNameError("setting of bagel", name, sorted(own | guided | {f"edit.{g}" for g in guided}))
    plain = {name: value for name, value in given.items() if name in guided}
    edit = {name.removeprefix("edit."): value for name, value in given.items() if name.startswith("edit.")}
    return replace(
        settings,
        **_values(settings, {name: value for name, value in given.items() if name in own}),
        guidance=replace(settings.guidance, **_values(settings.guidance, plain)),
        edit_guidance=replace(settings.edit_guidance, **_values(settings.edit_guidance, edit)),
    )


def _values(settings: object, given: Mapping[str, str]) -> dict[str, Any]:
    return {name: value_like(name, text, getattr(settings, name)) for name, text in given.items()}
