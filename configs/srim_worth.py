"""What IMLE is worth: regression beside SRIM in two networks and two feature spaces, then single factors.

  export SR_JAX_TRAIN_DIR=bsds400:t91 SR_JAX_TEST_DIR=bsd100/hr SR_JAX_TEST_LR_DIR=bsd100/lr
  export SR_JAX_VGG19=vgg19.npz        # normalised weights, conv1_1 to conv2_2: docs/metrics.md, Weight files
  sr-jax sweep --config srim_worth --workdir runs/worth --config.eval.limit=25 \\
      --config.eval.lpips.backbone=squeezenet1_1.npz --config.eval.lpips.heads=lpips_linear.npz

Variants: NETWORK_OBJECTIVE_PHI of srresnet (srim_demo's) or two_stage (section 2.5's network, narrower), srim
or regression (the latent is 0 throughout), pixels or conv2_2; and NETWORK_start, a longer regression on
pixels, from which each trial of the sweep but "from scratch" goes on. On a shared core 1 to 8 minutes a trial
of srresnet, 4 to 17 of two_stage. To expect of srresnet on 25 images of bsd100, LPIPS (SqueezeNet's) and
PSNR: regression .269 and 25.04 dB on pixels, .267 and 24.46 with conv2_2; srim .262 and 24.82, .251 and
24.56; with two shuffles and conv2_2 .236 and 24.81, srim .237 and 24.75. For ten times the crops, 1 to 2
minutes a trial on a shared H200, 37 on two cores, two_stage with conv2_2 has .260 and 25.41 by regression,
.237 and 24.85 by srim, .248 and 24.80 by flat srim; trained a second time, on shared cores (three hours for
srim), .257 and 25.40 by regression, .259 and 24.75 by srim, the mean of five of its samples .229 and 25.14,
and with --config.eval.temperatures="(0.5,)" a sample .220 and 24.85; further seeds and more rounds are in
docs/results.md:

  sr-jax train --config srim_worth:VARIANT --workdir RUN \\
      --config.init_from="('generator=runs/worth/two-stage-start',)" --config.train.rounds=3000 \\
      --config.train.batch=256 --config.method.minibatch=32 --config.method.candidates=32 \\
      --config.method.chunk=16
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import srim_ablation
from sr_jax.errors import choose

NETWORKS = {"srresnet": "SRResNet", "two_stage": "two-stage"}
OBJECTIVES = {"regression": "regression", "srim": "SRIM"}
PHI: dict[str, tuple[str, ...]] = {"pixels": (), "conv2_2": ("conv2_2",)}
VARIANTS = {f"{n}_{o}_{p}": (n, o, p) for n in NETWORKS for p in PHI for o in OBJECTIVES}
STARTS = {f"{n}_start": (n, "regression", "pixels") for n in NETWORKS}
START_ROUNDS = {"srresnet": 8000, "two_stage": 4000}


def get_config(variant: str = "srresnet_srim_conv2_2") -> ConfigDict:
  network, objective, phi = choose(VARIANTS | STARTS, variant, "--config NAME:VARIANT")
  config = srim_ablation.get_config("two_stage" if network == "two_stage" else "srim")
  config.data.update({"name": "folder", "dir": "$SR_JAX_TRAIN_DIR", "crop": (48, 48)})
  config.eval.data.update({"name": "folder", "dir": "$SR_JAX_TEST_DIR", "lr_dir": "$SR_JAX_TEST_LR_DIR"})
  config.eval.update({"batch": 1, "losses": False})
  config.eval.metrics = ("psnr", "psnr_y", "ssim_y", "lpips", "lr_psnr", "lr_psnr_8bit", "s_n", "std")
  # A pool of 64: 8 rounds choose among 16 latents for it, 112 descend.
  config.method.update({"candidates": 16, "chunk": 8, "minibatch": 8, "inner_rounds": 112})
  config.method.features.update({"layers": PHI[phi], "file": "$SR_JAX_VGG19", "padding": "reflect"})
  config.train.update({"batch": 64, "rounds": 1200, "log_every": 200, "checkpoint_every": 600})
  config.method.warmup_rounds = 0
  config.optim.generator.update({"learning_rate": 3e-4, "warmup": 100})
  if variant in STARTS:
    config.train.update({"rounds": START_ROUNDS[network], "checkpoint_every": 2000})
    config.optim.generator.learning_rate = 1e-3
  if objective == "regression":
    # The warm-up never ends, however many rounds a flag asks for; the latent 0 that it trains is what draws.
    config.method.warmup_rounds = 1_000_000_000
    config.eval.update({"temperatures": (0.0,), "samples": 1})
  return config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  starts = {}
  for network, name in NETWORKS.items():
    row = f"{name}-start"  # its folder's name too
    yield row, f"{network}_start", {}
    starts[network] = {"init_from": (f"generator={{workdir}}/{row}",)}
    for variant, (its, objective, phi) in VARIANTS.items():
      if its == network:
        yield f"{name}, {OBJECTIVES[objective]}, {phi}", variant, starts[network]
  start, mean = starts["srresnet"], {"method.features.distance": "mean"}
  yield "SRResNet, regression, conv2_2, features' mean", "srresnet_regression_conv2_2", start | mean
  yield "SRResNet, SRIM, conv2_2, features' mean", "srresnet_srim_conv2_2", start | mean
  yield "SRResNet, SRIM, conv2_2, not projected", "srresnet_srim_conv2_2", start | {"consistency": "none"}
  for factor, changes in (
    ("flat", {"method.hierarchical": False}),
    ("both stages trained", {"method.stage_weight": 1.0}),
  ):
    yield f"two-stage, SRIM, conv2_2, {factor}", "two_stage_srim_conv2_2", starts["two_stage"] | changes
  # Networks of another shape, each with a start of its own.
  latent = {"networks.generator.noise_channels": 0, "networks.generator.latent_size": 4}
  for key, name, changes, objectives in (
    ("4", "a latent of 4", latent, ("srim",)),
    ("shuffles", "two shuffles", {"networks.generator.tail": "shuffle"}, OBJECTIVES),
  ):
    row = f"SRResNet-start-{key}"
    yield row, "srresnet_start", changes
    start = {"init_from": (f"generator={{workdir}}/{row}",)}
    for objective in objectives:
      label = f"SRResNet, {OBJECTIVES[objective]}, conv2_2, {name}"
      yield label, f"srresnet_{objective}_conv2_2", start | changes
  # As many rounds as the start and what goes on from it.
  scratch = {"train.rounds": 9200, "optim.generator.learning_rate": 1e-3}
  yield "SRResNet, SRIM, pixels, from scratch", "srresnet_srim_pixels", scratch
