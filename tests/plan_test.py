"""What a config takes on another machine: read from programs compiled for the four simulated devices here."""

import os
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import small_runs
from sr_jax import cli, hlo, parallel, targets
from sr_jax.configs import base
from sr_jax.errors import UserError
from sr_jax.plan import image_shape, plan_stage, roofline

CHIP = targets.Chip({"float32": 1e12, "bfloat16": 2e12}, 1e9, 1e11, 1e10)
HERE = targets.Target(CHIP, "cpu", "", {}, {})


def cost_of(function, *shapes) -> hlo.Cost:
  arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return hlo.cost(jax.jit(function).lower(*arguments).compile().as_text())


def convolve(x, kernel, **keys):
  keys = {"window_strides": (1, 1), "padding": "VALID", **keys}
  return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **keys)


@pytest.mark.parametrize(
  ("keys", "places"),
  [
    ({}, 6 * 6 * 9),
    ({"padding": "SAME"}, (6 * 3 + 2 * 2) ** 2),  # at the border a tap in three meets padding
    ({"window_strides": (2, 2)}, 3 * 3 * 9),
    ({"rhs_dilation": (2, 2)}, 4 * 4 * 9),
    # Every second input is a zero: of 13 places along an axis 7 meet two others and 6 one.
    ({"lhs_dilation": (2, 2), "padding": ((0, 0), (0, 0))}, (7 * 2 + 6 * 1) ** 2),
  ],
)
def test_a_convolution_costs_what_meets_neither_padding_nor_zeros(keys, places):
  found = cost_of(lambda x, k: convolve(x, k, **keys), (2, 8, 8, 5), (3, 3, 5, 7))
  assert found.flops == 2 * 2 * 5 * 7 * places


def test_a_gradient_costs_two_more_convolutions():
  def loss(x, k):
    return jnp.sum(convolve(convolve(x, k), k) ** 2)

  shapes = (2, 12, 12, 16), (3, 3, 16, 16)
  first, second = (2 * 2 * 16 * 16 * 9 * side**2 for side in (10, 8))
  assert cost_of(loss, *shapes).flops == first + second
  assert cost_of(jax.grad(loss, 1), *shapes).flops == 2 * first + 3 * second


def test_a_loop_costs_its_turns_and_a_condition_its_cheapest_branch():
  def loop(a, b):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ b), None), a, length=7)[0]

  def condition(a, b):
    return jax.lax.cond(a[0, 0] > 0, lambda: loop(a, b), lambda: a @ b)

  shapes = (64, 32), (32, 32)
  one = 2 * 64 * 32 * 32
  assert cost_of(loop, *shapes).flops == 7 * one
  assert cost_of(condition, *shapes).flops == one


def test_bytes_are_those_of_operands_and_results_and_of_an_update_in_place_the_update():
  n = 4 * 1024 * 1024
  assert cost_of(lambda x: x * 2 + 1, (1024, 1024)).bytes == 2 * n

  def rows(x):
    def turn(x, i):
      row = jax.lax.dynamic_slice_in_dim(x, i, 1)
      return jax.lax.dynamic_update_slice_in_dim(x, row * 2, i, 0), None

    return jax.lax.scan(turn, x, jnp.arange(1024))[0]

  # Every row is read and written once, the whole copied once at most.
  assert 2 * n <= cost_of(rows, (1024, 1024)).bytes < 6 * n


TPU = """
%body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %p = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[8,128]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %y = f32[8,128]{1,0:T(8,128)} all-reduce(%x), replica_groups={}, to_apply=%add
  ROOT %t = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%i, %y)
}

%condition (q: (s32[], f32[8,128])) -> pred[] {
  %q = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %j = s32[]{:T(128)} get-tuple-element(%q), index=0
  %bound = s32[]{:T(128)} constant(5)
  ROOT %less = pred[]{:T(512)} compare(%j, %bound), direction=LT
}

ENTRY %main (a: f32[4,3], b: (s32[], f32[8,128])) -> f32[4,3] {
  %a = f32[4,3]{1,0:T(8,128)} parameter(0)
  %b = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(1)
  %near = (f32[4,3]{1,0:T(8,128)S(1)}, f32[4,3]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
  %here = f32[4,3]{1,0:T(8,128)S(1)} copy-done(%near)
  %loop = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%b), condition=%condition, body=%body
  ROOT %double = f32[4,3]{1,0:T(8,128)} add(%here, %here)
}
"""


def test_a_tpus_tiles_are_padded_its_chip_is_free_and_its_loops_are_counted_by_their_bound():
  found = hlo.cost(TPU)
  assert found.collectives == {"all-reduce": (5, 5 * 8 * 128 * 4)}
  # Into the chip and out of it 4x3 numbers are a tile of 8x128; the loop reads and writes one in each turn.
  assert found.bytes == pytest.approx(2 * 8 * 128 * 4 + 5 * 2 * 8 * 128 * 4, rel=1e-2)


