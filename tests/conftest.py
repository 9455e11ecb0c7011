"""What is set before JAX starts: four simulated devices, and programs that compile fast, each once."""

import os
import subprocess
import sys
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
  "--xla_force_host_platform_device_count=4"
  # On a busy machine four devices on two cores meet later than XLA's 40 seconds.
  " --xla_cpu_collective_call_terminate_timeout_seconds=300"
  # Most of a test's time is compilation.
  " --xla_backend_optimization_level=0"
  # XLA's older code generator for fused operations compiles in less than half the time.
  " --xla_cpu_use_fusion_emitters=false"
  # One piece of machine code instead of 32 for so many threads: the tests' processes have all cores already.
  " --xla_cpu_parallel_codegen_split_count=1"
)
# Shared with the programs that tests start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  _cache = tempfile.TemporaryDirectory(prefix="sr_jax_tests_")
  os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.0"

import gc
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import small_runs


@pytest.fixture(autouse=True, scope="module")
def _forget_programs() -> Iterator[None]:
  """Let go of compiled programs after each file: together they have more memory maps than a process may."""
  yield
  jax.clear_caches()
  gc.collect()


@pytest.fixture
def images(tmp_path):
  """Ten images of 12x10; image i has i in its red channel, the row in green, the column in blue."""
  rows, columns = np.indices((12, 10))
  for i in range(10):
    pixels = np.stack([np.full((12, 10), i), rows, columns], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"{i}.png")
  return tmp_path


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
  """A bucket "bucket", images to train on, and an empty folder to work in."""
  program = subprocess.Popen(
    [sys.executable, Path(__file__).with_name("bucket_server.py")],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  address = f"http://127.0.0.1:{program.stdout.readline().strip()}"
  folder = tmp_path_factory.mktemp("bucket")
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("STORAGE_EMULATOR_HOST", address)
    patch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
    # It would ask for the kind of the bucket, of which the emulator knows nothing, at every call.
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    patch.setenv("SR_JAX_TRAIN_DIR", str(small_runs.write_images(folder / "images")))
    (folder / "here").mkdir()
    patch.chdir(folder / "here")
    yield
  assert not list((folder / "here").iterdir())  # such as "gs:"
  program.terminate()
  program.communicate()
