"""Frozen image encoders: the teacher of stage one and the quantised encoder of stage two.

The embedding of each image is computed once and kept on disk.
"""

import hashlib
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..models import Sam, weights_hash
from ..provenance.files import atomic_file
from .precision import autocast_for

CACHE_BYTES = 20 << 30  # about 10,000 embeddings of LiteMedSAM or MedSAM
# A cache recounts its folder after writing 1/RECOUNTS of its limit, because other processes write there too.
RECOUNTS = 64
FORMAT = 1  # version of the computation and of the file format; part of every key


class EmbeddingCache:
    """Embeddings on disk, in float16, addressed by content and bounded in size.

    The oldest embeddings are removed first. Several processes may share a folder. Each process beyond the
    first can exceed the limit by a 64th. A file that cannot be read counts as absent. A full disk ends the
    writing with a warning, but not the training.

    Args:
        folder: made if absent; holds one file per embedding.
        limit: bytes that the folder may take, by all processes together. It is at most the folder's
            present size plus half of the disk's free space.
    """

    def __init__(self, folder: Path, limit: int = CACHE_BYTES) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.recount()
        self.limit = min(limit, self.size + shutil.disk_usage(folder).free // 2)

    def recount(self) -> list[tuple[int, int, Path]]:
        """Update `size`, the bytes that the folder holds now, and return `files()`."""
        files = self.files()
        self.size, self.written = sum(size for _, size, _ in files), 0
        return files

    def files(self) -> list[tuple[int, int, Path]]:
        """List modification time (ns), bytes and path of all embeddings, the oldest first.

        Files that another process removes at the same time are left out.
        """
        found = []
        for path in self.folder.glob("*.npy"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((status.st_mtime_ns, status.st_size, path))
        return sorted(found)

    def get(self, key: str) -> Tensor | None:
        """Return the embedding (C, g, g) float16 stored under a key, or None."""
        try:
            return torch.from_numpy(np.load(self.folder / f"{key}.npy", allow_pickle=False))
        except (OSError, ValueError, EOFError):
            return None

    def put(self, key: str, embedding: Tensor) -> None:
        """Store an embedding (C, g, g) float16 under a key, atomically."""
        size = embedding.numel() * 2 + 128
        if size > self.limit:
            return
        if self.written + size > self.limit / RECOUNTS:
            self.recount()
        if self.size + size > self.limit:
            self.shrink(self.limit - size)
        try:
            with atomic_file(self.folder / f"{key}.npy") as file:
                np.save(file, embedding.numpy())
        except OSError as error:
            warnings.warn(
                f"{self.folder}: embeddings are no longer kept ({error}); "
                "training goes on and computes them anew",
                stacklevel=2,
            )
            self.limit = 0
            return
        self.size += size
        self.written += size

    def shrink(self, most: int) -> None:
        """Remove the oldest embeddings until at most 90 % of `most` bytes are left.

        The margin of 10 % avoids a call at every step.
        """
        for _, size, path in self.recount():
            if self.size <= 0.9 * most:
                return
            path.unlink(missing_ok=True)
            self.size -= size


class CachedEncoder:
    """Compute embeddings with the image encoder of a frozen model, each image once.

    Images are encoded one by one, in bf16 where that helps (`autocast_for`). Embeddings are always rounded to
    float16, also those that were not in the cache. Training thus does not depend on the cache's content.

    Args:
        model: frozen here, and moved to the device.
        cache: stores the embeddings.
    """

    def __init__(self, model: Sam, device: str, cache: EmbeddingCache) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.device, self.cache = device, cache
        self.autocast = autocast_for(model, device)
        self.identity = identity(model, f"{FORMAT} {type(self.autocast).__name__} {device.split(':')[0]}")

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, S, S) to embeddings (B, C, g, g) float32.

        Images are resized to the model's own input size.
        """
        return torch.stack([self.embedding(image) for image in images]).float()

    def embedding(self, image: Tensor) -> Tensor:
        """Encode one image (3, S, S) to an embedding (C, g, g) float16."""
        key = hashlib.blake2b(
            image.cpu().contiguous().numpy().tobytes(), digest_size=20, key=self.identity
        ).hexdigest()
        known = self.cache.get(key)
        if known is not None:
            return known.to(self.device)
        size = self.model.image_size
        image = image[None]
        if size != image.shape[-1]:
            image = nn.functional.interpolate(image, size=(size, size), mode="bilinear", align_corners=False)
        with self.autocast:
            made = self.model.image_encoder(image)[0].to(torch.float16)
        self.cache.put(key, made.cpu().contiguous())
        return made


def identity(model: Sam, how: str) -> bytes:
    """Hash an image encoder's weights, quantisers and way of computation; 32 bytes."""
    return hashlib.sha256(
        f"{how} {model.config} {getattr(model, 'recipe', None)} "
        f"{getattr(model, 'quantised_parts', ())} {weights_hash(model.image_encoder)}".encode()
    ).digest()


class Teacher:
    """A frozen float model whose embeddings the student of stage one learns to reproduce.

    Args:
        model: the float parent, or MedSAM. The student's images are enlarged to MedSAM's input size.
        cache: stores its embeddings.
    """

    def __init__(self, model: Sam, device: str, cache: EmbeddingCache) -> None:
        self.model, self.encoder = model, CachedEncoder(model, device, cache)

    @torch.no_grad()
    def __call__(self, images: Tensor, boxes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Encode images (B, 3, S, S), and decode them if boxes (B, 4) are given in px of the student's input.

        Returns:
            Embeddings (B, C, g, g) float32, and mask logits (B, 1, M, M) or None. M is the size of the
            student's masks.
        """
        embeddings = self.encoder(images)
        factor = self.model.image_size / images.shape[-1]
        return embeddings, None if boxes is None else self.model.decode(embeddings, boxes * factor)[0]