GPU = """
ENTRY %main (x: f32[2,32,32,8], k: f32[16,5,5,8], m: f32[64,8]) -> f32[64,8] {
  %x = f32[2,32,32,8]{3,2,1,0} parameter(0)
  %k = f32[16,5,5,8]{3,2,1,0} parameter(1)
  %y = (f32[2,32,32,16]{3,2,1,0}, u8[0]{0}) custom-call(%x, %k), LABELS, CUDNNForward"
  %g = f32[2,32,32,16]{3,2,1,0} get-tuple-element(%y), index=0
  %w = (f32[16,5,5,8]{3,2,1,0}, u8[0]{0}) custom-call(%x, %g), LABELS, CUDNNBackwardFilter"
  %l = f32[16,5,5,8]{3,2,1,0} get-tuple-element(%w), index=0
  %z = (f32[2,32,32,8]{3,2,1,0}, u8[0]{0}) custom-call(%g, %l), LABELS, CUDNNBackwardInput"
  %m = f32[64,8]{1,0} parameter(2)
  %n = (f32[64,3]{1,0}, s8[0]{0}) custom-call(%m, %m), custom_call_target="__cublas$gemm", PRODUCT
  %s = (f32[64,8]{1,0}, f32[64,8]{1,0}) all-gather-start(%m), dimensions={0}
  ROOT %r = f32[64,8]{1,0} all-gather-done(%s)
}
"""
# Words that would make its lines too long.
WORDS = {
  "LABELS": "window={size=5x5 pad=2_2x2_2}, dim_labels=b01f_o01i->b01f",
  "CUDNN": 'custom_call_target="__cudnn$conv',
  "PRODUCT": 'backend_config={"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}',
}


def test_a_gpus_library_calls_cost_what_the_convolutions_and_products_do():
  places = (32 * 5 - 2 * (1 + 2)) ** 2
  text = GPU
  for word, meaning in WORDS.items():
    text = text.replace(word, meaning)
  found = hlo.cost(text)
  assert found.flops == 3 * 2 * 2 * 8 * 16 * places + 2 * 64 * 8 * 3
  assert found.collectives == {"all-gather": (1, 64 * 8 * 4)}


def steps(config, devices: int) -> list:
  return list(plan_stage(config, "", parallel.make_mesh(jax.devices()[:devices]), HERE))


@pytest.fixture(scope="module")
def programs():
  """Of a network with batch normalisation, on one device and on four with four times the batch."""
  plans = {}
  for devices in (1, 4):
    config = small_runs.tiny("regression")
    config.networks.generator.norm = "batch"
    config.train.batch = 2 * devices
    plans[devices] = {program.name: program for program in steps(config, devices)}
  return plans


def test_flops_of_a_device_stay_with_four_devices_and_four_times_the_batch(programs):
  for name in ("step", "sample"):
    one, four = (programs[devices][name] for devices in (1, 4))
    assert four.images == 4 * one.images
    assert one.cost.flops > 5e5
    # XLA may move a product with a matrix of the operator to the other side of a fusion, no more.
    assert four.cost.flops == pytest.approx(one.cost.flops, rel=1e-3), name


def test_what_travels_between_devices_is_gradients_and_batch_statistics(programs):
  step = programs[4]["step"]
  assert not programs[1]["step"].cost.collectives
  assert not programs[4]["sample"].cost.collectives
  assert set(step.cost.collectives) == {"all-reduce"}
  moved = step.cost.collectives["all-reduce"][1]
  config = small_runs.tiny("regression")
  config.networks.generator.norm = "none"
  bare = steps(config, 4)[0]
  # Without batch statistics: a gradient for each parameter, and the sums of a few metrics.
  assert 0 <= bare.cost.collectives["all-reduce"][1] - bare.weights <= 64
  # With them, forwards and backwards, up to two numbers each.
  assert 0 < moved - step.weights < 4 * (step.weights - bare.weights) + 64


def test_a_step_that_keeps_its_batch_needs_few_new_images():
  step, selection, sample = steps(small_runs.get_config(), 4)
  assert [p.name for p in (step, selection, sample)] == ["step", "selection", "sample"]
  assert step.images == 4
  # A pool of 8 is kept for two rounds of selection and five of descent.
  assert step.input_rate == pytest.approx(8 / 7 / step.seconds)
  assert selection.input_rate == sample.input_rate == 0


