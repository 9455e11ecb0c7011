"""Explicit MAP Optimization for Photo-Realistic Super Resolution (Huang, Mao, Mohanty & Wu, 2021)."""

# The paper trains by L1 for 10 hours, then 200,000 rounds of the GAN in 5 days. An L1 round asks for 1.2 to
# 1.4 times the arithmetic of a GAN round of the same batch, half of which goes through the generator
# (docs/plan.md), and took 1.34 times as long on an H200: 10 hours are about this many L1 rounds.
L1_ROUNDS = 12_000

METHODS = {
  "srmap": {
    "method": {
      # alpha of Eq. 6, of the mean absolute distance in low resolution. The paper gives none.
      "fidelity_weight": 100.0,
      # gamma of Eq. 7. The paper gives none: StyleGAN2's default, 10, is for images in [-1, 1], for which
      # gradients are half of those for images in [0, 1].
      "r1_weight": 2.5,
      # R1 sees one real image of so many: on a CPU a penalty of all quintuples a critic's step, of a quarter
      # doubles it. 1: all, as in the paper.
      "r1_every": 1,
      # Of -log of the mean absolute difference of two images of one input; 0: none, as in the paper.
      "diversity_weight": 0.0,
    },
    "networks": {"generator": "srmap", "critic": "srmap_critic"},
    "trained": ("generator", "critic"),
    # Eq. 3.
    "stages": {"l1": {"method": {"name": "regression", "loss": "mae"}, "train": {"rounds": L1_ROUNDS}}},
    "init_from": ("generator=l1",),
  },
}

NETWORKS = {
  # Table 1's sizes; they make 81.5 million parameters, of which the paper gives no number.
  "srmap": {
    "stem": 256,
    "width": 512,
    "stages": 4,
    "blocks": 16,  # of each stage
    "ratio": 4,  # width of a block outside to inside, the "compression factor"
    "widths": (256, 128),  # of the enlarging blocks
    "kernel": 3,
    "attention": False,  # RCAN's, of the channels: then an output pixel depends on the whole image
  },
  # The paper gives no sizes: these are ours, for images of 192x192.
  "srmap_critic": {
    "widths": (64, 128, 256, 512, 512),  # each at half the resolution of the one before
    "blocks": 1,  # residual blocks after each reduction
    "ratio": 4,
    "head": 512,  # units of the dense layer at the end
  },
}
