"""The pipelines that Table 8 compares ours with, as data, and one runner for all of them.

What they differ in are fields of `Pipeline`: the network, the order of boxes and slices, how many embeddings
are kept, how a box goes from slice to slice, where a volume's box ends, and how masks go back. Steps that the
published scripts compute in float64, at full size or box by box are kept, because they are part of the
scripts' time and memory. Ours is `deploy.Predictor`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch.nn import functional

from ..data.cases import Case, boxes_on_slice, write_segmentation
from ..data.preprocessing import PREPROCESSING
from ..data.transforms import Geometry
from ..deploy.by_modality import FALLBACK, exports_in, is_by_modality, modality_in, served_by
from ..deploy.engines import Engine, open_engine
from ..deploy.predictor import Predictor
from ..deploy.volume_traversal import BASELINE_MARGIN, boxes_in_plane, follow


@dataclass(frozen=True)
class Pipeline:
    """A published way to segment a case.

    Attributes:
        system: whose it is, and what was read of it.
        network: what it runs, in words.
        engine: one of `deploy.engines.ENGINES`.
        preprocessing: a key of `PREPROCESSING`.
        order: `box` segments one box on all its slices, then the next; `slice` all boxes of a slice together.
        kept: embeddings that are kept for the next box, at most. One of LiteMedSAM's size takes 4 MB.
        margin: how far the box of the mask on the slice before is enlarged, as a share of the frame's side;
            None keeps the given box on all slices.
        block: boxes decoded at once.
        closed: whether the last slice of a box belongs to it. The middle slice always does.
        masks: how logits become a mask: `sigmoid` in float at full size, `binary` before they are enlarged,
            or `linear`, enlarged and then made binary.
        by_modality: whether there may be a model for each modality, with a fallback.
    """

    system: str
    network: str
    engine: str
    preprocessing: str
    order: Literal["box", "slice"]
    kept: int
    margin: float | None
    block: int = 1
    closed: bool = True
    masks: Literal["sigmoid", "binary", "linear"] = "linear"
    by_modality: bool = False


PIPELINES: dict[str, Pipeline | None] = {
    "baseline": Pipeline(
        "the challenge's baseline (CVPR24_LiteMedSAM_infer.py, which leaves out a box's two end slices)",
        "LiteMedSAM, float",
        "pytorch",
        "baseline",
        order="box",
        kept=0,
        margin=BASELINE_MARGIN,
        masks="sigmoid",
    ),
    "authors": Pipeline(
        "the paper's authors (docker_python/validate.py)",
        "LiteMedSAM, int8 in their style of export",
        "openvino",
        "released",
        order="slice",
        kept=0,
        margin=None,
        block=96,
        masks="binary",
    ),
    "medficientsam": Pipeline(
        "MedficientSAM, paper reference [4] (cpp/src/main.cpp)",
        "EfficientViT-SAM L1, float",
        "openvino",
        "medficientsam",
        order="box",
        kept=1024,
        margin=0.0,
        closed=False,
    ),
    "daft": Pipeline(
        "DAFT, paper reference [12] (cpp/src/main.cpp)",
        "EfficientViT-SAM L0 at half its size, float",
        "openvino",
        "daft",
        order="box",
        kept=1024,
        margin=BASELINE_MARGIN,
        closed=False,
        by_modality=True,
    ),
    "ours": None,
}
"""By name. Ours is none of the published ones: `deploy.Predictor` on our int8 export."""


@dataclass
class Published:
    """Segments cases as a published pipeline does.

    Attributes:
        pipeline: the way.
        engines: engine by the name of its export; `default` takes what no other serves.
        served: name of the export that serves a modality.
    """

    pipeline: Pipeline
    engines: Mapping[str, Engine]
    served: Mapping[str, str]

    @classmethod
    def on(cls, name: str, engine: Engine) -> "Published":
        """A pipeline of `PIPELINES` with one engine for all cases."""
        return cls(PIPELINES[name], {FALLBACK: engine}, {})

    def segment(self, case: Case) -> np.ndarray:
        """Labels of a case that has boxes: (H, W) or (D, H, W), uint8, or uint16 if there are over 255."""
        engine = self.engines[self.served.get(modality_in(case.name), FALLBACK)]
        how = PREPROCESSING[self.pipeline.preprocessing]
        geometry = Geometry.of(*case.plane_shape, engine.image_size, engine.frame, how)
        segs = np.zeros((case.n_slices, *case.plane_shape), np.uint8 if len(case.boxes) <= 255 else np.uint16)
        kept = self.pipeline.kept if case.is_volume else 1  # all encode an image once
        embed = lru_cache(kept)(lambda z: engine.encode(geometry.image(case.slice_image(z))[None]))
        walk = self._by_box if self.pipeline.order == "box" else self._by_slice
        walk(case, geometry, engine, embed, segs)
        return segs if case.is_volume else segs[0]

    def _by_box(
        self, case: Case, geometry: Geometry, engine: Engine, embed: Callable, segs: np.ndarray
    ) -> None:
        for label, (box, whole) in enumerate(zip(boxes_in_plane(case), case.boxes), 1):
            given = geometry.boxes(box)
            found: dict[int, np.ndarray] = {}
            for z, before in steps(whole, self.pipeline.closed) if case.is_volume else [(0, None)]:
                own = found.get(before, given) if self.pipeline.margin is not None else given
                mask = back(self.pipeline.masks, geometry, engine.decode(embed(z), own)[0])
                segs[z][mask] = label
                if case.is_volume and mask.any():
                    rows, columns = np.nonzero(mask)
                    tight = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
                    found[z] = follow(tight, geometry, self.pipeline.margin or 0.0)[None]

    def _by_slice(
        self, case: Case, geometry: Geometry, engine: Engine, embed: Callable, segs: np.ndarray
    ) -> None:
        boxes = geometry.boxes(boxes_in_plane(case))
        for z in range(case.n_slices):
            ids = boxes_on_slice(case.boxes, z)[0] if case.is_volume else np.arange(len(boxes))
            if not len(ids):
                continue
            embedding, block = embed(z), self.pipeline.block
            masks = np.empty((0, engine.mask_size, engine.mask_size))  # float64, as in the script
            for start in range(0, len(ids), block):
                logits = engine.decode(embedding, boxes[ids[start : start + block]])
                masks = np.concatenate((masks, logits), axis=0)
            for label, logits in zip(ids + 1, masks):
                segs[z][back(self.pipeline.masks, geometry, logits)] = label


def steps(box: np.ndarray, closed: bool) -> Iterator[tuple[int, int | None]]:
    """Yield the slices of a volume's box from the middle up, then down, each with the slice before it.

    Args:
        box: (6,) x_min, y_min, z_min, x_max, y_max, z_max.
        closed: whether slice z_max belongs to the box.
    """
    low, high = int(box[2]), int(box[5])
    middle = (low + high) // 2
    yield middle, None
    yield from ((z, z - 1) for z in range(middle + 1, high + closed))
    yield from ((z, z + 1) for z in range(middle - 1, low - 1, -1))


def back(how: str, geometry: Geometry, logits: np.ndarray) -> np.ndarray:
    """Bring the low-res logits (M, M) of a box back to the slice: bool (H, W). `how` is `Pipeline.masks`."""
    size = geometry.height, geometry.width
    if how == "linear":
        return geometry.mask_to_image(logits[None])[0]
    if how == "sigmoid":
        content = torch.from_numpy(geometry.content(logits))[None, None]
        enlarged = functional.interpolate(content, size, mode="bilinear", align_corners=False)
        return torch.sigmoid(enlarged)[0, 0].numpy() > 0.5
    square = cv2.resize((logits >= 0) * 1.0, [max(size)] * 2, interpolation=cv2.INTER_LINEAR)
    return square[: size[0], : size[1]] >= 0.5


def open_pipeline(
    name: str, folder: str | Path, threads: int, precision: str = "f32"
) -> Published | Predictor:
    """Open a pipeline of `PIPELINES` on an export, or on a folder of exports by modality if it has several.

    Args:
        name: a key of `PIPELINES`.
        folder: folder of the export.
        threads: CPU threads of the engine.
        precision: how ours runs on OpenVINO, see `OpenVinoEngine`.
    """
    pipeline = PIPELINES[name]
    if pipeline is None:
        return Predictor(open_engine("openvino", folder, threads, precision))
    several = pipeline.by_modality and is_by_modality(Path(folder))
    exports = exports_in(Path(folder)) if several else {FALLBACK: Path(folder)}
    opened = {key: open_engine(pipeline.engine, path, threads) for key, path in exports.items()}
    return Published(pipeline, opened, served_by(exports) if several else {})


def run_pipeline(name: str, folder: str | Path, case: Path, output: Path, threads: int) -> None:
    """Run a pipeline on one case, from input file to output file.

    Outputs are compressed, ours as `write_segmentation` does, others as their scripts do. The other arguments
    are those of `open_pipeline`.

    Args:
        case: input file.
        output: output file.
    """
    segs = open_pipeline(name, folder, threads).segment(Case.load(case))
    write = write_segmentation if PIPELINES[name] is None else write_compressed
    write(output, segs)


def write_compressed(path: Path, segs: np.ndarray) -> None:
    """Write labels as the challenge's scripts do."""
    np.savez_compressed(path, segs=segs)
