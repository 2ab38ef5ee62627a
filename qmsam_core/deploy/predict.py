"""Whole cases: boxes in, masks out, in the challenge's format.

    python -m qmsam_core.deploy.predict -i cases/ -o segmentations/ --model exported/

Every slice that a box crosses is encoded once, whatever the number of its boxes; boxes are decoded in blocks (paper section 2.2).
"""

import argparse
import csv
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data.cases import Case, CaseError, read_segmentation, write_segmentation
from ..data.transforms import Geometry
from .engines import ENGINES, Engine, open_engine


def boxes_on_slice(boxes: np.ndarray, z: int) -> tuple[np.ndarray, np.ndarray]:
    """Which 3-D boxes (N, 6) cross slice `z` (both z limits belong to the box), and their 2-D boxes: ids (n,), boxes (n, 4)."""
    ids = np.flatnonzero((boxes[:, 2] <= z) & (z <= boxes[:, 5]))
    return ids, boxes[ids][:, [0, 1, 3, 4]]


@dataclass
class Timing:
    """Where the time of one case went, in seconds, and how often the network was called."""

    encode: float = 0.0
    decode: float = 0.0
    total: float = 0.0
    slices: int = 0
    boxes: int = 0


@dataclass
class Predictor:
    """Segments one case in memory.

    Attributes:
        engine: see `engines.Engine`.
        decode_block: boxes decoded at once; bounds memory (paper section 2.1: up to 255 boxes a case).
        interpolation: how slices are resized; the checkpoint's own is `area`.
        share_embedding: encode a slice once for all its boxes; False encodes it anew for every box, as the challenge's baseline does.
    """

    engine: Engine
    decode_block: int = 32
    interpolation: str = "area"
    share_embedding: bool = True
    timing: Timing = field(default_factory=Timing)

    def segment(self, case: Case) -> np.ndarray:
        """Labels of a case with boxes: uint8 (H, W) or (D, H, W), i + 1 where the mask of box i is; where masks meet, the later box wins.

        Raises:
            CaseError: no boxes, or more than the 255 that uint8 labels can name.
        """
        if case.boxes is None:
            raise CaseError(case.name, "has no 'boxes'; expected (N,4) for an image or (N,6) for a volume")
        if len(case.boxes) > 255:
            raise CaseError(
                case.name, f"has {len(case.boxes)} boxes; expected at most 255, the most that uint8 labels can name"
            )
        started = time.perf_counter()
        self.timing = Timing(boxes=len(case.boxes))
        segs = np.zeros((case.n_slices, *case.plane_shape), np.uint8)
        for z in range(case.n_slices):
            ids, boxes = boxes_on_slice(case.boxes, z) if case.is_volume else (np.arange(len(case.boxes)), case.boxes)
            blocks = [slice(None)] if self.share_embedding else [slice(k, k + 1) for k in range(len(ids))]
            for block in blocks if len(ids) else []:
                self.segment_slice(case.slice_image(z), ids[block], boxes[block], segs[z])
        self.timing.total = time.perf_counter() - started
        return segs if case.is_volume else segs[0]

    def segment_slice(self, image: np.ndarray, ids: np.ndarray, boxes: np.ndarray, segs: np.ndarray) -> None:
        """One slice (H, W, 3) uint8: write ids + 1 into `segs` (H, W) where the masks of `boxes` (n, 4) are."""
        geometry = Geometry.of(*image.shape[:2], self.engine.image_size)
        started = time.perf_counter()
        embedding = self.engine.encode(geometry.image(image, self.interpolation)[None])
        encoded = time.perf_counter()
        for start in range(0, len(ids), self.decode_block):
            block = slice(start, start + self.decode_block)
            masks = geometry.mask_to_image(self.engine.decode(embedding, geometry.boxes(boxes[block])))
            for label, mask in zip(ids[block] + 1, masks):
                segs[mask] = label
        self.timing.slices += 1
        self.timing.encode += encoded - started
        self.timing.decode += time.perf_counter() - encoded


def predict_folder(
    predictor: Predictor, cases: list[Path], output: Path, log: Callable[[str], None] = print
) -> list[dict]:
    """Segment many cases; one that fails is reported and the rest goes on. Finished outputs are kept, so a second call resumes.

    Returns:
        One row a case: case, status (`done`, `kept` or the error), and the fields of `Timing`.
    """
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in cases:
        row = {"case": path.name, "status": "kept"}
        target = output / path.name
        try:
            if not finished(target):
                case = Case.load(path).with_boxes()
                write_segmentation(target, predictor.segment(case))
                row |= {"status": "done", **vars(predictor.timing)}
        except (CaseError, OSError, MemoryError) as error:
            row["status"] = f"failed: {error}"
            log(f"{path.name}: {error}")
        rows.append(row)
    write_timing(output / "timing.csv", rows)
    return rows


def finished(target: Path) -> bool:
    """Whether a readable segmentation is there already."""
    try:
        read_segmentation(target)
    except (CaseError, OSError):
        return False
    return True


def write_timing(path: Path, rows: list[dict]) -> None:
    """Per-case status and seconds as CSV, atomically."""
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["case", "status", *vars(Timing())], restval="")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, path)


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring. Exit code 0 when every case is done, 1 when some failed, 2 when nothing could start."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.deploy.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-i",
        "--input",
        required=True,
        type=Path,
        help="folder of npz cases; boxes are derived from labels where a case has none",
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, help="folder for <same name>.npz with 'segs', and timing.csv"
    )
    parser.add_argument("--model", required=True, type=Path, help="folder written by qmsam_core.deploy.export")
    parser.add_argument("--engine", default="openvino", choices=ENGINES)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--decode-block", type=int, default=32, help="boxes decoded at once; fewer need less memory")
    options = parser.parse_args(arguments)
    cases = sorted(options.input.glob("*.npz"))
    if not cases:
        print(f"predict: {options.input}: no .npz files; expected a folder of cases", file=sys.stderr)
        return 2
    try:
        engine = open_engine(options.engine, options.model, options.threads)
        rows = predict_folder(
            Predictor(engine, options.decode_block), tqdm(cases, unit="case"), options.output, tqdm.write
        )
    except (ValueError, OSError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    failed = sum(row["status"].startswith("failed") for row in rows)
    print(f"{len(rows) - failed} cases done, {failed} failed; timing in {options.output / 'timing.csv'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
