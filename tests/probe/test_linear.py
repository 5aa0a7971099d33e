"""The linear probe finds what is planted and nothing else, and its intervals cover."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from unigap.probe.linear import Labels, probe


def labels(answers: np.ndarray, num_classes: int, clusters=None) -> Labels:
    return Labels(
        tuple(map(str, range(num_classes))),
        answers,
        np.ones((len(answers), num_classes), bool),
        tuple(range(len(answers))) if clusters is None else tuple(clusters),
    )


def planted(
    num: int, num_classes: int, width: int, rng: np.random.Generator, *, code: np.ndarray | None = None
) -> tuple[torch.Tensor, np.ndarray]:
    """Noise of standard deviation 1, to which `code` (K, D) adds each item's class."""
    answers = rng.integers(0, num_classes, num)
    x = rng.standard_normal((num, width)) + (0 if code is None else code[answers])
    return torch.from_numpy(x).float(), answers


def test_numbers_on_a_line_are_told_apart_the_middle_ones_too():
    """Regression on indicators alone never chooses a middle class. At steps of 5 standard deviations a threshold in the
    middle is passed with probability 0.006."""
    rng = np.random.default_rng(0)
    code = np.outer(np.arange(5), np.eye(20)[3]) * 5
    (x, a), (z, b) = planted(500, 5, 20, rng, code=code), planted(200, 5, 20, rng, code=code)
    found = probe(x, labels(a, 5), z, labels(b, 5))
    assert found.right.rate > 0.97 and found.folds > 0.97
    assert abs(found.control - 0.2) < 0.06
    # Right beside a control of about .2: a difference of about .8.
    assert found.selectivity.low > 0.7 and found.selectivity.rate == pytest.approx(found.right.rate - found.control)


def test_noise_tells_nothing():
    rng = np.random.default_rng(1)
    (x, a), (z, b) = planted(400, 4, 30, rng), planted(400, 4, 30, rng)
    found = probe(x, labels(a, 4), z, labels(b, 4))
    assert found.right.low < 0.25 < found.right.high
    assert found.selectivity.low < 0 < found.selectivity.high


def test_intervals_cover_what_the_probe_scores_on_new_items():
    """100 probes of a weak code; each one's own rate is that on 4,000 more items. 95% of 100 within binomial error."""
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        code = np.array([[0.5, 0, 0, 0], [-0.5, 0, 0, 0]])
        x, a = planted(60, 2, 4, rng, code=code)
        z, b = planted(4080, 2, 4, rng, code=code)
        few = probe(x, labels(a, 2), z[:80], labels(b[:80], 2)).right
        many = probe(x, labels(a, 2), z[80:], labels(b[80:], 2)).right.rate
        covered += few.low <= many <= few.high
    assert 89 <= covered <= 100  # P(fewer than 89 | .95) = 0.004


def test_two_points_are_parted_in_the_middle():
    """Two classes of two each at -3, -1 and 1, 3: by symmetry the border is 0 under any penalty."""
    x = torch.tensor([[-3.0], [-1], [1], [3]]).repeat(4, 1)
    a = np.tile([0, 0, 1, 1], 4)
    z, b = torch.tensor([[-0.01], [0.01]]), np.array([0, 1])
    assert probe(x, labels(a, 2), z, labels(b, 2)).right.rate == 1
    assert probe(x, labels(a, 2), z + 5, labels(b, 2)).right.rate == 0.5


def test_units_of_features_and_constant_ones_change_nothing():
    rng = np.random.default_rng(2)
    code = np.eye(6)[:3] * 2
    (x, a), (z, b) = planted(200, 3, 6, rng, code=code), planted(100, 3, 6, rng, code=code)
    found = probe(x, labels(a, 3), z, labels(b, 3))
    scale, shift = torch.tensor([1e3, 1, 1e-2, 5, 1, 1]), 7.0
    more = [torch.cat((y * scale + shift, torch.full((len(y), 2), 3.0)), dim=1) for y in (x, z)]
    assert probe(more[0], labels(a, 3), more[1], labels(b, 3)) == found


def test_of_two_that_are_both_named_the_probe_has_to_know_which():
    """The state holds both objects of a pair: ten classes are told to two, and these to a coin flip; with the asked one
    marked, to one."""
    rng = np.random.default_rng(3)
    pairs = np.stack([rng.permutation(10)[:2] for _ in range(900)])
    named = np.eye(10)[pairs].sum(axis=1) * 4 + 0.3 * rng.standard_normal((900, 10))
    answers = labels(pairs[:, 0], 10)
    two = replace(answers, allowed=np.eye(10, dtype=bool)[pairs].any(axis=1))

    def ask(x: np.ndarray, of: Labels):
        first, rest = (
            Labels(of.classes, of.answers[some], of.allowed[some], of.clusters[some])
            for some in (slice(0, 600), slice(600, 900))
        )
        states = torch.from_numpy(x).float()
        return probe(states[:600], first, states[600:], rest), rest

    flip, rest = ask(named, two)
    assert flip.right.low < 0.5 < flip.right.high and rest.chance == 0.5
    known, _ = ask(named + 2 * np.eye(10)[pairs[:, 0]], two)
    assert known.right.rate > 0.98


def test_items_that_ask_for_the_same_count_together():
    rng = np.random.default_rng(4)
    code = np.array([[0.5, 0], [-0.5, 0]])
    (x, a), (z, b) = planted(200, 2, 2, rng, code=code), planted(40, 2, 2, rng, code=code)
    z, b, same = z.repeat(5, 1), np.tile(b, 5), np.tile(np.arange(40), 5)
    apart = probe(x, labels(a, 2), z, labels(b, 2)).right
    together = probe(x, labels(a, 2), z, labels(b, 2, clusters=same)).right
    assert together.rate == apart.rate and together.num_clusters == 40
    # Five copies of 40 items say as much as 40: intervals wider by about the root of 5.
    assert together.high - together.low == pytest.approx(5**0.5 * (apart.high - apart.low), rel=0.1)


def test_too_little_to_fit_on_is_refused():
    x, a = torch.zeros(8, 2), np.array([0, 1] * 4)
    with pytest.raises(ValueError, match="two classes"):
        probe(x, labels(a * 0, 2), x, labels(a, 2))
    with pytest.raises(ValueError, match="4 clusters"):
        probe(x, labels(a, 2, clusters=[0, 0, 1, 1, 2, 2, 2, 2]), x, labels(a, 2))
    with pytest.raises(ValueError, match="7 and 8 states"):
        probe(x[:7], labels(a, 2), x, labels(a, 2))
