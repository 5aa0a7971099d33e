"""A dataset's rows become GapEval's directories once it is known what its columns mean."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unigap.benchmarks.gapeval import read_gapeval, reference_pictures
from unigap.benchmarks.gapeval_table import write_directories
from unigap.errors import ItemFileError, RunFolderError

pyarrow = pytest.importorskip("pyarrow", reason="the extra `data` is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `data` is not installed")


def encoded(colour: str, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (5, 5), colour).save(file, kind)
    return file.getvalue()


def row(**changes: Any) -> dict[str, Any]:
    return {
        "category": "physics",
        "subcategory": "optics",
        "und_prompt": "Where does it go?",
        "gen_prompt": "Draw where it goes.",
        "reference": ["to the left"],
        "image": {"bytes": encoded("red"), "path": "/etc/passwd"},
        "ref": None,
    } | changes


def write(path: Path, *rows: dict[str, Any], rename: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(list(rows))
    parquet.write_table(table.rename_columns([(rename or {}).get(name, name) for name in table.column_names]), path)
    return path


def test_rows_become_data_folders(tmp_path: Path):
    rows = [
        row(ref={"bytes": encoded("blue", "BMP"), "path": None}),
        row(category="Multi Hop", subcategory=None, image=None, reference=["Marie Curie", "M. Curie"]),
    ]
    out = tmp_path / "out"
    assert write_directories(str(write(tmp_path / "in" / "test.parquet", *rows)), out).num_rows == 2
    first, second = read_gapeval(out)
    assert (first.variant, first.question, first.caption) == ("physics: optics", "Where does it go?", "to the left")
    assert (second.variant, second.caption, second.images) == ("Multi Hop: ", "Marie Curie; M. Curie", ())
    for path, pixel in ((out / first.images[0], (255, 0, 0)), (reference_pictures(out / "data_1")[0], (0, 0, 255))):
        with Image.open(path) as image:
            assert (image.format, image.getpixel((0, 0))) == ("PNG", pixel)


def test_lists_of_pictures_and_plain_bytes_are_taken(tmp_path: Path):
    path = write(tmp_path / "a.parquet", row(image=[encoded("red"), encoded("blue")], ref=[]))
    write_directories(str(path), tmp_path / "out")
    (item,) = read_gapeval(tmp_path / "out")
    assert item.images == ("data_1/image/0.png", "data_1/image/1.png")


def test_files_of_a_folder_are_numbered_on_and_the_same_command_goes_on(tmp_path: Path):
    for name in ("b", "a"):
        write(tmp_path / "in" / "sub" / f"{name}.parquet", row(gen_prompt=name), row(gen_prompt=name * 2))
    out = tmp_path / "out"
    write_directories(str(tmp_path / "in"), out)
    assert [item.prompt for item in read_gapeval(out)] == ["a", "aa", "b", "bb"]
    (out / "data_3" / "prompt.json").unlink()
    kept = (out / "data_1" / "prompt.json").stat().st_mtime_ns
    assert write_directories(str(tmp_path / "in"), out).num_rows == 4
    assert (out / "data_1" / "prompt.json").stat().st_mtime_ns == kept
    assert [item.prompt for item in read_gapeval(out)] == ["a", "aa", "b", "bb"]


RENAMED = {"und_prompt": "question", "image": "picture", "gen_prompt": "task"}


def test_unknown_columns_stop_and_are_listed_with_their_types(tmp_path: Path):
    path = write(tmp_path / "a.parquet", row(), rename=RENAMED)
    with pytest.raises(ItemFileError) as error:
        write_directories(str(path), tmp_path / "out")
    said = str(error.value)
    assert "no column for und_prompt, gen_prompt" in said and "--columns FIELD=COLUMN" in said
    assert "question (string)" in said and "picture (struct<" in said
    assert not (tmp_path / "out").exists()
    path = write(tmp_path / "b.parquet", row(extra=1))
    with pytest.raises(ItemFileError, match="unknown columns extra; say which is which"):
        write_directories(str(path), tmp_path / "out")


def test_a_map_of_columns_goes_on_and_leaves_out_the_rest(tmp_path: Path):
    path = write(tmp_path / "a.parquet", row(extra=1), rename=RENAMED)
    write_directories(str(path), tmp_path / "out", columns=RENAMED)
    (item,) = read_gapeval(tmp_path / "out")
    assert (item.question, item.prompt) == ("Where does it go?", "Draw where it goes.")
    with pytest.raises(ItemFileError, match="no column 'q'"):
        write_directories(str(path), tmp_path / "new", columns={"und_prompt": "q"})
    with pytest.raises(ItemFileError, match="unknown field 'question'; known: category, und_prompt"):
        write_directories(str(path), tmp_path / "new", columns={"question": "und_prompt"})


def test_the_older_name_of_the_question_is_known(tmp_path: Path):
    path = write(tmp_path / "a.parquet", row(), rename={"und_prompt": "problem"})
    assert write_directories(str(path), tmp_path / "out").num_rows == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gen_prompt": " "}, "row 2: \"gen_prompt\" is ' '; expected a non-empty text"),
        ({"category": None}, 'row 2: "category" is None'),
        ({"reference": None}, 'row 2: "reference" is None'),
        ({"image": None}, "row 2: no picture; category 'physics' edits one"),
        ({"image": {"bytes": None, "path": "/etc/passwd"}}, "row 2, image: no bytes of a picture"),
        ({"image": {"bytes": b"bad", "path": None}}, "row 2, image: picture cannot be read"),
    ],
)
def test_a_row_that_cannot_be_read_is_reported_and_the_rest_goes_on(tmp_path: Path, changes: dict[str, Any], said: str):
    path = write(tmp_path / "a.parquet", row(), row(**changes), row())
    written = write_directories(str(path), tmp_path / "out")
    assert written.num_rows == 3 and len(written.unreadable) == 1 and said in written.unreadable[0]
    assert [item.id for item in read_gapeval(tmp_path / "out")] == ["data_1", "data_3"]


def test_sources_without_rows_are_refused(tmp_path: Path):
    with pytest.raises(ItemFileError, match="is no file, no folder, and no name of a Hub dataset"):
        write_directories("no such thing", tmp_path / "out")
    with pytest.raises(ItemFileError, match=r"has no \.parquet file.*@refs/convert/parquet"):
        write_directories(str(tmp_path), tmp_path / "out")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ItemFileError, match=r"a\.parquet is not a parquet file"):
        write_directories(str(tmp_path), tmp_path / "out")
    empty = pyarrow.Table.from_pylist([row()]).slice(0, 0)
    parquet.write_table(empty, tmp_path / "a.parquet")
    with pytest.raises(ItemFileError, match="holds no rows"):
        write_directories(str(tmp_path), tmp_path / "out")
    write(tmp_path / "b.parquet", {"category": "physics"})
    with pytest.raises(ItemFileError, match="has other columns than"):
        write_directories(str(tmp_path), tmp_path / "out")


def test_a_folder_of_something_else_is_not_written_into(tmp_path: Path):
    path = write(tmp_path / "a.parquet", row())
    with pytest.raises(RunFolderError, match="holds something else than data folders"):
        write_directories(str(path), tmp_path)


def test_a_hub_dataset_is_downloaded_at_the_revision_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "hub" / "test.parquet", row())
    asked: list[tuple[str, str | None]] = []

    def snapshot(repo_id: str, *, repo_type: str, revision: str | None, allow_patterns: list[str]) -> str:
        assert (repo_type, allow_patterns) == ("dataset", ["*.parquet"])
        asked.append((repo_id, revision))
        return str(tmp_path / "hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    write_directories("owner/name", tmp_path / "one")
    write_directories("owner/name@refs/convert/parquet", tmp_path / "two")
    assert asked == [("owner/name", None), ("owner/name", "refs/convert/parquet")]
