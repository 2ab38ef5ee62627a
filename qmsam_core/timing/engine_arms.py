"""Arms of Tables 5 and 6: an export on an engine with a precision hint. Also timing inputs and speed-ups."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ..deploy.engines import ENGINES, Engine, has_bf16, open_engine

ENGINE_NAMES = {"pytorch": "PyTorch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
HINTS = {
    "f32": "",
    "bf16": "bf16 hint",
    "f32, products in float": "products in float",
    "bf16, products in float": "bf16 hint, products in float",
}
"""Ways in which OpenVINO executes an export (`deploy.ways.Way`), and their words in labels."""
VARIANTS = {
    "": "",
    "fast": "rewritten",
    "linear": "linear layers alone",
    "released": "released style",
    "nncf": "NNCF post-training",
}
PARTS = ("encoder", "prepare", "decoder", "both")


@dataclass(frozen=True)
class Arm:
    """An export, an engine, and OpenVINO's precision hint, with products in float or as exported.

    The export lies in the folder `<precision>` or `<precision>_<variant>`.

    Attributes:
        precision: `float` or `int8`.
        engine: a key of `ENGINE_NAMES`.
        hint: a key of `HINTS`.
        variant: a key of `VARIANTS`.
    """

    precision: str
    engine: str
    hint: str = "f32"
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> "Arm":
        """Parse a `spec` such as `int8_released:openvino:f32`. Engine and hint may be left out.

        Raises:
            ValueError: the text has another form, or a name is unknown.
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
                f"arm = {text!r}; "
                f"expected <float|int8>[_<{'|'.join(filter(None, VARIANTS))}>][:engine[:hint]]"
            )
        if hint != "f32" and engine != "openvino":
            raise ValueError(
                f"arm = {text!r}: {engine} knows no hint {hint!r}; expected f32, or the engine openvino"
            )
        return cls(precision, engine, hint, variant)

    @property
    def export(self) -> str:
        """Folder name of the export."""
        return self.precision + (f"_{self.variant}" if self.variant else "")

    @property
    def spec(self) -> str:
        """The arm as text that `parse` reads."""
        return f"{self.export}:{self.engine}:{self.hint}"

    @property
    def engine_label(self) -> str:
        """The engine's name in the paper's tables, with the variant, and the hint if it is not f32."""
        words = [ENGINE_NAMES[self.engine], VARIANTS[self.variant], HINTS[self.hint]]
        return ", ".join(filter(None, words))

    @property
    def label(self) -> str:
        """Precision and engine, e.g. `int8, OpenVINO, bf16 hint`."""
        return f"{self.precision}, {self.engine_label}"

    def open(self, folder: str | Path, threads: int) -> Engine:
        """Open the arm's engine on `folder/<export>`."""
        return open_engine(self.engine, Path(folder) / self.export, threads, self.hint)


def runnable(arms: Iterable[Arm]) -> list[Arm]:
    """Drop the arms with a bf16 hint if the CPU has no bf16. OpenVINO would emulate it, many times slower."""
    bf16 = has_bf16()
    return [arm for arm in arms if bf16 or not arm.hint.startswith("bf16")]


