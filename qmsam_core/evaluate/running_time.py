"""Table 8 with cases of one's own: the paper's cases are not public, so each of its rows stands beside a case of the same modality."""

import pandas as pd

from .paper_tables import PAPER


def matched_cases(cases: pd.DataFrame) -> pd.DataFrame:
    """Choose a case for each row of Table 8: of the same modality, the k-th in number of objects for the k-th of the paper's.

    Args:
        cases: columns modality, objects and any others.

    Returns:
        The chosen rows, at most one for each of the paper's, with a column `paper_case` that names the row it stands beside.
    """
    paper = PAPER["table8"].sort_values("objects", ascending=False, kind="stable")
    ours = cases.sort_values("objects", ascending=False, kind="stable")
    paper, ours = (table.assign(place=table.groupby("modality").cumcount()) for table in (paper, ours))
    matched = (
        paper[["case", "modality", "place"]]
        .rename(columns={"case": "paper_case"})
        .merge(ours, on=["modality", "place"])
    )
    return matched.drop(columns="place")


def running_time_table(measured: pd.DataFrame) -> pd.DataFrame:
    """Table 8, the paper's rows and ours side by side.

    Args:
        measured: columns paper_case, case, size, objects, seconds_baseline, seconds_proposed, as `matched_cases` chose them.
    """
    paper = PAPER["table8"].rename(columns={"case": "paper_case"}).drop(columns="modality")
    both = paper.merge(measured, on="paper_case", how="left", suffixes=(" paper", " here")).astype(
        {"objects here": "Int64"}
    )
    for source in ("paper", "here"):
        both[f"speed-up {source}"] = both[f"seconds_baseline {source}"] / both[f"seconds_proposed {source}"]
    own = [
        f"{c} {source}"
        for source in ("paper", "here")
        for c in ("size", "objects", "seconds_baseline", "seconds_proposed", "speed-up")
    ]
    return both[["paper_case", *own[:5], "case", *own[5:]]].rename(
        columns={"paper_case": "case paper", "case": "case here"}
    )
