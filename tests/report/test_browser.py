"""The page in a real browser: headless Chromium, driven by Playwright."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes import make_item
from tests.report.runs import EVIL, QUOTES, hostile_run, make_run, page_of

from unigap.report.page import FILE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on this machine"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Playwright's own transport
]

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """plain: 30 units all right; 5 whose drawing alone is wrong; 2 whose text alone is wrong. counting: 3 all right."""
    items = [make_item(number) for number in range(30)]
    items += [make_item(number, prompt="Draw 7 lamps.") for number in range(30, 35)]
    items += [make_item(number, question="8 lamps?") for number in range(35, 37)]
    items += [make_item(number, family="counting") for number in range(3)]
    folder = make_run(tmp_path_factory.mktemp("run") / "run", items)
    (folder.path / FILE).write_text(page_of(folder), encoding="utf-8")
    return folder.path / FILE


@pytest.fixture(scope="module")
def hostile_path(tmp_path_factory) -> Path:
    folder = hostile_run(tmp_path_factory.mktemp("hostile") / "run")
    (folder.path / FILE).write_text(page_of(folder), encoding="utf-8", errors="backslashreplace")
    return folder.path / FILE


class Opened:
    """A page in a context of its own, with everything it logged and asked for."""

    def __init__(self, browser, path: Path, **context) -> None:
        self.context = browser.new_context(**({"viewport": DESKTOP} | context))
        self.page = self.context.new_page()
        self.logged: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.logged.append(message.text))
        self.page.on("pageerror", lambda error: self.logged.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *error: object) -> None:
        self.context.close()

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")

    def shown(self) -> str:
        return self.page.inner_text(".filter output")

    def units(self) -> list[str]:
        return self.page.eval_on_selector_all(
            ".card h3", "headings => headings.map(heading => heading.firstChild.textContent)"
        )


def test_filters_show_the_units_that_match_and_say_how_many(browser, path):
    with Opened(browser, path) as opened:
        page = opened.page
        assert opened.shown() == "24 of 40 units shown" and len(opened.units()) == 24
        page.select_option("[name=family]", label="counting")
        assert opened.units() == [f"counting/{number:06d}" for number in range(3)]
        page.select_option("[name=family]", label="all")
        page.select_option("[name=question]", label="drawing, normal")
        page.select_option("[name=status]", label="wrong")
        assert opened.shown() == "5 of 5 units shown"
        page.select_option("[name=question]", label="text, normal")
        assert opened.units() == ["plain/000035", "plain/000036"]
        page.select_option("[name=question]", label="drawing, oracle")
        assert opened.shown() == "no units match" and not opened.units()
        page.click("[type=reset]")
        page.locator(".card").nth(23).wait_for(state="attached")
        page.fill("[name=words]", "7 LAMPS")
        assert opened.units() == [f"plain/{number:06d}" for number in range(30, 35)]
        assert not opened.logged


def test_disagreement_between_directions_is_of_the_same_arm(browser, path):
    with Opened(browser, path) as opened:
        page = opened.page
        page.select_option("[name=pair]", label="text right, drawing wrong")
        assert opened.units() == [f"plain/{number:06d}" for number in range(30, 35)]
        page.select_option("[name=question]", label="text, think")
        assert len(opened.units()) == 5
        page.select_option("[name=pair]", label="text wrong, drawing right")
        assert opened.units() == ["plain/000035", "plain/000036"]
        page.select_option("[name=question]", label="drawing, oracle")
        assert page.is_disabled("[name=pair]"), "there is no oracle in text to disagree with"


def test_errors_can_be_filtered_by_their_code(browser, hostile_path):
    with Opened(browser, hostile_path) as opened:
        labels = opened.page.eval_on_selector_all("[name=error] option", "found => found.map(one => one.textContent)")
        assert labels[0] == "any" and any(label.startswith("wrong object (") for label in labels)
        opened.page.select_option("[name=error]", value="refused")
        assert opened.shown() == "1 of 1 unit shown"
        opened.page.select_option("[name=status]", label="wrong")
        assert opened.shown() == "no units match", "a refusal is not among the wrong answers"


def test_show_more_goes_on_to_the_end(browser, path):
    with Opened(browser, path) as opened:
        opened.page.click("text=Show 16 more")
        assert opened.shown() == "40 of 40 units shown" and len(set(opened.units())) == 40
        assert opened.page.is_hidden(".more")


def test_everything_is_reached_by_keyboard(browser, path):
    with Opened(browser, path) as opened:
        page = opened.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.focus("[name=family]")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        assert opened.shown() == "3 of 3 units shown"
        page.focus(".picture")
        page.keyboard.press("Enter")
        assert page.inner_text("#viewer-title").startswith("counting/000000: drawing, normal")
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#viewer-title").startswith("counting/000000: drawing, think")
        page.keyboard.press("Escape")
        assert page.is_hidden("#viewer")
        assert page.evaluate("document.activeElement.className") == "picture", "focus comes back"


def test_a_screen_reader_hears_the_numbers_of_every_row_and_a_name_for_every_control(browser, path):
    with Opened(browser, path) as opened:
        page = opened.page
        # 35 of 37 texts right, 32 of 37 drawings.
        assert page.get_by_role("img", name="plain, normal: text 95% (").count() == 1
        assert page.get_by_role("img", name="plain, normal: gap +8 points (").count() == 1
        for name in ("Family", "Arm", "Verdict", "Error", "Directions"):
            control = page.get_by_role("combobox", name=name)
            assert control.count() == (0 if control.is_hidden() else 1)
        assert page.get_by_role("searchbox", name="Search").count() == 1
        assert page.get_by_role("img", name="drawing, normal: ").count() >= 24
        assert page.evaluate("[...document.images].every(image => image.alt)")
        assert page.locator("h1").count() == 1


def test_the_viewer_enlarges_crisply_and_tells_everything(browser, path):
    with Opened(browser, path) as opened:
        page = opened.page
        page.select_option("[name=pair]", label="text right, drawing wrong")
        page.locator(".picture").nth(1).click()
        image = page.locator("#viewer img")
        assert image.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
        assert image.bounding_box()["width"] == 480
        text = page.inner_text("#viewer")
        for part in ("Draw 7 lamps.", "thought", "judge read", "7 lamps", "expected", "seed", "images/think/plain/"):
            assert part in text


def test_hostile_text_stays_text_and_the_page_asks_for_nothing(browser, hostile_path):
    with Opened(browser, hostile_path) as opened:
        page = opened.page
        page.select_option("[name=status]", label="refused")
        page.locator(".card button.arm").first.click()
        assert EVIL in page.inner_text("#viewer")
        page.keyboard.press("Escape")
        page.click("[type=reset]")
        page.select_option("[name=family]", label=QUOTES)
        assert EVIL in page.inner_text("#cards")
        assert page.title() == "fake: what it understands and what it draws"
        assert page.locator("#cards script, #cards b, #viewer script").count() == 0
        assert {url.partition(":")[0] for url in opened.requests} <= {"file", "data", "blob"}
        assert [url for url in opened.requests if url.startswith("file")] == [hostile_path.as_uri()]
        assert not opened.logged


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_is_wider_than_the_window_and_the_scheme_is_the_readers(browser, hostile_path, scheme, viewport):
    with Opened(browser, hostile_path, viewport=viewport, color_scheme=scheme) as opened:
        page = opened.page
        page.evaluate("document.querySelectorAll('main details').forEach(details => details.open = true)")
        assert opened.overflow() <= 0
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) < 3 * 60) == (scheme == "dark")
        page.locator(".picture").first.click()
        assert opened.overflow() <= 0
        box = page.locator("#viewer").bounding_box()
        assert box["width"] <= viewport["width"]


def test_print_is_dark_on_white_without_controls(browser, path):
    with Opened(browser, path, color_scheme="dark", viewport={"width": 700, "height": 1000}) as opened:
        page = opened.page
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 33, 38)"
        assert page.is_hidden(".filter") and page.is_visible(".card") and page.is_visible(".plot")
        assert opened.overflow() <= 0
        assert page.pdf(format="A4")[:5] == b"%PDF-"


def test_without_script_numbers_and_a_plain_gallery_remain(browser, path):
    with Opened(browser, path, java_script_enabled=False) as opened:
        page = opened.page
        assert page.is_visible("#numbers") and page.is_visible(".plot") and page.is_hidden(".filter")
        # Of plain two wrong ones and one right, of counting one right.
        assert page.locator("noscript article").count() == 4
        assert page.locator("noscript article").first.is_visible()
