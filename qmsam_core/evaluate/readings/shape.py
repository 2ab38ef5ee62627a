"""Sentences on the shape of int8 masks: filled boxes, single objects, and the cases that pictures show."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..box_filling import AWAY, LOSS, TOWARDS, UNTOLD
from ..intervals import average_interval
from ..mask_pairs import MaskPair
from ..tables import AVERAGE
from ..wording import ARMS, FLOAT, counted, direction, enumerated, interval, percent, points, upper_first


def read_ellipse(table: pd.DataFrame, arm: str) -> list[str]:
    """Say whether float and an arm are better than the ellipse in the box, and where they are not.

    Args:
        table: result of `against_ellipse`.
        arm: the int8 arm.
    """
    said = []
    for name in (FLOAT, arm):
        rows = table[table["arm"] == name]
        average = rows[rows["modality"] == AVERAGE].iloc[0]
        ends = average["difference_low"], average["difference_high"]
        words = {1: "is better than", -1: "is worse than", 0: "cannot be told from"}[direction(*ends)]
        part = rows[(rows["modality"] != AVERAGE) & (rows["difference"] <= 0)]
        below = f" It is not above it in {enumerated(list(part['modality']))}." if len(part) else ""
        said.append(
            f"{upper_first(ARMS[name])} {words} an ellipse that ignores the image: "
            f"{points(average['difference'])} of DSC ({interval(*ends)}).{below}"
        )
    return said


def read_gains(gains: pd.DataFrame, arm: str) -> list[str]:
    """Say where an arm gains DSC on float, and whether its masks move towards the ellipse there.

    Args:
        gains: result of `box_filling.gains`.
        arm: the int8 arm.
    """
    rows = gains[gains["modality"] != AVERAGE]
    named = {
        verdict: list(rows.loc[rows["verdict"] == verdict, "modality"])
        for verdict in rows["verdict"].unique()
    }
    gained = {verdict: named[verdict] for verdict in (TOWARDS, AWAY, UNTOLD) if verdict in named}
    total = sum(map(len, gained.values()))
    name = upper_first(ARMS[arm])
    if not total:
        lost = f"; it loses in {enumerated(named[LOSS])}" if LOSS in named else ""
        told = (
            f"In none of {counted(len(rows), 'modality')} can a gain of DSC on float be told for {ARMS[arm]}"
        )
        return [f"{told}{lost}."]
    words = {
        TOWARDS: "its masks move towards the ellipse, so that the gain may be a filled box, in",
        AWAY: "its masks move away from the ellipse, so that no box is filled, in",
        UNTOLD: "the shape cannot be told in",
    }
    parts = [f"{words[verdict]} {enumerated(names)}" for verdict, names in gained.items()]
    return [
        f"{name} gains DSC on float in {total} of {counted(len(rows), 'modality')}.",
        f"{upper_first('; '.join(parts))}.",
    ]


def read_plane(plane: pd.DataFrame, arms: Sequence[str]) -> list[str]:
    """Judge for each arm whether it gains where float is poor by falling back to filling the box.

    Args:
        plane: result of `ellipse_plane`.
        arms: arms to judge.
    """
    return [_plane_sentence(plane[plane["arm"] == arm], arm) for arm in arms]


def _plane_sentence(rows: pd.DataFrame, arm: str) -> str:
    average = rows[rows["modality"] == AVERAGE].iloc[0]
    rows = rows[rows["modality"] != AVERAGE]
    ends = average["ellipse difference low"], average["ellipse difference high"]
    moved = direction(*ends)
    filled = [row["modality"] for row in rows.to_dict("records") if _fills(row)]
    gained = sum(row["difference low"] > 0 for row in rows.to_dict("records"))
    told = f"{points(average['ellipse difference'])} ({interval(*ends)})"
    name = upper_first(ARMS[arm])
    if filled:
        return (
            f"{name} is seen to gain by falling back to the box in {enumerated(filled)} "
            f"({len(filled)} of {counted(gained, 'modality')} with a gain); on average its agreement with "
            f"the ellipse is {told} against float's."
        )
    if moved < 0:
        return (
            f"That {ARMS[arm]} wins by falling back to the box is refuted here: on average its masks agree "
            f"less with the ellipse than float's own do, {told}, and no modality gains DSC while moving "
            "towards it."
        )
    if moved > 0:
        return (
            f"{name} is nearer to the ellipse than float, {told}, but no modality is seen to gain DSC by it."
        )
    if pd.isna(ends[0]):
        return (
            f"Whether {ARMS[arm]} wins by falling back to the box cannot be told: its agreement with the "
            f"ellipse is {told} against float's."
        )
    return (
        f"That {ARMS[arm]} wins by falling back to the box is not seen: no modality gains DSC while moving "
        f"towards the ellipse, and on average the agreement with it cannot be told from float's, {told}."
    )


def _fills(row: dict) -> bool:
    return row["difference low"] > 0 and row["ellipse difference low"] > 0


def read_objects(objects: pd.DataFrame, arm: str) -> list[str]:
    """Say whether an arm departs from float more on small objects, or on those of little contrast.

    Args:
        objects: result of `score_objects`. The lowest and the highest third of the objects are compared.
        arm: the int8 arm.
    """
    wide = objects[objects["arm"].isin([FLOAT, arm])]
    wide = wide.pivot_table(index=["case", "object"], columns="arm", values="dsc").dropna()
    rows = objects[objects["arm"] == arm].set_index(["case", "object"])
    rows = rows.assign(difference=wide[arm] - wide[FLOAT]).dropna(
        subset=["size_px", "contrast", "difference"]
    )
    if len(rows) < 6:
        return [f"{counted(len(rows), 'object')} are too few to compare small objects with large ones."]
    words = {"size_px": ("smallest", "largest"), "contrast": ("least contrasted", "most contrasted")}
    return [_thirds(rows, by, *names) for by, names in words.items()]


def _thirds(rows: pd.DataFrame, by: str, least: str, most: str) -> str:
    rows = rows.sort_values(by, kind="stable")
    third = len(rows) // 3
    parts = rows.head(third), rows.tail(third)
    ends = [average_interval([part["agreement"]], [part["group"]]) for part in parts]
    further = f"Int8 is not seen to be further from float on the {least} or on the {most} objects"
    for name, own, other in ((least, *ends), (most, *ends[::-1])):
        if own[1] < other[0]:
            further = f"Int8 is further from float on the {name} objects"
    agreed = [percent(part["agreement"].mean()) for part in parts]
    said = []
    for part in parts:
        low, high = average_interval([part["difference"]], [part["group"]])
        said.append(f"{points(part['difference'].mean())} ({interval(low, high)})")
    unit = {"size_px": "px", "contrast": "standard deviations"}[by]
    edges = f"up to {parts[0][by].max():.2g} {unit}", f"from {parts[1][by].min():.2g}"
    return (
        f"{further}: it agrees to {agreed[0]} on the {least} third ({edges[0]}) and to {agreed[1]} on the "
        f"{most} third ({edges[1]}); its DSC minus float's is {said[0]} and {said[1]}."
    )


def read_chosen(rows: pd.DataFrame, count: int) -> list[str]:
    """Name the case whose masks part most from float's, and say how many of all cases agree well.

    Args:
        rows: all cases of the arm that may be shown, with case, modality, agreement, dsc and `dsc float`.
        count: number of all cases.
    """
    worst = rows.loc[rows["agreement"].idxmin()]
    well = int((rows["agreement"] >= 0.95).sum())
    change = worst["dsc"] - worst["dsc float"]
    hidden = f" ({count - len(rows)} others may not be shown)" if count > len(rows) else ""
    return [
        f"In {well} of {counted(len(rows), 'case')}{hidden} int8 agrees with float to 95 % or more.",
        f"They part most in {worst['case']} ({worst['modality']}), to {percent(worst['agreement'])}, where "
        f"the DSC is {points(change)} against float's.",
    ]


def read_parting(pairs: Sequence[MaskPair]) -> list[str]:
    """Say whether int8 leaves out pixels of float's masks or adds to them, in the slices shown."""
    less = [pair.modality for pair in pairs if pair.apart[0] > pair.apart[1]]
    more = [pair.modality for pair in pairs if pair.apart[1] > pair.apart[0]]
    parts = [f"leaves out more than it adds in {enumerated(less)}"] if less else []
    parts += [f"adds more than it leaves out in {enumerated(more)}"] if more else []
    if not parts:
        return ["Int8 adds as many pixels as it leaves out in each of these slices."]
    return [f"Where it departs from float, int8 {' and '.join(parts)}."]


def read_ranked(difference: pd.Series, shown: Sequence[str], modalities: dict[str, str]) -> list[str]:
    """Name the cases of Figures 2 and 3 with their change of the DSC.

    Args:
        difference: DSC of int8 minus float's, by case.
        shown: the cases that the figure shows.
        modalities: case -> modality.
    """
    parts = [f"{name} ({modalities[name]}) {points(difference[name])}" for name in shown]
    return [f"DSC of int8 minus float's: {'; '.join(parts)}."]
