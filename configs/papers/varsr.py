"""VarSR: Variational Super-Resolution Network for Very Low Resolution Images (Hyun & Heo, ECCV 2020)."""

from sr_jax.configs.papers import regression

# Of both encoders. The paper's architecture is in a supplement: this one is ours.
ENCODER = {
  "latent_size": 64,  # D: 256 for faces, 64 for digits and plates; the generator's is the same
  "fold": (1, 1),  # blocks of pixels that become channels: the posterior's at least the factor
  "width": 64,
  "layers": 3,  # 3x3 convolutions, before a dense layer that sees all positions
  "norm": "instance",  # batch | instance | none
}

# Section 4.2: SRGAN's generator with instance normalisation; the latent enters as strongly as the input.
GENERATOR = {
  "name": "srresnet",
  **regression.NETWORKS["srresnet"],
  "norm": "instance",
  "latent_size": ENCODER["latent_size"],
  "noise_scale": 1.0,
}
# Section 4.2. The paper does not say when the rate is "decayed once": here in the middle of each stage, which
# begins with an optimiser of its own.
OPTIMISER = {"b2": 0.99, "schedule": "halve", "halve_at": (50_000,)}

METHODS = {
  "varsr": {
    "method": {
      "pixel_weight": 1.0,
      # Of the KL averaged over D: 0.01 for digits and faces, 0.05 for plates. Summed over D it collapses.
      "kl_weight": 0.01,
      # The paper gives neither weight nor layer. SRGAN's number, which there multiplies a deeper layer; of
      # normalised conv2_2 it took 18 % off LPIPS on faces (docs/results.md).
      "perceptual_weight": 0.006,
      "adversarial_weight": 0.001,  # 0: no critic
      "penalty_weight": 10.0,
      # Of the perceptual loss; as of SRIM.
      "features": {
        "layers": ("conv2_2",),  # (): no perceptual loss
        "file": "",
        "width": 64,
        "sha256": "",
        "padding": "zero",
        "distance": "mean",  # SRGAN's
      },
    },
    "networks": {
      "generator": GENERATOR,
      "posterior": "encoder",
      "prior": "encoder",
      "critic": "critic",
    },
    "trained": ("generator", "posterior", "prior", "critic"),
    "optim": OPTIMISER,
    "stages": {"pixel": {"method": {"adversarial_weight": 0.0}, "train": {"rounds": 100_000}}},
    "init_from": ("generator=pixel", "posterior=pixel", "prior=pixel"),
  },
  # MR-GAN (Lee et al., arXiv 1902.09225), which the paper compares with. Its weights are ours.
  "mr_gan": {
    "method": {
      "samples": 8,  # K images of an input, whose moments are fitted
      "moments": "mean_variance",  # mean (MR1) | mean_variance (MR2)
      "variance_floor": 1e-3,  # added to the variance of a pixel in [0, 1]
      "moment_weight": 1.0,
      # 50 times VarSR's 0.001, because the gradient of this loss is about 50 times that of squares.
      "adversarial_weight": 0.05,
      "penalty_weight": 10.0,
    },
    "networks": {"generator": GENERATOR, "critic": "critic"},
    "trained": ("generator", "critic"),
    "optim": OPTIMISER,
  },
  # Section 4.3: a helper that judges samples, see `eval.classifier`.
  "classifier": {"method": {}, "networks": {"classifier": "classifier"}, "trained": ("classifier",)},
}

NETWORKS = {
  "encoder": ENCODER,
  "critic": {
    "widths": (64, 128, 256, 512),  # each at half the resolution of the one before, as in SRGAN
    "head": 1024,  # units of the dense layer at the end
    "norm": "instance",  # instance | none
  },
  "classifier": {
    "classes": 10,
    "widths": (32, 64, 128),  # each at half the resolution of the one before
    "norm": "batch",  # batch | instance | none
  },
}
