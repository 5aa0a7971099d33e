"""Pictures and the exact reader: what is drawn is what is read, and what is not a scene is refused."""

import io
import json
import random
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unigap.items import Portrait, answer_from_json
from unigap.scenes.read import HALF_TOLERANCE, Reading, read_picture, read_pictures
from unigap.scenes.render import (
    ATTRIBUTES,
    CELL_PX,
    HALF_PX,
    SIZE_PX,
    Grid,
    Scene,
    all_portraits,
    parse_scene,
    place,
    render,
    render_array,
    scene_ref,
    sprite_arrays,
    upscale,
)
from unigap.scenes.vocabulary import NUM_CELLS, OBJECTS

MIN_OBJECT_DISTANCE = 36
"""Levels between any two halves of objects (or the empty cell), whichever halves they are."""
MIN_PORTRAIT_DISTANCE = 18
"""Levels between any two distinct patches that portraits have at the same place."""

PORTRAITS = all_portraits()
EMPTY_GRID = Grid((None,) * NUM_CELLS)

unhurried = settings(deadline=None)  # a machine shared with others has pauses that say nothing about the code

seeds = st.integers(0, 2**32 - 1)
counts_of_kinds = st.dictionaries(st.sampled_from(OBJECTS), st.integers(1, 4), min_size=1, max_size=3).filter(
    lambda counts: sum(counts.values()) <= NUM_CELLS
)
grids = st.builds(lambda counts, seed: place(counts, random.Random(seed)), counts_of_kinds, seeds)
scenes = st.one_of(grids, st.sampled_from(PORTRAITS))


def expected(scene: Scene) -> Reading:
    if isinstance(scene, Portrait):
        return Reading(kind="portrait", portrait=scene)
    counts = {name: scene.cells.count(name) for name in OBJECTS if name in scene.cells}
    return Reading(kind="objects", counts=counts) if counts else Reading(kind="blank")


def picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))


def patches(pixels: np.ndarray) -> np.ndarray:
    """One picture as float (18, 96), written independently of the reader."""
    return np.array(
        [
            pixels[top : top + HALF_PX, left : left + CELL_PX].reshape(-1)
            for top in range(0, SIZE_PX, HALF_PX)
            for left in range(0, SIZE_PX, CELL_PX)
        ],
        float,
    )


def distances(patches_PV: np.ndarray) -> np.ndarray:
    """Mean absolute differences of all pairs of distinct rows."""
    matrix = np.abs(patches_PV[:, None] - patches_PV[None]).mean(axis=-1)
    return matrix[np.triu_indices(len(patches_PV), k=1)]


def sample_scenes() -> list[Scene]:
    rng = random.Random(0)
    several = [place({name: rng.randint(1, 3) for name in rng.sample(OBJECTS, 3)}, rng) for _ in range(200)]
    return [*PORTRAITS, *several]


# What is drawn is what is read.


def test_every_object_at_every_position_is_read():
    drawn = [
        Grid((None,) * cell + (name,) + (None,) * (NUM_CELLS - 1 - cell))
        for name in OBJECTS
        for cell in range(NUM_CELLS)
    ]
    assert read_pictures([render(grid) for grid in drawn]) == [expected(grid) for grid in drawn]


def test_every_count_of_every_object_is_read():
    rng = random.Random(0)
    drawn = [(name, n, place({name: n}, rng)) for name in OBJECTS for n in range(1, NUM_CELLS + 1)]
    for (name, n, _), reading in zip(drawn, read_pictures([render(grid) for *_, grid in drawn]), strict=True):
        assert reading == Reading(kind="objects", counts={name: n})


def test_every_portrait_is_read():
    assert len(PORTRAITS) == 72
    assert read_pictures([render(portrait) for portrait in PORTRAITS]) == [expected(portrait) for portrait in PORTRAITS]


@unhurried
@given(grids)
def test_scenes_of_several_kinds_are_read(grid: Grid):
    assert read_picture(render(grid)) == expected(grid)


