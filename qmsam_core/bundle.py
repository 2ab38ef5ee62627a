"""Make the checkpoint that is given away: half-precision weights, scores on cases it has never seen, and a model card.

python -m qmsam_core.bundle outputs/pretrain-open_pack -o outputs/pretrained
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import jinja2
import pandas as pd
import torch

from .data import Case, SliceIndex
from .data.licences import read_sources, source_of
from .deploy import Predictor, PyTorchEngine
from .evaluate import inscribed_ellipse, score_cases
from .evaluate.intervals import paired_differences
from .evaluate.tables import spread_per_modality
from .models import build_model, load_checkpoint, save_checkpoint
from .models.bundled import FOLDER, NAME
from .models.filled_box import rotate_heads
from .quant import describe_model
from .train.pretrain import whole_history

LOADER = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
ARMS = {"model": "LiteMedSAM, open", "ellipse": "ellipse in the box"}


def score_unseen(checkpoint: Path, testing: SliceIndex, log: Callable[[str], None] = print) -> pd.DataFrame:
    """DSC and NSD of every testing case at the network's own size, of the model and of the ellipse inscribed in each box.

    Returns:
        One row a case and arm (`ARMS`): the columns of `score_cases`, and `arm`.
    """
    model = build_model("litemedsam")
    load_checkpoint(model, checkpoint)
    predictor, rows = Predictor(PyTorchEngine(model)), []
    for number, (path, modality, group) in enumerate(testing.cases[["path", "modality", "group"]].itertuples(index=False), 1):
        case = Case.load(path).with_boxes()
        for arm, segs in ((ARMS["model"], predictor.segment(case)), (ARMS["ellipse"], inscribed_ellipse(case))):
            rows.append(score_cases([(case, segs, modality, group)]).assign(arm=arm))
        if number % 10 == 0 or number == len(testing.cases):
            log(f"scored {number} of {len(testing.cases)} cases")
    return pd.concat(rows, ignore_index=True)


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Modality by modality and on average: cases, DSC of both arms with the model's 95 % interval, their paired difference with its own; percent."""
    arms = {arm: scores[scores["arm"] == arm].drop(columns="arm") for arm in ARMS.values()}
    model, ellipse = (spread_per_modality(arms[ARMS[arm]]).set_index("modality") for arm in ("model", "ellipse"))
    paired = paired_differences(*arms.values()).set_index("modality")
    table = pd.DataFrame({"cases": model["cases"], "DSC": 100 * model["mean"], "low": 100 * model["low"], "high": 100 * model["high"]})
    table["ellipse"] = 100 * ellipse["mean"]
    for name in ("difference", "difference_low", "difference_high"):
        table[name] = 100 * paired[name]
    return table.reset_index()


def bundle(run: Path, output: Path, remark: str = "", log: Callable[[str], None] = print) -> Path:
    """Write `litemedsam_open.safetensors`, `.json`, `.md`, `_history.csv` and `_unseen.csv`.

    All are complete before the first takes the place of an earlier edition's, so that a failure, a full disk for example, leaves that edition whole.

    Args:
        run: folder of a finished run of the profile `pretrain`.
        remark: Markdown below the card's table of the training, for what the run's files do not tell.

    Returns:
        Path of the weights.

    Raises:
        CheckpointError: the run's float model is missing or no full-size LiteMedSAM, or the weights cannot be written.
        OSError: another file cannot be written.
    """
    trained = run / "00_prepare" / "float" / "model.safetensors"
    facts = describe_model(trained)
    model = build_model("litemedsam")
    load_checkpoint(model, trained)
    rotate_heads(model.mask_decoder.transformer.layers[0].cross_attn_image_to_token)  # same answers, and they last better in 8 bits
    output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".bundle", dir=output) as folder:  # within the output folder, so that moving from it takes no space
        made = Path(folder)
        weights = made / f"{NAME}.safetensors"
        digest = save_checkpoint(model, weights, dtype=torch.float16)
        train, testing = (SliceIndex.load(run / "00_prepare" / f"index_{name}.npz") for name in ("train", "testing"))
        scores = score_unseen(weights, testing, log)
        names = {index: [Path(p).relative_to(index.root).as_posix() for p in index.cases["path"]] for index in (train, testing)}
        history = whole_history(trained.parent)
        facts |= {"samples": int(history["samples"].sum()), "seconds": round(history["seconds"].sum())}
        card = jinja2.Environment(loader=LOADER, trim_blocks=True, lstrip_blocks=True).get_template("model_card.md.j2")
        text = card.render(
            name=NAME, sha256=digest, facts=facts, megabytes=weights.stat().st_size / 1e6, history=history,
            sources=used_sources(names[train], train.root), unseen=names[testing], modalities=train.modalities,
            table=summary(scores).round(1).to_dict("records"), images=facts["samples"], hours=facts["seconds"] / 3600,
            steps=steps_taken(history), remark=remark,
        )  # fmt: skip
        scores.round(5).to_csv(made / f"{NAME}_unseen.csv", index=False)
        history.to_csv(made / f"{NAME}_history.csv", index=False)
        (made / f"{NAME}.md").write_text(text, encoding="utf-8")
        (made / f"{NAME}.json").write_text(json.dumps({"sha256": digest, **facts}, indent=2) + "\n")
        for file in sorted(made.iterdir()):
            file.replace(output / file.name)
    return output / weights.name


def steps_taken(history: pd.DataFrame) -> int:
    """Steps of all phases; `step` counts within a phase. Rows from before phases were numbered are told apart by their size and a `step` that falls."""
    after = history.shift(-1)
    last = (history["image_size"] != after["image_size"]) | (history["step"] > after["step"])
    if "phase" in history:
        last |= history["phase"].fillna(-1) != after["phase"].fillna(-1)
    return int(history.loc[last, "step"].sum())


def used_sources(names: list[str], root: Path) -> pd.DataFrame:
    """The openly licensed sources that cases below `root` come from: modality, source, licence, cases."""
    stated = read_sources(root)
    rows = [row for name in names if (row := source_of(name, stated)) is not None and row["open"]]
    if not rows:
        return pd.DataFrame(columns=["modality", "source", "licence", "cases"])
    return pd.DataFrame(rows).groupby(["modality", "source", "licence"], as_index=False).size().rename(columns={"size": "cases"})


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring. Exit code 2 with one line on bad input."""
    parser = argparse.ArgumentParser(prog="python -m qmsam_core.bundle", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=FOLDER)
    parser.add_argument("--remark", default="", help="for the card: what the run's files do not tell about the training")
    options = parser.parse_args(arguments)
    try:
        path = bundle(options.run, options.output, options.remark)
    except (ValueError, OSError) as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 2
    print(path.with_suffix(".md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
