"""One hook for every model: the states it shows are the network's own, and what is put there is what is drawn from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.models.tiny.test_heads import small_model
from tests.train.small_bagel import picture, small_bagel

from unigap.models.bagel.context import Reader
from unigap.models.bagel.inspection import BagelInspector
from unigap.models.bagel.settings import BagelSampling
from unigap.models.inspection import Inspector, Look, States, look_at
from unigap.models.protocol import Request, Sampling
from unigap.models.tiny import tokenizer as tok
from unigap.models.tiny.inspection import TinyInspector
from unigap.models.tiny.model import TinyModel
from unigap.models.tiny.painter import PainterSampling
from unigap.models.tiny.painting import query_ids

PROMPTS = ("Draw 2 cups.", "Draw a portrait of an old woman.", "Draw as many lamps as 2 + 2.")
REQUESTS = [Request(content=(text,), purpose="draw") for text in PROMPTS]
SEEDS = [5, 6, 7]
TIMES = (1.0, 0.5)


def inspector(name: str) -> Inspector:
    if name == "bagel":
        return small_bagel().inspector()
    if name == "ar":
        return TinyModel.from_pretrained().inspector()
    return small_model(name).inspector()  # type: ignore[arg-type]


def sampling_of(name: str) -> Sampling:
    if name == "bagel":
        return BagelSampling(num_timesteps=5, height_px=16, width_px=16, timestep_shift=1.0)
    return Sampling() if name == "ar" else PainterSampling(num_steps=4, timestep_shift=1.0)


@pytest.fixture(scope="module", params=["ar", "flow", "query", "bagel"])
def head(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def looking(head: str) -> Inspector:
    return inspector(head)


@pytest.fixture(scope="module")
def seen(head: str, looking: Inspector) -> Look:
    return looking.look(REQUESTS, sampling=sampling_of(head), seeds=SEEDS, times=TIMES)


def pixels(look: Look) -> list[bytes]:
    return [drawing.image.tobytes() for drawing in look.drawings if drawing.image is not None]


def of_kind(look: Look, kind: str) -> States:
    return next(states for states in look.states if states.kind == kind)


def test_looking_on_does_not_change_the_drawing(head: str, looking: Inspector, seen: Look):
    drawn = looking.model.draw(REQUESTS, sampling=sampling_of(head), seeds=SEEDS)
    assert pixels(seen) == pixels(Look(drawn, [])) and len(pixels(seen)) == 3


def test_every_kind_of_state_a_model_has_is_shown_with_its_names(head: str, seen: Look):
    shown = [(s.kind, len(s.positions), s.time, s.in_words) for s in seen.states]
    words = ("text", 4, None, True)
    assert (
        shown
        == {
            "ar": [words, ("image", 17, None, True)],
            "flow": [words, ("image", 9, 1.0, False), ("image", 9, 0.5, False)],
            "query": [words, ("query", 18, None, True), ("image", 9, 1.0, False), ("image", 9, 0.5, False)],
            # 16 px are 4 x 4 latents, in 3 x 3 cells; of the times 1, .75, .5, .25 two are asked for.
            "bagel": [words, ("image", 9, 1.0, False), ("image", 9, 0.5, False)],
        }[head]
    )
    for states in seen.states:
        assert states.values.shape[0] == 3 and states.values.shape[2] == len(states.positions)
        assert states.values.isfinite().all() and states.values.dtype == torch.float32


def test_states_depend_on_their_own_request_alone(head: str, looking: Inspector, seen: Look):
    alone = looking.look(REQUESTS[1:2], sampling=sampling_of(head), seeds=SEEDS[1:2], times=TIMES)
    for together, by_itself in zip(seen.states, alone.states, strict=True):
        torch.testing.assert_close(by_itself.values, together.rows([1]).values, atol=2e-4, rtol=1e-4)


def test_putting_its_own_states_changes_nothing(head: str, looking: Inspector, seen: Look):
    for own in (states for states in seen.states if states.kind != "image"):
        again = looking.look(REQUESTS, sampling=sampling_of(head), seeds=SEEDS, times=TIMES, put=own)
        for before, after in zip(seen.states, again.states, strict=True):
            torch.testing.assert_close(after.values, before.values, atol=1e-4, rtol=1e-4)
        assert pixels(again) == pixels(seen)


def test_what_is_put_is_there_and_reaches_the_picture(head: str, looking: Inspector, seen: Look):
    """The states of another request: all later ones change, and those put are found as they were put."""
    for own in (states for states in seen.states if states.kind != "image"):
        other = own.rows([1, 2, 0])
        changed = looking.look(REQUESTS, sampling=sampling_of(head), seeds=SEEDS, times=TIMES, put=other)
        torch.testing.assert_close(of_kind(changed, own.kind).values, other.values)
        difference = (of_kind(changed, "image").values - of_kind(seen, "image").values)[:, -1].abs().amax(dim=(1, 2))
        assert (difference > 1e-4).all()


def test_states_of_pictures_and_of_other_shapes_are_not_put(head: str, looking: Inspector, seen: Look):
    text = of_kind(seen, "text")
    for put, why in ((of_kind(seen, "image"), "looked at, not put"), (text.rows([0]), "expected")):
        with pytest.raises(ValueError, match=why):
            looking.look(REQUESTS, sampling=sampling_of(head), seeds=SEEDS, put=put)
    with pytest.raises(ValueError, match="no position 'query 9'"):
        text.at(["query 9"])


def test_looking_in_batches_is_looking_at_once(seen: Look, looking: Inspector, head: str, monkeypatch):
    monkeypatch.setattr(looking.model, "batch_size", 2)
    end = of_kind(seen, "text").at(["end"])
    look = look_at(looking, REQUESTS, sampling=sampling_of(head), seeds=SEEDS, times=TIMES, put=end)
    assert pixels(look) == pixels(seen)
    torch.testing.assert_close(of_kind(look, "text").values, of_kind(seen, "text").values, atol=2e-4, rtol=1e-4)


# ---- the embedded model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["ar", "flow", "query"], scope="module")
@torch.inference_mode()
def test_the_last_state_through_the_text_head_is_what_the_model_would_say_next(
    head: str, looking: TinyInspector, seen: Look
):
    model = looking.model
    for row, request in enumerate(REQUESTS):
        ids = model.encode(request, tok.DRAW)[0]
        expected = model.network(torch.tensor([ids]))[0, -4:].log_softmax(dim=-1)
        torch.testing.assert_close(
            looking.read_out(of_kind(seen, "text").values[row, -1]), expected, atol=1e-3, rtol=1e-3
        )


@pytest.mark.parametrize("head", ["query"], scope="module")
@torch.inference_mode()
def test_the_last_states_of_the_queries_are_what_the_painter_reads(head: str, looking: TinyInspector, seen: Look):
    model = looking.model
    assert model.painter is not None
    ids = [*model.encode(REQUESTS[0], tok.DRAW)[0], *query_ids(model.painter, model.network)]
    hidden = model.network.hidden(torch.tensor([ids]))[0, -18:]
    own = of_kind(seen, "query").values[0, -1]
    torch.testing.assert_close(model.network.norm(own), hidden, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("head", ["query"], scope="module")
def test_a_drawing_by_queries_is_a_function_of_their_states_alone(head: str, looking: TinyInspector, seen: Look):
    """All the painter sees are the queries: with another request's, and its noise, the other's picture is drawn."""
    put = of_kind(seen, "query").rows([1, 2, 0])
    changed = looking.look(REQUESTS, sampling=sampling_of(head), seeds=[SEEDS[1], SEEDS[2], SEEDS[0]], put=put)
    assert pixels(changed) == [pixels(seen)[row] for row in (1, 2, 0)]


@pytest.mark.parametrize("head", ["ar"], scope="module")
def test_what_draws_tokens_shows_the_states_of_the_tokens_it_drew(head: str, looking: TinyInspector, seen: Look):
    """The whole sequence, drawn tokens and all, in one pass."""
    model = looking.model
    drawn = model.policy().sample(REQUESTS, sampling=Sampling(), seeds=SEEDS)
    ids = [*drawn[2].prompt, *drawn[2].codes]  # type: ignore[union-attr]
    with torch.inference_mode():
        hidden = model.network.hidden(torch.tensor([ids]))[0, -18:-1]
    last = of_kind(seen, "image").values[2, -1]
    torch.testing.assert_close(model.network.norm(last), hidden, atol=1e-3, rtol=1e-3)


# ---- BAGEL -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["bagel"], scope="module")
@torch.inference_mode()
def test_bagels_last_state_through_its_head_is_what_it_would_say_next(head: str, looking: BagelInspector, seen: Look):
    """A thought, or a picture before the text, is part of the context; what is read is the last text."""
    model = looking.model
    requests = [
        REQUESTS[0],
        replace(REQUESTS[0], thought="so 2"),
        Request(content=(picture("cup", 1), "one more"), purpose="draw"),
    ]
    found = of_kind(looking.look(requests, sampling=sampling_of(head), seeds=SEEDS), "text")
    for row, request in enumerate(requests):
        reader = Reader(model.checkpoint, keep_hidden=True)
        reading = model._plan(reader, request, model._settings(sampling_of(head)), seed=SEEDS[row])
        if request.thought is not None:
            reading.add_thought(model.tokenizer.encode(request.thought))
        reader.read()
        expected = model.bagel.logits(reader.hidden[reading.contexts.gen][-4:]).log_softmax(dim=-1)
        torch.testing.assert_close(looking.read_out(found.values[row, -1]), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("head", ["bagel"], scope="module")
def test_bagels_states_of_latents_give_its_velocity(head: str, looking: BagelInspector):
    """A drawing of 3 x 3 latents has one in each cell, so last states through norm and head are the velocity; with
    one step (two points of time) from noise n, and no guidance, the picture is n - v."""
    sampling = BagelSampling(
        num_timesteps=2,
        height_px=12,
        width_px=12,
        timestep_shift=1.0,
        guidance=replace(BagelSampling().guidance, cfg_text_scale=1.0, cfg_img_scale=1.0),
    )
    model = looking.model
    look = looking.look(REQUESTS[:1], sampling=sampling, seeds=[3], times=(1.0,))
    bagel = model.bagel
    with torch.inference_mode():
        v_NW = bagel.velocity(bagel.language_model.model.norm_moe_gen(of_kind(look, "image").values[0, -1]))
    noise = torch.randn((9, v_NW.shape[1]), generator=torch.Generator().manual_seed(3))
    x = noise - v_NW
    from unigap.models.bagel.drawing import develop
    from unigap.models.bagel.pictures import unpatchify

    image = develop(model.checkpoint, [unpatchify(x, model.checkpoint.config.latent_patch_size, 3, 3)])[0]
    drawn = look.drawings[0].image
    assert image is not None and drawn is not None
    assert np.abs(np.asarray(image).astype(int) - np.asarray(drawn).astype(int)).max() <= 1


@pytest.mark.parametrize("head", ["bagel"], scope="module")
def test_a_request_to_be_thought_about_first_is_refused(head: str, looking: BagelInspector):
    with pytest.raises(ValueError, match="set `thought`"):
        looking.look([replace(REQUESTS[0], think_first=True)], sampling=sampling_of(head), seeds=[1])