def test_counts_are_listed_in_the_order_of_objects():
    last_first = Grid((*OBJECTS[-4:][::-1], *OBJECTS[:5][::-1]))
    assert list(read_picture(render(last_first)).counts) == [*OBJECTS[:5], *OBJECTS[-4:]]


def test_an_empty_picture_is_blank():
    assert read_picture(render(EMPTY_GRID)) == Reading(kind="blank")
    assert read_picture(Image.new("1", (SIZE_PX, SIZE_PX), 1)) == Reading(kind="blank")


@unhurried
@given(grids, seeds)
def test_moving_objects_changes_the_picture_but_not_the_reading(grid: Grid, seed: int):
    cells = list(grid.cells)
    random.Random(seed).shuffle(cells)
    moved = Grid(tuple(cells))
    assert read_picture(render(moved)) == read_picture(render(grid))
    assert (render_array(moved) == render_array(grid)).all() == (moved == grid)


@unhurried
@given(grids, st.integers(0, NUM_CELLS - 1), st.sampled_from((None, *OBJECTS)))
def test_another_content_of_one_cell_is_another_reading(grid: Grid, cell: int, content: str | None):
    changed = Grid((*grid.cells[:cell], content, *grid.cells[cell + 1 :]))
    same = content == grid.cells[cell]
    assert (read_picture(render(changed)) == read_picture(render(grid))) == same


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_another_value_of_one_attribute_is_another_reading_and_at_least_one_patch_changes_clearly(attribute: str):
    for portrait in PORTRAITS:
        before = patches(render_array(portrait))
        for value in set(ATTRIBUTES[attribute]) - {getattr(portrait, attribute)}:
            changed = replace(portrait, **{attribute: value})
            assert read_picture(render(changed)).portrait == changed
            assert np.abs(patches(render_array(changed)) - before).mean(axis=-1).max() > 2 * HALF_TOLERANCE


# What is not a scene is refused.


@settings(max_examples=300, deadline=None)
@given(grids, seeds, st.sampled_from(("swapped", "blanked", "noise")))
def test_a_corrupted_half_cell_changes_the_reading_or_is_refused(grid: Grid, seed: int, how: str):
    rng = np.random.default_rng(seed)
    pixels = render_array(grid)
    top, left = rng.integers(6) * HALF_PX, rng.integers(3) * CELL_PX
    half = pixels[top : top + HALF_PX, left : left + CELL_PX]
    before = half.copy()
    if how == "swapped":
        start = rng.integers(2) * HALF_PX
        half[:] = sprite_arrays()[rng.integers(1, len(OBJECTS) + 1), start : start + HALF_PX]
    elif how == "blanked":
        half[:] = 255
    else:
        half[:] = rng.integers(0, 256, half.shape)
    changed = not (half == before).all()
    assert (read_picture(picture(pixels)) != expected(grid)) == changed


def test_the_upper_half_of_one_object_on_the_lower_half_of_another_is_refused_for_every_pair():
    pairs = [(upper, lower) for upper in OBJECTS for lower in OBJECTS if upper != lower]
    pictures = []
    for upper, lower in pairs:
        pixels = render_array(Grid((None,) * 4 + (lower,) + (None,) * 4))
        pixels[CELL_PX : CELL_PX + HALF_PX] = render_array(Grid((None,) * 4 + (upper,) + (None,) * 4))[
            CELL_PX : CELL_PX + HALF_PX
        ]
        pictures.append(picture(pixels))
    for (upper, lower), reading in zip(pairs, read_pictures(pictures), strict=True):
        assert reading.kind == "unreadable"
        assert reading.why == f"row 2, column 2: upper half of {upper}, lower half of {lower}"


def test_a_patch_of_another_portrait_changes_the_reading_or_is_refused():
    rng = random.Random(0)
    scenes_read, pictures = [], []
    for portrait in PORTRAITS:
        for top in range(0, SIZE_PX, HALF_PX):
            for left in range(0, SIZE_PX, CELL_PX):
                pixels, other = render_array(portrait), render_array(rng.choice(PORTRAITS))
                place_in = np.s_[top : top + HALF_PX, left : left + CELL_PX]
                if (pixels[place_in] == other[place_in]).all():
                    continue
                pixels[place_in] = other[place_in]
                scenes_read.append(portrait)
                pictures.append(picture(pixels))
    assert len(pictures) > 500
    for portrait, reading in zip(scenes_read, read_pictures(pictures), strict=True):
        assert reading != expected(portrait)


