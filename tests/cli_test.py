"""The command line: what a user sees, and that a mistake costs one sentence, exit code 2 and no file."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import nullcontext

import jax
import numpy as np
import pytest
from PIL import Image

import small_runs
from sr_jax import cli, commands
from sr_jax import config as configs
from sr_jax.config import check
from sr_jax.configs import base
from sr_jax.errors import UserError
from sr_jax.evaluate import Report
from sr_jax.images import MAX_PIXELS
from sr_jax.methods import make_method
from sr_jax.ops import make_operator
from sr_jax.run import load_run
from sr_jax.stages import plan_stages
from sr_jax.upscaling import upscale

CONFIG = small_runs.__file__


CONFIGS = configs.names()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """(images, workdir) of a run that was trained and evaluated from the command line."""
  folder = tmp_path_factory.mktemp("cli")
  images, workdir = small_runs.write_images(folder / "images"), folder / "run"
  words = [
    "train",
    f"--config={CONFIG}",
    f"--config.data.dir={images}",
    f"--config.eval.data.dir={images}",
    f"--config.eval.metrics={base.get_config('srim').eval.metrics}",
    "--config.eval.baselines=('bicubic','pinv')",
  ]
  assert cli.main([*words, f"--workdir={workdir}"]) == 0
  return images, workdir


def refusal(capsys, *words: str) -> str:
  """The one line that `words` are answered with."""
  assert cli.main(list(words)) == 2
  captured = capsys.readouterr()
  lines = captured.err.strip().splitlines()
  assert len(lines) == 1, captured.err
  assert lines[0].startswith("sr-jax: ")
  assert not captured.out
  return lines[0]


def test_training_leaves_a_table_with_the_baselines_and_images(trained):
  _, workdir = trained
  content = json.loads((workdir / "evaluation" / "table.json").read_text())
  assert list(content["rows"]) == ["bicubic", "pinv", "srim", "srim, best of 3", "srim, mean of 3"]
  assert content["rows"]["srim"]["std"] > 0
  assert content["rows"]["srim"]["psnr"] <= content["rows"]["srim, best of 3"]["psnr"]
  assert content["meta"]["round"] == 20
  assert "sr-jax train" in content["meta"]["command"]
  with Image.open(workdir / "evaluation" / "samples.png") as grid:
    assert grid.width > 100


def test_evaluating_again_gives_the_same_numbers_whatever_the_batch(trained, tmp_path):
  _, workdir = trained
  assert cli.main(["evaluate", f"--workdir={workdir}", f"--out={tmp_path}", "--config.eval.batch=2"]) == 0
  ours, theirs = (
    json.loads((folder / "evaluation" / "table.json").read_text())["rows"] for folder in (tmp_path, workdir)
  )
  for row, values in theirs.items():
    assert small_runs.same_numbers(ours[row], values), (row, ours[row], values)


@pytest.mark.parametrize(
  "change", ["networks.generator.residual=True", "operator.kernel=area", "consistency=project", "seed=3"]
)
def test_evaluating_a_network_that_was_never_trained_raises_a_user_error(trained, tmp_path, capsys, change):
  words = ["evaluate", f"--workdir={trained[1]}", f"--out={tmp_path / 'out'}", f"--config.{change}"]
  assert "only how it is measured may change" in refusal(capsys, *words)
  assert not (tmp_path / "out").exists()


def test_show_and_diff_tell_what_a_run_is_and_config_lists_and_prints(trained, tmp_path, capsys):
  assert cli.main(["show", str(trained[1])]) == 0
  shown = capsys.readouterr().out
  assert "Run(srim: generator srresnet;" in shown
  assert "after_round 0, sr_jax" in shown
  assert "| srim, best of 3" in shown
  assert "method.candidates = 2\n" in shown
  bare = shutil.copytree(trained[1], tmp_path / "bare")
  (bare / "versions.json").unlink()  # as of a run that was killed at its first checkpoint
  assert cli.main(["show", str(bare)]) == 0
  assert "after_round" not in capsys.readouterr().out
  assert cli.main(["diff", str(trained[1]), "srim_demo"]) == 0
  assert "method.candidates: 2 -> 8\n" in capsys.readouterr().out
  assert cli.main(["config", "srim_demo:regression", "--config.seed=5"]) == 0
  printed = capsys.readouterr().out
  assert "method.loss = 'mse'\n" in printed
  assert "seed = 5\n" in printed
  assert cli.main(["config", "--config.seed=1"]) == 2
  assert "is no option of config without NAME" in capsys.readouterr().err
  assert cli.main(["config"]) == 0
  listed = capsys.readouterr().out
  assert "Variants: srim, regression" in listed
  assert "stochastic (appendix F); affmse_fixed_random, affmse_trainable_trained" in listed
  assert "own loss: Eq. 8 and Eq. 7. Variants as in prsr_celeba" in listed
  assert all(f"{name}\n" in listed for name in CONFIGS)


def test_compiled_programs_are_kept_in_the_users_cache_folder_unless_jaxs_variable_names_another(tmp_path):
  """Asked of programs of their own: the tests' cache is set by the variable."""
  code = "import jax; from sr_jax.commands import begin; begin(); print(jax.config.jax_compilation_cache_dir)"
  found = []
  for variables in ({"XDG_CACHE_HOME": str(tmp_path)}, {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "own")}):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"} | variables
    words = [sys.executable, "-c", code]
    found.append(subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout)
  assert found[0].startswith(str(tmp_path / "sr_jax" / "xla"))
  assert found[1].strip() == str(tmp_path / "own")


