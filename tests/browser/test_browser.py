"""Lessons in headless Chromium: a slider moves, the figure changes, nothing complains, nothing leaves the machine.

Needs Chromium (Debian: apt install chromium) and playwright (pip install playwright), which drives it.
"""

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from serving import served

from tabrl.lessons.contents import lessons

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
DRIVEN = [n for n in (1, 18) if n in lessons()]  # an early one, and GRPO
LONG = 90_000  # ms until a lesson has drawn its figures on a busy machine

MISSING = [
    *(name for name in ("marimo", "playwright") if importlib.util.find_spec(name) is None),
    *([] if CHROMIUM else [" or ".join(NAMES)]),
]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A browser that knows no address but 127.0.0.1."""
    from playwright.sync_api import sync_playwright

    rules = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", rules])
        yield opened
        opened.close()


class Watched:
    """A page, what it asked for, and what it complained about."""

    def __init__(self, browser: "Browser") -> None:
        self.page: Page = browser.new_page(viewport={"width": 1200, "height": 1000})
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda x: self.asked.append(x.url))
        self.page.on("websocket", lambda x: self.asked.append(x.url))
        self.page.on("requestfailed", lambda x: self.complaints.append(f"failed: {x.url}"))
        self.page.on("pageerror", lambda x: self.complaints.append(str(x)))
        self.page.on("console", self.heard)

    def heard(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(message.text)

    def pictures(self) -> list[str | None]:
        return [x.get_attribute("src") for x in self.page.locator("img[src^='data:image/png']").all()]

    def settled(self) -> list[str | None]:
        """The pictures, when they no longer change."""
        before: list[str | None] = []
        while not before or self.pictures() != before:
            before = self.pictures()
            self.page.wait_for_timeout(1500)
        return before


@pytest.fixture
def watched(browser: "Browser") -> Iterator[Watched]:
    watching = Watched(browser)
    yield watching
    watching.page.close()


def moved(slider: "Locator") -> None:
    """Move a slider by one step, to whichever side there is room."""
    value = slider.get_attribute("aria-valuenow")
    slider.focus()
    slider.press("ArrowRight")
    if slider.get_attribute("aria-valuenow") == value:
        slider.press("ArrowLeft")
    assert slider.get_attribute("aria-valuenow") != value


@pytest.mark.parametrize("number", DRIVEN)
def test_a_lesson_in_the_browser(number: int, watched: Watched, tmp_path: Path) -> None:
    page = watched.page
    with served(str(number), folder=tmp_path) as (address, _):
        page.goto(address)
        page.get_by_role("heading", name="Sources").wait_for(timeout=LONG)
        page.locator("img[src^='data:image/png']").first.wait_for(timeout=LONG)
        before = watched.settled()
        assert lessons()[number].title in page.get_by_role("heading", level=1).inner_text()

        moved(page.get_by_role("slider").first)
        page.wait_for_function(
            "old => [...document.querySelectorAll(\"img[src^='data:image/png']\")].some((x, i) => x.src !== old[i])",
            arg=before,
            timeout=LONG,
        )
        after = watched.settled()
        assert len(after) == len(before) and after != before

        assert page.get_by_text("Choose an answer above").count() == 1
        page.get_by_role("radio").first.click()
        page.get_by_text("Choose an answer above").wait_for(state="detached", timeout=LONG)

        fold = page.get_by_role("button", expanded=False).filter(has_text="?").first
        fold.click()
        page.get_by_role("button", expanded=True).filter(has_text="?").first.wait_for(timeout=LONG)

        assert page.locator(".katex").count() > 5  # formulas are set, not shown as TeX
        page.wait_for_timeout(1000)
    hosts = {urlsplit(x).hostname for x in watched.asked if not x.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}
    assert any(urlsplit(x).scheme == "ws" for x in watched.asked)
    assert not watched.complaints


def test_the_watch_notices(watched: Watched) -> None:
    """A picture from elsewhere, and an error in the console, do not go unseen."""
    watched.page.set_content('<img src="http://example.org/x.png"><script>console.error("seen")</script>')
    watched.page.wait_for_timeout(500)
    assert "http://example.org/x.png" in watched.asked
    assert "seen" in watched.complaints and "failed: http://example.org/x.png" in watched.complaints
