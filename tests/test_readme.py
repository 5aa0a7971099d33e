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


def test_every_flag_that_is_named_is_known(capsys: pytest.CaptureFixture[str]):
    helps = ""
    for command in (["eval"], ["judge"], ["report"], ["items", "make"], ["items", "export"], ["train", "pretrain"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        helps += capsys.readouterr().out
    code = "\n".join(line for line in re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    flags = set(re.findall(r"(?<!\S)--[a-z-]+", code)) - {"--nproc-per-node", "--index-url", "--help"}
    assert flags and [flag for flag in flags if flag not in helps] == []
