"""Arms: which export runs on which engine with which precision hint (Tables 5 and 6), and what they are timed on."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ..deploy.engines import ENGINES, Engine, open_engine

ENGINE_NAMES = {"pytorch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
HINTS = ("f32", "bf16")
VARIANTS = {"": "", "fast": "rewritten", "released": "released style", "nncf": "NNCF post-training"}
PARTS = ("encoder", "prepare", "decoder", "both")


@dataclass(frozen=True)
class Arm:
    """An export, an engine, and OpenVINO's precision hint (`f32` or `bf16`).

    The export is in the folder `<precision>` or `<precision>_<variant>`: precision `float` or `int8`, variant a key of `VARIANTS`.
    """

    precision: str
    engine: str
    hint: str = "f32"
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> "Arm":
        """The arm that `spec` names, e.g. `int8_released:openvino:f32`; engine and hint may be left out.

        Raises:
            ValueError: another form, or a name that is not known.
        """
        export, engine, hint, *more = (*text.split(":"), *("", "openvino", "f32")[text.count(":") + 1 :])
        precision, _, variant = export.partition("_")
        if (
            more
            or precision not in ("float", "int8")
            or variant not in VARIANTS
            or engine not in ENGINES
            or hint not in HINTS
        ):
            raise ValueError(
                f"arm = {text!r}; expected <float|int8>[_<{'|'.join(filter(None, VARIANTS))}>][:engine[:hint]]"
            )
        if hint != "f32" and engine != "openvino":
            raise ValueError(
                f"arm = {text!r}: {engine} knows no hint {hint!r}; expected f32, or the engine openvino"
            )
        return cls(precision, engine, hint, variant)

    @property
    def export(self) -> str:
        """Name of the export's folder."""
        return self.precision + (f"_{self.variant}" if self.variant else "")

    @property
    def spec(self) -> str:
        """What `parse` reads."""
        return f"{self.export}:{self.engine}:{self.hint}"

    @property
    def engine_label(self) -> str:
        """The engine as the paper's tables name it, with the variant and the hint where it is not f32."""
        words = [
            ENGINE_NAMES[self.engine],
            VARIANTS[self.variant],
            "" if self.hint == "f32" else f"{self.hint} hint",
        ]
        return ", ".join(filter(None, words))

    @property
    def label(self) -> str:
        """Precision and engine, e.g. `int8, OpenVINO, bf16 hint`."""
        return f"{self.precision}, {self.engine_label}"

    def open(self, folder: str | Path, threads: int) -> Engine:
        """The arm's engine over `folder/<export>`."""
        return open_engine(self.engine, Path(folder) / self.export, threads, self.hint)


PAPER_ARMS = (
    Arm("float", "pytorch"),
    Arm("float", "onnxruntime"),
    Arm("float", "openvino"),
    Arm("int8", "onnxruntime"),
    Arm("int8", "openvino"),
)
FLOAT_FAST = Arm("float", "openvino", variant="fast")
FLOAT_FAST_BF16 = Arm("float", "openvino", "bf16", "fast")
"""What a knowing user takes where the CPU multiplies bf16 in hardware; OpenVINO then takes that hint by itself."""
EXTRA_ARMS = (
    FLOAT_FAST,
    Arm("int8", "openvino", variant="released"),
    Arm("int8", "openvino", variant="nncf"),
)
ARMS = (
    *PAPER_ARMS,
    *EXTRA_ARMS,
    Arm("float", "openvino", "bf16"),
    FLOAT_FAST_BF16,
    Arm("int8", "openvino", "bf16"),
)