def test_help_shows_defaults_and_version_the_version(capsys):
  for words, texts in (
    (["upscale", "--help"], ("(default: 4)", "(default: 0)", "(default: .)")),
    (["sweep", "--help"], ("(default: 1)",)),
    (["evaluate", "--help"], ()),
    (["plan", "--help"], ()),
    (["--version"], ("0.1.0",)),
  ):
    with pytest.raises(SystemExit) as end:
      cli.main(words)
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert all(text in told for text in texts)
    assert not re.search(r"default: (False|None|\(\))?\)", told), "nothing to tell"


def test_upscale_writes_plausible_images_that_the_python_function_gives_too(trained, tmp_path, capsys):
  images, workdir = trained
  photo = images / "0.png"
  words = ["upscale", str(photo), f"--workdir={workdir}", f"--out={tmp_path}", "--samples=2", "--seed=3"]
  assert cli.main(words) == 0
  files = [tmp_path / "0_x4_0.png", tmp_path / "0_x4_1.png"]
  assert capsys.readouterr().out.split() == [str(f) for f in files]
  written = [np.asarray(Image.open(f)) for f in files]
  assert written[0].shape == (96, 128, 3)
  assert not np.array_equal(*written)
  run = load_run(workdir)
  same = upscale(run, np.asarray(Image.open(photo)), samples=2, seed=3)
  np.testing.assert_array_equal(np.stack(written), same)
  assert not np.array_equal(same, upscale(run, np.asarray(Image.open(photo)), samples=2, seed=4))


def test_several_images_are_enlarged_each_as_if_alone_and_never_over_each_other(trained, tmp_path, capsys):
  images, workdir = trained
  words = [f"--workdir={workdir}", f"--out={tmp_path / 'out'}", "--samples=1"]
  assert cli.main(["upscale", str(images / "1.png"), *words]) == 0
  alone = (tmp_path / "out" / "1_x4_0.png").read_bytes()
  capsys.readouterr()
  assert cli.main(["upscale", str(images / "0.png"), str(images / "1.png"), *words]) == 0
  files = [tmp_path / "out" / f"{i}_x4_0.png" for i in range(2)]
  assert capsys.readouterr().out.split() == list(map(str, files))
  assert files[1].read_bytes() == alone != files[0].read_bytes()
  Image.open(images / "0.png").save(tmp_path / "1.jpg")
  answer = refusal(capsys, "upscale", str(images / "1.png"), str(tmp_path / "1.jpg"), *words)
  assert f", as {images / '1.png'} would: enlarge it in a command of its own" in answer
  assert files[1].read_bytes() == alone
  late = [f"--workdir={workdir}", f"--out={tmp_path / 'late'}"]
  answer = refusal(capsys, "upscale", str(images / "0.png"), str(tmp_path / "gone.png"), *late)
  assert "gone.png" in answer
  assert not (tmp_path / "late").exists(), "found before anything is made"
  answer = refusal(
    capsys, "upscale", str(images / "0.png"), str(images / "0.png"), *late, "--temperature=1e38"
  )
  assert answer.startswith(f"sr-jax: {images / '0.png'}: "), "which of several"
  written = str(files[0])
  assert "is itself to be enlarged" in refusal(capsys, "upscale", str(images / "0.png"), written, *words)
  words = [*words[:1], f"--out={tmp_path / 'mean'}", "--samples=3", "--temperature=0"]
  assert cli.main(["upscale", str(images / "0.png"), *words]) == 0
  assert [path.name for path in (tmp_path / "mean").iterdir()] == ["0_x4_0.png"], "all would be equal"
  capsys.readouterr()


