"""The mixture of conditional Gaussian scale mixtures, a density of one number given features."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

Array = jax.Array

# The standard deviation, in units of y, of a scale with alpha = 0. Counting in it keeps alpha and beta of
# the order of one for images, whose values lie in [0, 1] and whose prediction errors are a tenth of that.
UNIT = 0.1
# The bound of |alpha|: standard deviations stay between UNIT / 100 = 0.001, a quarter of a level of 8 bits,
# and 100 UNIT = 10. Without it a density of values that repeat exactly would grow without end.
LIMIT = 2 * math.log(100)
# The scales' first alphas, evenly spaced between these: standard deviations from 0.27 down to 0.014.
START = (-2.0, 4.0)


class MCGSM(nn.Module):
  """Density p(y | h) of a number y given features h [D], with C components of S scales and N features b_n.

      p(y | h) = sum_{c,s} p(c, s | h) Normal(y; a_c . h + u_c, UNIT^2 exp(-alpha_cs))
      p(c, s | h) ~ exp(eta_cs - 1/2 exp(alpha_cs) sum_n beta_cn^2 (b_n . h)^2)

  c is a component, with the linear prediction a_c [D], u_c; s is one of its scales, with the log precision
  alpha_cs and the log prior eta_cs; beta_c [N] weighs the quadratic features b_n [D], which all components
  share. One scale stretches both the deviation of y and the covariance that component c expects of h, whose
  inverse is sum_n beta_cn^2 b_n b_n^T: unusual features go with an uncertain prediction. p(c, s | h) sums to
  one over all pairs. A smooth bound holds alpha: it is LIMIT tanh(alpha' / LIMIT) of a free alpha'.

  Source: Theis, Hosseini and Bethge, 2012; factorised as in Theis and Bethge, 2015 (there without u_c and
  with UNIT = 1, for whitened pixels).
  """

  components: int
  quadratic: int
  scales: int

  @nn.compact
  def _mixture(self, h: Array) -> tuple[Array, Array, Array]:
    """h [..., D] -> log p(c, s | h) [..., C, S], means [..., C, 1], standard deviations [C, S]; float32."""
    h, pairs = h.astype(jnp.float32), (self.components, self.scales)
    # Means start in [0, 1]. An accelerator's fast product has three digits, and the smallest deviation is
    # a thousandth.
    means = nn.Dense(
      self.components,
      precision="highest",
      kernel_init=nn.initializers.normal(0.02),
      bias_init=nn.initializers.uniform(1.0),
      name="means",
    )(h)
    eta = self.param("eta", nn.initializers.zeros, pairs)
    free = self.param(
      "alpha", lambda _, shape: jnp.broadcast_to(jnp.linspace(*START, shape[1]), shape), pairs
    )
    alpha = LIMIT * jnp.tanh(free / LIMIT)
    # So small that every scale has a say at first, and not zero, where the gradient of beta^2 vanishes.
    beta = self.param("beta", nn.initializers.normal(0.05), (self.quadratic, self.components))
    energy = jnp.square(nn.Dense(self.quadratic, use_bias=False, name="features")(h)) @ jnp.square(beta)
    logits = eta - 0.5 * jnp.exp(alpha) * energy[..., None]
    return nn.log_softmax(logits, axis=(-2, -1)), means[..., None], UNIT * jnp.exp(-0.5 * alpha)

  def __call__(self, h: Array, y: Array) -> Array:
    """Features h [..., D] and y [...] -> log p(y | h) [...], in nats per unit of y, float32."""
    log_gate, mean, deviation = self._mixture(h)
    log_normal = jax.scipy.stats.norm.logpdf(y.astype(jnp.float32)[..., None, None], mean, deviation)
    return nn.logsumexp(log_gate + log_normal, axis=(-2, -1))

  def sample(self, h: Array, key: Array) -> Array:
    """Features h [..., D] -> one y [...] for each, drawn from p(y | h)."""
    log_gate, mean, deviation = self._mixture(h)
    key_pair, key_normal = jax.random.split(key)
    pair = jax.random.categorical(key_pair, log_gate.reshape(*h.shape[:-1], -1))
    mean = jnp.take_along_axis(mean[..., 0], pair[..., None] // self.scales, axis=-1)[..., 0]
    return mean + deviation.ravel()[pair] * jax.random.normal(key_normal, pair.shape)
