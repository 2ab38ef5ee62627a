"""Sentences about the tables and figures of notebook 06, made from their numbers."""

from __future__ import annotations

import pandas as pd

from ..wording import counted, enumerated, fold

WHOLE = "an image and a box"
OVER = ("over plain float", "over best float")


def read_engines(table5: pd.DataFrame) -> list[str]:
    """Say what is fastest in Table 5, and what int8 gains on each engine.

    Args:
        table5: columns precision, engine and `seconds here`.
    """
    seconds = table5.dropna(subset=["seconds here"]).set_index(["precision", "engine"])["seconds here"]
    (precision, engine), least = seconds.idxmin(), seconds.min()
    floats = seconds["float"]
    quickest = f"The quickest arm is {precision} on {engine}: {1e3 * least:.0f} ms for an image and a box."
    if precision == "float":
        return [quickest, "On this CPU, quantising to int8 brings no speed."]
    gain = f"It is {fold(floats.min() / least)} as the quickest float arm, {floats.idxmin()}"
    return [quickest, f"{gain}, and {fold(floats['PyTorch'] / least)} as PyTorch in float."]


def read_isa_gain(table: pd.DataFrame) -> list[str]:
    """Say under which instruction sets int8 is faster than the fastest float arm, and where it gains most.

    Args:
        table: result of `isa_gain`.
    """
    whole = table[table["part"] == WHOLE].set_index("instruction set")["speed-up over best float"]
    sentences = []
    for name, gain in whole.sort_values(ascending=False).items():
        sentences.append(f"{name}: int8 is {fold(gain)} as the fastest float")
    lost = list(whole[whole < 1].index)
    verdict = (
        f"Float is the better choice under {enumerated(lost)}."
        if lost
        else f"Int8 is faster under {'every' if len(whole) > 1 else 'the'} instruction set that was timed."
    )
    return ["; ".join(sentences) + ".", verdict]


def read_int8_gain(table: pd.DataFrame) -> list[str]:
    """Say how our int8 gain compares with the paper's, and which engines lose by int8.

    Args:
        table: result of `int8_gain`.
    """
    sentences = []
    for _, row in table[table["engine"] == "OpenVINO"].iterrows():
        paper, plain, best = (fold(row[f"speed-up {over}"]) for over in ("paper", *OVER))
        sentences.append(
            f"{row['table']}, OpenVINO: in the paper int8 is {paper} as float; here it is {plain} as float "
            f"exported plainly and {best} as the fastest float arm."
        )
    lost = table[table["speed-up over best float"] < 1]
    if len(lost):
        names = [f"{row.engine} ({row.table})" for row in lost.itertuples()]
        sentences.append(f"Slower than the fastest float arm: int8 on {enumerated(names)}.")
    return sentences


def read_parts(parts: pd.DataFrame, arm: str) -> list[str]:
    """Say how encoder and decoder share the time of our int8 arm, and from how many boxes boxes cost more.

    Args:
        parts: columns part (encoder, prepare, decoder), arm and median_ms.
        arm: label of our int8 arm.
    """
    ms = parts[parts["arm"] == arm].set_index("part")["median_ms"]
    image = ms["encoder"] + ms.get("prepare", 0.0)
    boxes = counted(int(image // ms["decoder"]) + 1, "box")
    return [
        f"In int8 an image costs {image:.0f} ms once, and every box {ms['decoder']:.0f} ms.",
        f"With {boxes} or more on an image, the boxes cost more than the image.",
    ]


def read_backbones(table: pd.DataFrame) -> list[str]:
    """Say which network gains most and least by int8, and which does most work in a millisecond.

    Args:
        table: result of `backbones_table`.
    """
    gain = table.set_index("network")["int8 gain"].sort_values()
    cost = table.set_index("network")["ms a GMAC, int8"].sort_values()
    if len(gain) < 2:
        return [f"{gain.index[0]} in int8 is {fold(gain.iloc[0])} as its fastest float arm."]
    slower = list(gain[gain < 1].index)
    sentences = [
        f"Int8 gains most for {gain.index[-1]} ({gain.iloc[-1]:.2f} times its fastest float arm) and least "
        f"for {gain.index[0]} ({gain.iloc[0]:.2f}).",
        f"{cost.index[0]} suits this CPU best, with {cost.iloc[0]:.1f} ms for a billion multiplications in "
        f"int8; {cost.index[-1]} needs {cost.iloc[-1]:.1f}.",
    ]
    return [*sentences, f"In float are quicker: {enumerated(slower)}." if slower else ""]
