"""The image encoders that stand beside LiteMedSAM's, on one table: size, work, and time in float and int8.

Their decoders are the same. Public weights are taken where they can be installed. All others are random or
borrowed, which says nothing about masks and all about time and size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from ..data.boxed_slices import BoxedSlice, boxed_slice
from ..data.index import SliceIndex
from ..deploy.engines import OpenVinoEngine
from ..deploy.export import export_if_stale
from ..models import CONFIGS, PUBLIC, Sam, build_model, count_parameters
from ..models.borrowed import borrow, settle
from ..models.vit import ViTConfig
from ..params import Params
from ..quant import find_recipe, load_model, quantize
from ..quant.calibration import calibrate_on
from ..quant.variants import packed_megabytes
from .engine_arms import Arm, fastest_of, runnable, timing_input
from .interleaved import measure_interleaved

FULL = 256
"""Side in px of LiteMedSAM's input. At other sizes all networks are scaled alike."""


@dataclass(frozen=True)
class Backbone:
    """A network of the comparison.

    Attributes:
        label: its name in tables.
        model: a key of `models.CONFIGS`.
        image_size: side of its input in px, where LiteMedSAM has 256.
        weights: `public`, `borrowed` from LiteMedSAM, or `random`.
        published: accuracy as its authors give it, on data of their own.
        source: where that stands.
        frame: side of the frame of boxes in px; None is the configuration's.
    """

    label: str
    model: str
    image_size: int
    weights: str
    published: str
    source: str
    frame: int | None = None

    @property
    def key(self) -> str:
        """Name of its folder."""
        return f"{self.model}_{self.image_size}"

    def size(self, image_size: int) -> int:
        """Side of its input in px in a run whose LiteMedSAM has `image_size`."""
        return self.image_size * image_size // FULL


BACKBONES = (
    Backbone("LiteMedSAM", "litemedsam", 256, "public", "DSC 83.3 %", "the paper, Table 7, baseline"),
    Backbone(
        "EfficientViT-SAM L0, 256 px",
        "efficientvit_sam_l0",
        256,
        "random",
        "DSC 88.1 %",
        "DAFT's README, one model a modality, public validation set",
        frame=256,
    ),
    Backbone(
        "EfficientViT-SAM L1",
        "efficientvit_sam_l1",
        512,
        "random",
        "DSC 86.4 %, COCO mAP 46.2",
        "MedficientSAM's README, public validation set; EfficientViT-SAM's model card",
    ),
    Backbone("MobileSAM", "mobilesam", 1024, "borrowed", "", ""),
    Backbone(
        "EfficientViT-SAM L0",
        "efficientvit_sam_l0",
        512,
        "random",
        "DSC 85.9 %, COCO mAP 45.7",
        "MedficientSAM's README, public validation set; EfficientViT-SAM's model card",
    ),
    Backbone("MedSAM ViT-B", "medsam", 1024, "random", "", ""),
)
"""The networks, those first that the pipelines of Table 8 need."""
ARMS = (
    Arm("float", "openvino"),
    Arm("float", "openvino", "bf16"),
    Arm("float", "openvino", variant="fast"),
    Arm("float", "openvino", "bf16", "fast"),
    Arm("int8", "openvino"),
    Arm("int8", "openvino", "bf16"),
)


def first_slices(index: SliceIndex, count: int = 4) -> list[BoxedSlice]:
    """Read a slice of the first case of each of the first `count` modalities, to calibrate on."""
    cases = index.cases.drop_duplicates("modality").head(count)
    found = (boxed_slice(Path(path), path, group) for path, group in zip(cases["path"], cases["modality"]))
    return [one for one in found if one is not None]


def build(
    backbone: Backbone,
    image_size: int,
    slices: Sequence[BoxedSlice],
    seed: int = 0,
    blocks: int | None = None,
) -> Sam:
    """Build a network of the comparison in float.

    Args:
        image_size: side in px of LiteMedSAM's input in this run.
        slices: from them random networks take the statistics of their batch norms.
        seed: seed of random weights.
        blocks: encoder blocks of MedSAM's ViT-B to keep; None keeps all.
    """
    depth = blocks if backbone.model == "medsam" else None
    frame = backbone.frame and backbone.size(image_size)
    public = PUBLIC if backbone.weights == "public" else None
    # borrowed weights know the donor's range of grey values
    how = "litemedsam" if backbone.weights == "borrowed" else None
    model = build_model(backbone.model, backbone.size(image_size), public, seed, depth, frame, how)
    if backbone.weights == "borrowed":
        borrow(model, build_model("litemedsam", image_size, PUBLIC))
    elif backbone.weights == "random":
        settle(model, torch.from_numpy(np.stack([one.inputs(model)[0] for one in slices])))
    return model.eval()


