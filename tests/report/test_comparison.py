"""`unigap compare` on real runs of small models: the numbers by hand, what it refuses, what it says is left out."""

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.fakes import FakeModel, make_item

from unigap.cli import main
from unigap.items import Item, write_items
from unigap.models.protocol import DrawOutput, Request, Sampling
from unigap.report.comparable import common_units, load_run
from unigap.report.comparison import compare_runs
from unigap.report.comparison_table import print_comparison


class Steady(FakeModel):
    """Right in everything."""

    name = "steady"

    @classmethod
    def from_pretrained(cls, folder: Path | None, **settings: Any) -> "Steady":
        return cls()


class Miscounts(Steady):
    """Draws three where four are asked for: a quarter of the items of `make_item`."""

    name = "miscounts"

    def draw(self, requests: Sequence[Request], *, sampling: Sampling, seeds: Sequence[int]) -> list[DrawOutput]:
        fewer = [
            Request(content=tuple(str(part).replace("4 ", "3 ") for part in request.content), purpose="draw")
            for request in requests
        ]
        return super().draw(fewer, sampling=sampling, seeds=seeds)


NUM_ITEMS = 24
ITEMS = [make_item(number) for number in range(NUM_ITEMS)]


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def evaluate(folder: Path, name: str, *arguments: object, model: str = "Steady", items: Sequence[Item] = ITEMS) -> Path:
    """A run of that name in a folder."""
    write_items(folder / f"{name}.jsonl", items)
    asked = ["--items", folder / f"{name}.jsonl", "--model", f"tests.report.test_comparison:{model}"]
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in ("eval", *asked, "--arms", "normal", "--out", folder / name, *arguments)])
    assert stopped.value.code == 0
    return folder / name


@pytest.fixture
def make_run(capsys, tmp_path):
    def make(name: str, *arguments: object, **fields: Any) -> Path:
        path = evaluate(tmp_path, name, *arguments, **fields)
        capsys.readouterr()
        return path

    return make


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    for name, model in (("a", "Steady"), ("b", "Miscounts")):
        evaluate(folder, name, model=model)
    return folder


@pytest.fixture
def both(originals, tmp_path) -> tuple[Path, Path]:
    """A run of each model, to be read or damaged."""
    first, second = (Path(shutil.copytree(originals / name, tmp_path / name)) for name in "ab")
    return first, second


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_a_table_by_hand(capsys, tmp_path, both):
    # 24 items: 6 ask for four objects, and b draws 18 of 24 right. McNemar 0 against 6: 2 / 2^6 = .03125. The gap is a
    # sign-flip test of six 1s: the same. Text is the same: 1. Holm: .03125 * 3, twice, and 1.
    code, out, err = run(capsys, "compare", *both, "--json", tmp_path / "out" / "table.json")
    assert code == 0, err
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert table["first"]["folder"] == "a" and table["first"]["units"] == NUM_ITEMS
    (comparison,) = table["comparisons"]
    assert comparison["run"]["model"]["name"] == "miscounts" and comparison["units_common"] == NUM_ITEMS
    text, draw, gap = comparison["rows"]
    assert [(row["family"], row["asked"], row["arm"]) for row in (text, draw, gap)] == [
        ("plain", "understanding", "normal"),
        ("plain", "generation", "normal"),
        ("plain", "gap", "normal"),
    ]
    assert (draw["first"], draw["other"], draw["difference"]) == (1.0, 0.75, -0.25)
    assert (gap["first"], gap["other"], gap["difference"]) == (0.0, 0.25, 0.25)
    assert [row["p"] for row in (text, draw, gap)] == pytest.approx([1, 0.03125, 0.03125])
    assert [row["p_holm"] for row in (text, draw, gap)] == pytest.approx([1, 0.09375, 0.09375])
    assert [row["test"] for row in (text, draw, gap)] == ["McNemar exact", "McNemar exact", "sign-flip exact"]
    assert {row["outcome"] for row in (text, draw, gap)} == {"not settled"}
    line = next(line for line in out.splitlines() if "draw normal" in line)
    assert line.split()[:6] == ["draw", "normal", "24", "100%", "75%", "-25"] and "0.031" in line and "0.094" in line
    assert "Positive: run 2 is higher" in out and "corrected for all 3 rows" in out
    assert "3 are not settled, which is not the same as equal" in out


def test_a_difference_that_survives_the_correction_is_named(capsys, make_run):
    # 80 items, 20 of four objects: 2 / 2^20 for the drawing and for the gap.
    items = [make_item(number) for number in range(80)]
    runs = make_run("a", items=items), make_run("b", items=items, model="Miscounts")
    _, out, _ = run(capsys, "compare", *runs)
    lines = {" ".join(line.split()[:2]): line for line in out.splitlines()}
    assert lines["draw normal"].split()[-1] == "lower" and lines["gap normal"].split()[-1] == "higher"
    assert "run 2 is higher in 1 and lower in 1. 1 are not settled" in out