def test_a_run_is_measured_on_all_images_of_another_folder(trained, tmp_path, monkeypatch, capsys):
  _, workdir = trained
  others = small_runs.write_images(tmp_path / "others", 3)
  seen = []

  def evaluate_run(run, out, command, source, save):
    seen.append((run.config.eval.data.to_dict(), [source.name(i) for i in range(len(source))]))
    return Report("", {}, {}, [], (), "")

  monkeypatch.setattr("sr_jax.evaluate.evaluate_run", evaluate_run)
  words = [
    "evaluate",
    f"--workdir={workdir}",
    "--config.eval.data.split=[2:]",
  ]
  assert cli.main([*words, f"--images={others}"]) == 0
  (data, names), *_ = seen
  assert names == [str(others / "2.png")], "a flag of the user's own comes last"
  assert data["name"] == "folder"
  reset = {f"--config.eval.{key}" for key in ("data.split=", "data.lr_dir=", "data.min_bytes=0", "limit=0")}
  assert reset < set(commands._all_of(str(others))), "whatever the run's were"
  assert cli.main(["evaluate", f"--workdir={workdir}", f"--images={others}"]) == 0
  assert len(seen[1][1]) == 3
  capsys.readouterr()


def test_a_sampler_is_measured_as_it_is(trained):
  """The truth as a sampler hits the ceiling: the evaluation compares with the right images."""
  from sr_jax.data import open_source
  from sr_jax.measurement import evaluate

  _, workdir = trained
  run = load_run(workdir)
  source = open_source(run.config.eval.data)
  truth = np.stack([source[i]["hr"] for i in range(6)]).astype(np.float32) / 255
  inputs = np.asarray(run.operator.degrade(truth))

  def oracle(lr, key, n):
    import jax.numpy as jnp

    which = jnp.abs(inputs[None] - lr[:, None]).sum(axis=(2, 3, 4)).argmin(axis=1)
    return jnp.broadcast_to(jnp.asarray(truth)[which], (n, lr.shape[0], *truth.shape[1:]))

  import jax

  means, images, *_ = evaluate(jax.tree_util.Partial(oracle), source, run.config, run.operator, samples=2)
  assert means["psnr"] == pytest.approx(100)
  assert means["ssim_y"] == pytest.approx(1)
  assert means["std"] == 0
  assert len(images) == run.config.eval.images