def export(backbone: Backbone, model: Sam, recipe: str, slices: Sequence[BoxedSlice], folder: Path) -> float:
    """Export a float network plainly, rewritten, and in int8, to `folder/float`, `float_fast` and `int8`.

    The scales of int8 come from the slices. Of a recipe that is fitted to data only what changes the graph is
    fitted: zero points and channel factors. The rest changes values and no time.

    Returns:
        MB of the int8 encoder, its quantised weights at their bit width.
    """
    origin = f"{backbone.weights} weights"
    for name, style in (("float", "clean"), ("float_fast", "fast")):
        export_if_stale(model, folder / name, origin, style)
    quick = find_recipe(recipe)
    quick = quick.with_cures("zero_point", "channel_factors") if quick.fitted else quick
    int8 = quantize(model, quick)
    calibrate_on(int8, slices)
    export_if_stale(int8, folder / "int8", f"{origin}; scales for speed and size only")
    return packed_megabytes(int8, "encoder")


def prepare(
    backbone: Backbone, params: Params, slices: Sequence[BoxedSlice], folder: Path, exported: bool
) -> dict:
    """Build a network of the comparison, export it to `folder`, and return its row of `describe`.

    With `exported` the folder already holds its exports, and is left as it is.
    """
    model = build(backbone, params.image_size, slices, params.seed, params.vit_blocks)
    if exported:
        megabytes = packed_megabytes(load_model(folder / "int8" / "model.safetensors"), "encoder")
    else:
        megabytes = export(backbone, model, params.recipe, slices, folder)
    return describe(backbone, model) | {"MB int8": megabytes}


def describe(backbone: Backbone, model: Sam) -> dict:
    """One row of what does not depend on the machine: parameters, GMAC, MB in float and in int8."""
    encoder, label = model.image_encoder, backbone.label
    parameters = count_parameters(encoder)
    whole = CONFIGS[backbone.model].encoder
    if isinstance(whole, ViTConfig) and model.config.encoder != whole:
        label += f", {model.config.encoder.depth} of {whole.depth} blocks"
    return {
        "key": backbone.key,
        "network": label,
        "px": model.image_size,
        "weights": backbone.weights,
        "encoder parameters": parameters,
        "GMAC": gmac(model),
        "MB float": 4 * parameters / 1e6,
        "published": backbone.published,
        "source": backbone.source,
    }


def gmac(model: Sam) -> float:
    """Billions of multiply-adds of one image in the encoder, as PyTorch counts them.

    These are convolutions, linear layers and matrix products.
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.image_encoder(torch.zeros(1, 3, model.image_size, model.image_size))
    return counter.get_total_flops() / 2e9


def time_encoders(folders: Mapping[str, Path], threads: int, runs: int, seed: int = 0) -> pd.DataFrame:
    """Time the encoders of several networks and all their `ARMS` in one interleaved run.

    Args:
        folders: folder of a network's exports, by its key.
        threads: CPU threads.
        runs: rounds that are timed.
        seed: seed of the noise that is the image.

    Returns:
        The columns of `summarise_timings`, with `key` and `arm` (a label).
    """
    calls = {}
    for key, folder in folders.items():
        for arm in runnable(ARMS):
            engine = OpenVinoEngine(folder / arm.export, threads, arm.hint, parts=("encoder",))
            image, _ = timing_input(engine.image_size, seed)
            calls[f"{key}:{arm.label}"] = partial(engine.embed, image)
    table = measure_interleaved(calls, runs)
    names = table.pop("arm").str.partition(":")
    return table.assign(key=names[0], arm=names[2])


def backbones_table(described: pd.DataFrame, timings: pd.DataFrame) -> pd.DataFrame:
    """Put size, work and time of each network in one row.

    Args:
        described: rows of `describe`, with `MB int8`.
        timings: result of `time_encoders`.

    Returns:
        The columns of `described` without its key, with milliseconds of the plain float arm, and of the
        fastest float and the fastest int8 arm, which are named; the gain of int8 over float; and milliseconds
        a GMAC of both.
    """
    ms = timings.pivot(index="key", columns="arm", values="median_ms").loc[described["key"]]
    table = described.set_index("key")
    table["ms float, plain"] = ms[ARMS[0].label]
    for precision, name in (("float", "float, best"), ("int8", "int8")):
        found = fastest_of(ms, [arm for arm in ARMS if arm.precision == precision])
        table[f"ms {name}"], table[f"best {precision}"] = found["ms"], found["arm"]
        table[f"ms a GMAC, {name}"] = found["ms"] / table["GMAC"]
    table["int8 gain"] = table["ms float, best"] / table["ms int8"]
    last = table[["published", "source"]]
    return table.drop(columns=last.columns).join(last).reset_index(drop=True)
