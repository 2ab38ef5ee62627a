"""Frozen image encoders: the teacher of stage one and the encoder that stage two builds on. What they say of an image is computed once and kept on disk."""

import hashlib
import shutil
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..models import Sam
from ..provenance.files import atomic_file
from .precision import autocast_for

CACHE_BYTES = 20 << 30  # about 10,000 embeddings of LiteMedSAM or MedSAM
RECOUNTS = 64  # a cache looks again at what its folder holds whenever it has written that part of its limit: others write there too
FORMAT = 1  # of what is computed and how it is kept; counts into every key


class EmbeddingCache:
    """Embeddings on disk by content, in float16, bounded in size: the oldest are removed first.

    Several processes may share a folder; each of them but one can bring it a 64th above its limit. A file that cannot be read counts as absent; a disk
    that is full ends the writing, with a warning, not the training.

    Args:
        folder: made if absent; one file an embedding.
        limit: bytes it may take, whoever wrote them; never more than it has already and half of what the disk has left.
    """

    def __init__(self, folder: Path, limit: int = CACHE_BYTES) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.recount()
        self.limit = min(limit, self.size + shutil.disk_usage(folder).free // 2)

    def recount(self) -> list[tuple[int, int, Path]]:
        """Find out how many bytes the folder holds now; returns `files`."""
        files = self.files()
        self.size, self.written = sum(size for _, size, _ in files), 0
        return files

    def files(self) -> list[tuple[int, int, Path]]:
        """Age (ns), bytes and path of all embeddings, the oldest first; those that another process removes meanwhile are left out."""
        found = []
        for path in self.folder.glob("*.npy"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((status.st_mtime_ns, status.st_size, path))
        return sorted(found)

    def get(self, key: str) -> Tensor | None:
        """The embedding (C, g, g) float16 of that key, or None."""
        try:
            return torch.from_numpy(np.load(self.folder / f"{key}.npy", allow_pickle=False))
        except (OSError, ValueError, EOFError):
            return None

    def put(self, key: str, embedding: Tensor) -> None:
        """Keep an embedding (C, g, g) float16; atomic."""
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
                f"{self.folder}: embeddings are no longer kept ({error}); training goes on and computes them anew",
                stacklevel=2,
            )
            self.limit = 0
            return
        self.size += size
        self.written += size

    def shrink(self, most: int) -> None:
        """Remove the oldest embeddings until no more than `most` bytes are left, and a tenth less, so as not to do it at every step."""
        for _, size, path in self.recount():
            if self.size <= 0.9 * most:
                return
            path.unlink(missing_ok=True)
            self.size -= size


class CachedEncoder:
    """The embeddings that a frozen model's image encoder gives, each image's computed once where there is a cache.

    They are computed image by image, in bf16 where that helps (`autocast_for`), and rounded to float16 whether they come from the cache or not, so that
    training does not depend on what is in it.

    Args:
        model: frozen here, and moved to the device.
    """

    def __init__(self, model: Sam, device: str = "cpu", cache: EmbeddingCache | None = None) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.device, self.cache = device, cache
        self.autocast = autocast_for(model, device)
        self.identity = identity(model, f"{FORMAT} {type(self.autocast).__name__} {device.split(':')[0]}")

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> embeddings (B, C, g, g) float32; a model of larger input sees them enlarged."""
        return torch.stack([self.embedding(image) for image in images]).float()

    def embedding(self, image: Tensor) -> Tensor:
        """Image (3, S, S) -> embedding (C, g, g) float16."""
        key = ""
        if self.cache is not None:
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
        if self.cache is not None:
            self.cache.put(key, made.cpu().contiguous())
        return made


def identity(model: Sam, how: str) -> bytes:
    """Hash of an image encoder: its weights, its quantisers, and how it is computed; 32 bytes."""
    digest = hashlib.sha256(
        f"{how} {model.config} {getattr(model, 'recipe', None)} {getattr(model, 'quantised_parts', ())}".encode()
    )
    for name, tensor in sorted(model.image_encoder.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()


class Teacher:
    """A frozen float model whose embeddings the student of stage one learns to give.

    Args:
        model: the float parent, or MedSAM, whose larger input is filled by enlarging the student's.
        cache: where its embeddings are kept.
    """

    def __init__(self, model: Sam, device: str = "cpu", cache: EmbeddingCache | None = None) -> None:
        self.model, self.encoder = model, CachedEncoder(model, device, cache)

    @torch.no_grad()
    def __call__(self, images: Tensor, boxes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Images (B, 3, S, S) -> embeddings (B, C, g, g), and mask logits at the student's size where boxes (B, 4) are given."""
        embeddings = self.encoder(images)
        factor = self.model.image_size / images.shape[-1]
        return embeddings, None if boxes is None else self.model.decode(embeddings, boxes * factor)[0]
