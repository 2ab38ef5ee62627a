"""Sentences for the tables and figures of the export, made from the numbers of a run."""

from __future__ import annotations

import pandas as pd

WEIGHTS = ", OpenVINO weights"
"""Ending of the arms of `deploy.exported.file_sizes` that OpenVINO reads."""
INT8, FLOAT = "int8", "float"
"""Names of the exports that the sentences compare."""


def read_parameters(table: pd.DataFrame) -> list[str]:
    """Say whether the networks have the paper's numbers of parameters, which have two digits.

    Args:
        table: Table 1 beside the paper's, with columns model, `<part> paper` and `<part> here`.
    """
    parts = [column.removesuffix(" paper") for column in table if column.endswith(" paper")]
    other = []
    for _, row in table.iterrows():
        for part in parts:
            paper, here = row[f"{part} paper"], row[f"{part} here"]
            if pd.notna(paper) and pd.notna(here) and f"{here:.1e}" != f"{paper:.1e}":
                other.append(f"{row['model']}, {part.replace('_', ' ')} ({100 * (here / paper - 1):+.1f} %)")
    if not other:
        return ["Every part has as many parameters as the paper says, in its two digits."]
    return [f"Not the paper's numbers, as it rounds them: {'; '.join(other)}."]


def read_sizes(sizes: pd.DataFrame) -> list[str]:
    """Say how much smaller the int8 weights are, by part.

    Args:
        sizes: result of `deploy.exported.file_sizes`.
    """
    mb = sizes.groupby(["arm", "part"])["mb"].sum()
    sums = sizes.groupby("arm")["mb"].sum()
    before, after = (f"{name}{WEIGHTS}" for name in (FLOAT, INT8))
    if before not in sums or after not in sums:
        return []
    sentences = [
        f"OpenVINO's weights shrink from {sums[before]:.1f} MB in float to {sums[after]:.1f} MB in int8, "
        f"{sums[before] / sums[after]:.1f} times."
    ]
    encoder = mb.get((before, "encoder")), mb.get((after, "encoder"))
    decoder = sums[before] - encoder[0], sums[after] - encoder[1]
    sentences.append(
        f"The encoder shrinks {encoder[0] / encoder[1]:.1f} times and the decoder, its part for the image "
        f"included, {decoder[0] / decoder[1]:.1f} times; all of it in int8 would be four times."
    )
    smallest = sums[sums.index.str.startswith(INT8)].idxmin()
    if smallest != after:
        sentences.append(f"The smallest int8 files are those of {smallest}: {sums[smallest]:.1f} MB.")
    return sentences


def read_parity(table: pd.DataFrame) -> list[str]:
    """Say whether the engines compute what PyTorch computes.

    Args:
        table: result of `deploy.parity_summary`.
    """
    sentences = []
    for kind, rows in (
        (FLOAT, table[~table["model"].str.startswith(INT8)]),
        (INT8, table[table["model"].str.startswith(INT8)]),
    ):
        if rows.empty:
            continue
        worst = rows.loc[rows["equal pixels, worst case"].idxmin()]
        if worst["equal pixels, worst case"] == 1:
            sentences.append(f"In {kind} every pixel of every mask is PyTorch's, in all engines.")
            continue
        sentences.append(
            f"In {kind} the engines' masks have {100 * rows['equal pixels'].mean():.3f} % of their pixels as "
            f"PyTorch has them, at worst {100 * worst['equal pixels, worst case']:.3f} % in a case "
            f"({worst['model']} on {worst['engine']}); the embeddings differ by up to "
            f"{100 * rows['embedding error'].max():.2g} % of their size."
        )
    return sentences


def read_layers(layers: pd.DataFrame) -> list[str]:
    """Say what share of the int8 encoder's time ran in int8, what did not, and what the other exports reach.

    Args:
        layers: an engine's times, with columns arm (`<export>, <part>`), operation, precision and ms.
    """
    encoders = layers[layers["arm"].str.endswith(", encoder")]
    share = {
        arm: rows.loc[rows["precision"] == "int8", "ms"].sum() / rows["ms"].sum()
        for arm, rows in encoders.groupby("arm", sort=False)
    }
    ours = f"{INT8}, encoder"
    if ours not in share:
        return []
    rows = encoders[(encoders["arm"] == ours) & (encoders["precision"] != "int8")]
    sentences = [f"Of the int8 encoder's time {100 * share[ours]:.0f} % is spent in layers that run in int8"]
    if len(rows):
        left = rows.groupby("operation")["ms"].sum() / encoders.loc[encoders["arm"] == ours, "ms"].sum()
        sentences[0] += f"; of the rest most in {left.idxmax()} ({100 * left.max():.0f} % of all)"
    sentences[0] += "."
    others = {
        arm.removesuffix(", encoder"): s for arm, s in share.items() if arm.startswith(INT8) and arm != ours
    }
    if others:
        told = ", ".join(f"{100 * value:.0f} % in {name}" for name, value in others.items())
        sentences.append(f"The other int8 exports of the encoder reach {told}.")
    return sentences


def read_profile(profile: pd.DataFrame) -> list[str]:
    """Say how much quicker the int8 encoder is than the rewritten float one, and what is far from its limit.

    Args:
        profile: results of `timing.layer_profile.by_kind`, with a column arm. The row `all` sums each.
    """
    sums = profile[profile["kind"] == "all"].set_index("arm")["ms"]
    ours = next((arm for arm in sums.index if arm.startswith(f"{INT8},")), None)
    other = next((arm for arm in sums.index if not arm.startswith(INT8)), None)
    sentences = []
    if ours and other:
        sentences.append(
            f"The int8 encoder takes {sums[ours]:.0f} ms and the rewritten float one {sums[other]:.0f} ms, "
            f"{sums[other] / sums[ours]:.2f} times as long."
        )
    if ours:
        rows = profile[(profile["arm"] == ours) & (profile["kind"] != "all")]
        above = (rows["ms"] - rows["limit ms"]).sort_values()
        most = rows.loc[above.index[-1]]
        sentences.append(
            f"Of its kinds of layer {most['kind']} in {most['precision']} loses most time above its limit: "
            f"{most['ms']:.0f} ms where {most['limit ms']:.0f} would do, "
            f"{100 * above.iloc[-1] / sums[ours]:.0f} % of the encoder's time."
        )
    return sentences


def read_starts(starts: pd.DataFrame) -> list[str]:
    """Say what a model cache saves of the start.

    Args:
        starts: columns arm, start (no cache, cold cache, warm cache) and seconds.
    """
    seconds = starts.set_index(["arm", "start"])["seconds"]
    told = [
        f"{arm} in {seconds[arm, 'warm cache']:.1f} s instead of {seconds[arm, 'no cache']:.1f}"
        for arm in dict.fromkeys(starts["arm"])
    ]
    return [f"With the compiled model in its cache the engine is ready sooner: {', '.join(told)}."]
