"""The promptable segmentation model and its named configurations: LiteMedSAM and MedSAM."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from ..provenance.weights import checkpoint_path
from .checkpoints import load_checkpoint
from .mask_decoder import DecoderConfig, MaskDecoder
from .prompt_encoder import PromptEncoder
from .tiny_vit import TinyViT, TinyViTConfig
from .vit import ViT, ViTConfig


@dataclass(frozen=True)
class SamConfig:
    """A named model: its encoder, the side of its input in px, the channels of its embedding, its decoder."""

    name: str
    image_size: int
    encoder: TinyViTConfig | ViTConfig
    dim: int = 256
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


CONFIGS = {
    config.name: config
    for config in (
        SamConfig("litemedsam", 256, TinyViTConfig()),
        SamConfig("medsam", 1024, ViTConfig()),
    )
}


class Sam(nn.Module):
    """Image encoder, prompt encoder and mask decoder, with the key names of the public checkpoints.

    Attributes:
        image_size: side S of the input in px; embedding_size: side g of the embedding grid; mask_size: side M = 4g of the low-res mask.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        if isinstance(config.encoder, ViTConfig):
            self.image_encoder: nn.Module = ViT(config.encoder, config.dim, config.image_size)
        else:
            self.image_encoder = TinyViT(config.encoder, config.dim)
        self.prompt_encoder = PromptEncoder(config.dim)
        self.mask_decoder = MaskDecoder(config.dim, config.decoder)
        self.set_image_size(config.image_size)

    def set_image_size(self, size: int) -> None:
        """Work at another input size from here on, a multiple of 16 px; the weights of TinyViT models serve at any.

        Raises:
            ValueError: a size the network cannot have.
        """
        if size % 16 or size < 32:
            raise ValueError(f"image_size = {size}; expected a multiple of 16, at least 32 px")
        if isinstance(self.config.encoder, ViTConfig) and size != self.config.image_size:
            raise ValueError(
                f"image_size = {size}; {self.config.name} has positions for {self.config.image_size} px only"
            )
        self.config = replace(self.config, image_size=size)
        self.image_size = size
        self.embedding_size = size // self.config.encoder.stride
        self.mask_size = 4 * self.embedding_size
        self.prompt_encoder.image_size, self.prompt_encoder.grid = size, self.embedding_size

    def decode(self, embeddings: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """One mask for each pair of embedding (N, C, g, g), or (1, C, g, g) for all, and box (N, 4) in model px.

        Returns low-res mask logits (N, 1, M, M), positive inside, and predicted IoU (N, 1).
        """
        sparse = self.prompt_encoder(boxes)
        image = (embeddings + self.prompt_encoder.dense()).expand(sparse.shape[0], -1, -1, -1)
        return self.mask_decoder(image, self.prompt_encoder.image_positions(), sparse)

    def forward(self, images: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, S, S) in 0..1, a box each (B, 4) -> mask logits (B, 1, M, M), embeddings (B, C, g, g), predicted IoU (B, 1)."""
        embeddings = self.image_encoder(images)
        masks, iou = self.decode(embeddings, boxes)
        return masks, embeddings, iou


def build_model(
    name: str,
    image_size: int | None = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    depth: int | None = None,
) -> Sam:
    """Build a model in float by name, in evaluation mode.

    Args:
        name: a key of `CONFIGS`.
        image_size: side of the input in px, a multiple of 16; None takes the configuration's. The weights of TinyViT models serve at any size.
        checkpoint: a `.pth` or `.safetensors` file, loaded with strict keys; `public` for LiteMedSAM's published weights; None draws
            random weights from `seed`.
        depth: blocks of MedSAM's encoder, 1 to 12, the first ones; None takes all. For timing on small machines: the decoder stays whole.

    Raises:
        ValueError: an unknown name, a size the network cannot have, or (CheckpointError) a file that does not fit.
    """
    if name not in CONFIGS:
        raise ValueError(f"model = {name!r}; expected one of {', '.join(CONFIGS)}")
    config = CONFIGS[name] if depth is None else cut(CONFIGS[name], depth)
    size = image_size or config.image_size
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = Sam(replace(config, image_size=size)).eval()
    torch.random.set_rng_state(state)
    if checkpoint is not None:
        load_checkpoint(model, checkpoint_path(checkpoint, name))
    return model


def cut(config: SamConfig, depth: int) -> SamConfig:
    """The configuration with only the first `depth` blocks of a plain ViT. Raises ValueError for another encoder or more blocks than it has."""
    if not isinstance(config.encoder, ViTConfig) or not 1 <= depth <= config.encoder.depth:
        raise ValueError(
            f"depth = {depth} of {config.name}; expected a plain ViT and no more blocks than it has"
        )
    return replace(config, encoder=replace(config.encoder, depth=depth))


def count_parameters(module: nn.Module) -> int:
    """Number of learned values, buffers not counted, as in Table 1."""
    return sum(p.numel() for p in module.parameters())


def parameter_table(models: dict[str, Sam]) -> pd.DataFrame:
    """Table 1 of these models: columns model, image_encoder, prompt_encoder, mask_decoder."""
    parts = ("image_encoder", "prompt_encoder", "mask_decoder")
    rows = [
        {"model": name, **{p: count_parameters(getattr(m, p)) for p in parts}} for name, m in models.items()
    ]
    return pd.DataFrame(rows)
