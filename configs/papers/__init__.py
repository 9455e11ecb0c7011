"""The methods and networks of the papers with their keys, each explained once, in one file a paper.

A paper's file has two tables. METHODS gives for the name of a method:

- "method": its keys, under `config.method`;
- "networks": which network it takes for each role, under `config.networks`;
- "trained": the roles that an optimiser trains, under `config.optim`; left out, the generator alone;
- "optim": the keys of these optimisers that the paper gives;
- "stages" and "init_from": the stages that come before its own rounds, and what it takes from them.

NETWORKS gives for the name of a network its keys. This package merges the tables of all papers.
"""

from typing import Any

from sr_jax.configs.papers import amap, pixel_recursive, regression, srim, srmap, varsr

PAPERS = (regression, srim, amap, pixel_recursive, varsr, srmap)

METHODS: dict[str, dict[str, Any]] = {name: keys for paper in PAPERS for name, keys in paper.METHODS.items()}
NETWORKS: dict[str, dict[str, Any]] = {
  name: keys for paper in PAPERS for name, keys in paper.NETWORKS.items()
}
