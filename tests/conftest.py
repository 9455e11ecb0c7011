"""What is set before JAX starts: four simulated devices, and programs that compile fast, each once."""

import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
  "--xla_force_host_platform_device_count=4"
  # On a busy machine four devices on two cores meet later than XLA's 40 seconds.
  " --xla_cpu_collective_call_terminate_timeout_seconds=300"
  # Most of a test's time is compilation.
  " --xla_backend_optimization_level=2"
)
# Shared with the programs that tests start.
_cache = tempfile.TemporaryDirectory(prefix="sr_jax_tests_")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import gc  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def _forget_programs() -> Iterator[None]:
  """Let go of compiled programs after each file: together they have more memory maps than a process may."""
  yield
  jax.clear_caches()
  gc.collect()
