"""What each part of SRIM is worth, one at a time: m, selection by stages, the projection and the warm-up.

  sr-jax sweep --config srim_ablation --workdir runs/srim_ablation

Variants: srim, regression (those of srim_demo, on whose photographs all train), two_stage (section 2.5's own
network, narrower, whose latents may be chosen stage by stage). Two cores, about 5 minutes a trial of srim,
not run yet, and one and a half to three hours of two_stage (8,000 rounds), of which 1,500 were run: 25.82 dB
hierarchical and flat.
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from sr_jax.configs import base, srim_demo
from sr_jax.errors import check_choice


def get_config(variant: str = "srim") -> ConfigDict:
  check_choice((*srim_demo.VARIANTS, "two_stage"), variant, "--config NAME:VARIANT")
  if variant != "two_stage":
    return srim_demo.get_config(variant)
  demo, config = srim_demo.get_config(), base.get_config("srim")
  for section in set(config.keys()) - {"networks"}:
    config[section] = demo[section]
  config.networks.generator.update({"width": 32, "layers": 5, "kernel": 3})
  return config


def sweep() -> Iterator[tuple[str, str, dict[str, Any]]]:
  yield "regression", "regression", {}
  yield "SRIM, m 8", "srim", {}
  for m in (2, 32):
    yield f"SRIM, m {m}", "srim", {"method.candidates": m, "method.chunk": min(m, 8)}
  yield "SRIM, not projected", "srim", {"consistency": "none"}
  yield "SRIM, no warm-up", "srim", {"method.warmup_rounds": 0}
  for hierarchical in (True, False):
    row = f"SRIM, two stages, {'hierarchical' if hierarchical else 'flat'}"
    yield row, "two_stage", {"method.hierarchical": hierarchical}
  yield "SRIM, two stages, hierarchical, both trained", "two_stage", {"method.stage_weight": 1.0}
