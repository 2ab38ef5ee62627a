"""The paper's numbers and this run's in one table, means per modality, and how tables are shown.

Frames stay numeric (fractions, seconds, counts), so that they can be saved and compared. `rendered` and
`styled` turn them into text: percentages, grouped digits, a dash for absent values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from .intervals import average_interval
from .paper_tables import MODALITIES, PAPER, harmonised

METRICS = ("dsc", "nsd", "agreement", "seconds")
DASH = "–"
AVERAGE = "Average"
_SUMMARIES = (AVERAGE, "Proposed")  # rows below the modalities


def per_modality(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean of each modality and the unweighted Average of these means, as in Tables 7, 9 and 10.

    Args:
        scores: one row per case (`score_cases`). A column `arm` is needed if several arms are stacked. Cases
            without a DSC (NaN) do not count.

    Returns:
        Columns [arm,] modality, cases and those of dsc, nsd, agreement and seconds that `scores` has.
    """
    if "arm" in scores:
        arms = [
            per_modality(rows.drop(columns="arm")).assign(arm=arm)
            for arm, rows in scores.groupby("arm", sort=False)
        ]
        table = pd.concat(arms, ignore_index=True)
        return table[["arm", *table.columns.drop("arm")]]
    metrics = [metric for metric in METRICS if metric in scores]
    scores = scores.assign(modality=scores["modality"].map(harmonised)).dropna(
        subset=[m for m in ("dsc",) if m in scores]
    )
    groups = scores.groupby("modality", sort=False)
    table = groups[metrics].mean().assign(cases=groups.size()).reindex(in_order(groups.groups))
    average = pd.DataFrame({**table[metrics].mean(), "cases": table["cases"].sum()}, index=[AVERAGE])
    table = pd.concat([table, average]).rename_axis("modality").reset_index()
    return table[["modality", "cases", *metrics]].astype({"cases": int})


