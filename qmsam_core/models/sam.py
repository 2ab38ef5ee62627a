"""The promptable segmentation model and its named configurations: LiteMedSAM, MedSAM and their kin."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from ..provenance.weights import checkpoint_path
from .checkpoints import load_checkpoint
from .efficientvit import EPS, EfficientViT, EfficientViTConfig
from .mask_decoder import DecoderConfig, MaskDecoder
from .prompt_encoder import PromptEncoder
from .tiny_vit import TinyViT, TinyViTConfig
from .vit import ViT, ViTConfig


@dataclass(frozen=True)
class SamConfig:
    """A named model.

    Attributes:
        name: name of the model, a key of `CONFIGS`.
        image_size: side of the input in px.
        encoder: shape of the image encoder.
        dim: channels of the embedding.
        decoder: shape of the mask decoder.
        frame: side of the square in which boxes are given, in px. None is the input's side.
        preprocessing: how images become inputs, a key of `data.preprocessing.PREPROCESSING`.
    """

    name: str
    image_size: int
    encoder: TinyViTConfig | ViTConfig | EfficientViTConfig
    dim: int = 256
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    frame: int | None = None
    preprocessing: str = "litemedsam"


def efficientvit_sam(name: str, depth: int, neck_depth: int) -> SamConfig:
    """Configuration of EfficientViT-SAM with `depth` blocks in its last two stages. Boxes are in 1024 px."""
    encoder = EfficientViTConfig(depths=(1, 1, 1, depth, depth), neck_depth=neck_depth)
    decoder = DecoderConfig(norm_eps=EPS)
    return SamConfig(name, 512, encoder, decoder=decoder, frame=1024, preprocessing="efficientvit_sam")


CONFIGS = {
    config.name: config
    for config in (
        SamConfig("litemedsam", 256, TinyViTConfig()),
        SamConfig("medsam", 1024, ViTConfig()),
        SamConfig("mobilesam", 1024, TinyViTConfig(patch_stride=2, classes=1000), preprocessing="mobilesam"),
        efficientvit_sam("efficientvit_sam_l0", 4, 4),
        efficientvit_sam("efficientvit_sam_l1", 6, 8),
    )
}
ENCODERS = {TinyViTConfig: TinyViT, EfficientViTConfig: EfficientViT}


class Sam(nn.Module):
    """Image encoder, prompt encoder and mask decoder, with the key names of the public checkpoints.

    Attributes:
        image_size: side S of the input in px.
        frame: side of the square in which boxes are given, in px; S for most networks.
        preprocessing: how images become inputs, a key of `data.preprocessing.PREPROCESSING`.
        embedding_size: side g of the embedding grid.
        mask_size: side M = 4g of the low-res mask.
    """

    frame: int

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        if isinstance(config.encoder, ViTConfig):
            self.image_encoder: nn.Module = ViT(config.encoder, config.dim, config.image_size)
        else:
            self.image_encoder = ENCODERS[type(config.encoder)](config.encoder, config.dim)
        self.prompt_encoder = PromptEncoder(config.dim)
        self.mask_decoder = MaskDecoder(config.dim, config.decoder)
        self.set_image_size(config.image_size)

    def set_image_size(self, size: int) -> None:
        """Change the input size to another multiple of 16 px. All but a plain ViT's weights work at any size.

        Raises:
            ValueError: the network cannot have this size.
        """
        if size % 16 or size < 32:
            raise ValueError(f"image_size = {size}; expected a multiple of 16, at least 32 px")
        if isinstance(self.config.encoder, ViTConfig) and size != self.config.image_size:
            raise ValueError(
                f"image_size = {size}; {self.config.name} has positions for {self.config.image_size} px only"
            )
        self.config = replace(self.config, image_size=size)
        self.image_size = size
        self.frame = self.config.frame or size
        self.embedding_size = self.config.encoder.embedding_grid(size)
        self.mask_size = 4 * self.embedding_size
        self.prompt_encoder.frame, self.prompt_encoder.grid = self.frame, self.embedding_size

    @property
    def preprocessing(self) -> str:
        """How images become inputs, a key of `data.preprocessing.PREPROCESSING`."""
        return self.config.preprocessing

    def decode(self, embeddings: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Decode one mask for each pair of embedding and box.

        Args:
            embeddings: (N, C, g, g), or (1, C, g, g) shared by all boxes.
            boxes: (N, 4) in px of the `frame`.

        Returns:
            Low-res mask logits (N, 1, M, M), positive inside, and predicted IoU (N, 1).
        """
        sparse = self.prompt_encoder(boxes)
        image = (embeddings + self.prompt_encoder.dense()).expand(sparse.shape[0], -1, -1, -1)
        return self.mask_decoder(image, self.prompt_encoder.image_positions(), sparse)

    def forward(self, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode images (B, 3, S, S) and decode one box (B, 4), in px of the `frame`, on each.

        Returns:
            Mask logits (B, 1, M, M), embeddings (B, C, g, g) and predicted IoU (B, 1).
        """
        embeddings = self.image_encoder(images)
        masks, iou = self.decode(embeddings, boxes)
        return masks, embeddings, iou


def build_model(
    name: str,
    image_size: int | None = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    depth: int | None = None,
    frame: int | None = None,
    preprocessing: str | None = None,
) -> Sam:
    """Build a float model by name, in evaluation mode.

    Args:
        name: a key of `CONFIGS`.
        image_size: side of the input in px, a multiple of 16. None takes the configuration's size. All but a
            plain ViT's weights work at any size.
        checkpoint: a `.pth` or `.safetensors` file, loaded with strict keys. `public` means LiteMedSAM's
            published weights. None draws random weights.
        seed: seed of the random weights.
        depth: number of MedSAM's encoder blocks to keep, 1 to 12, counted from the first. None keeps all. The
            decoder stays whole. This is for timing on small machines.
        frame: side of the square in which boxes are given, in px. None takes the configuration's.
        preprocessing: how images become inputs; None takes the configuration's.

    Raises:
        ValueError: the name is unknown, or the network cannot have this size or depth.
        CheckpointError: the file does not fit the model.
    """
    if name not in CONFIGS:
        raise ValueError(f"model = {name!r}; expected one of {', '.join(CONFIGS)}")
    config = CONFIGS[name] if depth is None else cut(CONFIGS[name], depth)
    config = replace(
        config,
        image_size=image_size or config.image_size,
        frame=frame or config.frame,
        preprocessing=preprocessing or config.preprocessing,
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = Sam(config).eval()
    torch.random.set_rng_state(state)
    if checkpoint is not None:
        load_checkpoint(model, checkpoint_path(checkpoint, name))
    return model


def cut(config: SamConfig, depth: int) -> SamConfig:
    """Return the configuration with only the first `depth` blocks of a plain ViT.

    Raises:
        ValueError: the encoder is not a plain ViT, or `depth` is not in 1 to its number of blocks.
    """
    if not isinstance(config.encoder, ViTConfig) or not 1 <= depth <= config.encoder.depth:
        raise ValueError(
            f"depth = {depth} of {config.name}; expected a plain ViT and no more blocks than it has"
        )
    return replace(config, encoder=replace(config.encoder, depth=depth))


def count_parameters(module: nn.Module) -> int:
    """Count the learned values of a module, without buffers, as in Table 1."""
    return sum(p.numel() for p in module.parameters())


def parameter_table(models: dict[str, Sam]) -> pd.DataFrame:
    """Return Table 1 for these models: columns model, image_encoder, prompt_encoder, mask_decoder."""
    parts = ("image_encoder", "prompt_encoder", "mask_decoder")
    rows = [
        {"model": name, **{p: count_parameters(getattr(m, p)) for p in parts}} for name, m in models.items()
    ]
    return pd.DataFrame(rows)
