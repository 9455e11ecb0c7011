"""Probabilistic image super-resolution in JAX."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["load_run", "upscale"]


def __getattr__(name: str) -> Any:
  """`load_run` and `upscale`, imported when they are asked for: JAX takes seconds."""
  if name == "load_run":
    from sr_jax.run import load_run

    return load_run
  if name == "upscale":
    from sr_jax.upscaling import upscale

    return upscale
  raise AttributeError(f"module 'sr_jax' has no attribute {name!r}")
