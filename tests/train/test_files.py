"""Training data in other people's files: what is written is read back, and what is wrong is named by file and line."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image
from tests.train.small import picture

from unigap.errors import ItemFileError
from unigap.train.files import (
    read_conversations,
    read_folder,
    read_prompt_images,
    write_conversations,
    write_prompt_images,
)

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
UPSTREAM = Path(__file__).parents[3] / "shared" / "data" / "unisandbox" / "data" / "knowledge"


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def write_rows(path: Path, rows: list[dict]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


GOOD = {"image": png(picture("cup", 2)), "captions": '{"prompt": "Draw 2 cups."}'}


def test_prompts_and_pictures_come_back_as_they_were(tmp_path: Path):
    pairs = [(f"Draw {n} cups.", picture("cup", n)) for n in (1, 2, 3)]
    path = tmp_path / "cups.parquet"
    assert write_prompt_images(path, pairs) == 3
    read = list(read_prompt_images(path))
    assert [(e.id, e.content, e.answer) for e in read] == [
        (f"cups.parquet#{n}", (f"Draw {n + 1} cups.",), None) for n in range(3)
    ]
    for example, (_, image) in zip(read, pairs, strict=True):
        assert example.image is not None and example.image.convert("RGB").tobytes() == image.tobytes()


def test_the_parquet_has_the_columns_that_bagel_style_trainers_read(tmp_path: Path):
    path = tmp_path / "many.parquet"
    write_prompt_images(path, ((f"Draw {n}.", picture("cup", 1)) for n in range(300)))
    file = parquet.ParquetFile(path)
    assert file.num_row_groups == 2  # 256 and 44
    assert file.schema_arrow.field("image").type == pyarrow.binary()
    assert file.schema_arrow.field("captions").type == pyarrow.string()
    row = file.read_row_group(1).to_pylist()[-1]
    # As their reader takes it apart: a picture file's bytes, and a JSON object whose values are captions.
    assert Image.open(io.BytesIO(row["image"])).size == (24, 24)
    assert list(json.loads(row["captions"]).values()) == ["Draw 299."]
    file.close()


def test_every_caption_of_a_row_is_an_example(tmp_path: Path):
    path = write_rows(tmp_path / "two.parquet", [GOOD | {"captions": '{"short": "2 cups", "long": "Draw 2 cups."}'}])
    assert [(e.id, e.content[0]) for e in read_prompt_images(path)] == [
        ("two.parquet#0/short", "2 cups"),
        ("two.parquet#0/long", "Draw 2 cups."),
    ]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"captions": "Draw 2 cups."}, '"captions" must be the JSON text of an object'),
        ({"captions": "{}"}, "at least one caption"),
        ({"captions": '{"a": 3}'}, 'caption "a" must be a text'),
        ({"captions": None}, '"captions" must be'),
        ({"image": b"not a picture"}, '"image" must be the bytes of a whole picture file'),
        ({"image": GOOD["image"][:60]}, '"image" must be the bytes of a whole picture file'),
        ({"image": None}, '"image" must be'),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, wrong, named):
    path = write_rows(tmp_path / "bad.parquet", [GOOD, GOOD | wrong])
    with pytest.raises(ItemFileError, match=rf"bad\.parquet, row 1: .*{named}"):
        list(read_prompt_images(path))


def test_a_wrong_file_is_named(tmp_path: Path):
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(ItemFileError, match=r"text\.parquet is not a parquet file"):
        list(read_prompt_images(tmp_path / "text.parquet"))
    path = write_rows(tmp_path / "other.parquet", [{"image": GOOD["image"], "text": "x"}])
    with pytest.raises(ItemFileError, match=r'no column "captions" \(found: image, text\)'):
        list(read_prompt_images(path))
    path = write_rows(tmp_path / "paths.parquet", [GOOD | {"image": "cat.png"}])
    with pytest.raises(ItemFileError, match='column "image" is of type string; expected the bytes'):
        list(read_prompt_images(path))


def test_conversations_come_back_as_they_were(tmp_path: Path):
    path = tmp_path / "talk.jsonl"
    assert write_conversations(path, [("Who is Ömer?", "A \ud800 \u2028 kid."), ("Why?", "Because.")]) == 2
    first, second = read_conversations(path)
    assert (first.id, first.content, first.answer) == ("talk.jsonl:1", ("Who is Ömer?",), "A \ud800 \u2028 kid.")
    assert (second.content, second.answer, second.image) == (("Why?",), "Because.", None)
    assert json.loads(path.read_text().split("\n")[1]) == {
        "id": 2,
        "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}],
    }


def say(*turns: tuple[str, object], **more: object) -> str:
    return json.dumps({"id": 1, "conversations": [{"from": who, "value": what} for who, what in turns], **more})


def test_every_answer_of_a_conversation_is_learned_after_all_before_it(tmp_path: Path):
    path = tmp_path / "long.jsonl"
    path.write_text(say(("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d")))
    assert [(e.id, e.content, e.answer) for e in read_conversations(path)] == [
        ("long.jsonl:1/0", ("a",), "b"),
        ("long.jsonl:1/1", ("a", "b", "c"), "d"),
    ]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "not a conversation"),
        ("[]", '"conversations" must list'),
        ('{"id": 1}', '"conversations" must list'),
        (say(("human", "a")), "ending with gpt"),
        (say(("gpt", "a"), ("human", "b")), 'turn 1 must be {"from": "human"'),
        (say(("human", "a"), ("gpt", 3)), 'turn 2 must be {"from": "gpt"'),
        (say(("human", " "), ("gpt", "b")), "turn 1 must be"),
        (say(("human", "a"), ("gpt", "b"), image="cat.png"), "conversations about pictures are not read"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line, named):
    path = tmp_path / "bad.jsonl"
    path.write_text(say(("human", "a"), ("gpt", "b")) + "\n\n" + line + "\n")
    with pytest.raises(ItemFileError) as raised:
        list(read_conversations(path))
    assert "bad.jsonl, line 3: " in str(raised.value) and named in str(raised.value)


def test_a_folder_is_all_its_files_and_its_hash_follows_them(tmp_path: Path):
    write_prompt_images(tmp_path / "sub" / "cups.parquet", [("Draw 1 cup.", picture("cup", 1))])
    write_conversations(tmp_path / "talk.jsonl", [("Why?", "Because.")])
    (tmp_path / "notes.txt").write_text("not data")
    read, sha256 = read_folder(tmp_path)
    assert [example.id for example in read] == ["sub/cups.parquet#0", "talk.jsonl:1"]
    assert read_folder(tmp_path)[1] == sha256
    write_conversations(tmp_path / "talk.jsonl", [("Why?", "Why not?")])
    assert read_folder(tmp_path)[1] != sha256


def test_a_folder_without_data_is_an_error(tmp_path: Path):
    with pytest.raises(ItemFileError, match="holds no training data"):
        read_folder(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ItemFileError, match=r"empty\.jsonl holds no conversations"):
        read_folder(tmp_path)


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason="the authors' files are not beside the checkout")
def test_the_authors_own_conversations_are_read():
    examples, _ = read_folder(UPSTREAM)
    # 10 characters of 40 lines, and 5 files that join two of them.
    assert len(examples) == 10 * 40 + 5 * 80
    assert all(example.answer and len(example.content) == 1 for example in examples)
