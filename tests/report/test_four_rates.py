"""A run's four joint rates are what can be counted by hand."""

from pathlib import Path

import pytest
from tests.fakes import make_item

from unigap.items import SUITES, Arm
from unigap.records import JudgeRef, Key, ModelRef, Record, Ruling, RunFolder, RunIdentity, Verdict
from unigap.report.four_rates import CATEGORY_OF, four_rates

JUDGE = JudgeRef(name="j", version="1")
RULINGS = {"1": Ruling.correct(), "0": Ruling.incorrect("wrong", ""), "?": Ruling.unscored("late")}


def make_run(path: Path, answers: dict[str, list[str]], *, arm: Arm = "normal") -> RunFolder:
    """Family -> per unit, verdicts of text and picture by sample: "10" is a right text and a wrong picture."""
    model = ModelRef(name="m", sha256="0")
    run = RunFolder.start(path, RunIdentity(model=model, sampling={}, think_prompt_sha256="0", seed=0), config={})
    rulings: dict[Key, Ruling] = {}
    for family, units in answers.items():
        for number, samples in enumerate(units):
            item = make_item(number, family=family)
            run.add_items([item])
            for sample, (text, picture) in enumerate(samples.split()):
                rulings[Key(item.id, "understanding", arm, sample)] = RULINGS[text]
                rulings[Key(item.id, "generation", arm, sample)] = RULINGS[picture]
    records = [
        Record(**key._asdict(), seed=0, model=model, sampling={}, outcome="ok", text="", usage={}) for key in rulings
    ]
    with run.record_writer() as writer:
        writer.write(records, [None] * len(records), ["x"] * len(records))
    with run.verdict_log("j") as log:
        log.append(Verdict.of(key, ruling, JUDGE).to_json() for key, ruling in rulings.items())
    return run


def test_rates_are_shares_of_the_units_scored_in_both_directions(tmp_path: Path):
    # Ten units: 3 both right, 2 text alone, 1 picture alone, 2 neither; 2 are left out, as one side is unscored.
    units = ["11"] * 3 + ["10"] * 2 + ["01"] + ["00"] * 2 + ["?1", "0?"]
    (row,) = four_rates(make_run(tmp_path / "run", {"math1": units}), "j")
    assert (row.name, row.num_units, row.rates) == ("math1", 8, (3 / 8, 2 / 8, 1 / 8, 2 / 8))


def test_a_unit_is_an_average_over_its_samples(tmp_path: Path):
    # Unit 1: half both right, half text alone. Unit 2: its second sample is not scored, its first is neither.
    (row,) = four_rates(make_run(tmp_path / "run", {"math1": ["11 10", "00 ?1"]}), "j")
    assert (row.num_units, row.rates) == (2, (0.25, 0.25, 0.0, 0.5))


def test_rows_are_families_or_categories(tmp_path: Path):
    # "reasoning" is a family that GapEval's own items are read into, "choice" one of the sandbox's; both are Reasoning.
    run = make_run(tmp_path / "run", {"choice": ["11"], "amounts": ["00"], "reasoning": ["00"]})
    assert [(row.name, row.rates[0]) for row in four_rates(run, "j")] == [
        ("choice", 1.0),
        ("amounts", 0.0),
        ("reasoning", 0.0),
    ]
    rows = four_rates(run, "j", by="category")
    assert [(row.name, row.num_units, row.rates[0]) for row in rows] == [
        ("Reasoning", 2, 0.5),
        ("Numerical Perception", 1, 0.0),
    ]
    assert set(SUITES["bidirectional"].families) <= CATEGORY_OF.keys()


def test_an_arm_without_both_directions_is_refused(tmp_path: Path):
    run = make_run(tmp_path / "run", {"math1": ["11", "?0"]}, arm="think")
    assert four_rates(run, "j", arm="think")[0].num_units == 1
    with pytest.raises(ValueError, match="no unit is scored in both directions of the arm 'normal' by 'j'"):
        four_rates(run, "j")
    odd = make_run(tmp_path / "odd", {"theirs": ["11"]})
    with pytest.raises(ValueError, match="family 'theirs' is in no category of GapEval's; use --by family"):
        four_rates(odd, "j", by="category")
