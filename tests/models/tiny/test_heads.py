"""The flow and query heads: who sees whom, what is learned, and the protocol kept as by the model that draws codes."""

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from unigap.items import Count
from unigap.models import find_model
from unigap.models.protocol import Model, Request, Sampling
from unigap.models.tiny.learning import Sample
from unigap.models.tiny.model import TinyModel
from unigap.models.tiny.painter import Context, Kind, Painter, PainterConfig, PainterSampling
from unigap.models.tiny.painting import PaintingLoss, picture_codes, query_ids
from unigap.models.trainable import Example
from unigap.scenes import make_items
from unigap.scenes.read import read_picture
from unigap.scenes.render import Grid, render
from unigap.train.kit import Kit
from unigap.train.pretrain import Mixture, PretrainConfig, newborn

HEADS: tuple[Kind, ...] = ("flow", "query")
SAMPLING = PainterSampling(num_steps=4)


def small_model(head: Kind) -> TinyModel:
    """Random everywhere: at birth, the zero output projections hide who sees whom."""
    model = newborn(Kit.build(), PretrainConfig(head=head, width=32, num_layers=2, num_heads=2))
    torch.manual_seed(1)
    for parameter in model.loss_module().parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module", params=HEADS)
def model(request: pytest.FixtureRequest) -> TinyModel:
    return small_model(request.param)


def painter_of(model: TinyModel) -> Painter:
    assert model.painter is not None
    return model.painter


def context_of(model: TinyModel, ids: list[int], *, pad: int = 0) -> Context:
    """Of one row, with `pad` tokens of padding behind it."""
    ids = [*ids, *query_ids(painter_of(model), model.network)]
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    hidden_BTD = model.network.hidden(torch.tensor([[*ids, *range(40, 40 + pad)]]), kept)
    return painter_of(model).context(model.network, hidden_BTD, kept, torch.tensor([0]), torch.tensor([len(ids)]))


def predict(model: TinyModel, context: Context, x: torch.Tensor) -> torch.Tensor:
    return painter_of(model)(x, torch.full((len(x),), 0.7), context)