def test_the_reason_says_where_and_what():
    pixels = render_array(Grid(("cup", None, None) + (None,) * 5 + ("dog",)))
    pixels[16:20, 16:24] = 0
    assert read_picture(picture(pixels)).why.startswith("row 3, column 3: no known object; nearest is ")
    pixels[0:4, 0:8] = 255
    reading = read_picture(picture(pixels))
    assert reading.why == "row 1, column 1: upper half of an empty cell, lower half of cup; 2 of 9 cells cannot be read"
    assert reading.counts == {}

    pixels = render_array(Portrait(gender="male", age="old", hair="red", skin="tan"))
    pixels[8:12, 8:16] = 0
    why = read_picture(picture(pixels)).why
    assert why.startswith("no known portrait; nearest is (male, old, red, tan), off by ")
    assert why.endswith("in the upper half of row 2, column 2; 1 of 18 patches do not fit")


@pytest.mark.parametrize("seed", range(5))
def test_pure_noise_is_nothing(seed: int):
    reading = read_picture(picture(np.random.default_rng(seed).uniform(0, 255, (SIZE_PX, SIZE_PX, 3))))
    assert reading.why == "none of the 9 cells shows a known object, nor is it a portrait"


@pytest.mark.parametrize("size", [(23, 24), (24, 48), (25, 25), (8, 8), (1, 1), (36, 36)])
def test_another_size_is_refused_with_the_expected_one(size: tuple[int, int]):
    reading = read_picture(Image.new("RGB", size, "white"))
    assert reading.kind == "unreadable"
    assert f"{size[0]}x{size[1]} pixels, expected 24x24 or a whole multiple" in reading.why


# The stated tolerance.


def shifted(pixels: np.ndarray, levels: float) -> np.ndarray:
    """Every value moved by exactly `levels`, towards the middle so that none is clipped."""
    return pixels + np.where(pixels > 127, -levels, levels)


@pytest.mark.parametrize("scene", [Grid(("spoon", "pencil") + (None,) * 7), EMPTY_GRID, PORTRAITS[0], PORTRAITS[-1]])
def test_a_half_is_accepted_up_to_the_tolerance_and_refused_beyond_it(scene: Scene):
    pixels = render_array(scene).astype(float)
    assert read_picture(picture(shifted(pixels, HALF_TOLERANCE))) == expected(scene)
    for top in range(0, SIZE_PX, HALF_PX):
        for left in range(0, SIZE_PX, CELL_PX):
            one_off = pixels.copy()
            place_in = np.s_[top : top + HALF_PX, left : left + CELL_PX]
            one_off[place_in] = shifted(one_off[place_in], HALF_TOLERANCE + 1)
            assert read_picture(picture(one_off)).kind == "unreadable"


def test_gaussian_noise_of_sigma_8_changes_no_reading():
    rng = np.random.default_rng(0)
    drawn = sample_scenes()
    noisy = [picture(render_array(scene) + rng.normal(0, 8, (SIZE_PX, SIZE_PX, 3))) for scene in drawn]
    assert read_pictures(noisy) == [expected(scene) for scene in drawn]


@pytest.mark.parametrize(
    ("factor", "subsampling"),
    [(1, "4:4:4"), (8, "4:2:0")],
    ids=["full-size chroma", "chroma subsampled, 8 times the size"],
)
def test_jpeg_of_quality_90_changes_no_reading(factor: int, subsampling: str):
    drawn = sample_scenes()
    stored = []
    for scene in drawn:
        file = io.BytesIO()
        upscale(render(scene), factor).save(file, "JPEG", quality=90, subsampling=subsampling)
        stored.append(Image.open(file))
    assert read_pictures(stored) == [expected(scene) for scene in drawn]


