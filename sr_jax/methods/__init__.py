"""The methods, one file per paper."""

from collections.abc import Callable

from ml_collections import ConfigDict

from sr_jax.errors import choose
from sr_jax.method import Method
from sr_jax.methods.regression import regression
from sr_jax.methods.srim import srim
from sr_jax.ops import Operator

METHODS: dict[str, Callable[[ConfigDict, Operator], Method]] = {
  "regression": regression,
  "srim": srim,
}


def make_method(config: ConfigDict, operator: Operator) -> Method:
  """The method that `config.method.name` names."""
  return choose(METHODS, config.method.name, "config.method.name")(config, operator)
