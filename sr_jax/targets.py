"""Machines that `sr-jax plan` knows: what their makers promise, and what their compilers must be told."""

import importlib.util
import os
from typing import Any, NamedTuple

from sr_jax.errors import UserError, choose


class Chip(NamedTuple):
  """What one chip can do at most; rates are per second.

  Attributes:
    flops: dense, by the dtype of a config; in float32 what a convolution computes in by default.
    memory: what programs may have of its main memory, bytes.
    bandwidth: of that memory, bytes.
    link: bytes to the other chips in one direction.
  """

  flops: dict[str, float]
  memory: float
  bandwidth: float
  link: float


class Target(NamedTuple):
  """A machine.

  Attributes:
    chip: what each of its chips can do.
    platform: "tpu" or "cuda".
    topology: its name for the compiler, such as "v5e:2x4".
    description: further arguments of `parallel.described_mesh`.
    options: compiler options of its programs.
  """

  chip: Chip
  platform: str
  topology: str
  description: dict[str, Any]
  options: dict[str, Any]


# Float32 convolutions are one pass of bfloat16 on a TPU and TF32 on a GPU. Links are half of what is given
# for both directions.
# https://cloud.google.com/tpu/docs/v5e, /v6e and /v5p, read in November 2026; the memory is what libtpu
# 0.0.42 leaves to programs of the 16, 32 and 95 GB given there.
V5E = Chip({"bfloat16": 197e12, "float32": 197e12}, 15.75 * 2**30, 819e9, 200e9)
V6E = Chip({"bfloat16": 918e12, "float32": 918e12}, 31.25 * 2**30, 1638e9, 400e9)
V5P = Chip({"bfloat16": 459e12, "float32": 459e12}, 95.74 * 2**30, 2765e9, 600e9)
# https://www.nvidia.com/en-us/data-center/h100: SXM, dense; NVLink, but 400 Gb/s a GPU between hosts. JAX
# takes three quarters of a GPU's memory, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
H100 = Chip({"bfloat16": 989e12, "float32": 495e12}, 0.75 * 80e9, 3350e9, 450e9)
H100_HOSTS = H100._replace(link=50e9)

# What XLA asks about a GPU that it cannot see: CUDA's device properties of an H100 SXM.
_H100_DEVICE = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 8 }
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  memory_bandwidth: 3350000000000
  device_memory_size: 80000000000
  l2_cache_size: 52428800
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
}
"""


def _tpu(chip: Chip, topology: str, **description: Any) -> Target:
  return Target(chip, "tpu", topology, description, {})


def _h100(chip: Chip, hosts: int, gpus: int) -> Target:
  description = {"topology": f"1x{hosts}x{gpus}", "target_config": _H100_DEVICE}
  # Triton's products are chosen by trying them on the device; without one, some cannot be compiled.
  return Target(chip, "cuda", "h100", description, {"xla_gpu_enable_triton_gemm": False})


# Named as they are rented: the number is of chips, of a v5p it is of cores, two a chip.
TARGETS = {
  "v5e-1": _tpu(V5E, "v5e:1x1", chips_per_host_bounds=(1, 1, 1)),
  "v5e-8": _tpu(V5E, "v5e:2x4"),
  "v5e-256": _tpu(V5E, "v5e:16x16"),
  "v6e-1": _tpu(V6E, "v6e:1x1", chips_per_host_bounds=(1, 1, 1)),
  "v6e-8": _tpu(V6E, "v6e:2x4"),
  "v6e-256": _tpu(V6E, "v6e:16x16"),
  "v5p-8": _tpu(V5P, "v5p:2x2x1"),
  "v5p-128": _tpu(V5P, "v5p:4x4x4"),
  "h100-1": _h100(H100, 1, 1),
  "h100-8": _h100(H100, 1, 8),
  "h100-8x8": _h100(H100_HOSTS, 8, 8),
}
COMPILERS = {"tpu": ("libtpu",), "cuda": ("jax_cuda12_plugin", "jax_cuda13_plugin")}


def prepare(name: str) -> Target:
  """The target of that name; sets the environment in which JAX compiles for it, if it has not started yet.

  Raises:
    UserError: there is no such target, or its compiler is not installed.
  """
  target = choose(TARGETS, name, "--target")
  if not any(importlib.util.find_spec(module) for module in COMPILERS[target.platform]):
    raise UserError(
      f"--target {name} needs a compiler that is not installed: in the checkout, pip install -e '.[plan]'."
    )
  # Without these libtpu looks for a TPU's host, and two programs cannot use it at once.
  os.environ.update(
    {
      "JAX_PLATFORMS": "cpu",
      "TPU_SKIP_MDS_QUERY": "1",
      "TPU_WORKER_HOSTNAMES": "localhost",
      "TPU_ACCELERATOR_TYPE": "v5litepod-8",
      "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
      "TPU_LOG_DIR": "disabled",
      "TPU_STDERR_LOG_LEVEL": "4",
    }
  )
  return target
