r"""Compare an int8 model calibrated on one modality with one calibrated on all, modality by modality.

    python -m qmsam_core.study.modality_apart cases/ -o modality_apart.csv
    python -m qmsam_core.study.modality_apart cases/ --modalities CT MR --slices 4 -o few.csv

Each sub-folder of `cases/` is a modality. Half of its cases may calibrate, one slice of each, and the other
half judge. The recipe is `deploy`. Three arms are judged on the same slices of a modality:

    together    calibrated on slices of all modalities, as many as `apart` has
    apart       calibrated on slices of this modality alone
    apart, all  calibrated on all of this modality's slices that may calibrate, where it has more

The models are simulated in PyTorch, with fake quantisation. The reference is the float model. Labels are
needed for the DSC alone. Beside the table, `modality_apart_slices.csv` has a row a slice and arm. Both are
written as soon as an arm is judged, and arms that are there already are kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import pandas as pd
import torch

from ..data.boxed_slices import BoxedSlice, slices_of
from ..data.index import SliceIndex
from ..data.index.groups import case_groups
from ..deploy.own_images import dsc_of, segmented
from ..evaluate.intervals import average_interval, paired_differences
from ..evaluate.paper_tables import harmonised
from ..evaluate.tables import rendered
from ..models import CONFIGS, PUBLIC, Sam, build_model
from ..provenance.files import write_atomic
from ..quant import RECIPES, quantize
from ..quant.calibration import calibrate_on
from ..quant.sensitivity import mask_agreement, signal_to_noise
from .literature import Expected, expected
from .modality_slices import ALL, APART, TOGETHER, Modality, arms_of, mixed, modalities_of, modalities_of_run

SLICES = 11
"""Slices that calibrate `together` and `apart`: one of each of the challenge's modalities, or 11 of one."""
KEY = ["modality", "arm"]
SCORES = [*KEY, "calibration", "case", "group", "agreement", "dsc float", "dsc int8", "embedding db"]
DIFFERENCES = ["modality", "cases", "difference", "difference_low", "difference_high", "worse", "arm"]
SUMMARY = ["modality", "judged slices", "agreement together", "agreement apart", "difference"]
"""Columns of `differences` and of `summary` if nothing was calibrated apart."""


def calibrated(float_model: Sam, slices: Sequence[BoxedSlice]) -> Sam:
    """Quantise a float model by the recipe `deploy` and calibrate it on slices."""
    model = quantize(float_model, RECIPES["deploy"])
    calibrate_on(model, slices)
    return model.eval()


def slice_scores(model: Sam, references: Sequence[Expected]) -> pd.DataFrame:
    """Compare a quantised model with the float model.

    Returns:
        One row a slice: case, group (equal for cases of one patient), agreement (Dice with the float masks),
        `dsc float` and `dsc int8` (NaN without labels), all 0..1 and means over the slice's boxes;
        `embedding db`, the embedding's signal-to-quantisation-noise ratio.
    """
    rows = []
    groups = case_groups([one.source.name.partition(", slice ")[0] for one in references])
    for one, group in zip(references, groups):
        embedding, masks = segmented(model, one.image, one.boxes, one.geometry)
        agreement = mask_agreement(*map(torch.from_numpy, (one.masks, masks)))
        scores = pd.DataFrame({"dsc float": one.dsc, "dsc int8": dsc_of(masks, one.source.labels)}).mean()
        rows.append(
            {
                "case": one.source.name,
                "group": group,
                "agreement": float(agreement.mean()),
                **scores,
                "embedding db": signal_to_noise(one.embedding, embedding),
            }
        )
    return pd.DataFrame(rows)


def scores(
    float_model: Sam,
    modalities: Mapping[str, Modality],
    slices: int = SLICES,
    judged: Collection[str] | None = None,
    known: Collection[tuple[str, str]] = (),
) -> Iterator[pd.DataFrame]:
    """Calibrate and judge every arm of every modality. Yield the rows of one arm at a time.

    Args:
        float_model: in evaluation mode.
        modalities: see `modalities_of`.
        slices: that calibrate, see `arms_of`.
        judged: names of the modalities that are judged; None takes all.
        known: (modality, arm) to leave out, as their rows are known.

    Returns:
        What `slice_scores` returns, with modality, arm and calibration, the number of slices that calibrated.
    """
    together = cache(lambda count: calibrated(float_model, mixed(modalities, count)))
    for name in judged or modalities:
        arms = {a: s for a, s in arms_of(modalities, name, slices).items() if (name, a) not in known}
        references = expected(float_model, modalities[name].judging) if arms else []
        for arm, own in arms.items():
            model = together(len(own)) if arm == TOGETHER else calibrated(float_model, own)
            found = slice_scores(model, references)
            yield found.assign(modality=name, arm=arm, calibration=len(own))[SCORES]


