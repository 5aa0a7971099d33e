"""The page: one file that loads nothing and escapes everything."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import resources

import pytest
from tests.fakes import make_item
from tests.report.runs import CLOSING, EVIL, QUOTES, hostile_run, make_run, page_of

from unigap.evaluate import EvalConfig
from unigap.records import RunFolder
from unigap.report.gallery import FIELDS


class Tags(HTMLParser):
    """Every start tag with its attributes, and the text of every script element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data

    def count(self, tag: str, **attributes: str) -> int:
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        return sum(name == tag and wanted.items() <= found.items() for name, found in self.found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> RunFolder:
    return hostile_run(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def page(folder) -> str:
    return page_of(folder)


def gallery_data(page: str) -> dict:
    data, _ = Tags(page).scripts
    return json.loads(data)


def test_page_loads_nothing(page):
    for tag, attributes in Tags(page).found:
        for name in ("src", "href", "srcset", "data", "action", "poster", "background"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (tag, name, value)
        assert tag not in ("iframe", "object", "embed", "base")
        assert tag != "link" or attributes["rel"] == "icon"
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style
    policy = next(found["content"] or "" for tag, found in Tags(page).found if "http-equiv" in found)
    assert policy.startswith("default-src 'none'; img-src data:; ") and "unsafe" not in policy


def test_the_policy_allows_this_style_and_this_script_alone(page):
    tags = Tags(page)
    policy = next(found["content"] or "" for tag, found in tags.found if "http-equiv" in found)
    style = page.partition("<style>")[2].partition("</style>")[0]
    for text in (style, tags.scripts[1]):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert not [found for _, found in tags.found if "style" in found], "the policy would drop a style attribute"


def test_everything_from_records_is_escaped(page):
    tags = Tags(page)
    assert tags.count("script") == 2 and tags.count("noscript") == 1
    assert not [tag for tag in tags.found if any(name.startswith("on") for name in tag[1])]
    assert "&lt;script&gt;document.title" in page
    assert not any(
        "evil.example" in str(value) for tag, found in tags.found if tag == "img" for value in [found["src"]]
    )


def test_no_text_of_the_data_can_end_its_element_and_all_of_it_comes_back(page):
    block = page.partition('id="gallery-data">')[2].partition("</script>")[0]
    assert "<" not in block
    data = gallery_data(page)
    assert QUOTES in data["families"]
    refused = next(unit for unit in data["units"] if "x" in unit["status"])
    assert refused["items"][0]["id"] == f"plain/{EVIL}{CLOSING}"
    assert f"{EVIL} {CLOSING} 1 cup?" in refused["items"][0]["question"]


def test_header_and_provenance_say_who_what_and_when(page):
    for fact in ("fake", "f" * 64, "sandbox", "exact", "2026-01-02", "max_answer_tokens 8", "torch"):
        assert fact in page


def test_a_page_without_script_shows_wrong_and_right_units_of_each_family(page):
    plain = page.partition("<noscript>")[2].partition("</noscript>")[0]
    headings = re.findall(r"<h3>(.*?) <small>(.*?)</small>", plain)
    # Two wrong and one right of plain; the others have right ones alone.
    assert [family for _, family in headings].count("plain") == 3
    assert len(headings) == 5
    assert "Draw 1 lamp." in plain and "drawing, normal: wrong" in plain and "1 lamp, expected" in plain
    assert 'src="data:image/png;base64,' in plain
    assert all("hidden" in found for tag, found in Tags(page).found if tag == "form")


def test_a_picture_damaged_on_disk_is_said_so(tmp_path):
    folder = make_run(tmp_path / "run", [make_item(0)])
    record = next(record for record in folder.records() if record.arm == "oracle")
    (folder.path / str(record.image)).write_bytes(b"not a picture")
    ((unit,),) = [gallery_data(page_of(folder))["units"]]
    (oracle,) = [
        named for answer in unit["items"][0]["answers"] if (named := dict(zip(FIELDS, answer)))["file"] == record.image
    ]
    assert oracle["picture"] == 0 and "image unreadable" in oracle["why"]


def test_one_direction_alone_makes_a_page_without_gap(tmp_path):
    config = EvalConfig(directions=("generation",), arms=("normal",))
    text = page_of(make_run(tmp_path / "run", [make_item(0)], config=config))
    assert 'id="numbers"' in text and 'id="gap-title"' not in text and 'id="ladder-title"' not in text


# ---- colours ---------------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


CSS = (resources.files("unigap.report") / "templates" / "report.css").read_text(encoding="utf-8")


def themes() -> Iterator[dict[str, str]]:
    light, dark, *_ = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)
    for block in (light, dark):
        yield dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


@pytest.mark.parametrize("theme", list(themes()), ids=["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(theme):
    pairs = [(text, ground) for text in ("ink", "soft", "u", "g") for ground in ("page", "card", "wash")]
    pairs += [(name, f"{name}-wash") for name in ("right", "wrong", "unsure", "u", "g")]
    for text, ground in pairs:
        assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)


@pytest.mark.parametrize("theme", list(themes()), ids=["light", "dark"])
def test_numbers_inside_bars_can_be_read(theme):
    (ink,) = re.findall(r"\.inside \{ fill: (#[0-9a-f]{6})", CSS)
    fills = re.findall(r"\.part\.[\w, .]+\{ fill: (#[0-9a-f]{6})", CSS)
    assert len(fills) == 5
    for fill in (*fills, theme["neutral"]):
        assert contrast(ink, fill) >= 4.5, fill