def test_the_roofline_names_the_rate_that_takes_longest():
  def cost(flops=0.0, memory=0.0, **kinds):
    return hlo.Cost(flops, memory, {kind.replace("_", "-"): (1, size) for kind, size in kinds.items()})

  assert roofline(cost(flops=2e12, memory=1e11), CHIP, "float32", 4) == (2.0, "arithmetic")
  assert roofline(cost(flops=2e12, memory=1.5e11), CHIP, "bfloat16", 4) == (1.5, "memory")
  # Four devices in a ring: each sends three quarters of what is reduced, and then of the result.
  assert roofline(cost(flops=1e12, all_reduce=1e10), CHIP, "float32", 4) == (1.5, "links")
  assert roofline(cost(all_gather=1e10), CHIP, "float32", 4) == (0.75, "links")
  assert roofline(cost(flops=1.0, all_reduce=1e10), CHIP, "float32", 1)[1] == "arithmetic"


def test_the_size_of_an_image_comes_from_the_config_or_is_asked_for():
  config = base.get_config()
  assert image_shape(config) == ((48, 48, 3), jnp.uint8)
  config.data.update({"crop": (), "centre": (32, 40)})
  assert image_shape(config)[0] == (32, 40, 3)
  config.data.resize = (16, 20)
  assert image_shape(config)[0] == (16, 20, 3)
  with pytest.raises(UserError, match="leave it out"):
    image_shape(config, (8, 8))
  config.data.update({"centre": (), "resize": ()})
  assert image_shape(config, (8, 12))[0] == (8, 12, 3)
  with pytest.raises(UserError, match="give --hr-shape ROWS,COLUMNS"):
    image_shape(config)
  config.data.update({"name": "swiss_roll", "channels": 1})
  assert image_shape(config) == ((1, 2, 1), np.float32)


@pytest.fixture
def here(monkeypatch):
  """Every target is the four simulated devices, whose compiler is there."""
  monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: name)
  monkeypatch.setattr(parallel, "described_mesh", lambda *_, **__: parallel.make_mesh())
  with mock.patch.dict(os.environ):
    yield


def run(capsys, *words: str) -> tuple[int, str, str]:
  code = cli.main(["plan", *words])
  return (code, *capsys.readouterr())


def test_plan_prints_a_table_of_every_stage_and_program(here, capsys):
  code, out, _ = run(capsys, "--config=amap_swiss_roll:affdg", "--target=v5e-8")
  assert code == 0
  head, _, *rows = out.strip().splitlines()
  assert head.count("|") == rows[0].count("|") == 12
  assert [row.split("|")[1].strip() for row in rows] == ["prior step", "step", "sample"]
  assert all(" of 15.8 " in row for row in rows)


def test_what_does_not_fit_is_said_in_the_table_and_ends_with_exit_code_2(here, capsys, monkeypatch):
  small = targets.TARGETS["v5e-8"]._replace(chip=targets.V5E._replace(memory=1000))
  monkeypatch.setitem(targets.TARGETS, "v5e-8", small)
  code, out, error = run(capsys, "--config=amap_swiss_roll:mse", "--target=v5e-8")
  assert code == 2
  assert "| too large |" in out
  assert "does not fit v5e-8, whose chips have too little memory for its step and sample: take" in error


def test_a_program_that_the_compiler_refuses_tells_how_much_it_needs(here, capsys, monkeypatch):
  def refuse(*_, **__):
    raise jax.errors.JaxRuntimeError(
      "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (96.00G) "
      "exceeds available HBM (15.75G)."
    )

  monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
  code, out, _ = run(capsys, "--config=amap_swiss_roll:mse", "--target=v5e-8")
  assert code == 2
  assert "| 96 of 15.8 |" in out


@pytest.mark.parametrize(
  ("words", "sentence"),
  [
    (["--config=varsr_mnist", "--target=v5e-9"], "did you mean 'v5e-8'?"),
    (["--config=srim_demo", "--target=v5e-8", "--config.data.crop=()"], "give --hr-shape ROWS,COLUMNS"),
    (["--config=varsr_mnist", "--target=v5e-8", "--config.train.batch=6"], "cannot be shared equally by 4"),
    (["--config=varsr_mnist", "--target=v5e-8", "--config.train.batsh=6"], "did you mean 'batch'?"),
  ],
)
def test_bad_input_is_one_sentence(here, capsys, words, sentence):
  code, out, error = run(capsys, *words)
  assert code == 2
  assert not out
  assert sentence in error
  assert error.count("\n") == 1


def test_a_missing_compiler_is_one_sentence_with_the_command_that_installs_it(capsys, monkeypatch):
  monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)
  code, _, error = run(capsys, "--config=varsr_mnist", "--target=h100-8x8")
  assert code == 2
  assert "pip install -e '.[plan]'" in error