def test_no_tensorflow_is_imported():
  code = "import sys; from sr_jax import cli, train, evaluate, upscale; sys.exit('tensorflow' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_key_raises_a_user_error_with_the_nearest_right_one(capsys, tmp_path):
  words = ["train", "--config", "srim_demo", "--workdir", str(tmp_path / "run")]
  assert "did you mean 'rounds'" in refusal(capsys, *words, "--config.train.round=3")
  assert "did you mean 'srim_demo'" in refusal(capsys, *words[:2], "srim_dem", *words[3:])
  assert "choose another --config" in refusal(capsys, *words, "--config.method.name=regression")
  assert "'--wat' is no option" in refusal(capsys, *words, "--wat")
  assert "correct its value" in refusal(capsys, *words, "--config.train.rounds=many")
  assert "is a value, not a section" in refusal(capsys, *words, "--config.seed.x=1")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("argument", "words"),
  [
    ("train.batch=0", "config.train.batch is 0: make it 1 or more"),
    ("train.keep=0", "config.train.keep is 0"),
    ("eval.samples=0", "config.eval.samples is 0"),
    ("eval.border=-1", "config.eval.border is -1"),
    ("eval.border=12", "leaves nothing"),
    ("eval.data.name=photos", "set config.eval.data.name=folder"),
    ("seed=99999999999", "config.seed is 99999999999: make it 2147483647 or less"),
    ("eval.metrics=()", "config.eval.metrics is empty"),
    ("eval.metrics=('psnrr',)", "did you mean 'psnr'"),
    ("eval.luma=bt602", "did you mean 'bt601'"),
    ("eval.data.channels=1", "make them the same"),
    ("data.crop=(16,)", "give (rows, columns)"),
    ("data.crop=(160,160)", "smaller than the crop"),
    ("data.crop=(18,18)", "cannot be reduced by"),
    ("operator.kernel=cubic", "did you mean 'bicubic'"),
    ("networks.generator.norm=group", "config.networks.*.norm is 'group'"),
    ("dtype=float33", "did you mean 'float32'"),
    ("method.chunk=0", "config.method.chunk is 0"),
    ("method.candidates=3", "a multiple of"),
    ("method.features.layers=('conv2_2',)", "has no weights"),
    ("method.features.padding=reflekt", "did you mean 'reflect'"),
    ("method.features.distance=means", "did you mean 'mean'"),
    ("optim.generator.schedule=step", "config.optim"),
  ],
)
def test_a_wrong_value_raises_a_user_error_before_anything_is_written(
  capsys, tmp_path, monkeypatch, trained, argument, words
):
  monkeypatch.setenv("SR_JAX_TRAIN_DIR", str(trained[0]))
  workdir = tmp_path / "run"
  answer = refusal(capsys, "train", "--config", CONFIG, "--workdir", str(workdir), f"--config.{argument}")
  assert words in answer
  assert not workdir.exists()


def test_a_config_file_that_is_none_raises_one_sentence(capsys, tmp_path):
  for text, words in (
    ("def", "SyntaxError"),
    ("x = 1", "no get_config()"),
    ("get_config = dict", "ConfigDict"),
  ):
    (tmp_path / "config.py").write_text(text)
    words_of_command = ["train", "--config", str(tmp_path / "config.py"), "--workdir", str(tmp_path / "run")]
    assert words in refusal(capsys, *words_of_command)


def test_missing_data_raises_one_sentence_and_nothing_is_written(capsys, tmp_path, monkeypatch, trained):
  workdir = tmp_path / "run"
  words = ["train", f"--config={CONFIG}", f"--workdir={workdir}", f"--config.eval.data.dir={trained[0]}"]
  assert "config.data.dir: there is no folder" in refusal(
    capsys, *words, f"--config.data.dir={tmp_path / 'gone'}"
  )
  monkeypatch.delenv("SR_JAX_TRAIN_DIR", raising=False)
  assert "SR_JAX_TRAIN_DIR" in refusal(capsys, *words)
  monkeypatch.setenv("SR_JAX_TRAIN_DIR", str(tmp_path))
  assert "has no images" in refusal(capsys, *words)
  assert not workdir.exists()


def test_a_workdir_that_cannot_be_written_raises_one_sentence(capsys, trained, tmp_path):
  file = tmp_path / "file"
  file.write_text("")
  words = ["train", f"--config={CONFIG}", f"--config.data.dir={trained[0]}"]
  words.append(f"--config.eval.data.dir={trained[0]}")
  assert "cannot be written" in refusal(capsys, *words, f"--workdir={file / 'run'}")


def test_what_is_no_image_raises_one_sentence(capsys, trained, tmp_path):
  _, workdir = trained
  text = tmp_path / "text.png"
  text.write_text("not an image")
  words = [f"--workdir={workdir}", f"--out={tmp_path / 'out'}"]
  assert "cannot be read (" in refusal(capsys, "upscale", str(text), *words)
  assert "does not exist" in refusal(capsys, "upscale", str(tmp_path / "gone.png"), *words)
  assert "is a folder" in refusal(capsys, "upscale", str(tmp_path), *words)
  large = tmp_path / "large.png"
  Image.new("1", (8000, 7000)).save(large)
  answer = refusal(capsys, "upscale", str(large), *words)
  assert f"its 8000x7000 pixels are more than {MAX_PIXELS:,}" in answer
  assert "holds no checkpoints" in refusal(capsys, "upscale", str(text), f"--workdir={tmp_path / 'none'}")
  assert not (tmp_path / "out").exists()


def test_images_that_are_not_finite_are_not_written(capsys, trained, tmp_path):
  images, workdir = trained
  words = ["upscale", str(images / "0.png"), f"--workdir={workdir}", f"--out={tmp_path / 'out'}"]
  assert "not finite at --temperature 1e+38" in refusal(capsys, *words, "--temperature=1e38")
  assert not (tmp_path / "out").exists()


