"""Sentences about the tables and figures of notebook 01, made from their numbers."""

from __future__ import annotations

import pandas as pd

from ..wording import counted, enumerated


def read_samples(table2: pd.DataFrame) -> list[str]:
    """Say how far the modalities' numbers of slices lie apart, here and in the paper.

    Args:
        table2: columns modality, `samples paper` and `samples here`.
    """
    table = table2.set_index("modality")
    here, paper = (table[f"samples {whose}"].dropna() for whose in ("here", "paper"))
    ratio, theirs = here.max() / here.min(), paper.max() / paper.min()
    return [
        f"{here.idxmax()} has {ratio:,.0f} times the slices of {here.idxmin()}; in the paper "
        f"{paper.idxmax()} has {theirs:,.0f} times those of {paper.idxmin()}.",
        "So little imbalance cannot show what balanced sampling is for." if ratio < theirs / 10 else "",
    ]


def read_sampling(drawn: pd.DataFrame, proposed: str = "as many of each") -> list[str]:
    """Say which share of an epoch the largest modality takes by each strategy.

    Args:
        drawn: column modality, and slices an epoch in a column for each strategy.
        proposed: the method's own strategy.
    """
    table = drawn.set_index("modality")
    shares = table.max() / table.sum()
    largest = table["all"].idxmax()
    return [
        f"If all slices are drawn, {100 * shares['all']:.0f} % of an epoch are {largest}; with {proposed}, "
        f"{100 * shares[proposed]:.0f} % are of each of {counted(len(table), 'modality')}.",
        f"The epoch then has {table[proposed].sum():,} slices instead of {table['all'].sum():,}.",
    ]


def read_disk(disk: pd.DataFrame) -> list[str]:
    """Say what reading slices in place saves.

    Args:
        disk: columns `as`, `paper (MB)` and `here (MB)`, of `compressed cases` and `unpacked slices`.
    """
    table = disk.set_index("as")
    here, paper = (
        table.loc["unpacked slices", f"{whose} (MB)"] / table.loc["compressed cases", f"{whose} (MB)"]
        for whose in ("here", "paper")
    )
    return [f"Unpacked, these cases would take {here:.0f} times their space; the paper's would {paper:.0f}."]


def read_lost(lost: pd.DataFrame) -> list[str]:
    """Say how many objects leave no pixel at an input size, and of which modalities.

    Args:
        lost: columns px, modality, objects and lost, of the cases that lose some.
    """
    if lost.empty:
        return ["No object is too small to leave a pixel at the input's size."]
    sentences = []
    for px, rows in lost.groupby("px"):
        gone = f"{counted(rows['lost'].sum(), 'object')} of {enumerated(rows['modality'].unique())}"
        sentences.append(f"At {px} px, {gone} {'leaves' if rows['lost'].sum() == 1 else 'leave'} no pixel.")
    return sentences
