"""The token that begins a drawing names words between the layers."""

from dataclasses import replace

import pytest
import torch

from unigap.models.tiny import tokenizer as tok
from unigap.models.tiny.learning import Naming, Sample, TinyLoss, collate_named
from unigap.models.tiny.model import TinyModel
from unigap.models.trainable import Example
from unigap.scenes.render import Grid, render

CUP = render(Grid(("cup", *[None] * 8)))


@pytest.fixture
def tiny() -> TinyModel:
    return TinyModel.from_pretrained()


def drawing(tiny: TinyModel, prompt: str, *words: str) -> Sample:
    row = tiny.prepare(Example(id=prompt, content=(prompt,), image=CUP))
    return replace(row, named=tuple(tiny.tokenizer.encode(word)[0] for word in words))


def loss_of(tiny: TinyModel, rows: list[Sample], totals: tuple[float, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    return tiny.loss_module()(tiny.collate(rows, range(len(rows))), totals)


@torch.no_grad()
def test_a_word_is_read_off_behind_its_layer_at_the_token_that_begins_the_picture(tiny: TinyModel):
    row = drawing(tiny, "Draw 3 cups.", "4", "5")
    plain, (_, pictures) = loss_of(tiny, [row], (0.0, 1.0))
    tiny.naming = Naming(after=(2, 3, 5), weight=6.0)
    assert tiny.weigh(row) == (12.0, 18.0)  # two words of weight 6 beside 18 codes
    named, sums = loss_of(tiny, [row], (0.0, 1.0))

    network, at = tiny.network, row.ids.index(tiny.tokenizer[tok.DRAW])
    states: list[torch.Tensor] = []
    network.hidden(torch.tensor([row.ids]), states=states)
    expected = 0.0
    for word, after in zip(row.named, (3, 5), strict=True):  # of three places, two words take the last
        logits_V = network.head(network.norm(states[after - 1][0, at]))
        expected -= 6.0 * float(logits_V.log_softmax(dim=-1)[word])
    assert float(named - plain) == pytest.approx(expected, rel=1e-4)
    assert sums.tolist() == pytest.approx([expected, float(pictures)], rel=1e-4)


@torch.no_grad()
def test_the_last_words_are_named_where_there_are_more_than_places(tiny: TinyModel):
    tiny.naming = Naming(after=(3, 5), weight=1.0)
    four, two = drawing(tiny, "Draw 3 cups.", "1", "2", "4", "5"), drawing(tiny, "Draw 3 cups.", "4", "5")
    assert tiny.weigh(four) == tiny.weigh(two) == (2.0, 18.0)
    torch.testing.assert_close(loss_of(tiny, [four], (2.0, 18.0)), loss_of(tiny, [two], (2.0, 18.0)))


@torch.no_grad()
def test_the_shares_of_batches_with_and_without_names_add_up_to_the_loss_of_one(tiny: TinyModel):
    tiny.naming = Naming(after=(2, 5), weight=6.0)
    named = [drawing(tiny, "Draw 3 cups.", "4", "5"), drawing(tiny, "Draw 2 balls, and no more.", "cup")]
    others = [
        drawing(tiny, "Draw 1 cup."),
        tiny.prepare(Example(id="text", content=(CUP, "How many?"), answer="1 cup")),
    ]
    totals = tuple(map(sum, zip(*map(tiny.weigh, [*named, *others]), strict=True)))
    whole, sums = loss_of(tiny, [*named, *others], totals)
    parts = [loss_of(tiny, rows, totals) for rows in (named, others)]
    torch.testing.assert_close(sum(loss for loss, _ in parts), whole)
    torch.testing.assert_close(sum(each for _, each in parts), sums)


@pytest.mark.parametrize(
    ("first", "words", "expected"),
    [
        (False, "a", "--a"), (False, "ab", "-ab"), (False, "abc", "abc"), (False, "abcd", "bcd"), (False, "", "---"),
        (True, "a", "aaa"), (True, "ab", "abb"), (True, "abc", "abc"), (True, "abcd", "abd"), (True, "", "---"),
    ],
)  # fmt: skip
def test_words_have_the_last_places_or_the_first_and_then_the_last_word_stays(first: bool, words: str, expected: str):
    row = Sample([7] * 20, [()] * 20, named=tuple(map(ord, words)))
    naming = Naming(after=(2, 3, 5), weight=2.0, first=first)
    named_N = collate_named([row], 20, naming)[0, 20 - 18 - 1]
    assert "".join("-" if word < 0 else chr(word) for word in named_N.tolist()) == expected
    assert naming.total(row) == 2.0 * len(expected.replace("-", ""))


def test_names_teach_the_layers_before_them_alone(tiny: TinyModel):
    tiny.naming = Naming(after=(2,), weight=1.0)
    row = drawing(tiny, "Draw 3 cups.", "4")
    module = tiny.loss_module()
    assert isinstance(module, TinyLoss)
    _, before = loss_of(tiny, [row], (1.0, 18.0))
    loss, _ = loss_of(tiny, [replace(row, targets=[()] * len(row.targets))], (1.0, 0.0))
    loss.backward()
    taught = [any(p.grad is not None and p.grad.any() for p in block.parameters()) for block in tiny.network.blocks]
    assert taught == [True, True, False, False, False, False]
    assert loss.item() == pytest.approx(before[0].item(), rel=1e-4)


def test_without_naming_nothing_is_kept_or_asked(tiny: TinyModel):
    assert tiny.own_settings == {} and tiny.weigh(drawing(tiny, "Draw 3 cups.", "4")) == (0.0, 18.0)
    assert "named" not in tiny.collate([drawing(tiny, "Draw 3 cups.", "4")], [0])
    tiny.naming = Naming(after=(2, 5), weight=6.0)
    assert tiny.own_settings == {"naming": {"after": (2, 5), "weight": 6.0, "first": False}}
