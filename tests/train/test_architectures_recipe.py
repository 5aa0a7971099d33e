"""recipes/architectures.py: heads side by side, and a command that is given again."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.train.painted import write_painted

PATH = Path(__file__).parents[2] / "recipes" / "architectures.py"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("architectures_recipe", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_two_heads_stand_side_by_side_and_the_same_command_asks_nothing_again(recipe: ModuleType, tmp_path: Path):
    out, flow = tmp_path / "study", write_painted(tmp_path / "flow", "flow")
    study = recipe.Architectures(
        out=out, models=("tiny", flow), stages=("suite", "inject"), sides=("understanding",), smoke=True
    )
    recipe.main(study)
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    tables = {table["title"]: table for table in result["tables"]}
    assert all(table["columns"] == ["tiny", "tiny:flow"] for table in tables.values())
    rows = {title: {row["name"]: row["cells"] for row in table["rows"]} for title, table in tables.items()}
    # The shipped trunk answers in text under either head; a newborn painter draws nothing that can be read.
    ours, theirs = rows["Main suite"]["math1: text, after a thought"]
    assert ours["value"] == theirs["value"] and ours["units"] == 3
    assert rows["Main suite"]["plain: drawing, from the true caption"][1]["value"] == 0
    assert rows["Main suite, drawable"]["plain: drawing, at once"][1] is None
    assert rows["Ladder"]["plain: cannot draw it, even from the caption"][1]["value"] == 1
    assert all(len(cells) == 2 for cells in rows["Gap Score"].values())
    assert rows["Injection"]["taught by text: text, at once"][0]["units"] == 2 * 3
    assert [line for line in result["readings"] if line.startswith("tiny:flow: taught by text, it draws it at once")]

    records = {path: path.stat().st_mtime_ns for path in out.rglob("records-*.jsonl")}
    models = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    recipe.main(study)
    assert records and {path: path.stat().st_mtime_ns for path in records} == records
    assert models and {path: path.stat().st_mtime_ns for path in models} == models
    assert json.loads((out / "result.json").read_text(encoding="utf-8")) == result
