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
      each of `curves`, a line in it for each row. "kernels": A and A+. "posterior": what an input of the
      Swiss roll leaves open. "evaluation": the grid of all that the evaluation of the one row measured.
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
    return "eval.judge" if self.kind == "evaluation" else "eval.images"


def _same(*names: str) -> dict[str, str]:
  """Rows that are called as in the paper."""
  return {name: name for name in names}


_SRIM_CONFIGS = ("srim_bsds", "srim_demo", "srim_imagenet")
_SRIM_NOTE = "SRGAN, which the paper shows too, is there for faces alone, as varsr_celeba:srgan."
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
  "figure1a": Figure(
    "what an input of the Swiss roll leaves open",
    "posterior",
    ("amap_swiss_roll",),
    {},
    notes=(
      "Grey: the density. Violet: the points that x = 0.5 leaves open, red: their posterior.",
      "Bayes' estimates of x = 0.5; black: the MAP estimates of inputs from -8 to 8.",
      "Figure 1b is drawn by benchmarks/swiss_roll_figure.py of the runs of Table 1.",
    ),
  ),
  "figure2": Figure(
    "training with and without the projection (2a to 2c)",
    "curves",
    ("amap_celeba_cpu",),
    {name: f"Figure 2, {variant}" for name, variant in _PROJECTIONS.items()},
    {"MSE": "eval/mse", "SSIM": "eval/ssim", "l_MSE(x, Ay)": "eval/lr_mse"},
    ("Curves are of the first train.eval_limit test images, 64.",),
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
    ("Curves are of the first train.eval_limit test images, 16.",),
  ),
}

_NATURAL = Figure(
  "natural images, four times enlarged", "images", ("bsds_methods", "amap_imagenet"), _same("AffGAN")
)
AMAP |= {"figure5": _NATURAL, "figure8": _NATURAL}

_FACES = ("prsr_celeba_cpu", "prsr_celeba")
_BITS = "The number below a sample is its bits per dimension under the model."
_BEDROOMS = ("prsr_bedrooms_cpu", "prsr_bedrooms")
PRSR = {
  "figure1": Figure("faces 8x8 to 32x32", "images", _FACES, _same("PRSR"), notes=(_BITS,)),
  "figure2": Figure(
    "a digit in one of two corners",
    "images",
    ("prsr_mnist_corners",),
    _same("L2 regression", "cross-entropy", "PixelCNN"),
  ),
  "figure4": Figure("bedrooms 8x8 to 32x32", "images", _BEDROOMS, _same("PRSR"), notes=(_BITS,)),
  "figure5": Figure(
    "the diversity of samples",
    "samples",
    _FACES,
    _same("PRSR"),
    notes=('The paper\'s are at tau = 1.2: --config.eval.samples=4 --config.eval.temperatures="(0.833,)".',),
  ),
  "figure6": Figure(
    "bicubic interpolation, greedy decoding and samples, with their bits per dimension",
    "evaluation",
    _FACES,
    _same("PRSR"),
    notes=("The paper's regression joins with --config.eval.beside=\"('WORKDIR/Regression',)\".",),
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
    notes=(
      "Each image is one random sample; the paper shows the one with the best PSNR too.",
      "The paper does not say which KL weight its figure has. Its digits are not in this one.",
    ),
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
