"""How each config that stands for a paper's experiment differs from it, for `sr-jax reproduce`."""

_BSDS = "BSDS500 and T91 instead of {}, a test set of your own."
_FACES = "9,500 faces, 64x64 centres of half-size images, 256 others measured."
_MIRRORED = "Training images are mirrored at random; the paper does not say so."
_AMAP_OURS = "Batch, rate, b1 and length are ours, as the paper gives none."
_SRMAP_OURS = (
  "L1's rounds, alpha, gamma, the GAN's rate and the critic's sizes are ours, as the paper gives none."
)
_VARSR_DIGITS = (
  "Inputs by the cubic of four taps, as the paper's probably were: else nothing about a digit is left open.",
  "SRResNet of four blocks of 48 feature maps, without normalisation, instead of a U-net.",
  "2,500 rounds of 64 by Adam at 1e-3, as many with the critic, a smaller one; PRSR of eight layers of 32.",
)

CONDITIONS: dict[str, tuple[str, ...]] = {
  "srim_bsds": (
    _BSDS.format("ImageNet"),
    "SRResNet of five blocks instead of two stages; phi is the pixels alone, m = 8; the output is projected.",
    "The first 9,600 of 24,000 rounds are without latents; an hour on a CPU.",
    "Luma of BT.601, 4 pixels of border cut.",
  ),
  "srim_demo": (
    "Embedded photographs instead of ImageNet; SRResNet of three blocks instead of two stages.",
    "phi is the pixels alone, m = 8; the output is projected; 3,200 of 8,000 rounds are without latents.",
    "Luma of BT.601, 4 pixels of border cut.",
  ),
  "srim_imagenet": (
    "The paper's sizes; |S|, m, M and b are its authors' later choice.",
    "Rate and length are ours (those of the variant port are theirs).",
    _MIRRORED,
  ),
  "amap_swiss_roll": (
    "Rates, nonlinearity and instance noise are ours, as the paper gives none.",
    "The denoiser's noise falls from 2, not from 0.5, to 0.25.",
    "The density is the limit of the paper's estimate: compare distances to MAP.",
  ),
  "amap_celeba_cpu": (
    _FACES,
    "Networks of 64 feature maps, 3,000 to 4,000 rounds of 16, 1,200 for Figure 2.",
    "The GANs begin from a network trained for 1,200 rounds on the squared error.",
    "Instance noise from .1 to 0, which the paper has for ImageNet.",
    _MIRRORED,
  ),
  "amap_celeba": (
    "The paper's networks; the soft weight is ours. Instance noise from .1 to 0, which it has for ImageNet.",
    _AMAP_OURS,
    _MIRRORED,
  ),
  "amap_grass_cpu": (
    "Patches of your own photographs, 1,000 to 3,000 rounds of 16.",
    "Denoiser and density of 64 and 32 feature maps; the noise of AffDG stops at 0.05.",
    "Instance noise from .1 to 0, which the paper has for ImageNet.",
    _MIRRORED,
  ),
  "amap_grass": (
    "The paper's networks. Instance noise from .1 to 0, which it has for ImageNet.",
    _AMAP_OURS,
    _MIRRORED,
  ),
  "bsds_methods": (
    _BSDS.format("ImageNet"),
    "SRMAP's networks, small, trained with L1 first; then on crops of 64x64, without instance noise.",
  ),
  "amap_imagenet": ("The paper's networks and instance noise.", _AMAP_OURS, _MIRRORED),
  "prsr_mnist_corners": (
    "Black and white digits, 1,500 rounds of 32 by Adam; a prior of 6 layers of 16 feature maps, the "
    "first of 31x31.",
    "The conditioning network has a fully connected path, which sees the whole input.",
    "PixelCNN is trained by Eq. 7 alone.",
  ),
  "prsr_celeba_cpu": (
    _FACES,
    "Two conditioning blocks, a prior of 8 layers of 32 feature maps, LeCun's initialisation.",
    "2,000 rounds of 16 by Adam.",
    _MIRRORED,
  ),
  "prsr_celeba": ("The paper's networks and rounds, on a folder of aligned images.", _MIRRORED),
  "prsr_bedrooms_cpu": (
    "A folder of bedrooms, the last 60 measured, instead of LSUN's 3 million.",
    "Networks and initialisation as in prsr_celeba_cpu, 500 rounds of 16.",
    _MIRRORED,
  ),
  "prsr_bedrooms": ("The paper's networks and rounds.", _MIRRORED),
  "varsr_celeba": (
    "9,500 faces, 64x64 centres of half-size images, instead of 100,000; 500 others measured.",
    "Networks of 48 feature maps without normalisation, a critic of half the width of SRGAN's discriminator.",
    "6,000 rounds of 32, Adam at 5e-4; 2,000 rounds with the critic.",
    _MIRRORED,
  ),
  "varsr_plates": (
    "Another set of plate characters, digits' networks and rounds, KL weight .05.",
    *_VARSR_DIGITS,
  ),
  "varsr_mnist": ("The centre 24x24 of each digit, since 28 does not divide by 4.", *_VARSR_DIGITS),
  "srmap_bsds": (
    _BSDS.format("DIV2K"),
    "4 pixels of border cut.",
    "Generator of an eighth of the width, a quarter of the blocks and compression factor 2; crops of 64x64.",
    "6,000 rounds of 16 by L1 with a cosine schedule; 3,000 as a GAN, its weights averaged, R1 of a quarter "
    "of the real images.",
    _SRMAP_OURS,
  ),
  "srmap_div2k": ("The paper's generator and GAN rounds.", _SRMAP_OURS),
}
