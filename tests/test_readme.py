"""The README tells the truth: its Python runs, its flags exist, its files are there."""

import re
from pathlib import Path

import pytest

from unigap.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_five_lines_print_a_gap_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "mapping1" in printed and "report.html" in printed


def test_every_file_that_is_named_is_there():
    named = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"^    (src/\S+|bench/|docs/)", README, re.MULTILINE)
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_flag_that_is_named_is_one_of_its_command(capsys: pytest.CaptureFixture[str]):
    code = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    named = re.findall(r"\bunigap ((?:items|train) \w+|\w+)(.*)", code)
    assert len(named) > 12
    for command, rest in named:
        with pytest.raises(SystemExit):
            main([*command.split(), "--help"])
        known = capsys.readouterr().out
        flags = set(re.findall(r"(?<!\S)--[a-z-]+", rest)) - {"--help"}
        assert [flag for flag in flags if flag not in known] == [], command
