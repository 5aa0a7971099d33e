"""What a step of self-training learns from."""

import pytest

from unigap.models.tiny.model import TinyModel
from unigap.models.trainable import Example
from unigap.scenes.render import Grid, render
from unigap.train.thinning import Thinning, partial_thoughts, preparer


def test_a_partial_thought_leaves_at_least_the_last_step_to_be_made():
    assert partial_thoughts("9 - 5 = 4\n4 + 1 = 5\nDraw 5 cups.") == ["9 - 5 = 4"]
    assert partial_thoughts("A means 7\n7 means #\n# means cup\nDraw 1 cup.") == ["A means 7", "A means 7\n7 means #"]
    assert partial_thoughts("9 - 5 = 4\nDraw 4 cups.") == partial_thoughts("Draw 4 cups.") == partial_thoughts("") == []


class Word(str):
    """A row that is easy to read."""

    id = property(lambda self: str(self))
    num_tokens = property(len)


ROWS = {
    "math1": [[Word(f"a{n}")] for n in range(5)],
    "math2": [[Word(f"b{n}"), Word(f"b{n}+1"), Word(f"b{n}+2")] for n in range(5)],
}


def test_what_a_place_holds_is_a_function_of_seed_and_place():
    source = Thinning(ROWS, identity="x", seed=0, partial=0.5)
    assert source.take(0, 30) == [
        row for start in (0, 7, 29) for row in source.take(start, {0: 7, 7: 22, 29: 1}[start])
    ]
    assert source.take(0, 30) != Thinning(ROWS, identity="x", seed=1, partial=0.5).take(0, 30)


def test_the_share_of_partial_thoughts_is_that_of_examples_that_have_one():
    def share(partial: float) -> float:
        rows = Thinning(ROWS, identity="x", seed=0, partial=partial).take(0, 2000)
        return sum("+" in row for row in rows) / sum(row.startswith("b") for row in rows)

    assert (share(0), share(1)) == (0, 1)
    assert share(0.3) == pytest.approx(0.3, abs=0.05)  # about 1000 of them: a standard error of 0.015


def test_a_curriculum_lets_the_families_in_one_by_one():
    source = Thinning(ROWS, identity="x", seed=0, stages=200)
    assert {row[0] for row in source.take(0, 100)} == {"a"}
    assert {row[0] for row in source.take(100, 100)} == {"a", "b"}
    assert source.families_at(10_000) == ("math1", "math2")
    assert source.identity != Thinning(ROWS, identity="x", seed=0).identity


def test_answers_come_before_the_pictures_and_the_curriculum_starts_after_them():
    said = {"math1": [Word("A")], "math2": [Word("B")]}
    source = Thinning(ROWS, identity="x", seed=0, stages=200, first=said, num_first=50)
    assert set(source.take(0, 50)) == {"A", "B"}
    assert {row[0] for row in source.take(50, 100)} == {"a"}
    assert {row[0] for row in source.take(150, 100)} == {"a", "b"}


@pytest.fixture(scope="module")
def tiny() -> TinyModel:
    return TinyModel.from_pretrained()


def test_the_embedded_model_learns_a_cell_as_the_share_of_what_is_left(tiny: TinyModel):
    grid = Grid(("cup", None, None, None, None, None, None, None, "cup"))
    example = Example(id="x", content=("Draw 2 cups.",), image=render(grid))
    plain, row = tiny.prepare(example), preparer(tiny)(example, [])
    assert row.ids == plain.ids and row.id == "x"
    (cup, empty), other = sorted(row.targets[-18], key=lambda pair: pair[1]), row.targets[-2:]
    assert (cup[1], empty[1]) == pytest.approx((2 / 9, 7 / 9))  # two cups are left for nine cells
    assert cup[0] == row.ids[-18]
    assert [pairs[0][1] for pairs in other] == [1.0, 1.0]  # one cup for one cell, and its lower half


def test_a_picture_that_is_no_scene_is_learned_as_it_is(tiny: TinyModel):
    halves = [render(Grid((name, *[None] * 8))) for name in ("cup", "ball")]
    image = halves[0].copy()
    image.paste(halves[1].crop((0, 4, 8, 8)), (0, 4))  # the upper half of a cup on the lower half of a ball
    example = Example(id="x", content=("Draw it.",), image=image)
    assert preparer(tiny)(example, []) == tiny.prepare(example)
