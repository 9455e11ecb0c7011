"""Images in: random-access sources, and the batches made from them."""

from sr_jax.data.pipeline import check_test_images, first_test_batch, test_batches, train_batches
from sr_jax.data.sources import open_source, prepare

__all__ = [
  "check_test_images",
  "first_test_batch",
  "open_source",
  "prepare",
  "test_batches",
  "train_batches",
]
