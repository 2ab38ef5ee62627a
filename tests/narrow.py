"""Narrow random networks for fast tests: the study's own code with few channels. No profile uses them."""

from qmsam_core.models.efficientvit import EfficientViTConfig
from qmsam_core.models.mask_decoder import DecoderConfig
from qmsam_core.models.sam import CONFIGS, SamConfig
from qmsam_core.models.tiny_vit import TinyViTConfig
from qmsam_core.models.vit import ViTConfig

DECODER = DecoderConfig(heads=4, mlp_dim=128)
TINY = TinyViTConfig(dims=(8, 16, 32, 64), depths=(1, 1, 2, 1), heads=(1, 1, 2, 4), windows=(7, 7, 7, 7))
PATCHES = TinyViTConfig(TINY.dims, TINY.depths, TINY.heads, TINY.windows, patch_stride=2, classes=10)
LINEAR = EfficientViTConfig(
    widths=(8, 8, 16, 32, 64),
    depths=(1, 1, 1, 1, 1),
    first_expansions=(1, 2, 2, 2, 2),
    expansions=(1, 2, 2, 2, 2),
    head_dim=16,
    neck_depth=1,
    grid=16,
)
PLAIN = ViTConfig(dim=96, depth=4, heads=3, window=7, global_blocks=(1, 3))

CONFIGS["narrow"] = SamConfig("narrow", 64, TINY, dim=64, decoder=DECODER)
CONFIGS["narrow_patches"] = SamConfig("narrow_patches", 128, PATCHES, dim=64, decoder=DECODER)
CONFIGS["narrow_efficientvit"] = SamConfig(
    "narrow_efficientvit", 64, LINEAR, dim=64, decoder=DECODER, frame=128, preprocessing="efficientvit_sam"
)
CONFIGS["narrow_vit"] = SamConfig("narrow_vit", 256, PLAIN, dim=64, decoder=DECODER)
