"""The page in headless Chromium, against a real service: `make test-page`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.factories import picture_bytes
from tests.serving.conftest import Service

pytestmark = pytest.mark.page

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        pytest.fail("no Chromium: apt install chromium, or name one in CHROMIUM")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=_FLAGS)
        yield started
        started.close()


@pytest.fixture
def tab(browser: Any, service_url: str) -> Iterator[Any]:
    """A tab on the page, which may not complain of anything."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(service_url)
    page.wait_for_selector("#model dl")
    yield page
    context.close()
    assert [text for text in said if "Failed to load resource" not in text] == []


@pytest.fixture
def jeep(tmp_path: Path) -> Path:
    path = tmp_path / 'my jeep\'s "photo".png'
    path.write_bytes(picture_bytes("jeep"))
    return path


def _labels(page: Any, text: str = "labrador, tabby\njeep") -> None:
    page.select_option("#tree", "labels")
    page.fill("#labels", text)


def _answered(page: Any) -> str:
    page.wait_for_selector("#result:not([hidden]) .path", timeout=60_000)
    page.wait_for_selector("#go:not([disabled])")
    return str(page.text_content(".headline"))


def test_a_chosen_picture_lights_the_path(tab: Any, jeep: Path) -> None:
    _labels(tab)
    tab.set_input_files("#file", jeep)
    assert "jeep" in _answered(tab)
    assert tab.locator(".path li.stop").count() == 1
    assert tab.get_attribute(".path li.stop", "aria-current") == "true"
    assert tab.text_content("#status") == "Done: jeep."
    assert "ms in the service" in tab.text_content(".timing")
    width = tab.eval_on_selector(".stop .bar > span", "e => e.getBoundingClientRect().width")
    assert width > 10


def test_stopping_early_is_told_and_the_guess_is_not_lit(tab: Any, jeep: Path) -> None:
    _labels(tab, "labrador, jeep, ambulance")
    tab.fill("#theta", "1")
    tab.set_input_files("#file", jeep)
    _answered(tab)
    assert "would be a guess" in tab.text_content(".why")
    assert tab.locator(".path li:not(.lit)").count() == 1


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_may_be_dropped_or_pasted(tab: Any, way: str) -> None:
    _labels(tab)
    tab.evaluate(
        """([way, bytes]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "a.png", {type: "image/png"}));
          document.dispatchEvent(way === "drop"
            ? new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})
            : new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
        }""",
        [way, list(picture_bytes("tabby"))],
    )
    assert "tabby" in _answered(tab)


def test_the_keyboard_is_enough(tab: Any, jeep: Path) -> None:
    seen = []
    for _ in range(16):
        tab.keyboard.press("Tab")
        seen.append(tab.evaluate("document.activeElement.id || document.activeElement.className"))
    for wanted in ("skip", "file", "tree", "theta", "go", "copy"):
        assert wanted in seen, seen
    ring = "getComputedStyle(document.activeElement).outlineStyle"
    tab.focus("#theta")
    tab.keyboard.press("Shift+Tab")
    assert tab.evaluate(ring) == "solid"
    _labels(tab)
    tab.set_input_files("#file", jeep)
    _answered(tab)
    tab.focus("#theta")
    tab.keyboard.type("0.1")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#go:not([disabled])")
    assert "jeep" in _answered(tab)


def test_an_error_is_told_kindly_with_the_requests_id(tab: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not a picture")
    _labels(tab)
    tab.set_input_files("#file", bad)
    tab.wait_for_selector("#problem:not([hidden])")
    text = tab.text_content("#problem")
    assert text.startswith("This picture cannot be used.")
    assert "image-format" in text
    assert len(tab.text_content("#problem code")) == 32
    assert tab.get_attribute("#problem", "role") == "alert"


def test_what_is_missing_is_asked_for(tab: Any, jeep: Path) -> None:
    tab.click("#go")
    assert tab.text_content("#status") == "Choose a picture first."
    tab.select_option("#tree", "labels")
    tab.set_input_files("#file", jeep)
    assert tab.text_content("#status") == "Type at least one label."
    assert tab.evaluate("document.activeElement.id") == "labels"


def test_labels_are_text_wherever_they_are_shown(tab: Any, jeep: Path) -> None:
    _labels(tab, "<img src=x onerror=alert(1)> jeep, tabby")
    tab.set_input_files("#file", jeep)
    _answered(tab)
    assert tab.locator("#result img").count() == 0
    assert "<img src=x" in tab.text_content("#result")


def test_the_snippets_do_what_the_page_does(
    tab: Any, jeep: Path, service_url: str, tmp_path: Path
) -> None:
    _labels(tab, 'labrador, @tabby\'s "$HOME" `id` \\, jeep')
    tab.fill("#theta", "0.5")
    tab.set_input_files("#file", jeep)
    _answered(tab)
    tab.click('[data-of="curl"]')
    tab.wait_for_function("document.getElementById('copied').textContent === 'Copied.'")
    curl = tab.evaluate("navigator.clipboard.readText()")
    code = tab.text_content("#python")
    assert curl == tab.text_content("#curl")
    done = subprocess.run(["bash", "-c", curl], capture_output=True, cwd=tmp_path, check=False)
    assert b'"prediction":{"id":"jeep"' in done.stdout.replace(b": ", b":"), done.stdout
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, cwd=tmp_path, check=False, text=True)
    assert ran.stdout.startswith("jeep "), ran.stderr or ran.stdout


def test_phone_and_desktop_hold_everything(tab: Any, jeep: Path) -> None:
    _labels(tab, "labrador, jeep, " + "x" * 150)
    tab.set_input_files("#file", jeep)
    _answered(tab)
    shots = os.environ.get("SCREENSHOTS")
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for width, height in ((1280, 900), (768, 1024), (390, 844), (320, 640)):
            tab.set_viewport_size({"width": width, "height": height})
            assert not tab.evaluate("document.documentElement.scrollWidth > innerWidth"), width
            if shots:
                tab.screenshot(path=f"{shots}/{scheme}-{width}.png", full_page=True)
    assert tab.eval_on_selector(".path li", "e => getComputedStyle(e).animationName") == "none"


_CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.offsetParent || e.closest(".skip")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([e.tagName, e.className, e.textContent.slice(0, 30), ratio]);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(tab: Any, jeep: Path, scheme: str) -> None:
    tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    _labels(tab, "labrador, jeep")
    tab.fill("#theta", "1")
    tab.set_input_files("#file", jeep)
    _answered(tab)
    assert tab.evaluate(_CONTRAST) == []


def test_a_key_is_asked_for_held_and_forgotten(
    browser: Any, serve: Callable[..., Service], jeep: Path, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    make = [sys.executable, "-m", "robustzs", "keys", "make", "page", "--file", str(file)]
    key = subprocess.run(make, capture_output=True, check=True, text=True).stdout.strip()
    running = serve(ROBUSTZS_KEYS_FILE=str(file))
    context = browser.new_context()
    page = context.new_page()
    page.goto(running.url)
    page.wait_for_selector("#key-box[open]")
    assert "asks for an API key" in page.text_content("#model")
    page.fill("#key", key)
    page.dispatch_event("#key", "change")
    page.wait_for_selector("#model dl")
    _labels(page)
    page.set_input_files("#file", jeep)
    assert "jeep" in _answered(page)
    shown = page.text_content("#curl") + page.text_content("#python")
    assert "ROBUSTZS_API_KEY" in shown
    assert key not in shown
    assert context.storage_state()["origins"] == []
    assert context.cookies() == []
    page.reload()
    assert page.input_value("#key") == ""
    context.close()
