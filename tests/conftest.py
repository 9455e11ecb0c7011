"""Four simulated devices for every test, set before JAX starts."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
  "--xla_force_host_platform_device_count=4"
  # On a busy machine four devices on two cores meet later than XLA's 40 seconds.
  " --xla_cpu_collective_call_terminate_timeout_seconds=300"
)