PAPER_ARMS = (
    Arm("float", "pytorch"),
    Arm("float", "onnxruntime"),
    Arm("float", "openvino"),
    Arm("int8", "onnxruntime"),
    Arm("int8", "openvino"),
)
FLOAT_FAST = Arm("float", "openvino", variant="fast")
FLOAT_FAST_BF16 = Arm("float", "openvino", "bf16", "fast")
"""The arm an expert chooses if the CPU multiplies bf16 in hardware. OpenVINO itself then takes this hint."""
EXTRA_ARMS = (
    FLOAT_FAST,
    Arm("float", "onnxruntime", variant="fast"),
    Arm("int8", "onnxruntime", variant="linear"),
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


def timing_input(size: int, seed: int, frame: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Make noise (1, 3, size, size) and a box (1, 4) around its middle half. Content does not affect time.

    The box is in px of a frame of this side, that of the image if it is None.
    """
    image = np.random.default_rng(seed).random((1, 3, size, size), dtype=np.float32)
    return image, np.array([[0.25, 0.25, 0.75, 0.75]], dtype=np.float32) * (frame or size)


def one_box(engine: Engine, image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Segment one box (1, 4) on an image (1, 3, S, S) as in Tables 5 and 6: low-res mask logits (1, M, M)."""
    return engine.decode(engine.encode(image), box)


def timed_calls(
    engines: dict[Arm, Engine], seed: int, part: str = "both", boxes: int = 1
) -> dict[str, partial]:
    """Make the call to time for each arm, by the arm's label.

    Args:
        engines: engine of each arm.
        seed: seed of the image.
        part: one of `PARTS`. `both` encodes an image and decodes one box. `prepare` is the work on the image
            that a fast export does once and other exports do in the decoder. Arms without it have no call.
        boxes: boxes of one image that `decoder` decodes.
    """
    calls = {}
    for arm, engine in engines.items():
        image, box = timing_input(engine.image_size, seed, engine.frame)
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
    """Return the medians in seconds as in the paper's tables, with columns precision, engine and seconds.

    `timings` has columns `arm` (a label) and `median_ms`.
    """
    median = timings.set_index("arm")["median_ms"] / 1e3
    return pd.DataFrame(
        [{"precision": a.precision, "engine": a.engine_label, "seconds": median[a.label]} for a in arms]
    )


def int8_gain(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Compute the speed-up of each int8 arm over float. Above 1 int8 is faster.

    Args:
        tables: tables by name, with columns precision, engine, `seconds paper` and `seconds here`.

    Returns:
        One row for each int8 arm, with columns table, engine, and these speed-ups. `speed-up paper` is the
        paper's. `speed-up over plain float` compares with the plain float export on the same engine.
        `speed-up over same graph` compares our int8 export with the float network rewritten in the same way
        (NaN for other arms). `speed-up over best float` compares with the fastest float arm, `best float`.
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
    Arm("int8", "openvino", "bf16"),
    Arm("int8", "openvino", "f32, products in float"),
    Arm("int8", "openvino", "bf16, products in float"),
)
"""Arms that are timed under each instruction set, where they are `runnable`.

The hint decides how layers between the integer ones run, so our int8 export has it too. Of these ways
`deploy.choice` takes the quickest.
"""


def isa_gain(timings: pd.DataFrame) -> pd.DataFrame:
    """Compute the speed-up of our int8 export over float on OpenVINO under each instruction set.

    Args:
        timings: columns `instruction set`, part (`encoder`, `prepare`, `decoder`), arm and median_ms, for the
            `ISA_ARMS`.

    Returns:
        Rows for encoder, decoder (one box, with `prepare`) and both together. Arms that were not timed (see
        `runnable`) are left out. Columns instruction set, part,
        `speed-up over plain float`, `speed-up over same graph`, `speed-up over best float`, `best float`, and
        `best int8`, the hint under which our export is fastest there. All speed-ups are its.
    """
    part = timings["part"].replace("prepare", "decoder")
    both = pd.concat([timings.assign(part=part), timings.assign(part="an image and a box")])
    ms = both.pivot_table(
        index=["instruction set", "part"], columns="arm", values="median_ms", aggfunc="sum", sort=False
    )
    plain, fast = (arm.label for arm in ISA_ARMS[:2])
    floats, ours = (
        fastest_of(ms, [arm for arm in ISA_ARMS if arm.precision == p]) for p in ("float", "int8")
    )
    same = ms[fast]
    if FLOAT_FAST_BF16.label in ms:
        same = same.where(~ours["arm"].str.contains("bf16 hint"), ms[FLOAT_FAST_BF16.label])
    return pd.DataFrame(
        {
            "speed-up over plain float": ms[plain] / ours["ms"],
            "speed-up over same graph": same / ours["ms"],
            "speed-up over best float": floats["ms"] / ours["ms"],
            "best float": floats["arm"],
            "best int8": ours["arm"],
        }
    ).reset_index()


def fastest_of(ms: pd.DataFrame, arms: Iterable[Arm]) -> pd.DataFrame:
    """Find the fastest of some arms in each row.

    Args:
        ms: milliseconds, a column an arm (its label). Arms that it lacks were not timed.
        arms: of which exports in another style than ours are no candidates.

    Returns:
        Columns ms and arm (its label), with the index of `ms`.
    """
    labels = [arm.label for arm in arms if arm.variant in ("", "fast") and arm.label in ms]
    return pd.DataFrame({"ms": ms[labels].min(axis=1), "arm": ms[labels].idxmin(axis=1)})
