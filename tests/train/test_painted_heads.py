"""Self-training, injection and edits of a model that draws with a painter, on the shipped trunk with a newborn one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file
from tests.train.painted import painted, write_painted
from tests.train.small import picture

from unigap.disk import hash64
from unigap.judges.exact import ExactJudge
from unigap.judges.protocol import Submission
from unigap.models.settings import with_weights
from unigap.models.tiny.model import TinyModel
from unigap.models.tiny.painter import Kind
from unigap.models.tiny.painting import picture_codes
from unigap.models.trainable import Example
from unigap.records import Ruling, RunFolder
from unigap.train.knowledge import EditConfig, InjectConfig, KnowledgeConfig, Side, _train, run
from unigap.train.sft import load_trainable
from unigap.train.stars import StarsConfig, run_arms
from unigap.train.thinning import preparer

JUDGE = "tests.train.test_painted_heads:EverySecond"
KINDS: tuple[Kind, ...] = get_args(Kind)


class EverySecond(ExactJudge):
    """Accepts the drawings of every second item: a newborn painter's are all the same grey."""

    name = "second"

    def judge(self, submissions: Sequence[Submission]) -> list[Ruling]:
        return [
            Ruling.correct() if hash64(one.item.id) % 2 else Ruling.incorrect("wrong_object", "") for one in submissions
        ]


@pytest.fixture(scope="module", params=KINDS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_painted(tmp_path_factory.mktemp("base") / request.param, request.param)


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_self_training_teaches_trunk_and_painter_and_asks_with_the_same_settings(base: str, tmp_path: Path):
    config = StarsConfig(
        out=tmp_path / "run", model=f"{base}?num_steps=2&cfg_text_scale=1", families=("mapping1",), units=6, steps=2,
        examples_per_step=4, replay=0, judge=JUDGE, score_units=1, score_families=("mapping1",), threads=1,
    )  # fmt: skip
    runs = run_arms({"after": config}, tmp_path / "measured")
    sampling = [RunFolder.open(folder).identity.sampling for folder in runs.values()]
    assert [(one["num_steps"], one["cfg_text_scale"]) for one in sampling] == [(2, 1.0)] * 2
    moved = changed(weights(base.partition(":")[2]), weights(tmp_path / "run" / "round-1" / "train" / "model"))
    assert {"painter.cells_out.weight", "painter.places"} <= moved and "codebook" not in moved
    kept = json.loads((tmp_path / "run" / "round-1" / "kept.json").read_text(encoding="utf-8"))["families"]["mapping1"]
    assert kept["drawings"] == 12 and 0 < kept["accepted"] < 12


def settings(base: str, out: Path, kind: type[KnowledgeConfig], arm: Side, **more: Any) -> KnowledgeConfig:
    return kind(
        out=out, model=f"{base}?num_steps=2", arms=(arm,), num_characters=2, steps=2, examples_per_step=8,
        control_units=1, pictures=1, threads=1, **more,
    )  # fmt: skip


def taught(base: str, out: Path, arm: Side, **more: Any) -> dict[str, torch.Tensor]:
    """Weights after injection without replay."""
    config = settings(base, out, InjectConfig, arm, replay=0, **more)
    changes = config.changes()
    return weights(_train(load_trainable(config.model), changes, changes, arm, config, out, "training"))


def test_text_alone_leaves_what_draws_as_it_was(base: str, tmp_path: Path):
    before = weights(base.partition(":")[2])
    moved = changed(before, after := taught(base, tmp_path, "understanding"))
    assert moved and not any(name.startswith("painter.") for name in moved)
    # Queries are rows of the embeddings, behind all words and codes; no text holds one.
    num_queries = len(before["embed.weight"]) - len(TinyModel.from_pretrained().network.embed.weight)
    assert num_queries == (18 if "query" in base else 0)
    if num_queries:
        assert torch.equal(before["embed.weight"][-num_queries:], after["embed.weight"][-num_queries:])


def test_the_painter_can_be_trained_alone(base: str, tmp_path: Path):
    moved = changed(weights(base.partition(":")[2]), taught(base, tmp_path, "generation", trains=("painter",)))
    assert moved and all(name.startswith("painter.") for name in moved)


def test_an_edit_by_pictures_reaches_trunk_and_painter_and_is_measured(base: str, tmp_path: Path):
    result = run(settings(base, tmp_path, EditConfig, "generation"))
    assert set(result.measured) == {("baseline", 0), ("generation", 2)}
    folders = [tmp_path / arm / "knowledge" for arm in ("baseline", "generation")]
    assert [RunFolder.open(folder).identity.sampling["num_steps"] for folder in folders] == [2, 2]
    moved = changed(weights(base.partition(":")[2]), weights(tmp_path / "generation" / "training" / "model"))
    assert any(name.startswith("painter.") for name in moved) and any(name.startswith("blocks.") for name in moved)


@pytest.mark.parametrize("kind", KINDS)
def test_shares_of_cells_do_not_change_which_picture_a_painter_learns_nor_how_much(kind: Kind):
    model = painted(kind)
    example = Example(id="cups", content=("Draw 3 cups.",), image=picture("cup", 3))
    shared, plain = preparer(model)(example, []), model.prepare(example)
    assert shared.targets != plain.targets
    assert picture_codes(shared, model.tokenizer) == picture_codes(plain, model.tokenizer)
    assert model.weigh(shared)[1] == pytest.approx(model.weigh(plain)[1]) == 18


@pytest.mark.parametrize(
    ("name", "with_other_weights"),
    [
        ("tiny", "tiny:new"),
        ("tiny:flow?num_steps=48", "tiny:new?num_steps=48"),
        ("bagel:/b?cfg=1&x=2", "bagel:new?cfg=1&x=2"),
    ],
)
def test_other_weights_are_asked_with_the_settings_of_the_name(name: str, with_other_weights: str):
    assert with_weights(name, Path("new")) == with_other_weights