def timing_input(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise as the image (1, 3, size, size), and a box (1, 4) around its middle half: neither changes the work."""
    image = np.random.default_rng(seed).random((1, 3, size, size), dtype=np.float32)
    return image, np.array([[0.25, 0.25, 0.75, 0.75]], dtype=np.float32) * size


def one_box(engine: Engine, image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """One image (1, 3, S, S) and one box (1, 4) end to end, as Tables 5 and 6 time it: low-res mask logits (1, M, M)."""
    return engine.decode(engine.encode(image), box)


def timed_calls(
    engines: dict[Arm, Engine], seed: int, part: str = "both", boxes: int = 1
) -> dict[str, partial]:
    """A call for each arm, by label: `both` ends with one box, or one part alone, the decoder for `boxes` boxes of one image.

    `prepare` is there for the arms that have it: a fast export's work on the image that earlier belonged to the decoder.
    """
    calls = {}
    for arm, engine in engines.items():
        image, box = timing_input(engine.image_size, seed)
        if part == "both":
            calls[arm.label] = partial(one_box, engine, image, box)
        elif part == "encoder":
            calls[arm.label] = partial(engine.embed, image)
        else:
            embedding = engine.embed(image)
            prepared = engine.prepare(embedding)
            if part == "decoder":
                calls[arm.label] = partial(engine.decode_prepared, prepared, np.repeat(box, boxes, 0))
            elif len(prepared) > 1:
                calls[arm.label] = partial(engine.prepare, embedding)
    return calls


def seconds_by_engine(timings: pd.DataFrame, arms: Iterable[Arm]) -> pd.DataFrame:
    """Medians as the paper's tables have them: precision, engine, seconds. `timings` has `arm` (a label) and `median_ms`."""
    median = timings.set_index("arm")["median_ms"] / 1e3
    return pd.DataFrame(
        [{"precision": a.precision, "engine": a.engine_label, "seconds": median[a.label]} for a in arms]
    )


def int8_gain(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """How many times as fast as float each int8 arm is, above 1 where int8 is faster.

    Args:
        tables: by name, with columns precision, engine, `seconds paper`, `seconds here`.

    Returns:
        A row for each int8 arm: table, engine, the paper's `speed-up paper`, and three of this run. `speed-up over plain float`
        compares with the same engine's float as it is exported; `speed-up over same graph` with the float network rewritten
        as our int8 export is, which only that export has; `speed-up over best float` with the fastest float arm of all,
        which `best float` names.
    """
    rows = []
    for name, table in tables.items():
        seconds = table.set_index(["precision", "engine"])
        fastest = seconds.loc["float", "seconds here"].idxmin()
        for engine, int8 in seconds.loc["int8"].iterrows():
            words = engine.split(", ")
            plain = seconds.loc[("float", ", ".join(word for word in words if word not in VARIANTS.values()))]
            ours = words[0] == ENGINE_NAMES["openvino"] and not set(words) & set(
                filter(None, VARIANTS.values())
            )
            alike = ("float", ", ".join([words[0], VARIANTS["fast"], *words[1:]]))
            rows.append(
                {
                    "table": name,
                    "engine": engine,
                    "speed-up paper": plain["seconds paper"] / int8["seconds paper"],
                    "speed-up over plain float": plain["seconds here"] / int8["seconds here"],
                    "speed-up over same graph": seconds["seconds here"].get(alike, np.nan)
                    / int8["seconds here"]
                    if ours
                    else np.nan,
                    "speed-up over best float": seconds.loc[("float", fastest), "seconds here"]
                    / int8["seconds here"],
                    "best float": fastest,
                }
            )
    return pd.DataFrame(rows)


ISA_ARMS = (
    Arm("float", "openvino"),
    FLOAT_FAST,
    FLOAT_FAST_BF16,
    Arm("int8", "openvino", variant="released"),
    Arm("int8", "openvino"),
)
"""What is timed under each instruction set."""


def isa_gain(timings: pd.DataFrame) -> pd.DataFrame:
    """How many times as fast as float our int8 export is on OpenVINO under each instruction set.

    Args:
        timings: rows of `instruction set`, part (`encoder`, `prepare`, `decoder`), arm and median_ms, of the `ISA_ARMS`.

    Returns:
        For encoder, decoder (one box, `prepare` included), and both together: instruction set, part,
        `speed-up over plain float`, `speed-up over same graph`, `speed-up over best float`, `best float`.
    """
    part = timings["part"].replace("prepare", "decoder")
    both = pd.concat([timings.assign(part=part), timings.assign(part="an image and a box")])
    ms = both.pivot_table(
        index=["instruction set", "part"], columns="arm", values="median_ms", aggfunc="sum", sort=False
    )
    plain, fast, bf16, _, int8 = (arm.label for arm in ISA_ARMS)
    floats = ms[[plain, fast, bf16]]
    return pd.DataFrame(
        {
            "speed-up over plain float": ms[plain] / ms[int8],
            "speed-up over same graph": ms[fast] / ms[int8],
            "speed-up over best float": floats.min(axis=1) / ms[int8],
            "best float": floats.idxmin(axis=1),
        }
    ).reset_index()
