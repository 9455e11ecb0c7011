"""Plate characters 4x2 to 16x8 (rows by columns): Tables 3 to 5 of VarSR, on a folder for each character.

  sr-jax prepare plate_chars --from FOLDER_OF_FOLDERS
  sr-jax train --config digit_classifier:plates --workdir runs/plate_classifier
  sr-jax sweep --config varsr_plates --workdir runs/plates --config.eval.classifier=runs/plate_classifier

Variants as in varsr_mnist. One H100 that 15 trainings share, up to 3 minutes a trial; a shared core, 20 to
40, mr_gan hours. To expect of four-tap inputs (three seeds): deterministic 18.22 dB, right in 85.6 %; VarSR's
best of five 18.64 dB, 89.9 %. Antialiased: 18.89 dB, 91.4 % and 19.68 dB, 94.4 %.
"""

from ml_collections import ConfigDict

from sr_jax.configs import digit_classifier, varsr_mnist

sweep = varsr_mnist.sweep


def get_config(variant: str = "varsr") -> ConfigDict:
  config = varsr_mnist.get_config(variant, digit_classifier.use_plates)
  # SSIM's window of 11x11 is wider than the images.
  config.eval.metrics = tuple(name for name in config.eval.metrics if name != "ssim")
  if "critic" in config.networks:
    config.networks.critic.widths = (32, 64)  # 8 columns halve twice: four convolutions
  if "kl_weight" in config.method:
    config.method.kl_weight = 0.05
  return config
