"""The browser of the tests sees what a page asks for, says and shows; without one, tests say what to do."""

import pytest
from helpers import browser as helper
from helpers.browser import DESKTOP, PHONE

from testbed.live import chromium

PAGE = """<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>x</title>
<style>body { margin: 0; background: white } div { width: 600px }
@media (prefers-color-scheme: dark) { body { background: black } }</style><body><div>wide</div>%s"""
OUTSIDE = '<img src="http://pictures.example/x.png" alt=""><script>console.error("broken")</script>'
BACKGROUND = "return getComputedStyle(document.body).backgroundColor"


def test_a_page_that_asks_outside_is_found_out(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(PAGE % OUTSIDE, encoding="utf-8")
    browser.open(page)
    assert browser.outside() == ["http://pictures.example/x.png"]
    assert any("broken" in text for text in browser.complaints())
    page.write_text(PAGE % "", encoding="utf-8")
    browser.open(page)
    assert (browser.outside(), browser.complaints(), browser.run(BACKGROUND)) == (
        [],
        [],
        "rgb(255, 255, 255)",
    )


def test_a_page_that_is_too_wide_for_a_phone_is_found_out(browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(PAGE % "", encoding="utf-8")
    browser.open(page, DESKTOP, dark=True)
    assert (browser.overhang(), browser.run(BACKGROUND)) == (0, "rgb(0, 0, 0)")
    browser.resize(PHONE)
    assert browser.overhang() == 600 - PHONE
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("ci", "ends_with"), [("", "Skipped"), ("true", "ClusterError")])
def test_no_browser_says_what_to_do_and_fails_in_ci(monkeypatch, tmp_path, capsys, ci, ends_with):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(chromium, "DIRECTORY", tmp_path / "chromium")
    with pytest.raises(BaseException, match="no apt-get on this machine; put a chromium program") as raised:
        helper.browser_or_skip().__enter__()
    assert type(raised.value).__name__ == ends_with
    assert chromium.main(["--install"]) == 1
    assert capsys.readouterr().err.startswith("chromium: Chromium can't be unpacked")
