"""Rectified flow: its formulas by hand, its sampler where the answer is known, and pictures through latents."""

from itertools import combinations

import numpy as np
import pytest
import torch

from unigap.models.tiny.flow import (
    euler,
    flow_losses,
    guided,
    noised,
    schedule,
    start_noise,
    to_latents,
    to_pixels,
    training_times,
    velocity,
)
from unigap.scenes.render import Grid, Portrait, all_portraits, render
from unigap.scenes.vocabulary import NUM_CELLS, OBJECTS
from unigap.train.kit import Kit


def test_a_noised_picture_is_on_the_line_from_picture_to_noise_and_its_velocity_is_the_difference():
    clean, noise, t = torch.tensor([1.0, -1.0]), torch.tensor([3.0, 0.0]), torch.tensor(0.25)
    x = noised(clean, noise, t)
    # 0.75 * 1 + 0.25 * 3 = 1.5;  0.75 * -1 + 0 = -0.75;  v = noise - clean = 2, 1
    torch.testing.assert_close(x, torch.tensor([1.5, -0.75]))
    torch.testing.assert_close(velocity(x, clean, t), torch.tensor([2.0, 1.0]))


def test_the_loss_is_the_error_of_the_velocity_and_no_time_counts_as_less_than_a_fifth():
    clean = torch.zeros(3, NUM_CELLS, 192)
    predicted, t = torch.full_like(clean, 0.1), torch.tensor([1.0, 0.5, 0.05])
    # 0.1^2 / 1;  0.1^2 / 0.5^2;  0.1^2 / 0.2^2
    torch.testing.assert_close(flow_losses(predicted, clean, t), torch.tensor([0.01, 0.04, 0.25]))


def test_the_schedule_falls_from_one_to_zero_and_a_shift_lingers_in_noise():
    assert schedule(4, 1.0) == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    # u = 1/2, s = 3: 3/2 / (1 + 2/2) = 3/4;  u = 1/4: 3/4 / (3/2) = 1/2;  u = 3/4: 9/4 / (5/2) = 9/10
    assert schedule(4, 3.0) == pytest.approx([1, 0.9, 0.75, 0.5, 0])


def test_one_known_picture_is_reached_from_any_noise_in_any_number_of_steps():
    picture = torch.linspace(-1, 1, NUM_CELLS * 192).view(1, NUM_CELLS, 192)
    for num_steps in (1, 7):
        x = euler(lambda x, t: picture.expand_as(x), start_noise([0, 1]), schedule(num_steps, 2.0))
        torch.testing.assert_close(x, picture.expand(2, -1, -1), atol=1e-5, rtol=0)


def test_the_flow_of_a_normal_density_gives_its_moments():
    """For x_0 ~ N(m, s^2) the best guess at x_t is m + a (x_t - (1 - t) m), a = (1 - t) s^2 / ((1 - t)^2 s^2 + t^2)."""
    m, s = 2.0, 0.5

    def predict(x: torch.Tensor, t: float) -> torch.Tensor:
        return m + (1 - t) * s**2 / ((1 - t) ** 2 * s**2 + t**2) * (x - (1 - t) * m)

    x = euler(
        predict,
        torch.randn(10_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
        schedule(200, 1.0),
    )
    # Standard errors: 0.5 / 100 = 0.005 of the mean, 0.5 / sqrt(20000) = 0.0035 of the deviation.
    assert x.mean().item() == pytest.approx(m, abs=0.02) and x.std().item() == pytest.approx(s, abs=0.015)


def test_guidance_of_pictures_is_guidance_of_velocities():
    x, c, u, t = (*torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(1)), 0.3)
    of_velocities = velocity(x, u, t) + 2.5 * (velocity(x, c, t) - velocity(x, u, t))
    torch.testing.assert_close(velocity(x, guided(c, u, 2.5), t), of_velocities, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(guided(c, u, 1.0), c)


def test_start_noise_is_each_seeds_own_and_normal():
    noise = start_noise([5, 6])
    torch.testing.assert_close(start_noise([6])[0], noise[1], atol=0, rtol=0)
    assert not torch.equal(noise[0], noise[1])
    assert noise.mean().abs() < 0.1 and abs(noise.std() - 1) < 0.1


def test_every_object_in_every_cell_and_every_portrait_survive_the_latents():
    codebook = Kit.build().codebook
    scenes: list[Grid | Portrait] = [*all_portraits()]
    for place, name in enumerate(OBJECTS):
        cells: list[str | None] = [None] * NUM_CELLS
        cells[place % NUM_CELLS], cells[(place + 4) % NUM_CELLS] = name, name
        scenes.append(Grid(tuple(cells)))
    pictures = [render(scene) for scene in scenes]
    latents = to_latents(codebook, np.array([codebook.encode(picture) for picture in pictures]))
    assert latents.shape[1:] == (NUM_CELLS, 192) and latents.min() == -1 and latents.max() <= 1
    assert np.array_equal(to_pixels(codebook, latents), np.stack([np.asarray(picture) for picture in pictures]))


def test_a_cell_of_latents_is_a_cell_of_the_picture():
    codebook = Kit.build().codebook
    picture = render(Grid((None, "cup") + (None,) * 7))
    (latents,) = to_latents(codebook, np.array([codebook.encode(picture)]))
    cup = np.asarray(picture)[:8, 8:16].astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(latents[1].reshape(8, 8, 3), cup, atol=1e-6)


def test_a_pixel_becomes_the_nearest_color_of_the_palette():
    codebook = Kit.build().codebook
    picture = render(Grid(("cup",) * 9))
    latents = to_latents(codebook, np.array([codebook.encode(picture)]))
    shaken = latents + np.random.default_rng(0).normal(0, 0.01, latents.shape).astype(np.float32)
    assert np.array_equal(to_pixels(codebook, shaken)[0], np.asarray(picture))


def test_layouts_are_decided_at_the_times_that_training_leans_to():
    # Where n equal objects lie in nine cells, all layouts alike: the posterior given x_t is exact, from each cell's
    # evidence d = ((1 - t) / t)^2 |object - ground|^2: log odds d (y - 1/2) + sqrt(d) noise for y = 1 or 0.
    kit, random = Kit.build(), np.random.default_rng(0)
    codes = np.array([kit.picture(Grid(("apple",) + (None,) * 8))]) - kit.tokenizer.first_code
    apple = to_latents(kit.codebook, codes)[0]  # in cell 0; ground in the others
    distance = float(((apple[0] - apple[1]) ** 2).sum())
    layouts = np.array([[cell in held for cell in range(9)] for held in combinations(range(9), 3)], dtype=float)

    def doubt(t: float) -> float:
        """Mean entropy of the posterior over that of the prior, ln 84."""
        d = ((1 - t) / t) ** 2 * distance
        drawn = layouts[random.integers(len(layouts), size=200)]
        odds = d * (drawn - 0.5) + np.sqrt(d) * random.standard_normal(drawn.shape)
        log_p = odds @ layouts.T
        p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return float(-(p * np.log(p + 1e-30)).sum(axis=1).mean() / np.log(len(layouts)))

    early, middle, late = (float(training_times(torch.tensor(normal))) for normal in (-1.0, 0.0, 1.0))
    assert doubt(late) > 0.8 and 0.3 < doubt(middle) < 0.7 and doubt(early) < 0.15
    assert doubt(0.73) < 0.02
