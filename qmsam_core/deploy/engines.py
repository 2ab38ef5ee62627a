"""ONNX Runtime and OpenVINO, and in `pytorch_engine` PyTorch, behind one interface: `encode` once an image, `decode` for its boxes.

A fast export has a part between the two, `prepare`, with what the decoder needs of an image whatever its boxes. Its result travels inside the embedding.
"""

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
import openvino
import openvino.properties as properties
import openvino.properties.hint as hints
import pandas as pd

from .exported import PREPARED, export_digest, parts_in, read_export


class Engine(Protocol):
    """What every engine can do. Arrays are float32; sizes are those of the exported model."""

    name: str
    image_size: int
    mask_size: int
    source: str
    """A hash of what the masks come from, an export's files or a model's weights, whichever engine runs it."""

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images (B, 3, S, S) in 0..1 -> embeddings (B, C, g, g)."""

    def decode(self, embedding: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Embedding (1, C, g, g) of one image and boxes (N, 4) in model px -> low-res mask logits (N, M, M)."""


class Embedding(np.ndarray):
    """An embedding (1, C, g, g) float32 as an array, with what the engine that made it has prepared of it for its decoder.

    Arrays that are computed or cut from it do not inherit that: they are decoded all the same, and prepared then.
    """

    maker: "PreparingEngine | None" = None
    prepared: tuple[np.ndarray, ...] = ()

    def __array_finalize__(self, other: np.ndarray | None) -> None:
        self.maker, self.prepared = None, ()


class PreparingEngine(ABC):
    """An engine in three steps; where an export has nothing to prepare, the second hands the embedding on."""

    @abstractmethod
    def embed(self, images: np.ndarray) -> np.ndarray:
        """Images (B, 3, S, S) -> embeddings (B, C, g, g), without what `encode` prepares."""

    @abstractmethod
    def prepare(self, embedding: np.ndarray) -> tuple[np.ndarray, ...]:
        """Embedding (1, C, g, g) -> everything of an image that the decoder takes."""

    @abstractmethod
    def decode_prepared(self, prepared: tuple[np.ndarray, ...], boxes: np.ndarray) -> np.ndarray:
        """As `decode`, of what `prepare` made."""

    def encode(self, images: np.ndarray) -> np.ndarray:
        embeddings = self.embed(images)
        if len(embeddings) != 1:
            return embeddings
        embedding = embeddings.view(Embedding)
        embedding.maker, embedding.prepared = self, self.prepare(embeddings)
        return embedding

    def decode(self, embedding: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        ready = getattr(embedding, "maker", None) is self
        return self.decode_prepared(
            embedding.prepared if ready else self.prepare(np.asarray(embedding)), boxes
        )


class OnnxRuntimeEngine(PreparingEngine):
    """The ONNX files of an export, on ONNX Runtime's CPU provider. Images and boxes go in as many at once as are given."""

    name = "onnxruntime"

    def __init__(self, folder: str | Path, threads: int = 2) -> None:
        facts = read_export(folder)
        self.image_size, self.mask_size = facts["image_size"], facts["mask_size"]
        self.source = export_digest(facts)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # idle threads that spin would slow whatever runs next to them
        options.log_severity_level = (
            3  # a QCDQ file as released lists its initialisers as inputs, one warning each
        )
        started = time.perf_counter()
        sessions = {
            name: onnxruntime.InferenceSession(
                Path(folder) / f"{name}.onnx", options, providers=["CPUExecutionProvider"]
            )
            for name in parts_in(facts)
        }
        self.encoder, self.decoder, self.preparer = (
            sessions.get(name) for name in ("encoder", "decoder", "prepare")
        )
        self.inputs = [i.name for i in self.decoder.get_inputs()]
        self.compile_seconds = time.perf_counter() - started

    def embed(self, images: np.ndarray) -> np.ndarray:
        return self.encoder.run(None, {"images": images})[0]

    def prepare(self, embedding: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(self.preparer.run(None, {"embedding": embedding})) if self.preparer else (embedding,)

    def decode_prepared(self, prepared: tuple[np.ndarray, ...], boxes: np.ndarray) -> np.ndarray:
        # a file as released also lists its constants as inputs; they keep their values
        names = [name for name in self.inputs if name in (*PREPARED, "embedding")]
        return self.decoder.run(None, {**dict(zip(names, prepared)), "boxes": boxes})[0]


class OpenVinoEngine(PreparingEngine):
    """The IR files of an export, on OpenVINO's CPU plugin. A fast export takes images and boxes one by one, the others all at once.

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
        self.source = export_digest(facts)
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
        self.parts = parts_in(facts)
        requests = {
            name: core.compile_model(Path(folder) / f"{name}.xml", "CPU", settings).create_infer_request()
            for name in self.parts
        }
        self.compile_seconds = time.perf_counter() - started
        self.encoder, self.decoder, self.preparer = (
            requests.get(name) for name in ("encoder", "decoder", "prepare")
        )
        self.one_at_a_time = facts["style"] == "fast"

    def embed(self, images: np.ndarray) -> np.ndarray:
        step = 1 if self.one_at_a_time else len(images)
        return np.concatenate(
            [self.encoder.infer([images[i : i + step]])[0] for i in range(0, len(images), step)]
        )

    def prepare(self, embedding: np.ndarray) -> tuple[np.ndarray, ...]:
        if self.preparer is None:
            return (embedding,)
        return tuple(output.copy() for output in self.preparer.infer([embedding]).to_tuple())

    def decode_prepared(self, prepared: tuple[np.ndarray, ...], boxes: np.ndarray) -> np.ndarray:
        if not self.one_at_a_time:
            return self.decoder.infer([*prepared, boxes])[0].copy()
        boxes = np.ascontiguousarray(
            boxes, np.float32
        )  # inputs are shared with the engine, not copied: cells and keys are 10 MB
        logits = np.empty((len(boxes), self.mask_size, self.mask_size), np.float32)
        for i in range(len(boxes)):
            logits[i] = self.decoder.infer([*prepared, boxes[i : i + 1]], share_inputs=True)[0][0]
        return logits

    def layer_times(self, part: str) -> pd.DataFrame:
        """What ran in the last call of `encoder`, `prepare` or `decoder`, one row a layer: name, operation, precision (int8, f32, bf16, ...), ms.

        The precision is the end of the plugin's own name of the executed primitive, e.g. `brgemm_avx512_I8`.
        """
        request = self.preparer if part == "prepare" else getattr(self, part)
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


def open_engine(
    kind: str, folder: str | Path, threads: int = 2, precision: str = "f32", cache: str | Path | None = None
) -> Engine:
    """An engine over an exported folder. `precision` and `cache` are OpenVINO's, see there; PyTorch's `threads` are those of the whole process.

    Raises:
        ValueError: an unknown kind, or (ExportError) a folder that is no export or was changed since.
    """
    if kind == "openvino":
        return OpenVinoEngine(folder, threads, precision, cache)
    if kind == "onnxruntime":
        return OnnxRuntimeEngine(folder, threads)
    if kind == "pytorch":
        from .pytorch_engine import (
            open_pytorch,
        )  # PyTorch and Brevitas take seconds to load, and no other engine needs them

        return open_pytorch(folder, threads)
    raise ValueError(f"engine = {kind!r}; expected one of {', '.join(ENGINES)}")