NOISE = torch.randn(1, 9, 192, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_cells_see_the_text_but_not_its_padding(model: TinyModel):
    alone = predict(model, context_of(model, [1, 50, 60, 4]), NOISE)
    torch.testing.assert_close(predict(model, context_of(model, [1, 50, 60, 4], pad=5), NOISE), alone)
    assert (predict(model, context_of(model, [1, 51, 60, 4]), NOISE) - alone).abs().max() > 1e-3


@torch.inference_mode()
def test_cells_without_the_condition_see_each_other_alone(model: TinyModel):
    painted = []
    for word in (50, 51):
        context = context_of(model, [1, word, 60, 4])
        context.visible.fill_(False)
        painted.append(predict(model, context, NOISE))
    torch.testing.assert_close(painted[0], painted[1])
    last_changed = NOISE.clone()
    last_changed[0, -1] += 1
    context = context_of(model, [1, 50, 60, 4])
    first = predict(model, context, NOISE)[0, 0]
    assert (predict(model, context, last_changed)[0, 0] - first).abs().max() > 1e-3


@torch.inference_mode()
def test_guidance_runs_both_branches_as_if_each_were_alone(model: TinyModel):
    context = context_of(model, [1, 50, 60, 4])
    blind = context_of(model, [1, 50, 60, 4])
    blind.visible.fill_(False)
    both = predict(model, context.both(), torch.cat((NOISE, NOISE)))
    alone = torch.cat((predict(model, context, NOISE), predict(model, blind, NOISE)))
    torch.testing.assert_close(both, alone, atol=1e-5, rtol=1e-4)
    one_step = painter_of(model).paint(context, NOISE, PainterSampling(num_steps=1, cfg_text_scale=3.0))
    at_one = [painter_of(model)(NOISE, torch.ones(1), c) for c in (context, blind)]
    # One step from t = 1 to 0 ends at the guided clean picture: u + 3 (c - u).
    torch.testing.assert_close(one_step, at_one[1] + 3 * (at_one[0] - at_one[1]), atol=1e-4, rtol=1e-4)


def test_a_flow_painter_of_another_size_than_the_trunk_is_refused():
    size = PainterConfig(kind="flow", width=32, num_layers=1, num_heads=2, mlp_ratio=2)
    with pytest.raises(ValueError, match=r"\(32, 1, 2\) width, layers, heads; trunk \(32, 2, 2\)"):
        Painter(size, small_model("flow").network.config)


def samples(num: int) -> list[Sample]:
    return Mixture(Kit.build(), seed=3, per_step=num).take(0, num)


def loss_of(model: TinyModel, rows: list[Sample], totals: tuple[float, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    batch = model.collate(rows, [int(row.id.rpartition("/")[2]) for row in rows])
    loss, sums = model.loss_module()(batch, totals)
    return loss, sums


def test_the_shares_of_all_batches_add_up_to_the_loss_of_one(model: TinyModel):
    rows = samples(12)
    totals = tuple(map(sum, zip(*map(model.weigh, rows), strict=True)))
    whole, sums = loss_of(model, rows, totals)
    parts = [loss_of(model, part, totals) for part in (rows[:5], rows[5:9], rows[9:])]
    torch.testing.assert_close(sum(loss for loss, _ in parts), whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sum(part for _, part in parts), sums, rtol=1e-4, atol=1e-3)
    assert sums.min() > 0 and whole.item() == pytest.approx(sums.sum().item() / sum(totals), rel=1e-5)


def test_a_batch_without_pictures_is_learned_as_text(model: TinyModel):
    rows = [row for row in samples(40) if not picture_codes(row, model.tokenizer)][:4]
    module = model.loss_module()
    module.zero_grad()
    loss, sums = module(model.collate(rows, range(4)), (1.0, 0.0))
    loss.backward()
    assert sums[0] > 0 and sums[1] == 0
    assert all(p.grad is None or not p.grad.any() for p in painter_of(model).parameters())
    assert model.network.head.weight.grad is not None and model.network.head.weight.grad.any()


def test_the_codes_of_a_picture_to_be_drawn_never_enter_the_trunk(model: TinyModel):
    kit = Kit.build()
    shown, drawn = Grid(("cup",) + (None,) * 8), Grid((None,) * 8 + ("apple",))
    row = kit.sample(shown, "Draw it.", draw=drawn)
    batch, queries = model.collate([row], [0]), query_ids(painter_of(model), model.network)
    assert len(queries) == painter_of(model).num_queries
    assert batch["ids"][0].tolist() == [*row.ids[:-18], *queries]
    assert kit.picture(shown) == batch["ids"][0, 2:20].tolist()
    assert batch["lengths"].tolist() == [len(row.ids) - 18 + len(queries)]
    # The last cell of the picture to be drawn is an apple, the rest is white: 1 in every channel.
    assert (batch["clean"][:, :-1] == 1).all() and (batch["clean"][:, -1] != 1).any()
    # Two views of weight 9 weigh as much as 18 codes.
    assert batch["picture_weights"].tolist() == [9, 9] and model.weigh(row) == (0, 18)


def test_what_is_random_about_a_row_comes_from_its_seed_and_not_from_its_company(model: TinyModel):
    kit = Kit.build()
    rows = [kit.sample("Draw it.", draw=Grid((name,) + (None,) * 8)) for name in ("cup", "apple", "cat")]
    together = model.collate(rows, [7, 8, 9])
    alone = model.collate(rows[2:], [9])
    for name in ("noise", "t", "sighted", "clean"):
        assert torch.equal(together[name][4:], alone[name])
    other = model.collate(rows[2:], [10])
    assert not torch.equal(other["noise"], alone["noise"]) and not torch.equal(other["t"], alone["t"])
    assert not torch.equal(alone["noise"][0], alone["noise"][1])


def test_a_tenth_of_the_views_is_learned_without_the_text_and_times_lean_towards_noise():
    model = small_model("flow")
    row = Kit.build().sample("Draw it.", draw=Grid(("cup",) + (None,) * 8))
    batch = model.collate([row] * 1500, range(1500))
    # 3,000 views: a standard error of 0.0055 for the share; the median time is sigmoid(2.2) = 0.900.
    assert 1 - batch["sighted"].float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert batch["t"].median().item() == pytest.approx(0.900, abs=0.01)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_drawings_depend_on_the_seed_and_not_on_the_batch(model: TinyModel, batch_size: int):
    assert isinstance(model, Model)
    texts = [
        "Draw 3 apples.",
        "Draw a cup.",
        "Draw 2 cups and 1 apple. Draw them.",
        "Draw",
        "Rule 1: A means 7. Draw A.",
    ]
    requests = [Request(content=(text,), thought=t) for text in texts for t in (None, "Draw 2 cups.")]
    whole = model.draw(requests, sampling=SAMPLING, seeds=range(10))
    order = np.random.default_rng(0).permutation(10)
    for start in range(0, 10, batch_size):
        part = [int(i) for i in order[start : start + batch_size]]
        for i, again in zip(part, model.draw([requests[i] for i in part], sampling=SAMPLING, seeds=part), strict=True):
            assert np.array_equal(np.asarray(again.image), np.asarray(whole[i].image))
    assert len({np.asarray(output.image).tobytes() for output in whole}) == 10


def test_a_request_past_the_context_is_malformed_without_hurting_its_neighbours(model: TinyModel):
    long, short = Request(content=("Draw 2 cups. " * 200,)), Request(content=("Draw 2 cups.",))
    outputs = model.draw([long, short], sampling=SAMPLING, seeds=[0, 1])
    assert outputs[0].outcome == "malformed" and "context" in outputs[0].detail
    (alone,) = model.draw([short], sampling=SAMPLING, seeds=[1])
    assert np.array_equal(np.asarray(outputs[1].image), np.asarray(alone.image))
    assert model.draw([], sampling=SAMPLING, seeds=[]) == []


def test_latents_that_are_not_finite_are_malformed_and_say_so():
    model = small_model("flow")
    with torch.no_grad():
        painter_of(model).cells_out.bias.fill_(float("nan"))
    (output,) = model.draw([Request(content=("Draw 2 cups.",))], sampling=SAMPLING, seeds=[0])
    assert output.outcome == "malformed" and "not finite" in output.detail


def test_it_answers_from_pictures_shown_and_scores_texts(model: TinyModel):
    request = Request(content=(render(Grid(("cup",) + (None,) * 8)), "What is in the picture?"))
    (output,) = model.answer([request], sampling=model.sampling, seeds=[0])
    assert output.outcome == "ok" and output.num_tokens
    (log_p,) = model.log_likelihood([request], ["1 cup"])
    assert len(log_p) == 3 and np.isfinite(log_p).all()


def test_settings_of_another_head_are_refused(model: TinyModel):
    with pytest.raises(ValueError, match=r"tiny:\w+ draws with PainterSampling, found Sampling"):
        model.draw([Request(content=("Draw 2 cups.",))], sampling=Sampling(), seeds=[0])
    with pytest.raises(ValueError, match="num_steps 0"):
        PainterSampling(num_steps=0)


def test_saved_and_loaded_it_draws_the_same(model: TinyModel, tmp_path: Path):
    with torch.no_grad():
        for parameter in model.loss_module().parameters():
            parameter.copy_(parameter.half())  # as the file stores it
    model.save_pretrained(tmp_path / "model", {"name": model.name})
    again = find_model(f"tiny:{tmp_path / 'model'}", device="cpu")
    assert isinstance(again, TinyModel) and again.name == model.name and again.sha256 == model.sha256
    other = find_model(f"tiny:{tmp_path / 'model'}?cfg_text_scale=3&num_steps=7", device="cpu")
    assert other.sampling == replace(model.sampling, cfg_text_scale=3.0, num_steps=7)
    requests = [Request(content=("Draw 2 cups.",))] * 2
    for a, b in zip(*(m.draw(requests, sampling=SAMPLING, seeds=[0, 1]) for m in (model, again)), strict=True):
        assert np.array_equal(np.asarray(a.image), np.asarray(b.image))


def test_half_precision_weights_draw_too(model: TinyModel, tmp_path: Path):
    model.save_pretrained(tmp_path / "model", {"name": model.name})
    half = find_model(f"tiny:{tmp_path / 'model'}", device="cpu", dtype="bfloat16")
    (output,) = half.draw([Request(content=("Draw 2 cups.",))], sampling=half.sampling, seeds=[0])
    assert output.image is not None and output.image.size == (24, 24)


@pytest.mark.parametrize("head", HEADS)
def test_two_captions_are_learned_and_drawn(head: Kind):
    """From birth, in float32: the caption decides which of two pictures comes out of any noise."""
    torch.manual_seed(0)
    model = newborn(Kit.build(), PretrainConfig(head=head, width=32, num_layers=2, num_heads=2))
    pictures = {"Draw a cup.": Grid(("cup",) * 9), "Draw an apple.": Grid(("apple",) * 9)}
    rows = [
        model.prepare(Example(id=text, content=(text,), image=render(scene))) for text, scene in pictures.items()
    ] * 4
    module = model.loss_module()
    assert isinstance(module, PaintingLoss)
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    for step in range(150):
        loss, _ = module(model.collate(rows, [1000 * step + i for i in range(8)]), (0.0, 8.0 * 18))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    requests = [Request(content=(text,)) for text in pictures for _ in range(3)]
    drawn = model.draw(requests, sampling=replace(SAMPLING, num_steps=12), seeds=range(6))
    for request, output in zip(requests, drawn, strict=True):
        assert output.image is not None and isinstance(request.content[0], str)
        wanted = np.asarray(render(pictures[request.content[0]])).astype(float)
        other = next(np.asarray(render(p)).astype(float) for t, p in pictures.items() if t != request.content[0])
        found = np.asarray(output.image).astype(float)
        assert np.abs(found - wanted).mean() < 0.2 * np.abs(found - other).mean()


@pytest.mark.parametrize("head", HEADS)
def test_the_packaged_heads_draw_what_their_cards_say(head: Kind):
    model = find_model(f"tiny:{head}", device="cpu")
    assert isinstance(model, TinyModel) and model.painter is not None and model.card["config"]["head"] == head
    rate, _, _ = model.card["scores"]["families"]["plain"]["plain/one"]["generation normal"]
    assert rate >= 0.85
    items = [item for item in make_items(["plain"], num_units=120, seed=2) if isinstance(item.answer, Count)]
    drawn = model.draw(
        [Request(content=(item.prompt,)) for item in items], sampling=model.sampling, seeds=[7] * len(items)
    )
    counts = [read_picture(output.image).counts for output in drawn if output.image]
    right = sum(found == {item.answer.object: item.answer.n} for found, item in zip(counts, items, strict=True))  # type: ignore[union-attr]
    # Some 40 prompts: at the card's rate, a standard error of about .05; four of them below it is .65.
    assert len(items) >= 30 and right / len(items) >= 0.65


def test_the_weights_inside_the_package_stay_small():
    files = list(Path(str(resources.files("unigap.models.tiny"))).glob("weights*/model.safetensors"))
    assert len(files) == 3 and all(file.stat().st_size <= 8e6 for file in files)
    assert sum(file.stat().st_size for file in files) <= 20e6
