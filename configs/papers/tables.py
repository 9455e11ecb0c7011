"""The papers' tables, for `sr-jax reproduce`: their numbers, and our rows and columns that stand for them.

Numbers are the printed ones; a row or column of the paper that has no counterpart here is kept without one.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Column(NamedTuple):
  """A column of a paper's table.

  Attributes:
    ours: our column; "": none.
    format: of the paper's numbers and ours.
    scale: makes ours the paper's unit.
    above: the row whose number is subtracted, in the paper and here.
  """

  ours: str
  format: str = ".2f"
  scale: float = 1.0
  above: str = ""


class Row(NamedTuple):
  """A row of a paper's table.

  Attributes:
    ours: the row of the config's sweep(), or a baseline; "": none.
    numbers: the paper's, of each column; None: none.
    kind: of row in an evaluation: "" single samples, "best" of these, or the paper's word for a temperature.
  """

  ours: str
  numbers: tuple[float | None, ...]
  kind: str = ""


class Table(NamedTuple):
  """A paper's table.

  Attributes:
    title: what it is about.
    configs: whose sweep() has the rows; the first is taken by default. `CONDITIONS` tells how they differ
      from the paper.
    columns: by the paper's heading, with its unit.
    rows: by the paper's name.
    notes: what holds for every config.
    needs: the key of the config without which the columns are empty.
  """

  title: str
  configs: tuple[str, ...]
  columns: Mapping[str, Column]
  rows: Mapping[str, Row]
  notes: tuple[str, ...] = ()
  needs: str = ""

  @property
  def ours(self) -> set[str]:
    """The rows of the sweep, or baselines, that it shows."""
    return {row.ours for row in self.rows.values()}


SRIM = {
  "table1": Table(
    "ImageNet 64x64 to 256x256",
    ("srim_bsds", "srim_demo", "srim_imagenet"),
    {"PSNR of luma, dB": Column("psnr_y"), "SSIM of luma": Column("ssim_y", ".4f")},
    {
      "Bicubic": Row("bicubic", (23.38, 0.6832)),
      "SRGAN": Row("", (24.06, 0.6694)),
      "SRIM": Row("SRIM", (25.36, 0.7153)),
    },
    ("The paper took daala's tools: BT.709 luma in limited range.",),
  ),
}

AMAP = {
  "table1": Table(
    "the Swiss roll: cross-entropy and consistency",
    ("amap_swiss_roll",),
    {
      "H[q, p_Y], nats": Column("swiss_roll_nll"),
      "above MAP, nats": Column("swiss_roll_nll", above="MAP"),
      "l_MSE(x, Ay)": Column("lr_mse", ".2e"),
    },
    {
      "MAP": Row("swiss_roll_map", (3.15, 3.15, None)),
      "MSE": Row("MSE", (9.10, 9.10, 1.25e-2)),
      "MAE": Row("MAE", (6.30, 6.30, 4.04e-2)),
      "AffGAN": Row("AffGAN", (4.10, 4.10, 0.0)),
      "SoftGAN": Row("SoftGAN", (4.25, 4.25, 8.87e-2)),
      "AffDG": Row("AffDG", (3.81, 3.81, 0.0)),
      "SoftDG": Row("SoftDG", (4.19, 4.19, 1.01e-1)),
    },
  ),
  "table2": Table(
    "CelebA 16x16 to 64x64",
    ("amap_celeba_cpu", "amap_celeba"),
    {"SSIM": Column("ssim"), "PSNR, dB": Column("psnr"), "l_MSE(x, Ay)": Column("lr_mse", ".1e")},
    {
      "MSE": Row("MSE", (0.90, 26.30, 8.0e-5)),
      "AffMSE": Row("AffMSE", (0.91, 26.53, 1.6e-10)),
      "SoftGAN": Row("SoftGAN", (0.76, 21.11, 2.3e-3)),
      "AffGAN": Row("AffGAN", (0.81, 23.02, 9.1e-10)),
    },
  ),
}

_PRSR_COLUMNS = {
  "pSNR, wrapped in uint8, dB": Column("psnr_uint8_wrapped"),
  "PSNR, dB": Column("psnr"),
  "SSIM": Column("ssim"),
  "MS-SSIM": Column("ms_ssim"),
  "Consistency, MSE": Column("lr_mse", ".4f"),
  "% fooled": Column("", ".1f"),
}
_PRSR_NOTES = (
  "The paper's pSNR is that of squared differences taken modulo 256; ours beside it is true.",
  "Nobody was asked which image is a photograph.",
)


def _prsr(*numbers: tuple[float | None, ...]) -> dict[str, Row]:
  """Rows of pSNR, SSIM, MS-SSIM, consistency and % fooled."""
  ours = {
    "Bicubic": ("bicubic", ""),
    "NN": ("nearest", ""),
    "Regression": ("Regression", ""),
    **{f"tau = {tau}": ("PRSR", f"tau = {float(tau):.3g}") for tau in ("1.0", "1.1", "1.2")},
  }
  return {
    name: Row(row, (given[0], None, *given[1:]), kind)
    for (name, (row, kind)), given in zip(ours.items(), numbers, strict=True)
  }


PRSR = {
  "table1": Table(
    "CelebA 8x8 to 32x32 (the upper half)",
    ("prsr_celeba_cpu", "prsr_celeba"),
    _PRSR_COLUMNS,
    _prsr(
      (28.92, 0.84, 0.76, 0.006, None),
      (28.18, 0.73, 0.66, 0.024, None),
      (29.16, 0.90, 0.90, 0.004, 4.0),
      (29.09, 0.84, 0.86, 0.008, 11.0),
      (29.08, 0.84, 0.85, 0.008, 10.4),
      (29.08, 0.84, 0.86, 0.008, 10.2),
    ),
    _PRSR_NOTES,
  ),
  "table1-bedrooms": Table(
    "LSUN bedrooms 8x8 to 32x32 (the lower half of Table 1)",
    ("prsr_bedrooms_cpu", "prsr_bedrooms"),
    _PRSR_COLUMNS,
    _prsr(
      (28.94, 0.70, 0.70, 0.002, None),
      (28.15, 0.49, 0.45, 0.040, None),
      (28.87, 0.74, 0.75, 0.003, 2.1),
      (28.92, 0.58, 0.60, 0.016, 17.7),
      (28.92, 0.59, 0.59, 0.017, 22.4),
      (28.93, 0.59, 0.58, 0.018, 27.9),
    ),
    _PRSR_NOTES,
  ),
}

_MSE_NOTE = "The paper's MSE (73.93 at 22.57 dB, say) is that of differences taken modulo 256: none of ours."
_LPIPS_NOTE = "The paper does not say whose LPIPS it took."
_SRGAN_NOTE = "SRGAN here is its generator with VarSR's critic and losses, not with its own discriminator."
_DISTORTION = {"PSNR, dB": Column("psnr"), "SSIM": Column("ssim", ".4f"), "MSE": Column("")}
_CLASSES = {"Best, %": Column("class_best", scale=100), "Mean, %": Column("class_probability", scale=100)}
_DISTINCT = {
  "1 class, %": Column("one_class", scale=100),
  "1 or 2 classes, %": Column("two_classes", scale=100),
}
_MEAN_NOTE = (
  'The paper\'s "Mean" of the deterministic network is its accuracy, the same as "Best"; ours is the mean '
  "probability of the true class, as of the other rows."
)
_JUDGE_NOTE = "The classifier is our own; sr-jax config digit_classifier tells how it is trained."


def _digits(kind: str, *numbers: tuple[float, ...]) -> dict[str, Row]:
  """Rows of the deterministic network, PRSR, MR-GAN and VarSR."""
  names = {"Det.": "deterministic", "PRSR": "PRSR", "MR-GAN": "MR-GAN", "Ours": "VarSR with critic"}
  return {
    name: Row(f"{ours}, aliased", given, "" if name == "Det." else kind)
    for (name, ours), given in zip(names.items(), numbers, strict=True)
  }


VARSR = {
  "table1": Table(
    "CelebA 8x8 to 64x64: distortion and perception",
    ("varsr_celeba",),
    {**_DISTORTION, "LPIPS": Column("lpips", ".4f"), "Facenet": Column("", ".4f")},
    {
      "SRResNet": Row("SRResNet", (22.57, 0.7242, 73.93, 0.1172, 0.0463)),
      "Ours, KL 1e-2": Row("VarSR, KL 0.01", (22.46, 0.7162, 72.87, 0.0885, 0.0425), "best"),
      "Ours, KL 2e-2": Row("VarSR, KL 0.02", (22.74, 0.7278, 72.30, 0.0927, 0.0430), "best"),
      "SRGAN": Row("SRGAN", (22.28, 0.7042, 74.49, 0.0679, 0.0463)),
      "MR-GAN": Row("MR-GAN", (21.21, 0.6476, 77.77, 0.0591, 0.0434), "best"),
      "Ours with critic, KL 1e-2": Row(
        "VarSR with critic, KL 0.01", (21.87, 0.6855, 74.64, 0.0539, 0.0422), "best"
      ),
      "Ours with critic, KL 2e-2": Row(
        "VarSR with critic, KL 0.02", (22.14, 0.6948, 73.74, 0.0538, 0.0426), "best"
      ),
    },
    (
      "Best of 10: PSNR and SSIM of the sample with the best PSNR, LPIPS its own best.",
      _LPIPS_NOTE,
      _SRGAN_NOTE,
      _MSE_NOTE,
      "No face network comes with the package; the metric embedding takes one.",
    ),
  ),
  "table2": Table(
    "CelebA 8x8 to 64x64: diversity and consistency",
    ("varsr_celeba",),
    {"Diversity": Column("lpips_diversity", ".4f"), "Consistency, L1 of 255": Column("lr_l1", ".3f", 255)},
    {
      "SRGAN": Row("SRGAN", (0.0, 3.595)),
      "MR-GAN": Row("MR-GAN", (0.0665, 4.139)),
      "Ours, KL 1e-2": Row("VarSR with critic, KL 0.01", (0.0353, 3.402)),
      "Ours, KL 2e-2": Row("VarSR with critic, KL 0.02", (0.0238, 3.411)),
    },
    (
      "Ours is taken with the critic, which the rows beside it have; the paper does not say.",
      _LPIPS_NOTE,
      _SRGAN_NOTE,
    ),
  ),
  "table3": Table(
    "MNIST 6x6 to 24x24: distortion",
    ("varsr_mnist",),
    _DISTORTION,
    _digits(
      "best", (20.64, 0.8250, 15.81), (18.04, 0.7637, 15.62), (21.05, 0.8512, 15.19), (22.00, 0.8642, 14.97)
    ),
    ("Of the sample of five with the best PSNR.", _MSE_NOTE),
  ),
  "table3-plates": Table(
    "plate characters 4x2 to 16x8: distortion (LP of Table 3)",
    ("varsr_plates",),
    {**_DISTORTION, "SSIM": Column("", ".4f")},
    _digits(
      "best", (21.16, 0.9354, 88.50), (19.22, 0.8793, 94.45), (21.54, 0.9422, 87.93), (22.00, 0.9494, 85.95)
    ),
    ("Of the sample of five with the best PSNR.", "SSIM's window is wider than these images.", _MSE_NOTE),
  ),
  "table4": Table(
    "MNIST 6x6 to 24x24: the classes of five samples",
    ("varsr_mnist",),
    _CLASSES,
    _digits("", (84.74, 84.74), (84.42, 70.22), (92.73, 84.44), (92.79, 85.58)),
    (_JUDGE_NOTE, _MEAN_NOTE),
    "eval.classifier",
  ),
  "table4-plates": Table(
    "plate characters 4x2 to 16x8: the classes of five samples (LP of Table 4)",
    ("varsr_plates",),
    _CLASSES,
    _digits("", (93.14, 93.14), (96.10, 92.19), (95.53, 91.87), (96.33, 93.01)),
    (_JUDGE_NOTE, _MEAN_NOTE),
    "eval.classifier",
  ),
  "table5": Table(
    "MNIST 6x6 to 24x24: how many classes five samples have",
    ("varsr_mnist",),
    _DISTINCT,
    {"Ours": Row("VarSR with critic, aliased", (73.52, 93.70))},
    (_JUDGE_NOTE, "93.70 is the sum of the paper's 73.52 and 20.18."),
    "eval.classifier",
  ),
  "table5-plates": Table(
    "plate characters 4x2 to 16x8: how many classes five samples have (LP of Table 5)",
    ("varsr_plates",),
    _DISTINCT,
    {"Ours": Row("VarSR with critic, aliased", (89.29, 98.96))},
    (_JUDGE_NOTE, "98.96 is the sum of the paper's 89.29 and 9.67."),
    "eval.classifier",
  ),
}

SRMAP = {
  "table2": Table(
    "DIV2K x4: perception and consistency",
    ("srmap_bsds", "srmap_div2k"),
    {"LPIPS": Column("lpips_spatial", ".3f"), "LR-PSNR, dB": Column("lr_psnr_truth")},
    {
      "SRMAP": Row("SRMAP", (0.153, 58.40)),
      "Generator with L1": Row("L1", (0.267, 52.80)),
      "RRDB": Row("", (0.253, 49.20)),
      "ESRGAN": Row("", (0.124, 39.03)),
      "NCSR": Row("", (0.119, 50.75)),
    },
    (
      "By NTIRE 2021's protocol, which the paper's numbers fit: the mean of the LPIPS map (AlexNet's there), "
      "and LR-PSNR of the reduced and rounded sample beside the truth's.",
    ),
  ),
}

TABLES = {"srim": SRIM, "amap": AMAP, "prsr": PRSR, "varsr": VARSR, "srmap": SRMAP}