def scores_of_run(float_model: Sam, folder: Path, slices: int, count: int) -> pd.DataFrame:
    """Return the rows of `scores` for a run's own slices.

    Args:
        float_model: in evaluation mode.
        folder: of notebook 00, which holds the indices of training and evaluation slices.
        slices: most slices of a modality that calibrate, and that judge.
        count: modalities, see `modalities_of_run`. With 0 there is no row.
    """
    indices = (SliceIndex.load(folder / f"index_{part}.npz") for part in ("train", "evaluation"))
    found = list(scores(float_model, modalities_of_run(*indices, slices, count), slices)) if count else []
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=SCORES)


def table_of(scores: pd.DataFrame) -> pd.DataFrame:
    """Summarise the rows of `scores`, one row a modality and arm.

    Returns:
        modality, arm, `calibration slices`, `judged slices`; agreement with float (mean over slices, 0..1)
        and its 95 % bootstrap interval, `agreement low` to `agreement high`; its difference to `together` on
        the same slices, and the interval of that; `dsc float`, `dsc int8` (NaN without labels) and
        `embedding db`, means.
    """
    rows = []
    for (modality, arm), own in scores.groupby(KEY, sort=False):
        low, high = average_interval([own["agreement"]], [own["group"]])
        rows.append(
            {
                "modality": modality,
                "arm": arm,
                "calibration slices": int(own["calibration"].iloc[0]),
                "judged slices": len(own),
                "agreement": own["agreement"].mean(),
                "agreement low": low,
                "agreement high": high,
                **_difference(scores, modality, arm),
                **own[["dsc float", "dsc int8", "embedding db"]].mean(),
            }
        )
    return pd.DataFrame(rows)


def _difference(scores: pd.DataFrame, modality: str, arm: str) -> dict[str, float]:
    own = scores[scores["modality"] == modality]
    names = ("difference", "difference low", "difference high")
    if arm == TOGETHER or TOGETHER not in set(own["arm"]):
        return dict.fromkeys(names, float("nan"))
    row = differences(own, [arm]).iloc[0]
    return {name: row[name.replace(" ", "_")] for name in names}


