"""The two pipelines that Table 8 compares ours with: their published scripts, on this package's engines.

Both scripts compute some steps in float64, at full size or box by box. These steps are kept on purpose,
because they are part of the scripts' time and memory. The baseline's script leaves out the first and the last
slice of a box. Here no pipeline does, so that all segment the same slices.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional

from ..data.cases import Case, boxes_on_slice, write_segmentation
from ..data.transforms import Geometry
from ..deploy.engines import Engine, open_engine
from ..deploy.predictor import Predictor
from ..deploy.volume_traversal import boxes_in_plane, follow

RELEASED_BLOCK = 96
"""Boxes that the authors' script decodes at once."""


@dataclass
class BaselinePipeline:
    """The challenge's baseline (CVPR24_LiteMedSAM_infer.py), which decodes one box after the other.

    An image is encoded once. In a volume every slice is encoded anew for every box that crosses it. From the
    middle slice outwards, the box of a slice comes from the mask on the neighbouring slice. Masks are resized
    as floats to the whole slice.
    """

    engine: Engine

    def segment(self, case: Case) -> np.ndarray:
        """Labels of a case, uint8 (H, W) or (D, H, W)."""
        geometry = Geometry.of(*case.plane_shape, self.engine.image_size)
        boxes = geometry.boxes(boxes_in_plane(case))
        segs = np.zeros((case.n_slices, *case.plane_shape), np.uint8)
        if not case.is_volume:
            embedding = self.engine.encode(geometry.image(case.slice_image())[None])
            for label, box in enumerate(boxes, 1):
                segs[0][self._mask(geometry, embedding, box)] = label
            return segs[0]
        for label, (box, whole) in enumerate(zip(boxes, case.boxes), 1):
            own = np.zeros_like(segs)
            middle = (whole[2] + whole[5]) // 2
            for steps, back in ((range(middle, whole[5] + 1), 1), (range(middle - 1, whole[2] - 1, -1), -1)):
                for z in steps:
                    embedding = self.engine.encode(geometry.image(case.slice_image(z))[None])
                    before = own[z - back] if z != middle else np.zeros(1)
                    own[z][self._mask(geometry, embedding, self._followed(before, geometry, box))] = label
            segs[own > 0] = label
        return segs

    def _mask(self, geometry: Geometry, embedding: np.ndarray, box: np.ndarray) -> np.ndarray:
        logits = torch.from_numpy(geometry.content(self.engine.decode(embedding, box[None])[0]))[None, None]
        enlarged = functional.interpolate(
            logits, (geometry.height, geometry.width), mode="bilinear", align_corners=False
        )
        return torch.sigmoid(enlarged)[0, 0].numpy() > 0.5

    @staticmethod
    def _followed(before: np.ndarray, geometry: Geometry, box: np.ndarray) -> np.ndarray:
        if not before.any():
            return box
        rows, columns = np.nonzero(before)
        return follow(np.array([columns.min(), rows.min(), columns.max(), rows.max()]), geometry)


@dataclass
class AuthorsPipeline:
    """The pipeline of the paper's authors (docker_python/validate.py).

    Each slice is encoded once. Boxes are decoded in blocks of 96 and stay the same on all slices. Masks are
    made binary, resized as float64 to a square of the slice's longest side, cropped and made binary again.
    """

    engine: Engine

    def segment(self, case: Case) -> np.ndarray:
        """Labels of a case, uint8 (H, W) or (D, H, W)."""
        geometry = Geometry.of(*case.plane_shape, self.engine.image_size)
        segs = np.zeros((case.n_slices, *case.plane_shape), np.uint8)
        for z in range(case.n_slices):
            ids = boxes_on_slice(case.boxes, z)[0] if case.is_volume else np.arange(len(case.boxes))
            if len(ids):
                self._slice(case.slice_image(z), geometry, ids, boxes_in_plane(case)[ids], segs[z])
        return segs if case.is_volume else segs[0]

    def _slice(
        self, image: np.ndarray, geometry: Geometry, ids: np.ndarray, boxes: np.ndarray, segs: np.ndarray
    ) -> None:
        embedding = self.engine.encode(geometry.image(image, "cubic")[None])
        masks = np.empty((0, self.engine.mask_size, self.engine.mask_size))
        for start in range(0, len(ids), RELEASED_BLOCK):
            block = self.engine.decode(embedding, geometry.boxes(boxes[start : start + RELEASED_BLOCK]))
            masks = np.concatenate((masks, block), axis=0)
        height, width = segs.shape
        for label, mask in zip(ids + 1, masks):
            square = cv2.resize((mask >= 0) * 1.0, [max(height, width)] * 2, interpolation=cv2.INTER_LINEAR)
            segs[square[:height, :width] >= 0.5] = label


def open_pipeline(
    pipeline: str, folder: str | Path, threads: int
) -> "BaselinePipeline | AuthorsPipeline | Predictor":
    """Open a pipeline on an export.

    Args:
        pipeline: `baseline` (on PyTorch), `authors` or `ours` (on OpenVINO).
        folder: folder of the export.
        threads: CPU threads of the engine.
    """
    if pipeline == "baseline":
        return BaselinePipeline(open_engine("pytorch", folder, threads))
    engine = open_engine("openvino", folder, threads)
    return AuthorsPipeline(engine) if pipeline == "authors" else Predictor(engine)


def run_pipeline(pipeline: str, folder: str | Path, case: Path, output: Path, threads: int) -> None:
    """Run a pipeline on one case, from input file to output file.

    Each pipeline compresses the output as its own script does. The other arguments are those of
    `open_pipeline`.

    Args:
        case: input file.
        output: output file.
    """
    segs = open_pipeline(pipeline, folder, threads).segment(Case.load(case))
    if pipeline == "ours":
        write_segmentation(output, segs)
    else:
        np.savez_compressed(output, segs=segs)