def spread_per_modality(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean DSC of each modality with its bootstrap interval, and what a mean hides: median, worst, failures.

    Args:
        scores: one row per case (`score_cases`). Cases without a DSC (NaN) do not count.

    Returns:
        Columns modality, cases, mean, low, high, median, worst, worst_case and missed (objects of DSC 0; 0 if
        `scores` does not have it). The last row is the Average.
    """
    scores = scores.dropna(subset="dsc")
    scores = scores if "group" in scores else scores.assign(group=scores["case"])
    modalities = {
        name: scores[scores["modality"].map(harmonised) == name]
        for name in in_order(scores["modality"].map(harmonised))
    }
    rows = [
        _spread_row(name, rows, average_interval([rows["dsc"]], groups=[rows["group"]]))
        for name, rows in modalities.items()
    ]
    values, groups = ([rows[column] for rows in modalities.values()] for column in ("dsc", "group"))
    overall = _spread_row(AVERAGE, scores, average_interval(values, groups=groups))
    overall["mean"] = float(np.mean([row["mean"] for row in rows]))
    return pd.DataFrame([*rows, overall])


def balance(table: pd.DataFrame) -> pd.DataFrame:
    """Describe how evenly an arm scores over the modalities (the paper's section 4.2, contribution 1).

    Args:
        table: result of `per_modality`, or a frame of `PAPER`. Its summary rows are left out.

    Returns:
        Columns arm, dsc mean, dsc std (over modalities, population), dsc minimum and weakest, the modality
        that has the minimum.
    """
    rows = table[~table["modality"].isin(_SUMMARIES)].dropna(subset="dsc")
    rows = rows if "arm" in rows else rows.assign(arm="")
    return pd.DataFrame(
        [
            {
                "arm": arm,
                "dsc mean": group["dsc"].mean(),
                "dsc std": group["dsc"].std(ddof=0),
                "dsc minimum": group["dsc"].min(),
                "weakest": group.loc[group["dsc"].idxmin(), "modality"],
            }
            for arm, group in rows.groupby("arm", sort=False)
        ]
    )


def typical_cases(scores: pd.DataFrame, among: str | None = None) -> pd.DataFrame:
    """Return the case with the median DSC of each modality, so that examples are not chosen by hand.

    Of two cases in the middle, the worse one is taken.

    Args:
        scores: one row per case, with modality and dsc.
        among: name of a bool column. If a modality has rows where it is true, only those are considered.

    Returns:
        Rows of `scores`, in the paper's order of modalities.
    """
    chosen = {}
    for modality, rows in scores.groupby("modality"):
        rows = rows[rows[among]] if among and rows[among].any() else rows
        chosen[modality] = rows["dsc"].sort_values(kind="stable").index[(len(rows) - 1) // 2]
    return scores.loc[[chosen[modality] for modality in in_order(chosen)]]


def beside(
    paper: pd.DataFrame | str, ours: pd.DataFrame, on: str | Sequence[str] = "modality"
) -> pd.DataFrame:
    """Put this run's numbers beside the paper's: columns `<metric> paper` and `<metric> here` per metric.

    The metrics are the numeric columns that both frames have.

    Args:
        paper: a frame, or the key of one in `PAPER`.
        ours: this run's frame.
        on: names of the columns that identify a row.

    Returns:
        Rows in the paper's order. Rows that only this run has follow those of their modality. Summary rows
        come last. Absent values are NaN.

    Raises:
        KeyError: a column is missing.
        ValueError: two rows are equal in the columns `on`.
    """
    paper = PAPER[paper] if isinstance(paper, str) else paper
    on = [on] if isinstance(on, str) else list(on)
    metrics = [c for c in paper.select_dtypes("number") if c in ours.select_dtypes("number") and c not in on]
    left, right = (_keyed(frame, on, metrics, name) for frame, name in ((paper, "paper"), (ours, "ours")))
    order = _grouped(left.index.append(right.index.difference(left.index, sort=False)))
    table = pd.DataFrame(index=order)
    for metric in metrics:
        table[f"{metric} paper"] = left[metric].reindex(order)
        table[f"{metric} here"] = right[metric].reindex(order)
    return _summaries_last(table.rename_axis(on).reset_index())


def across(table: pd.DataFrame, metric: str, arms: Iterable[str] | None = None) -> pd.DataFrame:
    """Reshape one metric of `beside` to one row per modality and a pair of columns per arm.

    Args:
        table: result of `beside`, with columns modality and arm.
        metric: metric to keep.
        arms: arms in the order of the columns. By default those of `table`.

    Returns:
        Columns modality, and `<arm> <metric> paper` and `<arm> <metric> here` for each arm. Columns without
        any value are left out.
    """
    arms = list(arms) if arms is not None else list(dict.fromkeys(table["arm"]))
    sources = [source for source in ("paper", "here") if f"{metric} {source}" in table]
    rows = table.set_index(["modality", "arm"])
    wide = pd.DataFrame({"modality": list(dict.fromkeys(table["modality"]))})
    for arm in arms:
        for source in sources:
            values = rows[f"{metric} {source}"].xs(arm, level="arm")
            wide[f"{arm} {metric} {source}"] = wide["modality"].map(values)
    return _summaries_last(wide.dropna(axis="columns", how="all"))


def caption(params: Any, title: str = "", note: str = "") -> str:
    """Say in one line what a table shows and where its numbers come from.

    `params` has profile, data_description, model, image_size and recipe. `caption(p, "Table 7")` gives
    `Table 7 (profile smoke, phantoms, litemedsam at 64 px, recipe paper)`.
    """
    source = (
        f"profile {params.profile}, {params.data_description}, "
        f"{params.model} at {params.image_size} px, recipe {params.recipe}"
    )
    source = f"{source}; {note}" if note else source
    return f"{title} ({source})" if title else source[0].upper() + source[1:]


def markdown(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table. Bars within cells are escaped."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *cells))


def rendered(table: pd.DataFrame) -> pd.DataFrame:
    """Turn a table into text: fractions in percent, counts with grouped digits, a dash for absent values."""
    columns = {name: _column_text(str(name), table[name]) for name in table}
    return pd.DataFrame(columns).rename(columns=_heading)


def styled(table: pd.DataFrame, caption: str = "") -> Styler:
    """Style `rendered` for a notebook: caption above, numbers to the right, summary rows in bold."""
    text = rendered(table)
    numeric = [_heading(name) for name in table if pd.api.types.is_numeric_dtype(table[name])]
    style = (
        text.style.hide(axis="index")
        .set_caption(caption)
        .set_properties(subset=numeric, **{"text-align": "right"})
    )
    bold = [text.iloc[i, 0] in _SUMMARIES for i in range(len(text))]
    style = style.apply(lambda row: ["font-weight: bold" if bold[row.name] else ""] * len(row), axis=1)
    rules = [("text-align", "left"), ("font-weight", "600"), ("padding-bottom", "0.5em")]
    return style.set_table_styles([{"selector": "caption", "props": [("caption-side", "top"), *rules]}])


def _spread_row(name: str, rows: pd.DataFrame, interval: tuple[float, float]) -> dict[str, Any]:
    worst = rows.loc[rows["dsc"].idxmin()]
    return {
        "modality": name,
        "cases": len(rows),
        "mean": rows["dsc"].mean(),
        "low": interval[0],
        "high": interval[1],
        "median": rows["dsc"].median(),
        "worst": worst["dsc"],
        "worst_case": worst["case"],
        "missed": int(rows["missed"].sum()) if "missed" in rows else 0,
    }


def in_order(names: Iterable[str]) -> list[str]:
    """Return each name once: the paper's modalities in the paper's order, then others as they come."""
    names = list(dict.fromkeys(names))
    return [m for m in MODALITIES if m in names] + [n for n in names if n not in MODALITIES]


def _keyed(frame: pd.DataFrame, on: list[str], metrics: list[str], name: str) -> pd.DataFrame:
    missing = [column for column in on if column not in frame]
    if missing:
        raise KeyError(
            f"{name}: found columns {', '.join(map(str, frame.columns))}; expected also {', '.join(missing)}"
        )
    if "modality" in on:
        frame = frame.assign(modality=frame["modality"].map(harmonised))
    keyed = frame.set_index(on)[metrics]
    if keyed.index.has_duplicates:
        twice = keyed.index[keyed.index.duplicated()][0]
        raise ValueError(
            f"{name}: found {twice!r} more than once in {', '.join(on)}; "
            "average first or name more columns in on"
        )
    return keyed


def _grouped(index: pd.Index) -> pd.Index:
    """Bring the rows of each modality together, so that an arm that only this run has joins the others."""
    if "modality" not in index.names or index.nlevels == 1:
        return index
    names = index.get_level_values("modality")
    first = {name: place for place, name in reversed(list(enumerate(names)))}
    return index[np.argsort([first[name] for name in names], kind="stable")]


def _summaries_last(table: pd.DataFrame) -> pd.DataFrame:
    if "modality" not in table:
        return table
    return table.sort_values("modality", key=lambda m: m.isin(_SUMMARIES), kind="stable", ignore_index=True)


def _heading(name: str) -> str:
    words = {
        "dsc": "DSC",
        "nsd": "NSD",
        "ms": "(ms)",
        "mb": "(MB)",
        "db": "(dB)",
        "difference": "difference (points)",
    }
    heading = " ".join(words.get(word, word) for word in str(name).replace("_", " ").split())
    return heading[:1].upper() + heading[1:]


# A column's unit is read from its name. Columns with one of these words hold fractions.
_SHARES = {"dsc", "nsd", "agreement", "mean", "median", "worst", "low", "high", "worse", "std", "minimum"}


def _column_text(name: str, values: pd.Series) -> list[str]:
    show = _number_format(set(name.lower().replace("_", " ").split()), values)
    return [
        DASH if pd.isna(v) else show(v) if isinstance(v, (float, np.floating)) else _plain(v) for v in values
    ]


def _number_format(words: set[str], values: pd.Series) -> Callable[[float], str]:
    """Choose by the words of a column's name how its floats are written. All get the same decimals."""
    if "difference" in words:
        return lambda v: f"{100 * v:+.2f}"
    if words & {"ms", "mb", "db"}:
        return "{:,.1f}".format
    if "seconds" in words:
        largest = values.max()
        decimals = next((d for limit, d in ((0.1, 4), (20, 3), (100, 2)) if largest < limit), 1)
        return f"{{:,.{decimals}f}}".format
    if words & {"ratio", "speed-up"}:
        return "{:.2f}×".format
    if words & _SHARES:
        return lambda v: f"{100 * v:.2f} %"
    return lambda v: f"{v:,.0f}" if v == int(v) else f"{v:.4g}"


def _plain(value: Any) -> str:
    return (
        f"{value:,}" if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else str(value)
    )
