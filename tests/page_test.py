"""The page of a run is whole in itself and shows what the run left."""

import base64
import io
import json
import os
import re
import shutil
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from sr_jax import cli
from sr_jax import config as configs
from sr_jax.configs import base
from sr_jax.report.grids import save_images
from sr_jax.report.html import page, read_material
from sr_jax.report.tables import write_per_image, write_report

# Attributes that make a browser fetch something.
FETCHING = ("src", "href", "srcset", "poster", "data", "action", "background", "xlink:href")
VOID = ("meta", "img", "input", "rect", "polyline")


class Reader(HTMLParser):
  """Text, images by their names, and what is fetched; fails where elements are not nested."""

  def __init__(self, text):
    super().__init__()
    self.open, self.fetched, self.images, self.text, self.counts = [], [], [], [], {}
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.counts[tag] = self.counts.get(tag, 0) + 1
    self.fetched += [value for name, value in attrs if name in FETCHING]
    values = dict(attrs)
    if tag == "img":
      self.images.append((values["alt"], values["src"].partition(",")[2], "hidden" in values))
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.counts[tag] = self.counts.get(tag, 0) + 1

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)


def pixels(image) -> np.ndarray:
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(image[1]))))


def write(folder, seed=0, rounds=3, channels=3):
  """What a run leaves that its page is made of."""
  config = base.get_config()
  config.seed = seed
  config.eval.metrics = ("psnr",)
  rng, size = np.random.default_rng(seed), (8, 12, channels)
  image = {"input": rng.random((2, 3, channels)), "bicubic": rng.random(size), "truth": rng.random(size)}
  images = [image | {"samples": rng.random((6, *size))}]
  values = {"m": {"psnr": rng.normal(30, 1, 5)}}
  meta = {"operator": "A", "single": {"": "m"}, "eval": json.loads(config.eval.to_json())}
  means = {"m": {"psnr": float(values["m"]["psnr"].mean())}}
  write_report(folder / "evaluation", "table", {"bicubic": {"psnr": 28.0}, **means}, meta)
  write_per_image(folder / "evaluation", [f"{i}.png" for i in range(5)], values, {})
  save_images(images, folder / "evaluation" / "images.npz")
  (folder / "config.json").write_text(configs.to_json(config))
  lines = [{"step": 10 * i, "time": 1.0, "loss": 1000.0**-i, "nan": None} for i in range(1, rounds + 1)]
  (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  return images, means


def test_nothing_is_fetched_and_the_page_fits_a_phone(tmp_path):
  write(tmp_path / "a")
  text = page("title", [read_material(tmp_path / "a")])
  found = Reader(text)
  assert found.fetched
  assert all(value.startswith("data:image/png;base64,") for value in found.fetched)
  assert not re.search(r"url\(|@import|https?://|<link|fetch\(", text)
  assert 'name="viewport" content="width=device-width' in text


def test_images_are_those_of_the_evaluation_one_shown_at_a_time_the_truth_last(tmp_path):
  (image,), _ = write(tmp_path / "a")
  images = Reader(page("title", [read_material(tmp_path / "a")])).images
  names = [name for name, *_ in images]
  assert names[:6] == ["sample 1", "sample 2", "sample 3", "sample 4", "input", "bicubic"]
  assert [hidden for *_, hidden in images] == [False] + [True] * 7
  np.testing.assert_array_equal(pixels(images[1]), np.floor(image["samples"][1] * 255 + 0.5))
  np.testing.assert_array_equal(pixels(images[-1]), np.floor(image["truth"] * 255 + 0.5))
  deviation = image["samples"].std(0, ddof=1).mean(-1)
  white = np.percentile(deviation, 99)
  assert names[6:] == [f"deviation, white {255 * white:.3g}", "truth"]
  np.testing.assert_allclose(pixels(images[6]), (deviation / white).clip(0, 1) * 255, atol=0.51)


def test_as_many_samples_are_shown_as_are_asked_for_and_all_make_the_deviation(tmp_path, capsys):
  write(tmp_path / "a")
  out = tmp_path / "page.html"
  shown = {}
  for count in (1, 6, 9):
    assert cli.main(["report", str(tmp_path / "a"), f"--out={out}", f"--samples={count}"]) == 0
    shown[count] = Reader(out.read_text()).images
    names = [name for name, *_ in shown[count] if name.startswith("sample")]
    assert names == [f"sample {i + 1}" for i in range(min(count, 6))]
  np.testing.assert_array_equal(pixels(shown[1][-2]), pixels(shown[6][-2]))
  capsys.readouterr()


def test_differing_keys_curves_tables_and_the_comparison_are_told_of_several_runs(tmp_path, capsys):
  means = [write(tmp_path / name, seed)[1]["m"]["psnr"] for seed, name in enumerate(("a", "b"))]
  out = tmp_path / "page.html"
  assert cli.main(["report", str(tmp_path / "a"), str(tmp_path / "b"), f"--out={out}"]) == 0
  assert capsys.readouterr().out.strip() == str(out)
  text = out.read_text()
  found = Reader(text)
  assert "<tr><td>seed</td><td>0</td><td>1</td></tr>" in text
  assert text.count("<td>train.rounds</td>") == 2, "of each run, and not among those that differ"
  assert "Differences to a, image by image: mean [95 % bootstrap interval]" in text
  assert f"<tr><td>b</td><td>{means[1]:.2f}</td></tr>" in text
  assert "<tr><th></th><th>psnr ↑</th></tr>\n<tr><td>bicubic</td><td>28.00</td></tr>" in text
  # A curve of each run in the one figure that has numbers; falling by a factor of a million, logarithmically.
  assert found.counts["svg"] == 1
  lines = re.findall(r'points="([^"]+)"', text)
  assert [line.split() for line in lines] == [["106.7,0.0", "213.3,80.0", "320.0,160.0"]] * 2
  assert "logarithmic" in text


def test_a_sweep_is_its_table_and_its_runs(tmp_path, capsys):
  for seed in range(2):
    write(tmp_path / "sweep" / f"seed={seed}", seed)
  write_report(tmp_path / "sweep", "sweep", {"a & b": {"psnr": 31.5}}, {"trials": 2})
  assert cli.main(["report", str(tmp_path / "sweep"), f"--out={tmp_path / 'page.html'}"]) == 0
  capsys.readouterr()
  text = (tmp_path / "page.html").read_text()
  assert "<td>a &amp; b</td><td>31.50</td>" in text
  assert "<h2>seed=0</h2>" in text
  assert Reader(text).counts["figure"] == 3
  # Before its table is written.
  (tmp_path / "sweep" / "sweep.md").rename(tmp_path / "sweep" / "ledger.json")
  assert cli.main(["report", str(tmp_path / "sweep"), f"--out={tmp_path / 'page.html'}"]) == 0
  capsys.readouterr()
  assert "<h2>seed=0</h2>" in (tmp_path / "page.html").read_text()


def test_a_page_takes_the_place_of_no_device(tmp_path, capsys):
  write(tmp_path / "run")
  os.mkfifo(tmp_path / "pipe")
  assert cli.main(["report", str(tmp_path / "run"), f"--out={tmp_path / 'pipe'}"]) == 2
  assert "cannot be written" in capsys.readouterr().err
  assert (tmp_path / "pipe").is_fifo()


def test_names_are_text_and_a_folder_with_little_is_shown_as_far_as_it_goes(tmp_path):
  write(tmp_path / "<b>")
  for name in ("evaluation/images.npz", "metrics.jsonl"):
    (tmp_path / "<b>" / name).unlink()
  text = page("<i>", [read_material(tmp_path / "<b>")])
  assert "<b>" not in text
  assert "<i>" not in text
  found = Reader(text)
  assert "svg" not in found.counts
  assert not found.images


def test_one_grey_sample_has_no_deviation(tmp_path):
  (image,), _ = write(tmp_path / "a", channels=1)
  save_images([image | {"samples": image["samples"][:1]}], tmp_path / "a" / "evaluation" / "images.npz")
  images = Reader(page("title", [read_material(tmp_path / "a")])).images
  assert [name for name, *_ in images] == ["sample 1", "input", "bicubic", "truth"]
  assert pixels(images[0]).shape == (8, 12)


def test_what_cannot_be_reported_raises_one_sentence(tmp_path, capsys):
  write(tmp_path / "a")
  (tmp_path / "empty").mkdir()
  (tmp_path / "broken").mkdir()
  (tmp_path / "broken" / "metrics.jsonl").write_text("{\n")
  for folder, out, words in (
    ("empty", "page.html", "is no folder of a run"),
    ("broken", "page.html", "cannot be read"),
    ("a", "gone/page.html", "cannot be written"),
  ):
    assert cli.main(["report", str(tmp_path / folder), f"--out={tmp_path / out}"]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / out).exists()


def test_runs_that_cannot_be_compared_are_reported_with_the_reason(tmp_path, capsys):
  for name in ("a", "b"):
    write(tmp_path / name)
  (tmp_path / "b" / "evaluation" / "per_image.jsonl").unlink()
  words = [str(tmp_path / "a"), str(tmp_path / "b"), f"--out={tmp_path / 'page.html'}"]
  assert cli.main(["report", *words]) == 0
  capsys.readouterr()
  assert "No comparison: " in (tmp_path / "page.html").read_text()


def test_runs_that_are_not_evaluated_do_not_keep_the_others_from_being_compared(tmp_path, capsys):
  for seed, name in enumerate(("a", "b", "training", "classifier")):
    write(tmp_path / name, seed)
  shutil.rmtree(tmp_path / "training" / "evaluation")
  keys = json.loads((tmp_path / "training" / "config.json").read_text())
  keys["eval"]["images"] = 0
  (tmp_path / "training" / "config.json").write_text(json.dumps(keys))
  (tmp_path / "classifier" / "evaluation" / "images.npz").unlink()  # a helper draws nothing
  words = [str(tmp_path / name) for name in ("a", "b", "training", "classifier")]
  assert cli.main(["report", *words, f"--out={tmp_path / 'page.html'}"]) == 0
  capsys.readouterr()
  text = (tmp_path / "page.html").read_text()
  assert "No comparison" not in text
  table = text[text.index("Differences to a") :].partition("</table>")[0]
  assert table.count("<td>b</td>") == 1
  assert "classifier" not in table
