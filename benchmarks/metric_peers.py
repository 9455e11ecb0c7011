"""Our metrics beside independent implementations, on real images.

  pip install torch pytorch-msssim torchmetrics lightning-utilities
  python benchmarks/metric_peers.py --backbone squeezenet1_1.npz --heads lpips_linear.npz

Two photographs of scikit-image and ten distorted copies of each: enlargements from a quarter with noise.
LPIPS and S_10 are computed anew with PyTorch, without a line in common; the others are the named packages'.
"""

import argparse
import sys

import numpy as np
import torch
from PIL import Image
from pytorch_msssim import ms_ssim
from skimage import color, data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch.nn import functional
from torchmetrics.functional.image import structural_similarity_index_measure

from sr_jax.configs import base
from sr_jax.metrics import make_protocol, measure, read_weights
from sr_jax.ops import make_operator

BORDER, SAMPLES = 4, 10
METRICS = ("psnr", "psnr_y", "ssim", "ms_ssim", "lpips", "lpips_spatial", "s_n", "lr_psnr_8bit")
# Of SqueezeNet 1.1: convolution, pooling, the Fire modules by torchvision's numbers; features are read where
# LPIPS reads them.
FIRES, POOLED, READ = (3, 4, 6, 7, 9, 10, 11, 12), (3, 6, 9), (4, 7, 9, 10, 11, 12)


def distorted(truth: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """A quarter of the size, by PIL's bicubic, and ten enlargements of it with noise, all uint8."""
  small = Image.fromarray(truth).resize((truth.shape[1] // 4, truth.shape[0] // 4), Image.Resampling.BICUBIC)
  large = np.asarray(small.resize(truth.shape[1::-1], Image.Resampling.BICUBIC), np.float64)
  samples = large + rng.normal(0, 8, (SAMPLES, *truth.shape))
  return np.asarray(small), samples.clip(0, 255).round().astype(np.uint8)


def lpips_parts(arrays: dict, heads: list, image: np.ndarray, truth: np.ndarray) -> list[torch.Tensor]:
  """The weighted squared distances [1, 1, h, w] of each layer, of uint8 images."""

  def conv(name: str, h: torch.Tensor, **keys) -> torch.Tensor:
    weight, bias = (torch.tensor(arrays[f"features.{name}.{kind}"]).float() for kind in ("weight", "bias"))
    return functional.relu(functional.conv2d(h, weight, bias, **keys))

  def features(v: np.ndarray) -> list[torch.Tensor]:
    x = torch.tensor(v).permute(2, 0, 1)[None].float() / 127.5 - 1
    mean, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    h = conv("0", (x - mean.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1), stride=2)
    found = [h]
    for number in FIRES:
      if number in POOLED:
        h = functional.max_pool2d(h, 3, 2, ceil_mode=True)
      s = conv(f"{number}.squeeze", h)
      h = torch.cat([conv(f"{number}.expand1x1", s), conv(f"{number}.expand3x3", s, padding=1)], 1)
      if number in READ:
        found.append(h)
    return [f / (f.norm(dim=1, keepdim=True) + 1e-10) for f in found]

  pairs = zip(heads, features(image), features(truth), strict=True)
  return [functional.conv2d((a - b) ** 2, torch.tensor(head).float()) for head, a, b in pairs]


def theirs(truth: np.ndarray, small: np.ndarray, samples: np.ndarray, arrays: dict, heads: list) -> dict:
  """{metric: {who: value}}, means over the samples."""
  cut = np.s_[BORDER:-BORDER, BORDER:-BORDER]
  want, have = truth[cut], [sample[cut] for sample in samples]
  y = [color.rgb2ycbcr(v)[..., 0].round().astype(np.uint8) for v in (want, *have)]
  window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}

  def tensor(v: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.moveaxis(v, -1, -3)).double()

  parts = [lpips_parts(arrays, heads, v, want) for v in have]
  size = want.shape[:2]
  maps = [
    sum(functional.interpolate(p, size, mode="bilinear", align_corners=False) for p in one) for one in parts
  ]
  stack = torch.stack(maps)[:, 0, 0].numpy()
  best, local = stack.mean((1, 2)).min(), stack.min(0).mean()
  shrunk = functional.interpolate(
    tensor(samples), truth.shape[0] // 4, mode="bicubic", antialias=True, align_corners=False
  )
  error = ((shrunk - tensor(small)) ** 2).mean((1, 2, 3)) / 255**2
  each = {
    "psnr": {"scikit-image": [peak_signal_noise_ratio(want, v) for v in have]},
    "psnr_y": {"scikit-image": [peak_signal_noise_ratio(y[0], v) for v in y[1:]]},
    "ssim": {
      "scikit-image": [structural_similarity(want, v, channel_axis=-1, **window) for v in have],
      "torchmetrics": [
        float(structural_similarity_index_measure(tensor(v)[None], tensor(want)[None], data_range=255.0))
        for v in have
      ],
    },
    "ms_ssim": {"pytorch-msssim": [float(ms_ssim(tensor(v)[None], tensor(want)[None])) for v in have]},
    "lpips": {"PyTorch, anew": [float(sum(p.mean() for p in one)) for one in parts]},
    "lpips_spatial": {"PyTorch, anew": stack.mean((1, 2))},
    "s_n": {"NumPy, anew": [100 * (best - local) / best]},
    "lr_psnr_8bit": {"PyTorch's antialiased bicubic": -10 * np.log10(error.numpy())},
  }
  return {
    name: {who: float(np.mean(values)) for who, values in found.items()} for name, found in each.items()
  }


def ours(truth: np.ndarray, small: np.ndarray, samples: np.ndarray, arguments: argparse.Namespace) -> dict:
  config = base.get_config()
  config.operator.border = "renormalise"  # PIL's and PyTorch's
  config.eval.border = BORDER
  config.eval.lpips.update({"backbone": arguments.backbone, "heads": arguments.heads})
  batch = {"hr": np.float32(truth[None]) / 255, "lr": np.float32(small[None]) / 255}
  protocol = make_protocol(make_operator(config), config.eval)
  drawn = np.float32(samples[:, None]) / 255
  found = measure(METRICS, drawn, batch, protocol, read_weights(METRICS, config.eval))
  return {name: float(found[name][0]) for name in METRICS}


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--backbone", required=True)
  parser.add_argument("--heads", required=True)
  arguments = parser.parse_args()
  arrays = dict(np.load(arguments.backbone))
  stored = np.load(arguments.heads)
  heads = [stored[f"v0.1/squeeze/lin{i}.model.1.weight"] for i in range(7)]
  rng = np.random.default_rng(0)
  print("| image | metric | ours | peer | its value | difference |\n| --- | --- | ---: | --- | ---: | ---: |")
  for name in ("astronaut", "cat"):
    truth = getattr(data, name)()[:288, :288]
    small, samples = distorted(truth, rng)
    mine, peers = ours(truth, small, samples, arguments), theirs(truth, small, samples, arrays, heads)
    for metric, found in peers.items():
      for who, value in found.items():
        difference = mine[metric] - value
        print(f"| {name} | {metric} | {mine[metric]:.6g} | {who} | {value:.6g} | {difference:.1g} |")
  return 0


if __name__ == "__main__":
  sys.exit(main())