@unhurried
@given(scenes, st.sampled_from((2, 3, 16)))
def test_an_upscaled_picture_reads_the_same(scene: Scene, factor: int):
    larger = upscale(render(scene), factor)
    assert larger.size == (factor * SIZE_PX, factor * SIZE_PX)
    assert read_picture(larger) == expected(scene)


@pytest.mark.parametrize("mode", ["RGBA", "RGBX", "CMYK", "YCbCr"])
def test_other_colour_modes_read_the_same(mode: str):
    for scene in (Grid(("cup", "rose", None) * 3), PORTRAITS[7]):
        assert read_picture(render(scene).convert(mode)) == expected(scene)


def test_a_palette_reads_the_same():
    for scene in (Grid(("cup", "rose", None) * 3), PORTRAITS[7]):
        assert read_picture(render(scene).quantize(64)) == expected(scene)


def test_transparent_pixels_show_the_white_ground():
    grid = Grid(("cup",) + (None,) * 8)
    pixels = np.zeros((SIZE_PX, SIZE_PX, 4), np.uint8)
    pixels[:CELL_PX, :CELL_PX, :3] = render_array(grid)[:CELL_PX, :CELL_PX]
    pixels[:CELL_PX, :CELL_PX, 3] = 255
    assert read_picture(Image.fromarray(pixels)) == expected(grid)


@pytest.mark.parametrize("mode", ["1", "L", "RGBX", "I", "F", "I;16", "LAB", "HSV"])
def test_a_picture_of_any_mode_gets_a_reading(mode: str):
    assert read_picture(Image.new(mode, (SIZE_PX, SIZE_PX))).kind == "unreadable"


def test_a_batch_reads_like_its_pictures_alone_and_in_order():
    pictures = [render(scene) for scene in sample_scenes()[:150]]
    pictures[::7] = [Image.new("RGB", (5, 5)) for _ in pictures[::7]]
    assert read_pictures(pictures) == [read_picture(image) for image in pictures]
    assert read_pictures([]) == []


def test_a_reading_takes_less_than_a_millisecond():
    pictures = [render(scene) for scene in sample_scenes()]

    def seconds() -> float:
        start = time.perf_counter()
        read_pictures(pictures)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) / len(pictures) < 1e-3


def test_a_reading_survives_json():
    for scene in (Grid(("cup", "rose", None) * 3), EMPTY_GRID, PORTRAITS[7]):
        data = json.loads(json.dumps(read_picture(render(scene)).to_json()))
        if data["portrait"] is not None:
            data["portrait"] = answer_from_json(data["portrait"])
        assert Reading(**data) == expected(scene)


# The pixel art leaves the reader its tolerance.


def test_halves_of_objects_are_unique_and_far_apart():
    halves_PV = sprite_arrays()[1:].reshape(2 * len(OBJECTS), -1).astype(float)
    empty = np.full((1, halves_PV.shape[1]), 255.0)
    assert distances(np.concatenate([halves_PV, empty])).min() >= MIN_OBJECT_DISTANCE
    # Two halves that both lie within the tolerance of one patch are at most twice the tolerance apart.
    assert MIN_OBJECT_DISTANCE > 2 * HALF_TOLERANCE


def test_patches_of_portraits_at_one_place_are_equal_or_apart_and_any_two_portraits_are_far_apart():
    patches_QPV = np.stack([patches(render_array(portrait)) for portrait in PORTRAITS])
    off_QQP = np.stack([np.abs(patches_QPV - patches_PV).mean(axis=-1) for patches_PV in patches_QPV])
    assert off_QQP[off_QQP > 0].min() >= MIN_PORTRAIT_DISTANCE > HALF_TOLERANCE
    worst_QQ = off_QQP.max(axis=-1)
    assert worst_QQ[~np.eye(len(PORTRAITS), dtype=bool)].min() > 2 * HALF_TOLERANCE


