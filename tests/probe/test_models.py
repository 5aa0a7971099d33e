"""A study of real models through their hooks: BAGEL, and an embedded model from a folder by the recipe."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.models.tiny.test_heads import small_model
from tests.train.small_bagel import small_bagel

from unigap.judges.exact import ExactJudge
from unigap.judges.protocol import Submission
from unigap.models.bagel.settings import BagelSampling
from unigap.probe.study import ProbeConfig, study
from unigap.records import Ruling

RECIPE = Path(__file__).parents[2] / "recipes" / "latent_cot.py"


class BrightnessJudge(ExactJudge):
    """Reads photos: right where the first pixel is dark."""

    pictures = frozenset({"sandbox", "photo"})

    def judge(self, submissions: Sequence[Submission]) -> list[Ruling]:
        dark = [one.image is not None and one.image.convert("L").getpixel((0, 0)) < 128 for one in submissions]  # type: ignore[operator]
        return [Ruling.correct() if is_dark else Ruling.incorrect("wrong_count", "bright") for is_dark in dark]


def test_bagel_is_probed_through_the_same_hook(tmp_path: Path):
    model = small_bagel()
    model.sampling = BagelSampling(num_timesteps=2, height_px=12, width_px=12, max_think_tokens=4)
    config = ProbeConfig(families=("math1",), num_train=40, num_test=24, num_trials=2, times=(1.0,))
    normal, think = study(model, BrightnessJudge(), config, tmp_path)["steps"]
    for step in (normal, think):
        count = step["facets"][0]
        # Two layers: three states of four text positions and nine cells.
        assert [(one["kind"], len(one["cells"]), one["time"]) for one in count["maps"]] == [
            ("text", 12, None),
            ("image", 27, 1.0),
        ]
        assert [one["position"] for one in count["read_out"]] == ["end-3", "end-2", "end-1", "end"]
        assert [(patch["positions"], patch["follows"]["num_units"]) for patch in step["patches"]] == [
            (["end"], 2),
            (["end-3", "end-2", "end-1", "end"], 2),
        ]
    assert normal["facets"][0]["maps"] != think["facets"][0]["maps"]


@pytest.mark.slow
def test_the_recipe_writes_numbers_and_page_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    small_model("query").save_pretrained(tmp_path / "model", {})
    spec = importlib.util.spec_from_file_location("latent_cot", RECIPE)
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    config = recipe.LatentCot(model=(f"tiny:{tmp_path / 'model'}",), out=tmp_path / "out", threads=1, smoke=True)
    recipe.main(config)
    numbers = (tmp_path / "out" / "latent.json").read_bytes()
    (found,) = json.loads(numbers)["models"]
    assert [step["family"] for step in found["steps"]] == ["math1", "mapping1", "plain"]
    assert {one["kind"] for step in found["steps"] for one in step["facets"][0]["maps"]} == {"text", "query", "image"}
    recipe.main(config)
    assert (tmp_path / "out" / "latent.json").read_bytes() == numbers
    assert "latent.html" in capsys.readouterr().out
