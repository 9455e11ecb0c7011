"""The papers' figures, for `sr-jax reproduce`: what they show, and our rows that stand for them."""

from collections.abc import Mapping
from typing import NamedTuple

BICUBIC = "bicubic"  # a row that is no run's


class Figure(NamedTuple):
  """A paper's figure.

  Attributes:
    title: what it shows.
    kind: "images": a line for each test image, its input, a sample of each row, the truth. "samples": a line
      for each row, with several samples of the first test image and their deviation. "curves": a panel for
      each of `curves`, a line in it for each row. "kernels": A and A+.
    configs: whose sweep() has the rows; the first is taken by default. `CONDITIONS` tells how they differ
      from the paper.
    rows: by the paper's name: the row of the config's sweep(), or BICUBIC.
    curves: by the paper's name: the number of metrics.jsonl that a panel shows over the rounds.
    notes: what holds for every config.
  """

  title: str
  kind: str
  configs: tuple[str, ...]
  rows: Mapping[str, str]
  curves: Mapping[str, str] = {}
  notes: tuple[str, ...] = ()

  @property
  def ours(self) -> set[str]:
    """The rows of the sweep, or baselines, that it shows."""
    return set(self.rows.values())

  @property
  def needs(self) -> str:
    """The key of the config without which it would be empty; "": none."""
    if self.kind == "curves":
      return "train.eval_every" if any(key.startswith("eval/") for key in self.curves.values()) else ""
    return "eval.images"


def _same(*names: str) -> dict[str, str]:
  """Rows that are called as in the paper."""
  return {name: name for name in names}


_SRIM_CONFIGS = ("srim_bsds", "srim_demo", "srim_imagenet")
_SRIM_NOTE = "The paper's SRGAN is left out; varsr_celeba:srgan is ours."
SRIM = {
  "figure3": Figure(
    "bicubic interpolation and SRIM beside the truth",
    "images",
    _SRIM_CONFIGS,
    {"Bicubic": BICUBIC, "SRIM": "SRIM"},
    notes=(_SRIM_NOTE,),
  ),
  "figure7": Figure(
    "different samples for the same input", "samples", _SRIM_CONFIGS, _same("SRIM"), notes=(_SRIM_NOTE,)
  ),
}

_PROJECTIONS = {
  "no A+": "mse",
  "A+": "affmse",
  "A+ learned, fixed": "affmse_fixed_trained",
  "A+ learned, trainable": "affmse_trainable_trained",
  "A+ random, fixed": "affmse_fixed_random",
  "A+ random, trainable": "affmse_trainable_random",
}
AMAP = {
  "figure2": Figure(
    "training with and without the projection (2b and 2c)",
    "curves",
    ("amap_celeba_cpu",),
    {name: f"Figure 2, {variant}" for name, variant in _PROJECTIONS.items()},
    {"SSIM": "eval/ssim", "MSE": "eval/mse", "l_MSE(x, Ay)": "eval/lr_mse"},
    ("Of held-out faces.",),
  ),
  "figure2d": Figure(
    "the downsampling kernel A and that of its pseudo-inverse A+",
    "kernels",
    ("amap_celeba_cpu", "amap_celeba"),
    {},
    notes=(
      "Grey is 0. The paper's A+ is the learned one, of 5x5 kernels; this is the Moore-Penrose inverse.",
    ),
  ),
  "figure3": Figure(
    "grass textures",
    "images",
    ("amap_grass_cpu", "amap_grass"),
    _same("AffInit", "AffMSE", "AffGAN", "AffDG", "AffLL"),
  ),
  "figure4": Figure(
    "faces 16x16 to 64x64",
    "images",
    ("amap_celeba_cpu", "amap_celeba"),
    _same("MSE", "AffMSE", "SoftGAN", "AffGAN"),
  ),
  "figure7": Figure(
    "PSNR and SSIM of AffDG and AffLL while they are trained on grass",
    "curves",
    ("amap_grass_cpu",),
    _same("AffDG", "AffLL"),
    {"PSNR, dB": "eval/psnr", "SSIM": "eval/ssim"},
  ),
}

_FACES = ("prsr_celeba_cpu", "prsr_celeba")
_BEDROOMS = ("prsr_bedrooms_cpu", "prsr_bedrooms")
PRSR = {
  "figure1": Figure("faces 8x8 to 32x32", "images", _FACES, _same("PRSR")),
  "figure2": Figure(
    "a digit in one of two corners",
    "images",
    ("prsr_mnist_corners",),
    _same("L2 regression", "cross-entropy", "PixelCNN"),
  ),
  "figure4": Figure("bedrooms 8x8 to 32x32", "images", _BEDROOMS, _same("PRSR")),
  "figure5": Figure(
    "the diversity of samples",
    "samples",
    _FACES,
    _same("PRSR"),
    notes=("The paper's are at tau = 1.2; --config.eval.temperatures chooses.",),
  ),
  "figure6": Figure(
    "regression, bicubic interpolation and samples",
    "images",
    _FACES,
    {"Bicubic": BICUBIC, "Regression": "Regression", "PRSR": "PRSR"},
    notes=("Numbers are bits per dimension, where eval.judge was on.",),
  ),
}

VARSR = {
  "figure3": Figure(
    "faces 8x8 to 64x64",
    "images",
    ("varsr_celeba",),
    {
      "SRResNet": "SRResNet",
      "SRGAN": "SRGAN",
      "MR-GAN": "MR-GAN",
      "Ours": "VarSR, KL 0.01",
      "Ours with critic": "VarSR with critic, KL 0.01",
    },
  ),
}

_SRMAP_CONFIGS = ("srmap_bsds", "srmap_div2k")
SRMAP = {
  "figure2": Figure(
    "the network trained with L1 alone, and SRMAP",
    "images",
    _SRMAP_CONFIGS,
    {"L1 loss network": "L1", "final network": "SRMAP"},
  ),
  "figure3": Figure(
    "ten samples of an image and where they differ", "samples", _SRMAP_CONFIGS, _same("SRMAP")
  ),
  "figure4": Figure(
    "losses",
    "curves",
    _SRMAP_CONFIGS,
    _same("SRMAP"),
    {"Fidelity": "fidelity", "Generator": "adversarial", "Discriminator": "critic_loss"},
  ),
}

FIGURES = {"srim": SRIM, "amap": AMAP, "prsr": PRSR, "varsr": VARSR, "srmap": SRMAP}