def test_no_picture_can_pass_for_a_portrait_and_for_objects():
    halves_SV = sprite_arrays().reshape(-1, HALF_PX * CELL_PX * 3).astype(float)
    for portrait in PORTRAITS:
        off_PS = np.abs(patches(render_array(portrait))[:, None] - halves_SV).mean(axis=-1)
        assert off_PS.min(axis=1).max() > 2 * HALF_TOLERANCE


def test_few_distinct_patches_make_all_pictures():
    objects_PV = sprite_arrays().reshape(-1, HALF_PX * CELL_PX * 3)
    portraits_PV = np.concatenate([patches(render_array(portrait)) for portrait in PORTRAITS])
    assert len(np.unique(objects_PV, axis=0)) == 2 * len(OBJECTS) + 1
    assert len(np.unique(portraits_PV, axis=0)) <= 128


# Scenes, references and placing.


@unhurried
@given(scenes)
def test_a_reference_names_exactly_one_scene(scene: Scene):
    assert parse_scene(scene_ref(scene)) == scene


def test_references_look_as_documented():
    assert scene_ref(Grid(("apple", None, "cup") + (None,) * 6)) == "scene:grid:apple,.,cup,.,.,.,.,.,."
    portrait = Portrait(gender="female", age="old", hair="red", skin="light")
    assert scene_ref(portrait) == "scene:portrait:female,old,red,light"


@pytest.mark.parametrize(
    ("ref", "expectation"),
    [
        ("", 'expected "scene:grid:" and 9 comma-separated'),
        ("picture.png", 'or "scene:portrait:" and gender,age,hair,skin'),
        ("scene:circle:apple", 'expected "scene:grid:"'),
        ("scene:grid:apple,cup", "a grid has 9 cells, found 2"),
        (
            "scene:grid:" + ",".join(["Apple"] * 9),
            "no object is called 'Apple'; expected None or one of: apple, banana",
        ),
        ("scene:portrait:female,old,red", "expected gender,age,hair,skin, found 3 values"),
        ("scene:portrait:female,old,green,light", "portrait hair is 'green', expected one of: black, brown"),
    ],
)
def test_a_bad_reference_says_what_was_expected(ref: str, expectation: str):
    with pytest.raises(ValueError, match="scene reference ") as error:
        parse_scene(ref)
    assert expectation in str(error.value)
    assert repr(ref) in str(error.value)


def test_a_portrait_of_another_world_is_not_drawn():
    with pytest.raises(ValueError, match="portrait age is 'teenager', expected one of: kid, middle-aged, old"):
        render(Portrait(gender="male", age="teenager", hair="red", skin="tan"))


@unhurried
@given(counts_of_kinds, seeds)
def test_placed_objects_are_all_there_and_the_seed_decides_where(counts: dict[str, int], seed: int):
    grid = place(counts, random.Random(seed))
    assert {name: grid.cells.count(name) for name in counts} == counts
    assert grid.cells.count(None) == NUM_CELLS - sum(counts.values())
    assert grid == place(counts, random.Random(seed))


def test_every_cell_is_used_about_equally_often():
    rng = random.Random(0)
    used = sum(np.array([name == "cup" for name in place({"cup": 2, "dog": 1}, rng).cells]) for _ in range(9000))
    # 9000 * 2/9 = 2000 expected a cell, standard deviation sqrt(9000 * 2/9 * 7/9) = 39.4; 5 of those.
    assert np.abs(np.asarray(used) - 2000).max() < 200


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"cup": 10}, "at most 9 objects, asked for 10"),
        ({"cup": 5, "dog": 5}, "at most 9 objects, asked for 10"),
        ({"cup": -1}, "must not be negative"),
        ({"unicorn": 1}, "no object is called 'unicorn'"),
    ],
)
def test_what_cannot_be_placed_is_refused(counts: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        place(counts, random.Random(0))


def test_changing_a_rendered_array_changes_no_later_picture():
    for scene in (Grid(("cup",) * 9), PORTRAITS[0]):
        render_array(scene)[:] = 0
        assert read_picture(render(scene)) == expected(scene)
