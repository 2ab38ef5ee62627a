"""The arms of Tables 5 and 6: which export runs on which engine with which precision hint, and what they are timed on."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from .engines import Engine, open_engine

ENGINE_NAMES = {"pytorch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class Arm:
    """An export (`float` or `int8`, also the name of its folder), an engine, and OpenVINO's precision hint (`f32` or `bf16`)."""

    precision: str
    engine: str
    hint: str = "f32"

    @property
    def engine_label(self) -> str:
        """The engine as the paper's tables name it, with the hint where it is not f32."""
        return ENGINE_NAMES[self.engine] + ("" if self.hint == "f32" else f", {self.hint} hint")

    @property
    def label(self) -> str:
        """Precision and engine, e.g. `int8, OpenVINO, bf16 hint`."""
        return f"{self.precision}, {self.engine_label}"

    def open(self, folder: str | Path, threads: int) -> Engine:
        """The arm's engine over `folder/<precision>`."""
        return open_engine(self.engine, Path(folder) / self.precision, threads, self.hint)


PAPER_ARMS = (
    Arm("float", "pytorch"),
    Arm("float", "onnxruntime"),
    Arm("float", "openvino"),
    Arm("int8", "onnxruntime"),
    Arm("int8", "openvino"),
)
ARMS = (*PAPER_ARMS, Arm("float", "openvino", "bf16"), Arm("int8", "openvino", "bf16"))


def timing_input(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise as the image (1, 3, size, size), and a box (1, 4) around its middle half: neither changes the work."""
    image = np.random.default_rng(seed).random((1, 3, size, size), dtype=np.float32)
    return image, np.array([[0.25, 0.25, 0.75, 0.75]], dtype=np.float32) * size


def one_box(engine: Engine, image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """One image (1, 3, S, S) and one box (1, 4) end to end, as Tables 5 and 6 time it: low-res mask logits (1, M, M)."""
    return engine.decode(engine.encode(image), box)


def timed_calls(engines: dict[Arm, Engine], seed: int, part: str = "both") -> dict[str, partial]:
    """A call for each arm, by label: `both` ends, only the `encoder`, or only the `decoder` on the first engine's embedding."""
    first = next(iter(engines.values()))
    image, box = timing_input(first.image_size, seed)
    embedding = first.encode(image)
    calls = {
        "both": lambda engine: partial(one_box, engine, image, box),
        "encoder": lambda engine: partial(engine.encode, image),
        "decoder": lambda engine: partial(engine.decode, embedding, box),
    }
    return {arm.label: calls[part](engine) for arm, engine in engines.items()}


def seconds_by_engine(timings: pd.DataFrame, arms: Iterable[Arm]) -> pd.DataFrame:
    """Medians as the paper's tables have them: precision, engine, seconds. `timings` has `arm` (a label) and `median_ms`."""
    median = timings.set_index("arm")["median_ms"] / 1e3
    return pd.DataFrame(
        [{"precision": a.precision, "engine": a.engine_label, "seconds": median[a.label]} for a in arms]
    )


def int8_gain(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Time in float over time in int8 on the same engine, above 1 where int8 is faster: table, engine, paper, here.

    `tables` has columns precision, engine, `seconds paper`, `seconds here`.
    """
    rows = []
    for name, table in tables.items():
        wide = table.pivot(index="engine", columns="precision", values=["seconds paper", "seconds here"])
        gain = {
            source: wide[f"seconds {source}", "float"] / wide[f"seconds {source}", "int8"]
            for source in ("paper", "here")
        }
        rows.append(pd.DataFrame(gain).dropna(how="all").reset_index().assign(table=name))
    return pd.concat(rows, ignore_index=True)[["table", "engine", "paper", "here"]]
