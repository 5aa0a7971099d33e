"""The built wheel alone, in a clean environment and another folder, does the main job."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = ("pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    run(sys.executable, "-m", *build, cwd=folder)
    return next(folder.glob("unigap-*.whl"))


def test_the_wheel_holds_weights_card_prompts_and_templates(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    for ending in (".safetensors", "card.json", ".txt", ".html.j2", "py.typed", "LICENSE"):
        assert any(name.endswith(ending) for name in names), f"no {ending} in the wheel"
    assert {name.split("/")[0].split("-")[0] for name in names} == {"unigap"}, "only the package is in the wheel"


def test_the_wheel_evaluates_its_own_model_from_any_folder(wheel: Path, tmp_path: Path):
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    # The dependencies are this environment's. A path named in a .pth file is searched, but its own .pth files are
    # not read, so an editable install of this tree stays invisible.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    home = run(python, "-c", "import unigap; print(unigap.__file__)", cwd=tmp_path).strip()
    assert Path(home).is_relative_to(site)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    printed = run(python.with_name("unigap"), "eval", "--num-units", "5", "--out", "run", cwd=elsewhere)
    assert "math1" in printed
    assert "report.html" in printed
    summary = json.loads((elsewhere / "run" / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["families"]) >= {"math1", "mapping3", "inverse", "counting"}
    assert (elsewhere / "run" / "report.html").stat().st_size > 10_000
