"""The page of claims in a real browser: headless Chromium, driven by Playwright."""

import shutil
from pathlib import Path

import pytest

from unigap.report.reproduction import Estimate, Reproduction, judge_claims, write_page
from unigap.report.three_papers import CLAIMS, NOTES, PAPERS

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium or chrome on this machine"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Playwright's own transport
]


def test_every_claim_has_a_bar_and_a_verdict_on_a_desktop_and_on_a_phone(tmp_path: Path):
    half = Estimate(value=0.5, low=0.4, high=0.6, num_units=9, num_clusters=9, detail="before 20%, after 70%")
    rows = judge_claims(CLAIMS, {claim.key: half for claim in CLAIMS})
    page = Reproduction(title="title", papers=PAPERS, rows=rows, facts=[], stages=[], notes=NOTES)
    path = tmp_path / "page.html"
    path.write_text(write_page(page), encoding="utf-8")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=180_000)
        for width in (1280, 390):
            context = browser.new_context(viewport={"width": width, "height": 900})
            opened, logged = context.new_page(), []
            opened.set_default_timeout(180_000)
            opened.on("console", lambda message, logged=logged: logged.append(message.text))
            opened.goto(path.as_uri())
            assert opened.locator(".claims .verdict .chip").count() == len(CLAIMS)
            assert opened.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
            bar = opened.locator(".claim-plot").first.bounding_box()
            dot = opened.locator(".claim-plot .ours circle").first.bounding_box()
            assert bar is not None and dot is not None
            # +50 points stand three quarters of the way from -100 to +100.
            assert (dot["x"] + dot["width"] / 2 - bar["x"]) / bar["width"] == pytest.approx(0.75, abs=0.01)
            # `NO_TRANSFER` and the other rules below 0 differ at +50; the rest agree.
            assert opened.locator(".ours.differs").count() == page.counts["differs"] == 7
            assert not logged
            context.close()
        browser.close()
