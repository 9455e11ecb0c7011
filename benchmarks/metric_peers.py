"""Our metrics beside independent implementations, on real images.

  pip install torch torchvision lpips pytorch-msssim torchmetrics lightning-utilities
  python benchmarks/metric_peers.py --backbone squeezenet1_1.npz --heads lpips_linear.npz

Two photographs of scikit-image and ten distorted copies of each: enlargements from a quarter with noise.
S_10 is NTIRE's formula on maps of the package lpips, which gets the given backbone and has its own heads.
"""

import argparse
import sys

import lpips
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


def distorted(truth: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """A quarter of the size, by PIL's bicubic, and ten enlargements of it with noise, all uint8."""
  small = Image.fromarray(truth).resize((truth.shape[1] // 4, truth.shape[0] // 4), Image.Resampling.BICUBIC)
  large = np.asarray(small.resize(truth.shape[1::-1], Image.Resampling.BICUBIC), np.float64)
  samples = large + rng.normal(0, 8, (SAMPLES, *truth.shape))
  return np.asarray(small), samples.clip(0, 255).round().astype(np.uint8)


def their_lpips(backbone: str) -> lpips.LPIPS:
  """The package's own network, with maps as large as the image, and the weights of a file."""
  net = lpips.LPIPS(net="squeeze", version="0.1", spatial=True, pnet_rand=True, verbose=False)
  arrays = np.load(backbone)
  with torch.no_grad():
    for name, weight in net.net.named_parameters():  # slice2.3.squeeze.weight is features.3.squeeze.weight
      weight.copy_(torch.tensor(arrays[f"features.{name.partition('.')[2]}"]))
  return net.eval()


def theirs(truth: np.ndarray, small: np.ndarray, samples: np.ndarray, net: lpips.LPIPS) -> dict:
  """{metric: {who: value}}, means over the samples."""
  cut = np.s_[BORDER:-BORDER, BORDER:-BORDER]
  want, have = truth[cut], [sample[cut] for sample in samples]
  y = [color.rgb2ycbcr(v)[..., 0].round().astype(np.uint8) for v in (want, *have)]
  window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}

  def tensor(v: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.moveaxis(v, -1, -3)).double()

  with torch.no_grad():
    maps, means = [], []
    for v in have:
      pair = tensor(v)[None].float() / 127.5 - 1, tensor(want)[None].float() / 127.5 - 1
      net.spatial = True
      maps.append(net(*pair)[0, 0].numpy())
      net.spatial = False
      means.append(float(net(*pair)))
  stack = np.stack(maps)
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
    "lpips": {"lpips": means},
    "lpips_spatial": {"lpips": stack.mean((1, 2))},
    "s_n": {"of lpips's maps": [100 * (best - local) / best]},
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
  net = their_lpips(arguments.backbone)
  rng = np.random.default_rng(0)
  print("| image | metric | ours | peer | its value | difference |\n| --- | --- | ---: | --- | ---: | ---: |")
  for name in ("astronaut", "cat"):
    truth = getattr(data, name)()[:288, :288]
    small, samples = distorted(truth, rng)
    mine, peers = ours(truth, small, samples, arguments), theirs(truth, small, samples, net)
    for metric, found in peers.items():
      for who, value in found.items():
        difference = mine[metric] - value
        print(f"| {name} | {metric} | {mine[metric]:.6g} | {who} | {value:.6g} | {difference:.1g} |")
  return 0


if __name__ == "__main__":
  sys.exit(main())
