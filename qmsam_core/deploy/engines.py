"""Engines with one interface: `encode` runs once per image, `decode` runs on its boxes.

ONNX Runtime and OpenVINO are here, PyTorch is in `pytorch_engine`. A fast export has a part between the two:
`prepare` computes everything in the decoder that depends on the image alone. Its result travels inside the
embedding.
"""

import copy
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openvino
import openvino.properties as properties
import openvino.properties.hint as hints

from .exported import PREPARED, REWRITTEN, export_digest, parts_in, read_export
from .ways import Way

if TYPE_CHECKING:
    import pandas as pd


class Embedding(np.ndarray):
    """An embedding (1, C, g, g) float32 that also carries what its engine prepared for the decoder.

    Arrays computed or cut from it do not inherit the prepared part. They can still be decoded, and the part
    is prepared then.
    """

    maker: "Engine | None" = None
    prepared: tuple[np.ndarray, ...] = ()

    def __array_finalize__(self, other: np.ndarray | None) -> None:
        self.maker, self.prepared = None, ()


class Engine(ABC):
    """An engine in three steps: embed, prepare, decode. Without a part `prepare` it passes the embedding.

    Arrays are float32; sizes are those of the exported model.
    """

    image_size: int
    mask_size: int
    frame: int | None = None
    """Side of the square in which boxes are given, in px; None is the input's."""
    preprocessing: str = "litemedsam"
    """How images become inputs, a key of `data.preprocessing.PREPROCESSING`."""
    source: str
    """Hash of what determines the masks: an export's files or a model's weights. All engines agree on it."""

    def describe(self, facts: dict) -> None:
        """Take sizes and origin from the description of an export; older ones tell no frame."""
        self.image_size, self.mask_size = facts["image_size"], facts["mask_size"]
        self.frame = facts.get("frame")
        self.preprocessing = facts.get("preprocessing", "litemedsam")
        self.source = export_digest(facts)

    @abstractmethod
    def embed(self, images: np.ndarray) -> np.ndarray:
        """Images (B, 3, S, S) -> embeddings (B, C, g, g), without what `encode` prepares."""

    @abstractmethod
    def prepare(self, embedding: np.ndarray) -> tuple[np.ndarray, ...]:
        """Embedding (1, C, g, g) -> the decoder's inputs that depend on the image alone."""

    @abstractmethod
    def decode_prepared(self, prepared: tuple[np.ndarray, ...], boxes: np.ndarray) -> np.ndarray:
        """Decode boxes as `decode` does, from the result of `prepare`."""

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Encode images (B, 3, S, S) as embeddings (B, C, g, g)."""
        embeddings = self.embed(images)
        if len(embeddings) != 1:
            return embeddings
        embedding = embeddings.view(Embedding)
        embedding.maker, embedding.prepared = self, self.prepare(embeddings)
        return embedding

    def lanes(self) -> "list[Engine]":
        """Engines that may run at the same time and together take this one's threads; by default it alone.

        Each takes longer for an image than this one, and all together less: nothing waits for the slowest
        thread after every layer.
        """
        return [self]

    def decode(self, embedding: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Decode boxes (N, 4), in px of the frame, on an embedding (1, C, g, g): mask logits (N, M, M)."""
        ready = getattr(embedding, "maker", None) is self
        return self.decode_prepared(
            embedding.prepared if ready else self.prepare(np.asarray(embedding)), boxes
        )


