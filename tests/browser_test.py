"""The page of a run in a headless Chromium, where Qt's is installed: pip install "PySide6<6.10"."""

import json
import os
import subprocess
import sys

import page_test
import pytest

from sr_jax.report.html import page, read_material

PHONE = (390, 844)  # CSS pixels
# A process of its own: a page needs Qt's event loop. Each step of the visitor is read when it is done.
PROGRAM = """
import json, sys
from PySide6.QtCore import QUrl
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication

path, width, height, *steps = sys.argv[1:]
app, found = QApplication(sys.argv[:1]), []
view = QWebEngineView()
view.resize(int(width), int(height))
view.show()

def go_on(value=None):
  found.append(value)
  if len(found) > len(steps):
    print(json.dumps(found[1:]))
    app.quit()
  else:
    view.page().runJavaScript(steps[len(found) - 1], go_on)

view.loadFinished.connect(lambda ok: go_on() if ok else app.exit(1))
view.load(QUrl.fromLocalFile(path))
app.exec()
"""
FIGURE = "document.querySelector('.viewer')"
SHOWN = f"[...{FIGURE}.querySelectorAll('img')].filter(i => !i.hidden && i.complete).map(i => i.alt).join()"
PRESSED = f"[...{FIGURE}.querySelectorAll('button[aria-pressed=true]')].map(b => b.textContent).join()"
TAP = f"{FIGURE}.querySelector('.frame').click(); {SHOWN}"
IMAGE = f"{FIGURE}.querySelector('img:not([hidden])')"
ZOOM = f"""
  const slider = {FIGURE}.querySelector('input'), before = {IMAGE}.getBoundingClientRect().width;
  slider.value = slider.max; slider.dispatchEvent(new Event('input'));
  {IMAGE}.getBoundingClientRect().width / before
"""
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
FETCHED = "performance.getEntriesByType('resource').filter(r => !r.name.startsWith('data:')).length"


def test_a_visitor_flips_between_a_sample_and_the_truth_and_zooms_on_a_phone(tmp_path):
  pytest.importorskip("PySide6.QtWebEngineCore", reason="a browser comes with PySide6, below version 6.10")
  page_test.write(tmp_path / "run")
  (tmp_path / "page.html").write_text(page("A run", [read_material(tmp_path / "run")]))
  press = f"[...{FIGURE}.querySelectorAll('button')].find(b => b.textContent == 'sample 3').click(); {SHOWN}"
  steps = [SHOWN, TAP, TAP, press, PRESSED, TAP, TAP, ZOOM, TOO_WIDE, FETCHED]
  argv = [sys.executable, "-c", PROGRAM, str(tmp_path / "page.html"), *map(str, PHONE), *steps]
  quiet = {"QT_QPA_PLATFORM": "offscreen", "QTWEBENGINE_CHROMIUM_FLAGS": "--no-sandbox --disable-gpu"}
  run = {"env": os.environ | quiet, "capture_output": True, "text": True, "timeout": 120}
  done = subprocess.run(argv, check=False, **run)
  assert done.returncode == 0, done.stderr[-2000:]
  *seen, zoomed, too_wide, fetched = json.loads(done.stdout.strip().splitlines()[-1])
  assert seen == ["sample 1", "truth", "sample 1", "sample 3", "sample 3", "truth", "sample 3"]
  assert zoomed > 1
  assert too_wide == 0
  assert fetched == 0
