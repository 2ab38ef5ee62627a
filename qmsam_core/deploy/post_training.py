"""Post-training quantisation by NNCF, for comparison: a float export becomes int8 without training."""

import logging
import tempfile
from pathlib import Path

import numpy as np
import openvino

from .exported import ExportError, parts_in, put_in_place, read_export


def nncf_export(source: str | Path, folder: str | Path, images: np.ndarray, boxes: np.ndarray) -> dict:
    """Quantise every part of a float export with NNCF's defaults for transformers.

    The result is OpenVINO IR only, so no other engine runs it.

    Args:
        source: folder of a float export.
        folder: folder of the new export, made if absent.
        images: calibration images (n, 3, S, S) float32 in 0..1.
        boxes: one box per image, (n, 4) float32 in model px.

    Returns:
        The content of `export.json`.

    Raises:
        ExportError: NNCF is not installed, or `source` is no sound float export.
    """
    try:
        import nncf
    except ImportError as error:
        raise ExportError(
            "nncf is not installed, so its arm cannot be made; expected `pip install nncf==3.4.0`"
        ) from error
    source, folder = Path(source), Path(folder)
    facts = read_export(source)
    if facts["recipe"] != "float":
        raise ExportError(f"{source}: recipe {facts['recipe']!r}; expected a float export to quantise")
    nncf.set_log_level(logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    core = openvino.Core()
    inputs = [(image[None],) for image in images]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch:
        work = Path(scratch)
        for name in parts_in(facts):
            model = core.read_model(source / f"{name}.xml")
            given = (
                [(*values, box[None]) for values, box in zip(inputs, boxes)] if name == "decoder" else inputs
            )
            dataset = nncf.Dataset([list(values) for values in given])
            made = nncf.quantize(
                model, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(given)
            )
            openvino.save_model(made, work / f"{name}.xml", compress_to_fp16=False)
            run = core.compile_model(model, "CPU")
            inputs = (
                [tuple(output.copy() for output in run(list(values)).to_tuple()) for values in given]
                if name != "decoder"
                else []
            )
        return put_in_place(
            work,
            folder,
            {**facts, "recipe": f"NNCF {nncf.__version__}", "parts": ["decoder", "encoder"], "removed": {}},
        )
