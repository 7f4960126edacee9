"""The live page in a real browser: it shows what runs in the house, and its own policy stops nothing that it needs."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

BROWSER = [sys.executable, str(Path(__file__).with_name("browser.py"))]
HEADLESS = {
    "QT_QPA_PLATFORM": "offscreen",
    "QTWEBENGINE_DISABLE_SANDBOX": "1",  # it refuses to start as root otherwise, and the page is ours
    "QTWEBENGINE_CHROMIUM_FLAGS": "--disable-gpu --disable-dev-shm-usage",
}


def opened(url: str, folder: Path) -> tuple[str, str]:
    """The page's DOM after it has run for some seconds, and what the browser said."""
    environment = {**os.environ, **HEADLESS, "HOME": str(folder)}
    done = subprocess.run([*BROWSER, url], capture_output=True, text=True, timeout=120, env=environment)
    if "cannot open shared object file" in done.stderr:
        pytest.skip(f"Qt's Chromium lacks a library of the system: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, done.stderr


def text_of(dom: str, element: str) -> str:
    found = re.search(rf'id="{element}"[^>]*>(.*?)</(?:p|tbody|div|table)>', dom, re.S)
    assert found, dom[-2000:]
    return re.sub(r"<[^>]+>", " ", found[1]).strip()


def test_the_page_fills_itself_and_breaks_no_rule_of_its_own(served, tmp_path):
    now = int(time.time())
    readings = [{"t": now - 99 + second, "watts": 2000} for second in range(100)]
    assert served.http.post("/v1/readings", json={"readings": readings}).json() == {"taken": 100}
    dom, said = opened(f"http://127.0.0.1:{served.port}/", tmp_path)
    assert text_of(dom, "now") == "kettle"
    assert "% sure, 2000 W" in text_of(dom, "detail")
    assert "Now 2000 W, highest 2000 W." in text_of(dom, "chart-text")
    assert re.search(r"nilm\s+1\s+full\s+Live\s+-\s+-", text_of(dom, "models")), "its release has no reference"
    assert re.search(r"kettle\s+0\.\d{3}", text_of(dom, "energy"))
    assert len(re.search(r'points="([^"]+)"', dom)[1].split()) == 100
    assert "Content Security Policy" not in said
    assert "Uncaught" not in said


def test_the_page_says_that_it_waits(server, tmp_path):
    dom, _ = opened(f"http://127.0.0.1:{server.port}/", tmp_path)
    assert text_of(dom, "now") == "Waiting for readings"
