"""PyTorch as an engine: the model itself, the reference for the other engines."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ..models import Sam, weights_hash
from ..quant import load_model
from .engines import Engine
from .exported import export_digest, read_export


class PyTorchEngine(Engine):
    """The model itself, float or fake-quantised."""

    def __init__(self, model: Sam) -> None:
        self.model = model.eval()
        self.image_size, self.mask_size = model.image_size, model.mask_size
        self.frame, self.preprocessing = model.frame, model.preprocessing

    @cached_property
    def source(self) -> str:
        return weights_hash(self.model)

    @torch.no_grad()
    def embed(self, images: np.ndarray) -> np.ndarray:
        return self.model.image_encoder(torch.from_numpy(images)).numpy()

    def prepare(self, embedding: np.ndarray) -> tuple[np.ndarray, ...]:
        return (embedding,)

    @torch.no_grad()
    def decode_prepared(self, prepared: tuple[np.ndarray, ...], boxes: np.ndarray) -> np.ndarray:
        masks, _ = self.model.decode(torch.from_numpy(prepared[0]), torch.from_numpy(boxes))
        return masks[:, 0].numpy()


def open_pytorch(folder: str | Path, threads: int) -> PyTorchEngine:
    """Open the model of an exported folder. `threads` holds for the whole process. Raises `ExportError`."""
    facts = read_export(folder)
    torch.set_num_threads(threads)
    engine = PyTorchEngine(load_model(Path(folder) / "model.safetensors"))
    engine.source = export_digest(facts)
    return engine
