"""The page: one file that loads nothing, escapes everything, and shows what a browser should see."""

import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import date
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.fakes import FakeModel, make_item

from unigap.evaluate import EvalConfig, evaluate, judge_run
from unigap.items import Item
from unigap.judges.exact import ExactJudge
from unigap.records import RunFolder
from unigap.report import gallery
from unigap.report.gallery import MAX_CHARACTERS, THUMBNAIL_PX, build_gallery, describe_reading, image_uri, shorten
from unigap.report.page import write_page
from unigap.report.scores import collect_scores
from unigap.report.summary import summarize
from unigap.scenes.render import place, scene_ref

EVIL = """<script>document.title='pwned'</script><img src=http://evil.example/x.png onerror="document.title='pwned'">"""
QUOTES = """a"b'c onmouseover="document.title='pwned'" <b>&amp;"""


class Tags(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def count(self, tag: str, **attributes: str) -> int:
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        return sum(name == tag and wanted.items() <= found.items() for name, found in self.found)


def make_run(out: Path, items: list[Item], **config: object) -> RunFolder:
    run_config = {"suite": "sandbox", "num_units": len(items), "trained_on": {}, **config}
    report = evaluate(FakeModel(), items, out, EvalConfig(), run_config=run_config, on_progress=lambda steps: None)
    judge_run(report.folder, ExactJudge(), on_progress=lambda steps: None)
    return report.folder


def make_page(folder: RunFolder) -> str:
    scores = collect_scores(folder.items(), folder.records(), folder.verdicts("exact"))
    summary = summarize(scores, run={}, trained_on={})
    return write_page(folder, "exact", scores, summary, made=date(2026, 1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> RunFolder:
    """Two families of right and wrong answers, a pair, a refusal, and hostile text wherever text can be."""
    scene = scene_ref(place({"cup": 2}, random.Random(0)))
    items = [make_item(number) for number in range(10)]
    items += [
        make_item(number, caption="1 lamp", prompt="Draw 1 lamp.", question="1 lamp?") for number in range(10, 14)
    ]
    items += [make_item(number, family=QUOTES, word=EVIL, images=(scene,)) for number in range(3)]
    items.append(make_item(20, word="refuse", question=f"{EVIL} 1 cup?", id=f"plain/{EVIL}"))
    items += [
        make_item(number, family="mapping1", unit="mapping1/0", id=f"mapping1/0/{'AB'[number]}") for number in (0, 1)
    ]
    return make_run(tmp_path_factory.mktemp("run") / "run", items, think_prompt=QUOTES)


@pytest.fixture(scope="module")
def page(folder) -> str:
    return make_page(folder)


def test_page_loads_nothing(page):
    for tag, attributes in Tags(page).found:
        for name in ("src", "href", "srcset", "data", "action", "poster", "background"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (tag, name, value)
        assert tag not in ("link", "iframe", "object", "embed", "base")
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'; img-src data:" in page


def test_everything_from_records_is_escaped(page):
    tags = Tags(page)
    assert tags.count("script") == 1
    assert not [tag for tag in tags.found if any(name.startswith("on") for name in tag[1])]
    assert tags.count("section", data_family=QUOTES) == 1
    assert "&lt;script&gt;document.title" in page
    assert not any(
        "evil.example" in str(value) for tag, found in tags.found if tag == "img" for value in [found["src"]]
    )


def test_page_is_in_the_run_folder(folder, page):
    assert (folder.path / "report.html").read_text(encoding="utf-8") == page


def test_cards_show_prompt_thought_pictures_of_each_arm_and_verdicts_in_words(page):
    card = page.partition("plain/000010")[2].partition("</article>")[0]
    assert "Draw 1 lamp." in card and "thought before the drawing" in card
    assert re.findall(r'alt="drawing, (\w+):', card) == ["normal", "think", "refined", "oracle"]
    assert "1 lamp, expected" in card
    assert re.search(r'class="chip wrong"><span aria-hidden="true">✗</span> wrong object', card)
    assert re.search(r'class="chip right"><span aria-hidden="true">✓</span> right', page)
    assert re.search(r'class="chip refused"><span aria-hidden="true">⊘</span> refused', page)


def test_a_pair_is_one_card_with_both_halves(page):
    assert Tags(page).count("section", data_family="mapping1") == 1
    section = page.partition('data-family="mapping1"')[2].partition("</section>")[0]
    assert section.count("<article") == 1 and section.count('<div class="item">') == 2


def test_page_works_without_script(page):
    tags = Tags(page)
    assert all("hidden" not in found for tag, found in tags.found if tag in ("article", "section"))
    assert all("hidden" in found for tag, found in tags.found if tag == "form")


def test_header_says_who_what_and_when(page):
    for fact in ("fake", "f" * 64, "sandbox", "exact", "2026-01-02"):
        assert fact in page


def test_gallery_keeps_so_many_of_each_family_and_outcome(folder):
    scores = collect_scores(folder.items(), folder.records(), folder.verdicts("exact"))
    cards = build_gallery(folder, "exact", scores, per_outcome=2).cards
    plain = [card.outcome for card in cards if card.family == "plain"]
    assert plain == ["wrong", "wrong", "right", "right"]


def test_what_does_not_fit_is_counted_on_the_page(folder, monkeypatch):
    monkeypatch.setattr(gallery, "MAX_BYTES", 12_000)
    text = make_page(folder)
    assert re.search(r"\d+ more were left out to keep this page small", text)
    monkeypatch.undo()
    make_page(folder)


def test_a_picture_damaged_on_disk_is_said_so(tmp_path):
    folder = make_run(tmp_path / "run", [make_item(0)])
    record = next(record for record in folder.records() if record.arm == "oracle")
    (folder.path / str(record.image)).write_bytes(b"not a picture")
    text = make_page(folder)
    assert "no picture" in text and "image unreadable" in text


def test_large_pictures_are_reduced_and_small_ones_kept_exactly(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (1024, 1024, 3), dtype=np.uint8))
    uri = image_uri(noise)
    assert uri.startswith("data:image/jpeg;") and len(uri) < 60_000
    small = noise.crop((0, 0, 24, 24))
    assert image_uri(small).startswith("data:image/png;")
    assert THUMBNAIL_PX >= 24


def test_long_texts_are_cut_with_a_note():
    assert shorten("x" * 10_000).endswith(f"{'x' * 10} ... (10000 characters)")
    assert len(shorten("x" * 10_000)) < MAX_CHARACTERS + 30


def test_readings_are_said_in_words():
    assert describe_reading({"kind": "objects", "counts": {"cup": 2, "apple": 1}}) == "2 cups, 1 apple"
    assert describe_reading({"kind": "portrait", "counts": {}, "portrait": {"kind": "portrait", "age": "old"}}) == "old"
    assert describe_reading({"final": "4 cups"}) == "4 cups"
    assert describe_reading({"kind": "blank", "counts": {}}) == "blank"
    assert describe_reading({"stars": 3}) == '{"stars": 3}'


# ---- colours ---------------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def themes() -> Iterator[dict[str, str]]:
    css = (resources.files("unigap.report") / "templates" / "report.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)
    for block in (light, dark):
        yield dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


@pytest.mark.parametrize("theme", list(themes()), ids=["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(theme):
    pairs = [(text, ground) for text in ("ink", "soft", "u", "g") for ground in ("page", "card", "wash")]
    pairs += [(name, f"{name}-wash") for name in ("right", "wrong", "unsure", "u", "g")]
    for text, ground in pairs:
        lighter, darker = sorted((luminance(theme[text]), luminance(theme[ground])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, ground)


# ---- a real browser --------------------------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on this machine")
def test_a_browser_shows_rows_and_runs_the_filter_and_no_injected_script(folder, page, tmp_path):
    assert BROWSER is not None
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --dump-dom"
    ).split()
    url = (folder.path / "report.html").resolve().as_uri()
    done = subprocess.run(
        [BROWSER, *flags, f"--user-data-dir={tmp_path}", url], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    dom = done.stdout
    rows = re.findall(r'<th scope="row">\s*(.*?)\s*</th>', dom.partition("</table>")[0])
    assert rows == ["mapping1", "plain", "a\"b'c onmouseover=\"document.title='pwned'\" &lt;b&gt;&amp;amp;"]
    assert re.search(rf"<output[^>]*>{page.count('<article')} units shown</output>", dom)
    assert "<title>fake: what it understands and what it draws</title>" in dom
