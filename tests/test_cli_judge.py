"""`unigap judge` with several judges: one command, one table, and the files it leaves."""

import json
from collections.abc import Sequence

import pytest
from tests.fakes import make_item
from tests.report.runs import make_run

from unigap.cli import main
from unigap.evaluate import EvalConfig
from unigap.judges.exact import ExactJudge
from unigap.judges.protocol import Submission
from unigap.records import Ruling, RunFolder

HERE = "tests.test_cli_judge"


class Kind(ExactJudge):
    """Accepts everything; counts what it was asked."""

    name = "kind"
    asked = 0

    def judge(self, submissions: Sequence[Submission]) -> list[Ruling]:
        Kind.asked += len(submissions)
        return [Ruling.correct("why not") for _ in submissions]


class Shy(ExactJudge):
    """Scores texts only."""

    name = "shy"

    def judge(self, submissions: Sequence[Submission]) -> list[Ruling]:
        rulings = super().judge(submissions)
        return [r if s.text is not None else Ruling.unscored("shy: no") for s, r in zip(submissions, rulings)]


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    """8 right and 4 whose text and drawing are wrong; judged by exact."""
    items = [make_item(number) for number in range(8)]
    items += [make_item(number, prompt="Draw 7 lamps.", question="7 lamps?") for number in range(8, 12)]
    return make_run(tmp_path / "run", items, config=EvalConfig(arms=("normal",)))


def agreement_of(folder: RunFolder) -> dict:
    return json.loads((folder.path / "judges/agreement.json").read_text())


def test_judges_side_by_side_and_what_is_scored_is_not_judged_again(capsys, folder, tmp_path):
    Kind.asked = 0
    command = ("judge", folder.path, "--judge", "exact", f"{HERE}:Kind", "--json", tmp_path / "a.json")
    code, out, err = run(capsys, *command)
    assert code == 0, err
    assert "A  exact" in out and "B  kind" in out and "66.7 [" in out and "100.0 [" in out
    assert "A and B differ, understanding normal:" in out and "B right, A wrong: plain/000008" in out
    data = agreement_of(folder)
    assert data == json.loads((tmp_path / "a.json").read_text()) and data["judges"] == ["exact", "kind"]
    # exact: 8 of 12 right, kind: all; P_o = 8/12 = P_e, so kappa is 0
    (pair,) = data["groups"][0]["pairs"]
    assert pair["confusion"] == {"both_right": 8, "first_alone": 0, "second_alone": 4, "both_wrong": 0}
    assert pair["kappa"]["value"] == 0 and pair["negative_agreement"] == 0
    assert Kind.asked == 24
    assert run(capsys, *command)[0] == 0 and Kind.asked == 24
    assert [ref.name for ref in folder.judges()] == ["exact", "kind"]


def test_agreement_judges_nothing_and_compares_whoever_judged(capsys, folder):
    code, _, err = run(capsys, "judge", folder.path, "--agreement")
    assert code == 2 and "verdicts of 1 judge (exact)" in err
    run(capsys, "judge", folder.path, "--judge", f"{HERE}:Kind")
    before = {path.name: path.read_bytes() for path in (folder.path / "verdicts").iterdir()}
    code, out, _ = run(capsys, "judge", folder.path, "--agreement")
    assert code == 0 and "B  kind" in out
    assert {path.name: path.read_bytes() for path in (folder.path / "verdicts").iterdir()} == before
    assert 'id="judges-title"' in (folder.path / "report.html").read_text()


def test_what_a_judge_cannot_score_is_said_counted_and_fails_the_command(capsys, folder):
    code, out, err = run(capsys, "judge", folder.path, "--judge", "exact", f"{HERE}:Shy")
    assert code == 1 and "12 not scored by shy: shy" in err and "12 answers could not be scored" in err
    assert "! generation normal: B left out 12 of 12 answers: 12 unscored, 0 without a verdict" in out
    drawing = agreement_of(folder)["groups"][-1]
    assert drawing["rates"]["shy"]["rate"] is None and drawing["pairs"][0]["kappa"]["value"] is None
    assert drawing["pairs"][0]["scored"] == {"both": 0, "first_only": 12, "second_only": 0, "neither": 0}


def test_cards_of_several_judges_and_corrected_rates_side_by_side(capsys, folder):
    code, out, err = run(capsys, "judge", folder.path, "--judge", "exact", f"{HERE}:Kind", "--card", "--num-items", 10)
    assert code == 0, err
    assert "Judge card of exact" in out and "Judge card of kind" in out
    assert "As judged -> corrected" in out and "100.0 -> -" in out
    assert sorted(path.name for path in (folder.path / "judges").iterdir()) == [
        "agreement.json", "exact.card.json", "kind.card.json",
    ]  # fmt: skip
    data = agreement_of(folder)
    assert set(data["cards"]) == set(data["corrected"]) == {"exact", "kind"}
    assert all(row["corrected"] is None for row in data["corrected"]["kind"])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--judge", "exact", "exact"], "names a judge twice"),
        (["--agreement", "--judge", "a", "b"], "--agreement judges nothing"),
        (["--agreement", "--card"], "--agreement judges nothing"),
        (["--judge", "exact", f"{HERE}:Kind", "--label"], "one judge's verdicts"),
        (["--by-family"], "--by-family is for several judges"),
        (["--judge", "exact", "judy"], "unknown judge 'judy'"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_before_anything_is_judged(capsys, folder, arguments, problem):
    code, _, err = run(capsys, "judge", folder.path, *arguments)
    assert code == 2 and problem in err
    assert not (folder.path / "judges").exists() and len(folder.judges()) == 1


def test_help_says_how_several_are_named(capsys):
    out = run(capsys, "judge", "--help")[1]
    assert "RUN --judge A B" in " ".join(out.replace("│", " ").split())