def initialises(config) -> None:
  """A method of the config, and the shapes of its first state for images as it trains on."""
  check(config)
  if "features" in config.method and config.method.features.layers:
    config = config.copy_and_resolve_references()
    config.method.features.file = "vgg19.npz"  # read when a run begins
  height, width = config.data.crop or config.data.resize or config.data.centre or (64, 64)
  kind = np.float32 if config.data.name == "swiss_roll" else np.uint8
  size = (1, 2) if config.data.name == "swiss_roll" else (height, width)
  hr = jax.ShapeDtypeStruct((config.train.batch, *size, config.data.channels), kind)
  method = make_method(config, make_operator(config))
  assert jax.eval_shape(method.init, jax.random.key(0), {"hr": hr}).params


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_and_every_trial_of_its_sweep_makes_a_method(name, monkeypatch):
  # Shapes are all that counts here, and learning A+ takes long.
  kernels = lambda operator, k: np.zeros((k, k, 1, operator.factor[0] * operator.factor[1]))  # noqa: E731
  monkeypatch.setattr("sr_jax.networks.projection.learn_pinv", kernels)
  module = configs.load_module(name)
  assert f"--config {name}" in module["__doc__"]
  trials = list(module["sweep"]()) if "sweep" in module else []
  variants = {trial[1] for trial in trials}
  assert all(len(trial[0]) and isinstance(trial[2], dict) for trial in trials)
  for config in [configs.load(name), *(configs.load(f"{name}:{v}") for v in sorted(variants))]:
    for stage in plan_stages(config, "runs"):
      initialises(stage.config)


def test_the_overrides_of_a_sweep_are_keys_of_its_configs():
  for row, variant, keys in configs.load_module("amap_instance_noise")["sweep"]():
    words = [f"--config.{key}={value}" for key, value in keys.items()]
    config = configs.override(configs.load(f"amap_instance_noise:{variant}"), words)
    assert config.seed == keys["seed"], row


def test_a_section_of_the_config_cannot_be_replaced_as_a_whole():
  with pytest.raises(
    UserError, match=r"config\.eval\.data is a section: set its keys, such as --config\.eval\.data\."
  ):
    configs.override(configs.load("digits"), ["--config.eval.data={'name':'digits'}"])


@pytest.mark.parametrize("error", [RuntimeError("Unable to initialize backend"), AssertionError()])
def test_platforms_that_jax_does_not_have_raise_one_sentence(monkeypatch, error):
  def process():
    raise error

  monkeypatch.setenv("JAX_PLATFORMS", "nope")
  monkeypatch.setattr("sr_jax.parallel.process", process)
  with pytest.raises(UserError, match="JAX_PLATFORMS='nope'"):
    commands.begin()


@pytest.mark.parametrize(("given", "then"), [("cuda", "cuda,cpu"), ("cpu,cuda", "cpu,cuda"), ("cpu", "cpu")])
def test_the_host_keeps_its_cpu_device_but_a_platform_that_is_missing_is_an_error(given, then):
  before = jax.config.values["jax_platforms"]
  try:
    jax.config.update("jax_platforms", given)  # without effect: the devices of this process are known
    with pytest.raises(UserError, match="JAX finds no device") if "cuda" in given else nullcontext():
      commands.begin()
    assert jax.config.values["jax_platforms"] == then
  finally:
    jax.config.update("jax_platforms", before)


@pytest.mark.parametrize(
  ("words", "told"),
  [
    (["plan", "--config=srim_demo", "--target=v5e-8", "--hr-shape=8"], "'8' is no shape: write ROWS,COLUMNS"),
    (["plan", "--config=srim_demo", "--target=v5e-8", "--hr-shape=8,x"], "'x' is no whole number"),
    (["upscale", "a.png", "--workdir=run", "--samples=two"], "'two' is no whole number"),
    (["upscale", "a.png", "--workdir=run", "--samples=70000"], "must be 65536 or less"),
  ],
)
def test_a_number_or_shape_that_is_none_is_told_in_words(capsys, words, told):
  with pytest.raises(SystemExit) as end:
    cli.main(words)
  assert end.value.code == 2
  assert told in capsys.readouterr().err
