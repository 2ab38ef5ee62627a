"""Time the scoring of one large case: our code against the steps of the challenge's script.

    python tests/benchmarks/bench_metrics.py [--official FOLDER]

The case is a 200 x 512 x 512 volume with 6 organ-like labels, and a prediction of it. The spacing is
3 x 0.8 x 0.8 mm. If FOLDER holds the challenge's own `SurfaceDice.py`, that file is timed. Otherwise its
steps are timed, repeated in this script: compare every label on the whole volume, crop both masks to their
joint box, find neighbourhoods by correlation, compute two distance maps, sort surface elements by distance.
The scores are compared either way.
"""

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from qmsam_core.evaluate.metrics import score_case
from qmsam_core.evaluate.surface_elements import surface_areas

SHAPE, SPACING, TOLERANCE = (200, 512, 512), (3.0, 0.8, 0.8), 2.0
KERNEL = np.array([[[128, 64], [32, 16]], [[8, 4], [2, 1]]])


def organs(shift: int) -> np.ndarray:
    """Return labels (z,y,x) of six lumpy ellipsoids of organ size, shifted by `shift` voxels along x."""
    labels = np.zeros(SHAPE, np.uint8)
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    for label in range(1, 7):
        centre = (40 + 22 * label, 130 + 80 * (label % 4), 140 + 75 * (label % 3) + shift)
        radii = (14 + 3 * label, 40 + 6 * label, 45 + 4 * label)
        distance = sum(((a - c) / r) ** 2 for a, c, r in zip((z, y, x), centre, radii))
        labels[distance + 0.1 * np.sin(x / 7.0 + label) * np.sin(y / 5.0) <= 1] = label
    return labels


def joint_crop(gt: np.ndarray, seg: np.ndarray) -> tuple[slice, ...]:
    """Return the joint box of both masks. As in the script, it comes from projections of the whole volume."""
    both = gt | seg
    spans = [np.nonzero(both.max(axis=tuple(a for a in range(3) if a != axis)))[0] for axis in range(3)]
    return tuple(slice(span.min(), span.max() + 1) for span in spans)


def steps_of_the_script(gt: np.ndarray, seg: np.ndarray) -> tuple[list[float], list[float]]:
    """Return DSC and NSD of every label, computed by the script's steps."""
    dsc, nsd, areas = [], [], surface_areas(SPACING)
    for label in range(1, gt.max() + 1):
        truth, guess = gt == label, seg == label
        dsc.append(2 * (truth & guess).sum() / (truth.sum() + guess.sum()))
        crop = joint_crop(truth, guess)
        padded = [np.pad(mask[crop].astype(np.uint8), ((0, 1),) * 3) for mask in (truth, guess)]
        codes = [ndimage.correlate(mask, KERNEL, mode="constant", cval=0) for mask in padded]
        borders = [(code != 0) & (code != 255) for code in codes]
        maps = [ndimage.distance_transform_edt(~border, sampling=SPACING) for border in borders]
        near = total = 0.0
        for code, border, other in ((codes[0], borders[0], maps[1]), (codes[1], borders[1], maps[0])):
            pairs = sorted(zip(other[border], areas[code[border]]))
            near += sum(area for distance, area in pairs if distance <= TOLERANCE)
            total += sum(area for _, area in pairs)
        nsd.append(near / total)
    return dsc, nsd


def official(folder: Path):
    """Return a scoring function that calls the challenge's own `SurfaceDice.py`."""
    spec = importlib.util.spec_from_file_location("SurfaceDice", folder / "SurfaceDice.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def score(gt: np.ndarray, seg: np.ndarray) -> tuple[list[float], list[float]]:
        pairs = [(gt == label, seg == label) for label in range(1, gt.max() + 1)]
        dsc = [module.compute_dice_coefficient(*pair) for pair in pairs]
        nsd = [
            module.compute_surface_dice_at_tolerance(
                module.compute_surface_distances(*pair, SPACING), TOLERANCE
            )
            for pair in pairs
        ]
        return dsc, nsd

    return score


def main() -> None:
    """Print the times, their ratio and the largest difference of the scores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--official", type=Path, help="folder of the challenge's SurfaceDice.py")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    theirs = official(options.official) if options.official else steps_of_the_script
    gt, seg = organs(0), organs(3)
    seconds: dict[str, list[float]] = {"ours": [], "script": []}
    for _ in range(options.runs):
        started = time.perf_counter()
        ours = score_case(gt, seg, SPACING, TOLERANCE)
        seconds["ours"].append(time.perf_counter() - started)
        started = time.perf_counter()
        dsc, nsd = theirs(gt, seg)
        seconds["script"].append(time.perf_counter() - started)
    times = pd.DataFrame(seconds).agg(["median", "min", "max"]).T
    print(times.round(3).to_string())
    print(f"ratio of medians: {times['median']['script'] / times['median']['ours']:.1f}")
    print(
        f"largest difference: DSC {np.abs(np.subtract(dsc, ours.dsc_per_label)).max():.1e}, "
        f"NSD {np.abs(np.subtract(nsd, ours.nsd_per_label)).max():.1e}"
    )


if __name__ == "__main__":
    main()
