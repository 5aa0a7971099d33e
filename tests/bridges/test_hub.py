"""Publishing a run: what would be uploaded, that nothing is without the flag, and the upload against a real socket."""

import csv
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard, HfApi
from huggingface_hub import parse_eval_result_entries as parse_entries
from rich.console import Console
from tests.fakes import make_item
from tests.report.runs import make_run

from unigap.bridges.hub import eval_results, plan_publication, propose_results, upload, without_paths
from unigap.cli import main
from unigap.errors import RunFolderError
from unigap.records import RunFolder
from unigap.report.run import report_run, summarize_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunFolder:
    """4 units of plain: three right both ways, one whose caption and prompt ask for a lamp."""
    root = tmp_path_factory.mktemp("hub")
    items = [make_item(number) for number in range(3)] + [make_item(3, prompt="Draw 1 lamp.")]
    folder = make_run(root / "my run", items, image_root=root, model="tiny:/data/ada/secret/weights")
    report_run(folder, "exact", Console(file=io.StringIO()))
    return folder


class Hub(ThreadingHTTPServer):
    """Records what is sent and agrees to everything."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hub)
        self.sent: list[tuple[str, Any]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Hub(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Hub)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        path = self.path.partition("?")[0]
        lines = [json.loads(line) for line in body.splitlines()] if path.endswith("main") else [json.loads(body)]
        self.server.sent.append((self.path, lines))
        where = f"{self.server.address}/datasets/ada/run"
        reply: dict[str, Any] = {"url": where}
        if "/preupload/" in path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in lines[0]["files"]
            ]
            reply = {"files": files}
        elif "/commit/" in path:
            reply = {"commitUrl": f"{where}/commit/{'0' * 40}", "commitOid": "0" * 40}
            reply |= {"pullRequestUrl": f"{where}/discussions/1"} if "create_pr=1" in self.path else {}
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_plan_holds_every_record_picture_and_verdict_and_no_path_of_this_machine(run: RunFolder, tmp_path: Path):
    (run.path / "notes.txt").write_text("mine alone")
    plan = plan_publication(run, "exact", "ada/run")
    pictures = [name for name in plan.files if name.endswith(".png")]
    assert len(pictures) == 4 * 4  # units x drawing arms
    assert set(plan.files) - set(pictures) == {
        "README.md", "run.json", "summary.json", "answers.csv", "items.jsonl", "report.html", "records-00000.jsonl",
        "verdicts/exact.jsonl", "images/metadata.jsonl",
    }  # fmt: skip
    for name in plan.files.keys() - set(pictures):
        made = plan.files[name]
        data = made if isinstance(made, bytes) else made.read_bytes()
        assert b"/data/ada" not in data and str(run.path.parent).encode() not in data, name
    assert b'"model": "tiny:weights"' in plan.files["run.json"]  # type: ignore[operator]
    answers = list(csv.DictReader(io.StringIO(plan.files["answers.csv"].decode())))  # type: ignore[union-attr]
    assert len(answers) == 4 * 6 and {row["verdict"] for row in answers} == {"correct", "incorrect"}


def test_the_card_is_one_that_the_hub_reads_with_the_gap_table(run: RunFolder):
    card = DatasetCard(plan_publication(run, "exact", "ada/run").card)
    assert card.data.configs == [{"config_name": "drawings", "data_dir": "images"}]
    assert [line for line in card.text.splitlines() if line.startswith("| plain | \\*100% (28–100) | ")]
    assert "f" * 64 in card.text and "judge: exact" in card.text


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/data/ada/run", "run"),
        ("tiny:/data/ada/w", "tiny:w"),
        ("pair:hf:/data/ada/a+b+bagel:/data/ada/w", "pair:hf:a+b+bagel:w"),
        (r"C:\Users\ada\w", "w"),
        ("openai:m@http://127.0.0.1:8000/v1", "openai:m@http://127.0.0.1:8000/v1"),
        ("http://x/y", "http://x/y"),
        ("plan", "plan"),
        ("data/items.jsonl", "data/items.jsonl"),
    ],
)
def test_only_absolute_paths_are_cut(text: str, left: str):
    assert without_paths({"a": [text, 1, None]}) == {"a": [left, 1, None]}


def test_eval_results_name_rate_interval_and_the_run_they_link(run: RunFolder):
    path, content = eval_results(run, summarize_run(run, "exact"), repo="ada/run", benchmark="ada/bench")
    assert path == ".eval_results/unigap-my_run.yaml"
    entries = parse_entries(yaml.safe_load(content))
    # Text is right in all 4 units; drawings in 3, as one prompt asks for something else.
    assert [(entry.task_id, entry.value) for entry in entries] == [
        ("plain_understanding", 1.0),
        ("plain_generation", 0.75),
        ("plain_gap", 0.25),
    ]
    for entry in entries:
        assert entry.dataset_id == "ada/bench"
        assert entry.source_url == "https://huggingface.co/datasets/ada/run"
        assert entry.notes and "arm normal, 95% interval" in entry.notes and "4 units, judge exact" in entry.notes


def test_the_command_without_upload_asks_the_hub_nothing(run: RunFolder, hub: Hub, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", hub.address, raising=False)
    with pytest.raises(SystemExit) as done:
        main(["publish", str(run.path), "--repo", "ada/run", "--benchmark", "ada/bench", "--model-repo", "ada/m"])
    shown = capsys.readouterr().out
    assert done.value.code == 0 and hub.sent == []
    assert "nothing was uploaded" in shown and "and 16 pictures" in shown and "task_id: plain_gap" in shown


def test_an_upload_sends_every_file_to_a_private_dataset(run: RunFolder, hub: Hub):
    plan = plan_publication(run, "exact", "ada/run")
    api = HfApi(endpoint=hub.address, token="hf_test")
    assert upload(plan, api) == f"{hub.address}/datasets/ada/run"
    made = [body[0] for path, body in hub.sent if path.endswith("/repos/create")]
    assert [(one["name"], one["type"], one["visibility"]) for one in made] == [("run", "dataset", "private")]
    committed = [line["value"]["path"] for path, body in hub.sent if "/commit/" in path for line in body[1:]]
    assert sorted(committed) == sorted(plan.files)


def test_results_are_proposed_to_a_models_repository_and_not_pushed(hub: Hub):
    api = HfApi(endpoint=hub.address, token="hf_test")
    assert propose_results(api, "ada/m", ".eval_results/x.yaml", "[]\n").endswith("/discussions/1")
    (path,) = [path for path, _ in hub.sent if "/commit/" in path]
    assert path.startswith("/api/models/ada/m/commit/main") and "create_pr=1" in path


def test_a_run_without_the_judges_report_or_with_a_link_outside_is_refused(run: RunFolder, tmp_path: Path):
    with pytest.raises(RunFolderError, match="summary.json is of the judge exact"):
        plan_publication(run, "other", "ada/run")
    with pytest.raises(ValueError, match="ada/run/x"):
        plan_publication(run, "exact", "ada/run/x")
    (tmp_path / "private.jsonl").write_text("{}\n")
    link = run.path / "verdicts" / "more.jsonl"
    link.symlink_to(tmp_path / "private.jsonl")
    with pytest.raises(RunFolderError, match="link out of the run folder"):
        plan_publication(run, "exact", "ada/run")
    link.unlink()