def differences(scores: pd.DataFrame, arms: Sequence[str] = (APART, ALL)) -> pd.DataFrame:
    """Compare arms with `together` by their agreement with float, on the same slices.

    Returns:
        arm, and the columns of `paired_differences` in terms of the agreement: one row a modality, and their
        Average. An arm that no modality has is left out.
    """
    by_arm = {arm: own.rename(columns={"agreement": "dsc"}) for arm, own in scores.groupby("arm")}
    tables = {arm: paired_differences(by_arm[arm], by_arm[TOGETHER]) for arm in arms if arm in by_arm}
    if not tables:
        return pd.DataFrame(columns=DIFFERENCES)
    return pd.concat([table.assign(arm=arm) for arm, table in tables.items()], ignore_index=True)


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Say whether calibrating a modality apart helps: one row a modality, and the Average over them.

    Args:
        scores: rows of `scores`, with `together` and `apart`.

    Returns:
        modality, `calibration slices`, `judged slices`, `agreement together`, `agreement apart` (0..1),
        difference (apart minus together) with its 95 % interval, and the `dsc difference` on the same slices
        (NaN without labels).
    """
    if scores.empty:
        return pd.DataFrame(columns=SUMMARY)
    scores = scores.assign(modality=scores["modality"].map(harmonised))
    rows = differences(scores, [APART]).set_index("modality")
    arms = {arm: own.groupby("modality") for arm, own in scores.groupby("arm") if arm != ALL}
    found = pd.DataFrame({"judged slices": rows["cases"]})
    found.insert(0, "calibration slices", arms[APART]["calibration"].first().astype("Int64"))
    means = {arm: own[["agreement", "dsc int8"]].mean() for arm, own in arms.items()}
    for own in means.values():
        own.loc["Average"] = own.mean()
    for arm in (TOGETHER, APART):
        found[f"agreement {arm}"] = means[arm]["agreement"]
    for end in ("", " low", " high"):
        found[f"difference{end}"] = rows[f"difference{end}".replace(" ", "_")]
    found["dsc difference"] = means[APART]["dsc int8"] - means[TOGETHER]["dsc int8"]
    return found.reset_index()


def known_scores(path: Path, modalities: Mapping[str, Modality], slices: int) -> pd.DataFrame:
    """Read the rows that `path` has from an earlier run; an empty table if there is no such file.

    Raises:
        ValueError: it is another table, or was made of other slices.
    """
    if not path.exists():
        return pd.DataFrame(columns=SCORES)
    table = pd.read_csv(path)
    if list(table) != SCORES:
        raise ValueError(f"{path}: has columns {', '.join(table)}; expected a table of this command")
    for (name, arm), own in table.groupby(KEY):
        arms = arms_of(modalities, name, slices) if name in modalities else {}
        judging = [one.name for one in modalities[name].judging] if arms else []
        if arm not in arms or len(arms[arm]) != own["calibration"].iloc[0] or judging != own["case"].tolist():
            raise ValueError(
                f"{path}: {name}, {arm}: was calibrated or judged on other slices than now; "
                "give another output file"
            )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.study.modality_apart",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="npz cases, in sub-folders by modality")
    parser.add_argument("--model", default="litemedsam", choices=list(CONFIGS))
    parser.add_argument("--checkpoint", help=f"{PUBLIC} (the default for litemedsam), or a float checkpoint")
    parser.add_argument("--modalities", nargs="+", help="sub-folders that are judged; all by default")
    parser.add_argument(
        "--slices", type=int, default=SLICES, help="slices that calibrate each arm (default %(default)s)"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, help="table, .csv")
    return parser


def run(options: argparse.Namespace) -> pd.DataFrame:
    """Do what the command line asks for, and return the rows of `scores`.

    Raises `ValueError` or `OSError` on bad input.
    """
    if options.slices < 1:
        raise ValueError(f"--slices {options.slices}: expected 1 or more")
    found, unusable = slices_of(options.folder, sys.maxsize)
    modalities, few = modalities_of(found)
    for line in (*unusable, *few):
        print(f"left out: {line}", file=sys.stderr)
    if unknown := set(options.modalities or ()) - set(modalities):
        raise ValueError(f"--modalities {sorted(unknown)[0]}: expected some of {', '.join(modalities)}")
    judged = options.modalities or list(modalities)
    by_slice = options.output.with_name(f"{options.output.stem}_slices.csv")
    rows = known_scores(by_slice, modalities, options.slices)
    known = set(rows[KEY].itertuples(index=False, name=None))
    wanted = [
        (n, arm) for n in judged for arm in arms_of(modalities, n, options.slices) if (n, arm) not in known
    ]
    print(f"{len(wanted)} arms of {len(judged)} modalities are missing", file=sys.stderr, flush=True)
    checkpoint = options.checkpoint or (PUBLIC if options.model == "litemedsam" else None)
    float_model = build_model(options.model, checkpoint=checkpoint).eval()
    for number, new in enumerate(scores(float_model, modalities, options.slices, judged, known), 1):
        rows = pd.concat([rows, new], ignore_index=True) if len(rows) else new
        table = table_of(rows)
        for path, content in ((by_slice, rows), (options.output, table)):
            write_atomic(path, lambda part, content=content: content.to_csv(part, index=False))
        line = f"{', '.join(wanted[number - 1])}: agreement {100 * table['agreement'].iloc[-1]:.1f} %"
        print(f"{number}/{len(wanted)} {line}", file=sys.stderr, flush=True)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; see the module's docstring. Returns the exit code, 2 on bad input."""
    try:
        rows = run(_parser().parse_args(arguments))
    except (ValueError, OSError) as error:
        print(f"modality_apart: {error}", file=sys.stderr)
        return 2
    print(rendered(table_of(rows)).to_string(index=False))
    print(rendered(summary(rows)).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
