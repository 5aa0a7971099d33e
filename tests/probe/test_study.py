"""A whole study: what is planted is found where it is, steps are done once, and the page shows them."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.fakes import FakeModel
from tests.probe.known import KnownInspector, KnownModel

from unigap.errors import CannotAskError, TrainingError, UnknownNameError
from unigap.judges.exact import ExactJudge
from unigap.models.inspection import States
from unigap.probe.study import ProbeConfig, patched_positions, study
from unigap.report.latent import LatentPage, print_latent, write_latent

CONFIG = ProbeConfig(families=("plain",), arms=("normal",), num_train=160, num_test=80, num_trials=20, times=(1.0,))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("study")
    return out, study(KnownModel(), ExactJudge(), CONFIG, out)


def test_a_planted_number_is_found_at_its_layer_and_positions_and_nowhere_else(done):
    count, thing = done[1]["steps"][0]["facets"]
    places = {("text", 2, "end"), *(("query", 2, f"query {k}") for k in (4, 5, 6))}
    num_high = 0
    for one in count["maps"]:
        for cell in one["cells"]:
            place = (one["kind"], cell["layer"], cell["position"])
            assert (cell["right"]["rate"] > 0.9) == (place in places), place
            assert cell["control"] < 0.35
            num_high += place not in places and cell["selectivity"]["low"] > 0
    # 3 x (4 + 6 + 2) places but 4 hold nothing: of 32, one or two are above their control by chance.
    assert num_high <= 4
    best = {one["kind"]: one["cells"][one["best"]] for one in count["maps"]}
    assert (best["text"]["layer"], best["text"]["position"]) == (2, "end")
    assert best["query"]["layer"] == 2 and best["query"]["position"] in ("query 4", "query 5", "query 6")
    assert all(cell["right"]["rate"] < 0.3 for one in thing["maps"] for cell in one["cells"])
    # The prompt says both: a reader of its words needs no model, and no state knows more.
    assert count["words"]["right"]["rate"] > 0.9
    assert all(one["over_words"]["rate"] < 0.1 for one in count["maps"])


def test_the_head_reads_the_number_where_it_is(done):
    count, thing = done[1]["steps"][0]["facets"]
    shares = {one["position"]: one["share"]["rate"] for one in count["read_out"]}
    assert len(shares) == 10 and thing["read_out"] == []
    for position, share in shares.items():
        assert (share > 0.8) == (position in ("end", "query 4", "query 5", "query 6")), position


def test_patching_says_where_the_picture_is_decided(done):
    follows = {tuple(patch["positions"])[-1:]: patch["follows"]["rate"] for patch in done[1]["steps"][0]["patches"]}
    assert follows.pop(("end",)) == 1
    assert set(follows.values()) == {0.0} and len(follows) == 3  # of the queries, all end as their last third does
    assert done[1]["steps"][0]["drawn_right"]["rate"] == 1


def test_a_thought_is_read_by_the_think_arm(tmp_path: Path):
    class Thinker(KnownModel):
        def _read(self, request):
            n, name = super()._read(request)
            return (n, name) if request.thought or request.think_prompt else (1, name)

    both = ProbeConfig(families=("plain",), num_train=160, num_test=40, num_trials=4, times=())
    normal, think = study(Thinker(), ExactJudge(), both, tmp_path)["steps"]
    assert (normal["arm"], think["arm"]) == ("normal", "think")
    best = [max(cell["right"]["rate"] for cell in step["facets"][0]["maps"][0]["cells"]) for step in (normal, think)]
    assert think["drawn_right"]["rate"] == 1 > normal["drawn_right"]["rate"] and best[1] > 0.9 > best[0]


def test_a_step_is_done_once_and_other_settings_are_refused(done, monkeypatch: pytest.MonkeyPatch):
    out, first = done

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(KnownInspector, "look", refuse)
    again = study(KnownModel(), ExactJudge(), CONFIG, out)
    assert json.dumps(again) == json.dumps(first)
    with pytest.raises(TrainingError, match="num_test"):
        study(KnownModel(), ExactJudge(), ProbeConfig(num_test=8), out)


def test_a_model_without_states_and_unknown_names_are_refused(tmp_path: Path):
    with pytest.raises(CannotAskError, match="fake shows no hidden states"):
        study(FakeModel(), ExactJudge(), CONFIG, tmp_path)
    with pytest.raises(UnknownNameError, match="math9"):
        ProbeConfig(families=("math9",))


def test_queries_are_patched_all_and_in_thirds():
    queries = States("query", tuple(f"query {k}" for k in range(1, 19)), None)  # type: ignore[arg-type]
    assert [(some[0], some[-1], len(some)) for some in patched_positions(queries)] == [
        ("query 1", "query 18", 18),
        ("query 1", "query 6", 6),
        ("query 7", "query 12", 6),
        ("query 13", "query 18", 6),
    ]


def test_the_page_shows_every_cell_and_escapes_names(done, tmp_path: Path):
    numbers, page = write_latent(tmp_path, [done[1]])
    text = page.read_text(encoding="utf-8")
    assert "known <model>" not in text and "known &lt;model&gt;" in text
    # 3 layers x (4 + 6 + 2) positions, of two facets.
    assert text.count("<rect") == 2 * 3 * 12
    assert json.loads(numbers.read_text(encoding="utf-8"))["models"][0]["steps"][0]["family"] == "plain"


def test_the_terminal_shows_the_best_probes_and_the_patching(done):
    console = Console(width=170, record=True, file=io.StringIO())
    print_latent([done[1]], console)
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    (count,) = (line for line in lines if " count " in line)
    assert count.startswith("known <model> plain normal 100 [") and " end, 2 " in count
    patched = [line.removeprefix("known <model> plain normal ")[:7] for line in lines if line.count("[") == 4]
    assert patched == ["end 100", "end-3 t", *["query 1"] * 2, "query 3", "query 5"]


def test_a_cell_is_as_dark_as_it_is_above_chance():
    # (.75 - .5) / (1 - .5) = a half of the darkest, .5.
    assert LatentPage.opacity(0.75, 0.5) == 0.25
    assert (LatentPage.opacity(0.4, 0.5), LatentPage.opacity(1.0, 0.25)) == (0.0, 0.5)
