"""GRPO's formulas on hand-worked examples of two prompts and three drawings."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unigap.train.grpo import center_by_group, center_by_token, k3, leave_one_out, mean_over, policy_loss, surrogate

NAN = float("nan")
REWARDS = torch.tensor([[1.0, 2.0, 6.0], [0.5, 0.5, 0.5]])


def test_advantages_are_rewards_minus_the_mean_of_their_group():
    # Means 3 and .5.
    assert center_by_group(REWARDS).tolist() == [[-2, -1, 3], [0, 0, 0]]


def test_divided_by_the_unbiased_standard_deviation():
    # (4 + 1 + 9) / 2 = 7, so sqrt(7) + .0001 = 2.6459; equal rewards stay 0.
    scaled = center_by_group(REWARDS, divide_by_std=True)
    assert scaled[0].tolist() == pytest.approx([-2 / 2.64585, -1 / 2.64585, 3 / 2.64585], rel=1e-4)
    assert scaled[1].tolist() == [0, 0, 0]


@pytest.mark.parametrize("gap", [0.1, 1.0, 100.0])
def test_two_drawings_leave_only_a_sign_when_divided(gap: float):
    # Rewards 0 and x: mean x/2, standard deviation x / sqrt(2), so +-1/sqrt(2) = .707 whatever x is.
    advantages = center_by_group(torch.tensor([[0.0, gap]]), divide_by_std=True)
    assert advantages[0].tolist() == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)], rel=2e-3)


def test_the_mean_of_the_others():
    # 1 - (2+6)/2 = -3; 2 - (1+6)/2 = -1.5; 6 - (1+2)/2 = 4.5.
    assert leave_one_out(REWARDS)[0].tolist() == [-3, -1.5, 4.5]


def test_an_unscored_drawing_is_neither_good_nor_bad():
    # Mean of 1 and 6 is 3.5. A single scored drawing has nothing to be compared with.
    rewards = torch.tensor([[1.0, NAN, 6.0], [NAN, NAN, 9.0]])
    assert center_by_group(rewards).tolist() == [[-2.5, 0, 2.5], [0, 0, 0]]
    assert leave_one_out(rewards).tolist() == [[-5, 0, 5], [0, 0, 0]]
    # Standard deviation of 1 and 6: sqrt(2 * 6.25 / 1) = 3.5355.
    assert center_by_group(rewards, divide_by_std=True)[0].tolist() == pytest.approx([-0.70709, 0, 0.70709], rel=1e-3)


def test_by_token_a_rare_wide_token_and_a_narrow_one_have_the_same_say():
    # Three drawings, tokens: an object's name (-1, -7, -1), a number (-.5, -.5, -2), "and" (-.01 always).
    # Name: mean -3, deviation sqrt((4 + 16 + 4) / 2) = 3.4641, so (2, -4, 2) / 3.5641 = .5612, -1.1223, .5612.
    # Number: mean -1, deviation sqrt((.25 + .25 + 1) / 2) = .8660, so (.5, .5, -1) / .9660 = .5176, .5176, -1.0352.
    # Means over three tokens: .3596, -.2016, -.1580. By their sums the third would lead by 4.5 nats.
    log_p = torch.tensor([[-1.0, -0.5, -0.01], [-7.0, -0.5, -0.01], [-1.0, -2.0, -0.01]])
    assert center_by_token(log_p).tolist() == pytest.approx([0.3596, -0.2016, -0.1580], abs=1e-4)


def test_a_token_that_no_drawing_makes_likelier_hardly_counts():
    # Deviation .001 sqrt(2) against a floor of .1: +-.001 / .1014 = +-.0099, where +-.707 would stand without it.
    assert center_by_token(torch.tensor([[-0.5], [-0.502]])).tolist() == pytest.approx([0.00986, -0.00986], rel=1e-2)
    assert center_by_token(torch.full((4, 2), -1.0)).tolist() == [0, 0, 0, 0]


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=6), st.floats(-50, 50))
def test_advantages_add_up_to_nothing_and_ignore_a_shift(rewards: list[float], shift: float):
    one = torch.tensor([rewards], dtype=torch.float64)
    for advantages in (center_by_group, leave_one_out):
        assert abs(advantages(one).sum().item()) < 1e-9
        assert torch.allclose(advantages(one), advantages(one + shift), atol=1e-9)


def test_k3_by_hand_and_never_negative():
    # r - l = ln 2: 2 - .6931 - 1 = .3069; r - l = -ln 2: .5 + .6931 - 1 = .1931; equal: 0.
    l_, r = torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-1 + math.log(2), -1 - math.log(2), -1.0])
    assert k3(l_, r).tolist() == pytest.approx([0.30685, 0.19315, 0], abs=1e-5)


def test_k3_of_the_policys_own_samples_averages_to_the_divergence():
    p, q = torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor([0.3, 0.3, 0.4]).double()
    expected = (p * (p / q).log()).sum().item()  # KL(p || q)
    assert (p * k3(p.log(), q.log())).sum().item() == pytest.approx(expected)


def test_the_ratio_is_clipped_only_where_that_lowers_the_gain():
    # Ratios 1.5, .5, 1.5, .5 with advantages 1, 1, -1, -1 and a clip of .2:
    # min(1.5, 1.2) = 1.2; min(.5, .8) = .5; min(-1.5, -1.2) = -1.5; min(-.5, -.8) = -.8.
    log_ratio = torch.tensor([1.5, 0.5, 1.5, 0.5]).log()
    gains = surrogate(log_ratio, torch.zeros(4), torch.tensor([1.0, 1, -1, -1]), (0.2, 0.2))
    assert gains.tolist() == pytest.approx([1.2, 0.5, -1.5, -0.8])
    assert surrogate(log_ratio, torch.zeros(4), torch.ones(4), None).tolist() == pytest.approx([1.5, 0.5, 1.5, 0.5])


def test_means_by_row_and_by_token_differ_where_rows_differ_in_length():
    values, mask = torch.tensor([[1.0, 2, 6], [4, 0, 0]]), torch.tensor([[True, True, True], [True, False, False]])
    assert mean_over(values, mask, "sequence").item() == pytest.approx((3 + 4) / 2)
    assert mean_over(values, mask, "token").item() == pytest.approx(13 / 4)


def test_the_first_updates_gradient_is_that_of_the_log_probabilities():
    # With the ratio 1: d loss / d l_nt = -A_n / (N T), here N = 2, T = 3.
    log_p = torch.tensor([[-1.0, -2, -3], [-1, -1, -1]], requires_grad=True)
    found = policy_loss(log_p, log_p.detach(), torch.tensor([2.0, -1.0]))
    found.loss.backward()
    assert found.loss.item() == pytest.approx(-(2 - 1) / 2)
    assert log_p.grad is not None
    assert log_p.grad.tolist() == [pytest.approx([-2 / 6] * 3), pytest.approx([1 / 6] * 3)]
    assert (found.kl, found.clipped, found.largest_ratio) == (0, 0, 1)


def test_the_kl_term_is_added_with_its_coefficient_and_pulls_back():
    log_p = torch.full((1, 3), -1.0, requires_grad=True)
    reference = torch.full((1, 3), -1 + math.log(2))  # the reference finds it twice as likely
    found = policy_loss(log_p, log_p.detach(), torch.zeros(1), kl_NT=k3(log_p, reference), kl_coef=0.1)
    assert found.loss.item() == pytest.approx(0.1 * 0.30685, rel=1e-4) and found.kl == pytest.approx(0.30685, rel=1e-4)
    found.loss.backward()
    # d k3 / d l = 1 - exp(r - l) = -1: descending raises l.
    assert log_p.grad is not None and log_p.grad[0].tolist() == pytest.approx([-0.1 / 3] * 3, rel=1e-4)


def test_clipped_tokens_are_counted_and_what_was_not_drawn_is_not():
    log_p = torch.tensor([[0.5, 1.5, 9.0]]).log()
    mask = torch.tensor([[True, True, False]])
    found = policy_loss(log_p, torch.zeros(1, 3), torch.ones(1), mask_NT=mask, clip=(0.2, 0.6))
    assert found.clipped == 0.5 and found.largest_ratio == pytest.approx(1.5)
    assert found.loss.item() == pytest.approx(-(0.5 + 1.5) / 2)


def test_a_kl_term_without_a_divergence_is_refused():
    with pytest.raises(ValueError, match="needs the divergence"):
        policy_loss(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1), kl_coef=0.1)
