"""The published Gap Score: golden values, hand-worked steps, the conditioning check, rates files and the command."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unigap.cli import main
from unigap.errors import ItemFileError, UnigapError
from unigap.gap.published import (
    MAX_SPREAD,
    CheckedScore,
    PublishedScore,
    closed_form_gaps,
    published_gaps,
    published_scores,
)
from unigap.gap.published_fit import PublishedSettings, adjusted_gaps, fit_deltas, loss_and_gradient
from unigap.gap.rates import check_rates, read_rates, results_file, results_path
from unigap.gap.sensitivity import sensitivity

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "fixtures" / "gap_score" / "published.json"
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason="golden values are not at ../shared/fixtures/gap_score")

ORDINARY = [[0.6, 0.2, 0.1, 0.1], [0.3, 0.4, 0.05, 0.25], [0.5, 0.1, 0.2, 0.2], [0.1, 0.3, 0.05, 0.55]]
AHEAD = [[0.9, 0.05, 0.02, 0.03], [0.8, 0.1, 0.05, 0.05], [0.7, 0.2, 0.05, 0.05], [0.6, 0.3, 0.05, 0.05]]
ONE_SIDED = [[0.1, 0.8, 0, 0.1], [0, 0.5, 0, 0.5], [0.05, 0.45, 0.05, 0.45], [0, 0.2, 0, 0.8]]
COIN_FLIPS = [[0.25, 0.25, 0.25, 0.25]] * 4
COUPLED = [[0.8, 0, 0, 0.2], [0.5, 0, 0, 0.5], [0.2, 0, 0, 0.8], [0.6, 0, 0, 0.4]]
NONE_RIGHT, ALL_RIGHT = [[0, 0, 0, 1]] * 4, [[1, 0, 0, 0]] * 4


def values(score: PublishedScore) -> list[float]:
    return [category.value for category in score.categories]


# ---- parity ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden() -> dict[str, dict]:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def golden_scores(golden: dict[str, dict]) -> dict[str, PublishedScore]:
    return published_scores({name: case["rows"] for name, case in golden.items()})


@needs_golden
def test_every_golden_case_matches_its_float64_values(golden, golden_scores) -> None:
    for name, case in golden.items():
        tolerance = max(0.005, 3 * max(case["spread64_1e-7"], case["spread64_1e-12"]))
        np.testing.assert_allclose(values(golden_scores[name]), case["gaps_float64"], atol=tolerance, err_msg=name)
        assert golden_scores[name].mean.value == pytest.approx(case["gap_mean_float64"], abs=tolerance), name


@needs_golden
def test_the_scripts_own_float32_mean_lies_in_or_beside_the_float32_range(golden, golden_scores) -> None:
    # A further draw of a distribution seen in 17 draws: outside the range 2 of 18 times, and then near it.
    for name, case in golden.items():
        low, high = golden_scores[name].mean.range32
        assert low - MAX_SPREAD <= case["gap_mean"] <= high + MAX_SPREAD, name


@needs_golden
def test_what_is_known_to_be_ill_conditioned_is_flagged(golden, golden_scores) -> None:
    for name, case in golden.items():
        if case["spread32_1e-7"] > 2 * MAX_SPREAD:
            assert "float32" in golden_scores[name].mean.flags, name
        if case["spread64_1e-7"] > 2 * MAX_SPREAD:
            assert "float64" in golden_scores[name].mean.flags, name
        if 0 < max(case["spread32_1e-7"], case["spread64_1e-7"]) < MAX_SPREAD / 2:
            assert not golden_scores[name].mean.flags, name


@pytest.mark.parametrize(
    ("rows", "printed"),
    # What the published script prints (float32, default settings) for these rows.
    [
        (ORDINARY, [0.2614, 0.6718, 0.3082, 0.8388]),
        (AHEAD, [0.0355, 0.2504, 0.3823, 0.4735]),
        (ONE_SIDED, [0.8600, 0.9700, 0.9068, 0.9858]),
        (COIN_FLIPS, [2e-6] * 4),
        (COUPLED, [0.0170, 0.0027, 0.1278, 0.0123]),
    ],
)
def test_printed_values_lie_within_three_ranges_of_the_check(rows, printed) -> None:
    score = published_scores({"model": rows})["model"]
    for category, value in zip(score.categories, printed, strict=True):
        tolerance = max(MAX_SPREAD, 3 * max(category.spread32, category.spread64))
        assert category.value == pytest.approx(value, abs=tolerance)


# ---- formulas --------------------------------------------------------------------------------------------------------


def test_adjusted_gap_worked_by_hand() -> None:
    # |delta| = 2, p11 = .5, p00 = .1: K = 2 exp(2.7 * .1 - 1.05 * .5) = 2 exp(-.255) = 1.549833; K / (1 + K) = .607817.
    row = np.array([0.5, 0.3, 0.1, 0.1])
    assert adjusted_gaps(np.array(-2.0), row, PublishedSettings()) == pytest.approx(0.607817, abs=1e-6)
    # delta = 0 is clamped to a gap of 1e-6, whose logit is -13.815510; -13.815510 - .255 = -14.070510.
    assert adjusted_gaps(np.array(0.0), row, PublishedSettings()) == pytest.approx(math.exp(-14.070510), rel=1e-5)


def test_the_logit_of_the_raw_gap_is_the_log_of_delta() -> None:
    deltas, row = np.array([0.01, 0.7, 1.0, 40.0]), np.array([0.25, 0.25, 0.25, 0.25])
    plain = adjusted_gaps(deltas, row, PublishedSettings(lambda_fail=0.0, lambda_success=0.0))
    np.testing.assert_allclose(np.log(plain / (1 - plain)), np.log(deltas), rtol=1e-12, atol=1e-12)


def test_closed_form_worked_by_hand() -> None:
    # u = .8, g = .7: delta = ln 4 - ln(7/3) = .538997; K = .538997 exp(.27 - .63) = .376045; K / (1 + K) = .273280.
    assert closed_form_gaps({"m": [ORDINARY[0]]})["m"] == pytest.approx([0.273280], abs=1e-6)


def test_first_step_worked_by_hand() -> None:
    # Understanding .6 and .4, generation .5 and .5. theta starts at +-.405465 and 0, mu at 0, so the likelihood is at
    # its peak and only the covariance pulls: w_u = theta_u / ..., of theta's sign, and w_g of the other sign (c > 0).
    # Adam's first step is lr times the sign of the gradient, after a decay by 1 - lr * 1e-4 = .999995:
    # theta_u = +-(.405465 * .999995 - .05), theta_g = +-.05, so delta = +-(.355463 - .05) = +-.305463.
    rates = np.array([[[0.3, 0.3, 0.2, 0.2], [0.2, 0.2, 0.3, 0.3]]])
    deltas = fit_deltas(rates, np.ones((1, 2, 2)), PublishedSettings(steps=1))
    np.testing.assert_allclose(deltas, [[0.305463, -0.305463]], atol=2e-6)


def test_objective_of_one_category_worked_by_hand() -> None:
    # theta = (0, 0), mu = (-1, 0), beta = (0, 0), raw = (0, 0, 0): L = diag(s), s = ln 2 + 1e-4 = .693247; p = 1/2.
    # Likelihood: 1000 counts a direction: 2000 ln 2 = 1386.29436, less 2000 * 1e-8 / (1/2) = 4e-5 for the 1e-8.
    # Gauss: 1/2 (1 / s)^2 = 1.0403843; log det: 2 ln s = -.7327373; prior: 1e-3 * 1. Sum: 1386.602968.
    x = np.array([0, 0, -1, 0, 0, 0, 0, 0, 0], float)[:, None]
    right, wrong = np.array([600.0, 300.0]).reshape(2, 1, 1), np.array([400.0, 700.0]).reshape(2, 1, 1)
    loss, gradient = loss_and_gradient(x, right, wrong, 1e-3)
    assert loss[0] == pytest.approx(1386.602968, abs=2e-6)
    # d/d theta_u = (400 - 600) / 2 + 1 / s^2 = -100 + 2.0807686, and 2e-6 for the 1e-8.
    assert gradient[0, 0] == pytest.approx(-97.9192294, abs=1e-6)


def test_gradient_is_that_of_the_objective_by_finite_differences() -> None:
    rng = np.random.default_rng(0)
    num_categories, num_runs = 3, 4
    x = rng.normal(size=(2 * num_categories + 7, num_runs))
    rates = rng.uniform(0.05, 0.95, (2, num_categories, num_runs))
    right, wrong = 1000 * rates, 1000 * (1 - rates)
    _, gradient = loss_and_gradient(x, right, wrong, 1e-3)
    step = 1e-6
    for parameter in range(len(x)):
        shift = np.zeros_like(x)
        shift[parameter] = step
        up, down = (loss_and_gradient(x + sign * shift, right, wrong, 1e-3)[0] for sign in (1, -1))
        np.testing.assert_allclose(gradient[parameter], (up - down) / (2 * step), rtol=1e-5, atol=2e-5)


# ---- what a score depends on -----------------------------------------------------------------------------------------

QUICK = PublishedSettings(steps=60)


def test_a_score_does_not_depend_on_the_other_models_of_the_file_nor_on_the_check() -> None:
    rates = {"a": ORDINARY, "one": ORDINARY[:1], "b": AHEAD, "c": COUPLED, "many": [*ORDINARY, *AHEAD, *COUPLED]}
    steps = PublishedSettings(steps=300)
    together, unchecked = published_scores(rates, steps), published_gaps(rates, steps)
    assert list(together) == list(unchecked) == list(rates)
    for model, rows in rates.items():
        alone = published_scores({model: rows}, steps)[model]
        assert (together[model].categories, together[model].mean) == (alone.categories, alone.mean)  # to the last bit
        assert values(alone) == unchecked[model].tolist() == published_gaps({model: rows}, steps)[model].tolist()


def test_the_seed_moves_the_check_and_not_the_score() -> None:
    first, second = (published_scores({"m": ORDINARY}, QUICK, seed=seed)["m"] for seed in (1, 2))
    assert values(first) == values(second)
    assert first.categories[0].range64 != second.categories[0].range64


def test_the_score_loses_the_sign_and_the_result_keeps_it() -> None:
    swapped = [[p11, p01, p10, p00] for p11, p10, p01, p00 in ORDINARY]
    score, mirrored = published_scores({"m": ORDINARY, "mirrored": swapped}).values()
    assert mirrored.mean.value == pytest.approx(score.mean.value, abs=0.02)
    # p10 - p01: .1, .35, -.1, .25, mean .15; p10 + p01: .3, .45, .3, .35, mean .35.
    assert score.difference == pytest.approx(0.15) and mirrored.difference == pytest.approx(-0.15)
    assert score.disagreement == mirrored.disagreement == pytest.approx(0.35)


def test_item_level_agreement_is_invisible() -> None:
    # Independent coin flips and perfect coupling have the same rates of each direction, so the same fit.
    coupled = [[0.5, 0, 0, 0.5]] * 4
    unweighted = PublishedSettings(lambda_fail=0.0, lambda_success=0.0)
    flips, together = published_gaps({"flips": COIN_FLIPS, "coupled": coupled}, unweighted).values()
    np.testing.assert_allclose(flips, together, rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [NONE_RIGHT, ALL_RIGHT])
def test_one_sided_rows_are_finite_and_the_check_sees_past_the_clamp(rows) -> None:
    # Every rate is 0 or 1, so that a change of 1e-7 of the rates alone would leave the start where it was.
    score = published_scores({"m": rows})["m"]
    assert all(0 < value < 1 for value in values(score))
    assert score.on_the_clamp == 4
    assert score.mean.spread64 > 0 and score.mean.spread32 > 0


def test_none_right_is_flagged_and_printing_a_score_shows_range_and_flag() -> None:
    mean = published_scores({"m": NONE_RIGHT})["m"].mean
    assert mean.flags == ("float64", "float32")
    assert "ill-conditioned in float64 and float32" in str(mean) and "float32: 0." in str(mean)
    steady = CheckedScore(value=0.5, range64=(0.499, 0.501), range32=(0.498, 0.502))
    assert steady.flags == () and str(steady) == "0.5000 (float32: 0.4980 to 0.5020)"


def test_one_category_is_computed() -> None:
    score = published_scores({"m": [[0.5, 0.3, 0.05, 0.15]]})["m"]
    assert values(score) == [score.mean.value]
    assert score.mean.value == pytest.approx(0.511, abs=0.005)


def test_a_fit_that_never_has_a_finite_loss_is_an_error_not_a_number() -> None:
    with pytest.raises(UnigapError, match=r"1 of 1 fits never|2 of 2 fits never"):
        published_gaps({"m": ORDINARY}, PublishedSettings(total_count=1e308))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"lr": 0.0}, {"lr": math.nan}, {"total_count": -1.0}])
def test_settings_that_cannot_be_fitted_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="at least 1 step|must be positive"):
        PublishedSettings(**wrong)


def test_sensitivity_changes_one_setting_at_a_time_and_correlates_the_order() -> None:
    rates = {"a": ORDINARY, "b": AHEAD, "c": ONE_SIDED}
    variations = {variation.name: variation for variation in sensitivity(rates, QUICK)}
    assert variations["as given"].spearman == variations["as given"].kendall == 1
    given, no_lambdas = variations["as given"].scores, variations["lambda both 0"].scores
    assert no_lambdas == {
        model: pytest.approx(gaps.mean())
        for model, gaps in published_gaps(rates, PublishedSettings(steps=60, lambda_fail=0, lambda_success=0)).items()
    }
    assert variations["steps x2"].scores["a"] == pytest.approx(
        published_gaps(rates, PublishedSettings(steps=120))["a"].mean()
    )
    assert given != no_lambdas
    assert variations["no fit"].scores["a"] == pytest.approx(closed_form_gaps(rates)["a"].mean())


def test_two_models_have_no_rank_correlation() -> None:
    assert all(v.spearman is v.kendall is None for v in sensitivity({"a": ORDINARY, "b": AHEAD}, QUICK))


# ---- rates files -----------------------------------------------------------------------------------------------------


def write(folder: Path, text: str) -> Path:
    path = folder / "rates.json"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "rates.json is empty"),
        ("{", "is not JSON"),
        ("[[0.25, 0.25, 0.25, 0.25]]", 'expected {"model": [[p11'),
        ("{}", "holds no models"),
        ('{"m": []}', "model 'm' has no rows but []"),
        ('{"m": {"rate": 1}}', "model 'm' has no rows but {'rate': 1}"),
        ('{"m": [[1, 0, 0, 0], [0.5, 0.5, 0]]}', "1 of 2 rows are not four numbers (first: model 'm', row 2: [0.5"),
        ('{"m": [["1", 0, 0, 0]]}', "are not four numbers"),
        ('{"m": [[true, 0, 0, 0]]}', "are not four numbers"),
        ('{"m": [[NaN, 0, 0, 1]]}', "1 of 1 rows are not finite (first: model 'm', row 1: [nan"),
        ('{"m": [[Infinity, 0, 0, 1]]}', "are not finite"),
        ('{"m": [[1.1, -0.1, 0, 0]]}', "have negative shares (first: model 'm', row 1: [1.1, -0.1"),
        (
            '{"a": [[1, 0, 0, 0]], "b": [[1, 0, 0, 0], [60, 20, 10, 10], [0.5, 0.5, 0.5, 0]]}',
            "2 of 4 rows do not sum to 1 within 0.005 (first: model 'b', row 2: [60, 20, 10, 10] sums to 100)",
        ),
        ('{"m": [[1, 0, 0, 0]], "m": [[0, 0, 0, 1]]}', "model 'm' is there more than once"),
    ],
)
def test_malformed_rates_say_which_model_and_row_and_what_a_row_is(tmp_path, text, said) -> None:
    with pytest.raises(ItemFileError) as caught:
        read_rates(write(tmp_path, text))
    assert said in str(caught.value) and "rates.json" in str(caught.value)
    if "rows" in said:
        assert "p11, p10, p01, p00" in str(caught.value) and "give" in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path) -> None:
    with pytest.raises(ItemFileError, match=r"none\.json cannot be read: No such file"):
        read_rates(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ItemFileError, match="is not UTF-8 text"):
        read_rates(tmp_path / "bytes.json")


def test_a_row_that_misses_1_by_less_than_the_tolerance_is_divided_by_its_sum() -> None:
    # .6 + .2 + .1 + .104 = 1.004; .6 / 1.004 = .597610.
    assert check_rates({"m": [[0.6, 0.2, 0.1, 0.104]]})["m"][0, 0] == pytest.approx(0.597610, abs=1e-6)
    with pytest.raises(ValueError, match=r"sums to 1\.006"):
        check_rates({"m": [[0.6, 0.2, 0.1, 0.106]]})


shares = st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda row: sum(row) > 0.01)
files = st.dictionaries(st.text(max_size=8), st.lists(shares, min_size=1, max_size=5), min_size=1, max_size=5)


@given(files)
def test_normalised_rates_are_read_as_they_were_written(tmp_path_factory, rates) -> None:
    rates = {model: [[share / sum(row) for share in row] for row in rows] for model, rows in rates.items()}
    path = write(tmp_path_factory.mktemp("rates"), json.dumps(rates))
    read = read_rates(path)
    assert list(read) == list(rates)
    for model, rows in rates.items():
        np.testing.assert_allclose(read[model], rows, rtol=0, atol=1e-15)
        np.testing.assert_allclose(read[model].sum(axis=1), 1, rtol=0, atol=1e-15)


@settings(deadline=None)  # a machine shared with others has pauses that say nothing about the code
@given(st.lists(shares, min_size=1, max_size=5))
def test_any_rates_give_gaps_between_0_and_1(rows) -> None:
    gaps = published_gaps({"m": [[share / sum(row) for share in row] for row in rows]}, PublishedSettings(steps=5))["m"]
    assert np.all((gaps > 0) & (gaps < 1))


def test_the_result_file_has_the_scripts_name_and_shape() -> None:
    assert results_path(Path("/data/my.rates.json")) == Path("/data/my.rates_gapres.json")
    # The mean is that of the rounded gaps: (.333333 + .666667) / 2 = .5.
    assert results_file({"über": [1 / 3, 2 / 3]}).decode() == (
        '{\n  "results": {\n    "über": {\n      "gaps": [\n        0.333333,\n        0.666667\n      ],\n'
        '      "gap_mean": 0.5\n    }\n  }\n}'
    )


# ---- the command -----------------------------------------------------------------------------------------------------


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["gap", *(str(argument) for argument in arguments)])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def test_the_scripts_own_command_line_works_and_writes_its_file(capsys, tmp_path) -> None:
    path = write(tmp_path, json.dumps({"model": ORDINARY}))
    flags = "--device cuda:0 --map-steps 30 --map-lr 0.05 --total-count 1000 --seed 7".split()
    code, out, err = run(capsys, path, *flags)
    assert code == 0, err
    expected = published_gaps({"model": ORDINARY}, PublishedSettings(steps=30))["model"]
    written = json.loads((tmp_path / "rates_gapres.json").read_text())["results"]["model"]
    assert written["gaps"] == [round(gap, 6) for gap in expected.tolist()]
    assert out.splitlines()[-1] == str(tmp_path.resolve() / "rates_gapres.json")
    assert "--device cuda:0 changes nothing" in err


def test_the_table_shows_marks_ranges_sign_and_notes(capsys, tmp_path) -> None:
    path = write(tmp_path, json.dumps({"[b]none": NONE_RIGHT, "one": ORDINARY[:1]}))
    code, out, err = run(capsys, path, "--json", tmp_path / "numbers.json")
    assert code == 0, err
    row = next(line for line in out.splitlines() if line.startswith(" [b]none"))
    assert row.split()[1].startswith("!") and "+0.000" in row
    assert "one category only, so nothing ties it to others: one" in out
    assert "scored by where the fit clamps them: [b]none (4)" in out
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["models"]["[b]none"]["mean"]["flags"] == ["float64", "float32"]
    assert numbers["settings"]["steps"] == 2000 and "sensitivity" not in numbers


def test_sensitivity_prints_scores_and_rank_correlations(capsys, tmp_path) -> None:
    path = write(tmp_path, json.dumps({"a": ORDINARY, "b": AHEAD, "c": ONE_SIDED}))
    code, out, err = run(capsys, path, "--sensitivity", "--map-steps", 40, "--json", tmp_path / "numbers.json")
    assert code == 0, err
    assert "Spearman   " in out and "Kendall" in out
    numbers = json.loads((tmp_path / "numbers.json").read_text())["sensitivity"]
    assert len(numbers) == 13 and numbers[0]["name"] == "as given" and numbers[0]["kendall"] == 1


def test_bad_rates_exit_2_and_write_nothing(capsys, tmp_path) -> None:
    code, _, err = run(capsys, write(tmp_path, '{"m": [[0.5, 0.5, 0.5, 0]]}'))
    assert code == 2 and "do not sum to 1" in err and "Traceback" not in err
    assert not list(tmp_path.glob("*_gapres.json"))
    code, _, err = run(capsys, write(tmp_path, json.dumps({"m": ORDINARY})), "--map-steps", 0)
    assert code == 2 and "at least 1 step" in err


def test_flags_of_the_other_kind_are_refused(capsys, tmp_path) -> None:
    code, _, err = run(capsys, tmp_path, "--map-lr", 0.1, "--sensitivity")
    assert code == 2 and "--map-lr, --sensitivity: only for a rates file" in err
    code, _, err = run(capsys, tmp_path)
    assert code == 1 and "is not a run folder" in err
    code, _, err = run(capsys, write(tmp_path, json.dumps({"m": ORDINARY})), "--judge", "exact")
    assert code == 2 and "--judge: only for run folders" in err