def test_every_other_run_is_compared_with_the_first_and_all_are_corrected_together(capsys, tmp_path, both, make_run):
    third = make_run("c", model="Miscounts")
    code, out, err = run(capsys, "compare", *both, third, "--json", tmp_path / "table.json")
    assert code == 0, err
    assert "run 2 - run 1" in out and "run 3 - run 1" in out and "run 3 - run 2" not in out
    rows = [row for one in json.loads((tmp_path / "table.json").read_text())["comparisons"] for row in one["rows"]]
    # Sorted: four times .03125, twice 1; the least is multiplied by 6.
    assert [row["p_holm"] for row in rows] == pytest.approx([1, 0.1875, 0.1875] * 2)


def test_margin_tests_equivalence_and_counts_it_in_the_correction(capsys, tmp_path, both, make_run):
    code, out, err = run(capsys, "compare", *both, "--margin", 0.3, "--json", tmp_path / "table.json")
    assert code == 0, err
    text, draw, gap = json.loads((tmp_path / "table.json").read_text())["comparisons"][0]["rows"]
    # Equal answers of 24 units: within 30 points; a quarter less is not.
    assert text["equivalence"]["holds"] and text["outcome"] == "equivalent"
    assert -0.3 < text["equivalence"]["low90"] < 0 < text["equivalence"]["high90"] < 0.3
    assert not draw["equivalence"]["holds"] and draw["equivalence"]["p"] > 0.05
    # Six hypotheses, of which three can be true: the least p is multiplied by 3.
    assert text["equivalence"]["p_holm"] == pytest.approx(3 * text["equivalence"]["p"])
    assert "within 30" in out and "1 equivalent" in out and "two one-sided tests" in out
    assert gap["difference"] == 0.25


def test_power_says_how_many_units_would_show_a_difference(capsys, tmp_path, both):
    code, out, err = run(capsys, "compare", *both, "--power", 0.1, "--json", tmp_path / "table.json")
    assert code == 0, err
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["power"] == {"difference": 0.1, "level": 0.05, "power": 0.8}
    needed = table["comparisons"][0]["rows"][1]["units_needed"]
    # Connor at psi = .25: (1.95996 * .5 + .84162 * sqrt(.24))^2 / .01 = (.97998 + .41231)^2 / .01 = 193.8; the exact
    # test needs somewhat more.
    assert 194 < needed["estimate"] < 230 and needed["low"] < needed["estimate"] < needed["high"]
    assert "difference of 10 points" in out and "not corrected" in out


def test_several_samples_are_averaged_and_tested_by_sign_flips(capsys, make_run):
    runs = make_run("a", "--samples", 3), make_run("b", "--samples", 3, model="Miscounts")
    code, out, err = run(capsys, "compare", *runs)
    assert code == 0, err
    assert "McNemar" not in out and "averages of samples" in out


def test_narrow_terminals_get_two_tables_with_all_columns(both):
    table = compare_runs([load_run(path, None) for path in both], margin=0.1)

    def printed(width: int) -> list[str]:
        text = io.StringIO()
        print_comparison(table, Console(file=text, width=width))
        return [line for line in text.getvalue().splitlines() if str(both[0].parent) not in line]

    assert sum("gap normal" in line for line in printed(120)) == 1
    assert sum("gap normal" in line for line in printed(80)) == 2
    assert all(len(line) <= 80 for line in printed(80)) and not any("…" in line for line in printed(80))


# ---- what is left out ------------------------------------------------------------------------------------------------