class OnnxRuntimeEngine(Engine):
    """The ONNX files of an export on ONNX Runtime's CPU provider. All images or boxes given run at once."""

    def __init__(self, folder: str | Path, threads: int = 2) -> None:
        import onnxruntime  # takes long to load, and the other engines need not have it installed

        facts = read_export(folder)
        self.describe(facts)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # idle threads that spin would slow whatever runs next to them
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # a QCDQ file of style `released` lists its initialisers as inputs, and each gives a warning
        options.log_severity_level = 3
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

    def embed(self, images: np.ndarray) -> np.ndarray:
        return self.encoder.run(None, {"images": images})[0]

    def prepare(self, embedding: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(self.preparer.run(None, {"embedding": embedding})) if self.preparer else (embedding,)

    def decode_prepared(self, prepared: tuple[np.ndarray, ...], boxes: np.ndarray) -> np.ndarray:
        # a file of style `released` also lists its constants as inputs; they keep their values
        names = [name for name in self.inputs if name in (*PREPARED, "embedding")]
        return self.decoder.run(None, {**dict(zip(names, prepared)), "boxes": boxes})[0]


MOST_LANES = 4
"""Lanes of an engine at most: each holds the activations of an image, and more would crowd the caches."""

ISA = "ONEDNN_MAX_CPU_ISA"
"""Environment variable that limits OpenVINO's kernels. ONNX Runtime and PyTorch's own kernels ignore it."""


def has_bf16() -> bool:
    """Return whether OpenVINO multiplies bf16 in hardware here. Elsewhere it emulates its bf16 hint.

    Held to an instruction set without bf16 it still names it, but has no kernels for some layers.
    """
    held = os.environ.get(ISA, "ALL")
    if held not in ("ALL", "DEFAULT") and not any(name in held for name in ("BF16", "FP16", "AMX", "AVX10")):
        return False
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def settings_of(
    threads: int, cache: str | Path | None = None, profiling: bool = False, streams: int = 1
) -> dict:
    """Return OpenVINO's settings for `streams` requests at a time; other arguments as of `OpenVinoEngine`."""
    settings = {
        properties.inference_num_threads: threads,
        properties.num_streams: streams,
        hints.performance_mode: hints.PerformanceMode.LATENCY,
        properties.enable_profiling: profiling,
    }
    if cache is not None:
        # compiled for an instruction set, so a process that is held to less has a folder of its own
        settings[properties.cache_dir] = str(Path(cache) / os.environ.get(ISA, ""))
    return settings


class OpenVinoEngine(Engine):
    """The IR files of an export on OpenVINO's CPU plugin.

    A fast export takes images and boxes one by one, other exports take all at once.

    Args:
        folder: folder of the export.
        threads: threads for inference.
        precision: a `Way` as text, such as `f32`, `bf16` or `f32, products in float`. It is always set.
            OpenVINO itself chooses bf16 where the CPU has it, and then models could not be compared.
        cache: folder for compiled models, which shortens the next start. None compiles again.
        profiling: keep counters for `layer_times`.
        parts: parts of the export to open; None opens all.
        ways: how each part is executed, by its name, instead of `precision` for all; see `choice.choose`.
    """

    def __init__(
        self,
        folder: str | Path,
        threads: int = 2,
        precision: str = "f32",
        cache: str | Path | None = None,
        profiling: bool = False,
        parts: Sequence[str] | None = None,
        ways: Mapping[str, Way] | None = None,
    ) -> None:
        facts = read_export(folder)
        self.describe(facts)
        self.folder, self.threads, self.cache = Path(folder), threads, cache
        self.parts = [name for name in parts_in(facts) if parts is None or name in parts]
        self.ways = {name: ways[name] if ways else Way.parse(precision) for name in self.parts}
        self.one_at_a_time = facts["style"] in REWRITTEN
        self._lanes: list[Engine] = []
        started = time.perf_counter()
        self._take_requests(self._compile(settings_of(threads, cache, profiling)))
        self.compile_seconds = time.perf_counter() - started

    def _compile(self, settings: dict) -> dict[str, openvino.CompiledModel]:
        core = openvino.Core()
        return {
            name: way.compile(core, self.folder / f"{name}.xml", settings) for name, way in self.ways.items()
        }

    def _take_requests(self, compiled: Mapping[str, openvino.CompiledModel]) -> None:
        requests = {name: model.create_infer_request() for name, model in compiled.items()}
        self.encoder, self.decoder, self.preparer = (
            requests.get(name) for name in ("encoder", "decoder", "prepare")
        )

    def lanes(self) -> list[Engine]:
        """Engines that share the threads; made at the first call, which compiles the export once more."""
        count = min(self.threads, MOST_LANES)
        if not self._lanes and count > 1 and self.one_at_a_time:
            compiled = self._compile(settings_of(self.threads, self.cache, streams=count))
            self._lanes = [copy.copy(self) for _ in range(count)]
            for lane in self._lanes:
                lane._take_requests(compiled)
        return self._lanes or [self]

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
        # inputs are shared with the engine, not copied: cells and keys are 10 MB
        boxes = np.ascontiguousarray(boxes, np.float32)
        logits = np.empty((len(boxes), self.mask_size, self.mask_size), np.float32)
        for i in range(len(boxes)):
            logits[i] = self.decoder.infer([*prepared, boxes[i : i + 1]], share_inputs=True)[0][0]
        return logits

    def layer_times(self, part: str) -> "pd.DataFrame":
        """Return the layers that ran in the last call of `encoder`, `prepare` or `decoder`, one per row.

        Columns are name, operation, precision (int8, f32, bf16, ...) and ms. The precision is the end of the
        plugin's name for the executed primitive, e.g. `brgemm_avx512_I8`.
        """
        import pandas as pd  # takes long to load, and segmenting needs no tables

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
    """Open an engine on an exported folder.

    Args:
        kind: one of `ENGINES`.
        folder: folder of the export.
        threads: threads for inference. PyTorch sets them for the whole process.
        precision: for OpenVINO only, see `OpenVinoEngine`.
        cache: for OpenVINO only, see `OpenVinoEngine`.

    Raises:
        ValueError: the kind is unknown.
        ExportError: the folder is no export or was changed since.
    """
    if kind == "openvino":
        return OpenVinoEngine(folder, threads, precision, cache)
    if kind == "onnxruntime":
        return OnnxRuntimeEngine(folder, threads)
    if kind == "pytorch":
        # PyTorch and Brevitas take seconds to load, and no other engine needs them
        from .pytorch_engine import open_pytorch

        return open_pytorch(folder, threads)
    raise ValueError(f"engine = {kind!r}; expected one of {', '.join(ENGINES)}")
