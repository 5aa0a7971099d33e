"""Read-out in words, by hand."""

import numpy as np
import pytest
import torch

from unigap.probe.linear import Labels
from unigap.probe.readout import read_out


def head(values: torch.Tensor) -> torch.Tensor:
    """States are the probabilities of five tokens."""
    return values.log()


STATES = torch.tensor(
    [[0.1, 0.2, 0.3, 0.2, 0.2], [0.4, 0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.4, 0.4], [0.2, 0.2, 0.2, 0.2, 0.2]]
)
TOKENS = [0, 1, 2]


def labels(answers: list[int], allowed: list[list[int]] | None = None) -> Labels:
    every = np.ones((len(answers), 3), bool)
    return Labels(
        ("a", "b", "c"), np.array(answers), every if allowed is None else np.array(allowed, bool), (0, 1, 2, 3)
    )


def test_the_share_of_the_answer_among_those_that_could_be():
    found = read_out(head, STATES, labels([2, 0, 2, 0]), TOKENS)
    assert found is not None
    # Shares among tokens 0 to 2: .3/.6, .4/.6, .1/.2 and 1/3: mean 0.5.
    assert found.share.rate == pytest.approx((1 / 2 + 2 / 3 + 1 / 2 + 1 / 3) / 4)
    # Another item's answer is a or c, each in half of the items: (1/6 + 1/2)/2, (2/3 + 1/6)/2, (1/4 + 1/2)/2, 1/3.
    assert found.another == pytest.approx((1 / 3 + 5 / 12 + 3 / 8 + 1 / 3) / 4)
    assert found.difference.rate == pytest.approx(found.share.rate - found.another)
    assert found.probability == pytest.approx((0.3 + 0.4 + 0.1 + 0.2) / 4, rel=1e-6)
    assert (found.first.rate, found.left_out) == (1.0, 0)  # the tie of the last goes to the first class


def test_of_a_pair_the_other_one_is_what_it_is_told_from():
    found = read_out(head, STATES, labels([2, 0, 2, 1], [[1, 0, 1], [1, 1, 0], [0, 1, 1], [0, 1, 1]]), TOKENS)
    assert found is not None
    # .3/.4, .4/.5, .1/.15 and 1/2; of either one of a pair the mean share is 1/2.
    assert found.share.rate == pytest.approx((3 / 4 + 4 / 5 + 2 / 3 + 1 / 2) / 4)
    assert found.another == pytest.approx(0.5)


def test_answers_that_begin_alike_are_left_out_and_counted():
    pairs = labels([2, 0, 2, 1], [[1, 0, 1], [1, 1, 0], [0, 1, 1], [0, 1, 1]])
    found = read_out(head, STATES, pairs, [0, 1, 1])
    # Tokens of b and c are the same: the last two items cannot be asked. c of a, c is .2/.3, a of a, b is .4/.5.
    assert found is not None and found.left_out == 2
    assert found.share.rate == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert read_out(head, STATES, labels([2, 0, 2, 1]), [0, 1, 1]) is None