def test_units_without_a_verdict_in_one_run_are_left_out_and_counted(capsys, tmp_path, both):
    lines = (both[1] / "verdicts" / "exact.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not ("plain/000003" in line and "generation" in line)]
    assert len(kept) == len(lines) - 1
    (both[1] / "verdicts" / "exact.jsonl").write_text("".join(kept))
    code, out, _ = run(capsys, "compare", *both, "--json", tmp_path / "table.json")
    text, draw, gap = json.loads((tmp_path / "table.json").read_text())["comparisons"][0]["rows"]
    assert code == 0 and [row["units"] for row in (text, draw, gap)] == [24, 23, 23]
    assert [row["left_out"] for row in (text, draw, gap)] == [0, 1, 1]
    assert "!23" in out and "2 units left out of these rows" in out


def test_arms_of_one_run_alone_are_not_compared_and_named(capsys, make_run):
    runs = make_run("a", "--arms", "normal", "oracle"), make_run("b")
    _, out, _ = run(capsys, "compare", *runs)
    assert f"not compared: plain generation oracle: asked in {runs[0]} alone" in " ".join(out.split())


def test_with_items_allowed_only_units_that_ask_the_same_are_compared(capsys, tmp_path, make_run):
    # b lacks two items, asks another question in one, and has another half of a pair.
    pair = [make_item(30 + half, id=f"p/{half}", unit="p", cluster="p") for half in range(2)]
    changed = [make_item(7, question="How many are 4 chairs, then?"), make_item(33, id="p/1", unit="p", cluster="p")]
    runs = (
        make_run("a", items=[*ITEMS, *pair]),
        make_run("b", items=[*ITEMS[2:7], *ITEMS[8:], changed[0], pair[0], changed[1]]),
    )
    code, _, err = run(capsys, "compare", *runs)
    assert code == 2 and "items: 25 units in" in err and "23 in" in err and "21 the same in both" in err
    assert err.rstrip().endswith("--allow items")
    code, out, err = run(capsys, "compare", *runs, "--allow", "items")
    assert code == 0, err
    assert "21 units have the same items in both; left out are 4 of run 1 and 2 of run 2" in out
    first, other = (load_run(path, None) for path in runs)
    common = {unit for _, unit in common_units(first, other)}
    assert len(common) == 21 and not common & {"p", "plain/000000", "plain/000001", "plain/000007"}


# ---- what it refuses -------------------------------------------------------------------------------------------------


def test_other_sampling_is_refused_by_name_unless_allowed(capsys, make_run):
    a, b = make_run("a"), make_run("b", "--seed", 5, "--think-prompt", "careful")
    code, _, err = run(capsys, "compare", a, b)
    assert code == 2 and "Traceback" not in err
    assert f"sampling: seed is 0 in {a}, 5 in {b}" in err and "think_prompt_sha256" in err
    assert "--allow sampling" in err
    code, out, _ = run(capsys, "compare", a, b, "--allow", "sampling")
    assert code == 0 and "allowed to differ from run 1 in run 2, sampling: seed is 0" in out


def test_other_settings_and_suite_versions_are_sampling(capsys, both):
    edit(both[1] / "run.json", '"suite_version": "1"', '"suite_version": "2"')
    run_json = json.loads((both[1] / "run.json").read_text())
    run_json["identity"]["sampling"]["image_temperature"] = 0.5
    (both[1] / "run.json").write_text(json.dumps(run_json))
    code, _, err = run(capsys, "compare", *both)
    assert code == 2 and "suite_version is '1' in" in err and "image_temperature is" in err


def test_other_judges_are_refused_by_name_unless_allowed(capsys, both):
    edit(both[1] / "verdicts" / "exact.jsonl", '"version": "', '"version": "9')
    code, _, err = run(capsys, "compare", *both)
    assert code == 2 and "judges: version is '" in err and "--allow judges" in err
    assert run(capsys, "compare", *both, "--allow", "judges")[0] == 0


def test_everything_that_differs_is_listed_at_once(capsys, make_run):
    a, b = make_run("a"), make_run("b", "--seed", 5, items=ITEMS[:9])
    edit(b / "verdicts" / "exact.jsonl", '"version": "', '"version": "9')
    code, _, err = run(capsys, "compare", a, b, "--allow", "judges")
    assert code == 2 and "items: " in err and "sampling: " in err and "judges: " not in err
    assert "--allow items judges sampling" in err
    assert run(capsys, "compare", a, b, "--allow", "items", "judges", "sampling")[0] == 0


def test_runs_without_a_common_unit_are_refused_whatever_is_allowed(capsys, make_run):
    a, b = make_run("a", items=ITEMS[:5]), make_run("b", items=ITEMS[5:9])
    code, _, err = run(capsys, "compare", a, b, "--allow", "items", "judges", "sampling")
    assert code == 2 and "have no unit with the same items" in err


def test_runs_that_cannot_be_read_are_named(capsys, tmp_path, both):
    assert "needs at least two runs, 1 named" in run(capsys, "compare", both[0])[2]
    code, _, err = run(capsys, "compare", both[0], tmp_path / "none")
    assert code == 1 and "is not a run folder" in err
    code, _, err = run(capsys, "compare", *both, "--judge", "judy")
    assert code == 2 and f"unknown judge of {both[0]} 'judy'; known: exact" in err
    second = both[0] / "verdicts" / "judy.jsonl"
    second.write_text((both[0] / "verdicts" / "exact.jsonl").read_text().replace('"exact"', '"judy"'))
    code, _, err = run(capsys, "compare", *both)
    assert code == 2 and "several judges; name one with --judge: exact, judy" in err
    assert run(capsys, "compare", *both, "--judge", "exact")[0] == 0
    (both[1] / "verdicts" / "exact.jsonl").unlink()
    code, _, err = run(capsys, "compare", *both, "--judge", "exact")
    assert code == 2 and f"unigap judge {both[1]}" in err


@pytest.mark.parametrize("flag", ["--margin", "--power"])
def test_points_given_as_whole_numbers_are_refused(capsys, both, flag):
    code, _, err = run(capsys, "compare", *both, flag, 5)
    assert code == 2 and "0.05 is five points" in err
