"""PyTorch, ONNX Runtime and OpenVINO behind one interface: `encode` once an image, `decode` for its boxes."""

import time
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
import openvino
import openvino.properties as properties
import openvino.properties.hint as hints
import pandas as pd
import torch

from ..models import Sam
from ..quant import load_model
from .export import read_export


class Engine(Protocol):
    """What every engine can do. Arrays are float32; sizes are those of the exported model."""

    name: str
    image_size: int
    mask_size: int

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images (B, 3, S, S) in 0..1 -> embeddings (B, C, g, g)."""

    def decode(self, embedding: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Embedding (1, C, g, g) of one image and boxes (N, 4) in model px -> low-res mask logits (N, M, M)."""


class PyTorchEngine:
    """The model itself, float or fake-quantised: the reference that the others are compared with."""

    name = "pytorch"

    def __init__(self, model: Sam) -> None:
        self.model = model.eval()
        self.image_size, self.mask_size = model.image_size, model.mask_size

    @torch.no_grad()
    def encode(self, images: np.ndarray) -> np.ndarray:
        return self.model.image_encoder(torch.from_numpy(images)).numpy()

    @torch.no_grad()
    def decode(self, embedding: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        masks, _ = self.model.decode(torch.from_numpy(embedding), torch.from_numpy(boxes))
        return masks[:, 0].numpy()


class OnnxRuntimeEngine:
    """The ONNX files of an export, on ONNX Runtime's CPU provider."""

    name = "onnxruntime"

    def __init__(self, folder: str | Path, threads: int = 2) -> None:
        facts = read_export(folder)
        self.image_size, self.mask_size = facts["image_size"], facts["mask_size"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # idle threads that spin would slow whatever runs next to them
        options.log_severity_level = 3  # a QCDQ file as released lists its initialisers as inputs, one warning each
        self.encoder, self.decoder = (
            onnxruntime.InferenceSession(Path(folder) / f"{part}.onnx", options, providers=["CPUExecutionProvider"])
            for part in ("encoder", "decoder")
        )

    def encode(self, images: np.ndarray) -> np.ndarray:
        return self.encoder.run(None, {"images": images})[0]

    def decode(self, embedding: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        return self.decoder.run(None, {"embedding": embedding, "boxes": boxes})[0]


class OpenVinoEngine:
    """The IR files of an export, on OpenVINO's CPU plugin.

    Args:
        folder: of the export. threads: of inference.
        precision: `f32` or `bf16`, always stated: left alone OpenVINO picks bf16 where the CPU has it, and arms would not compare.
        cache: folder for compiled models, which shortens the next start; None compiles anew.
        profiling: keep counters for `layer_times`.
    """

    name = "openvino"

    def __init__(
        self,
        folder: str | Path,
        threads: int = 2,
        precision: str = "f32",
        cache: str | Path | None = None,
        profiling: bool = False,
    ) -> None:
        facts = read_export(folder)
        self.image_size, self.mask_size = facts["image_size"], facts["mask_size"]
        core = openvino.Core()
        settings = {
            properties.inference_num_threads: threads,
            properties.num_streams: 1,
            hints.inference_precision: openvino.Type.bf16 if precision == "bf16" else openvino.Type.f32,
            hints.performance_mode: hints.PerformanceMode.LATENCY,
            properties.enable_profiling: profiling,
        }
        if cache is not None:
            settings[properties.cache_dir] = str(cache)
        started = time.perf_counter()
        self.encoder, self.decoder = (
            core.compile_model(Path(folder) / f"{part}.xml", "CPU", settings).create_infer_request()
            for part in ("encoder", "decoder")
        )
        self.compile_seconds = time.perf_counter() - started

    def encode(self, images: np.ndarray) -> np.ndarray:
        return self.encoder.infer([images])[0].copy()

    def decode(self, embedding: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        return self.decoder.infer([embedding, boxes])[0].copy()

    def layer_times(self, part: str) -> pd.DataFrame:
        """What ran in the last call of `encoder` or `decoder`, one row a layer: name, operation, precision (int8, f32, bf16, ...), ms.

        The precision is the end of the plugin's own name of the executed primitive, e.g. `brgemm_avx512_I8`.
        """
        request = getattr(self, part)
        rows = [
            (i.node_name, i.node_type, i.exec_type, i.real_time.total_seconds() * 1e3)
            for i in request.get_profiling_info()
        ]
        layers = pd.DataFrame(rows, columns=["name", "operation", "precision", "ms"])
        layers["precision"] = (
            layers["precision"].str.rsplit("_", n=1).str[-1].str.lower().replace({"i8": "int8", "u8": "int8"})
        )
        layers["operation"] = layers["operation"].replace("FullyConnectedQuantizedLegacy", "FullyConnected")
        return layers[layers["ms"] > 0].reset_index(drop=True)


ENGINES = ("openvino", "onnxruntime", "pytorch")


def open_engine(kind: str, folder: str | Path, threads: int = 2, precision: str = "f32") -> Engine:
    """An engine over an exported folder.

    Raises:
        ValueError: an unknown kind, or (ExportError) a folder that is no export or was changed since.
    """
    if kind == "openvino":
        return OpenVinoEngine(folder, threads, precision)
    if kind == "onnxruntime":
        return OnnxRuntimeEngine(folder, threads)
    if kind == "pytorch":
        read_export(folder)
        return PyTorchEngine(load_model(Path(folder) / "model.safetensors"))
    raise ValueError(f"engine = {kind!r}; expected one of {', '.join(ENGINES)}")
