"""Sentences for training and export from made-up numbers: up, down, what cannot be told, what is missing."""

import numpy as np
import pandas as pd
import pytest

from qmsam_core.evaluate.readings.export import (
    read_layers,
    read_parameters,
    read_parity,
    read_profile,
    read_sizes,
    read_starts,
)
from qmsam_core.evaluate.readings.training import (
    read_fidelity,
    read_history,
    read_hours,
    read_protocol,
    read_ranges,
    read_summary,
)


def fidelity(change, ellipse=0.0, modalities=5):
    """A table of two stages whose agreement differs by `change` points, one for each modality."""
    names = ["CT", "MR", "US", "PET", "OCT"][:modalities]
    rows = pd.DataFrame(
        {"modality": names, "slices": 1, "stage 1 agreement": 0.98, "stage 1 embedding db": 20.0}
    )
    rows["stage 1 ellipse agreement"] = 0.8
    rows["stage 2 agreement"] = 0.98 + np.asarray(change)[:modalities] / 100
    rows["stage 2 embedding db"] = 15.0
    rows["stage 2 ellipse agreement"] = 0.8 + np.asarray(ellipse) / 100
    rows["float ellipse agreement"] = 0.8
    average = rows.mean(numeric_only=True).to_frame("x").T.assign(modality="Average", slices=modalities)
    return pd.concat([rows, average], ignore_index=True)


def test_fidelity_falls_rises_or_cannot_be_told():
    first, change, box = read_fidelity(fidelity([-3, -2, -4, -2, -3], [-1, -1, -2, -1, -1]))
    assert first.startswith(
        "After stage 2 the masks agree with the float model's to 95.2 % on average of 5 modalities"
    )
    assert "least in US (94.0 %); 5 slices in all." in first
    assert change.startswith(
        "Compared with stage 1 the agreement falls by 2.8 points (95 % over 5 modalities: -"
    )
    assert box.endswith("int8 does not fall back to filling boxes.")
    assert "rises by 0.9 points" in read_fidelity(fidelity([1, 1, 0.5, 1, 1]))[1]
    assert "does not change by more than chance (+0.0 points" in read_fidelity(fidelity([2, -2, 1, -1, 0]))[1]
    assert "stays as it is" in read_fidelity(fidelity([0] * 5))[1]
    assert read_fidelity(fidelity([0] * 5, [3, 2, 3, 2, 3]))[2].endswith(
        "more of a filled box than float does."
    )


def test_fidelity_of_one_modality_and_of_one_stage():
    first, change, _ = read_fidelity(fidelity([-3], modalities=1))
    assert "modalities" not in first and "1 slice in all" in first
    assert change == "Compared with stage 1 the agreement falls by 3.0 points in the one modality."
    alone = fidelity([0] * 5).drop(
        columns=[f"stage 2 {end}" for end in ("agreement", "embedding db", "ellipse agreement")]
    )
    assert len(read_fidelity(alone)) == 2


def history(scores, best, start=None, score="eval_dsc"):
    table = pd.DataFrame({"epoch": range(len(scores)), "eval_dsc": 0.5, score: scores, "best": best})
    return table if start is None else table.assign(**{f"start_{score.removeprefix('eval_')}": start})


@pytest.mark.parametrize(
    "table, words",
    [
        (history([0.9], [True]), "There is one epoch, and it is kept: DSC 90.00 %."),
        (
            history([0.8, 0.9, 0.85], [True, True, False]),
            "Epoch 2 of 3 is kept: DSC 90.00 %. After the last epoch it is 5.00 points lower.",
        ),
        (history([0.8, 0.9], [True, True]), "Epoch 2 of 2 is kept: DSC 90.00 %."),
        (
            history([0.8, 0.7], [False] * 2, 0.9, "eval_agreement"),
            "None of 2 epochs scored better than the model before training, which is kept: "
            "agreement with float at best 80.00 %; before training it was 90.00 %.",
        ),
    ],
)
def test_the_kept_epoch(table, words):
    assert " ".join(read_history(table)) == words


def test_the_stage_s_dsc():
    assert "is 10.00 points higher than" in read_summary(history([0.9], [True]), 0.8)[0]
    assert "is 10.00 points lower than" in read_summary(history([0.7], [True]), 0.8)[0]
    assert "is the same as" in read_summary(history([0.8], [True]), 0.8)[0]
    assert (
        read_summary(history([0.8], [False]), 0.8) == read_summary(history([0.8], [True]), float("nan")) == []
    )


def protocol(**here):
    rows = {"setting": ["batch_size", "epochs", "training_hours"]}
    for stage, (batch, hours) in enumerate(((2, 5.0), (4, 1.5)), start=1):
        rows[f"stage {stage} paper"] = [batch, 14, hours]
        rows[f"stage {stage} here"] = [
            batch,
            here.get("epochs", 14),
            here.get("hours", (hours, hours))[stage - 1],
        ]
    return pd.DataFrame(rows)


def test_the_protocol_and_its_hours():
    assert read_protocol(protocol()) == ["This run trains by the paper's protocol."]
    assert read_protocol(protocol(epochs=1)) == [
        "This run departs from the paper's protocol in epochs (1 against 14)."
    ]
    assert (
        "6.5 hours here, most in stage 1 (77 %); the paper trained for 6.5 hours, 100 % of that"
        in read_hours(protocol())[0]
    )
    assert (
        "trained for 1.2 minutes here, most in stage 2 (50 %)"
        not in read_hours(protocol(hours=(0.01, 0.01)))[0]
    )
    assert "325 times as long" in read_hours(protocol(hours=(0.01, 0.01)))[0]
    assert read_hours(protocol(hours=(float("nan"),) * 2)) == []


def test_ranges_far_apart_and_close():
    table = pd.DataFrame(
        {
            "quantiser": ["image_encoder.neck.0", "mask_decoder.mask_product.a_quant"],
            "largest magnitude": [0.1, 40.0],
        }
    )
    apart, steps = read_ranges(table)
    assert "0.1 in encoder, neck: input of part 1 and 40 in decoder: mask tokens, 400 times as much" in apart
    assert "not one of the 127 steps" in steps
    assert "only 63 of the 127 steps" in read_ranges(table.assign(**{"largest magnitude": [1.0, 2.0]}))[1]


def test_parameters_beside_the_paper_s():
    table = pd.DataFrame(
        {"model": ["LiteMedSAM"], "image_encoder paper": [5_700_000], "image_encoder here": [5_726_740]}
    )
    assert read_parameters(table) == [
        "Every part has as many parameters as the paper says, in its two digits."
    ]
    (other,) = read_parameters(table.assign(**{"image_encoder here": 8_000_000}))
    assert other == "Not the paper's numbers, as it rounds them: LiteMedSAM, image encoder (+40.4 %)."


def test_sizes_in_words():
    rows = [
        ("float", "encoder", 28.0),
        ("float", "decoder", 18.0),
        ("int8", "encoder", 7.0),
        ("int8", "decoder", 9.0),
    ]
    table = pd.DataFrame(
        [(f"{arm}, OpenVINO weights", part, mb) for arm, part, mb in rows], columns=["arm", "part", "mb"]
    )
    whole, parts = read_sizes(table)
    assert "from 46.0 MB in float to 16.0 MB in int8, 2.9 times" in whole
    assert "encoder shrinks 4.0 times" in parts and "included, 2.0 times" in parts
    smaller = pd.concat([table, pd.DataFrame({"arm": ["int8, ONNX"], "part": ["encoder"], "mb": [12.0]})])
    assert read_sizes(smaller)[2] == "The smallest int8 files are those of int8, ONNX: 12.0 MB."
    assert read_sizes(table[:2]) == []


def test_parity_in_words():
    table = pd.DataFrame(
        {
            "model": ["float", "int8"], "engine": "openvino", "equal pixels": [1.0, 0.9995],
            "equal pixels, worst case": [1.0, 0.999], "embedding error": [1e-6, 0.1],
        }
    )  # fmt: skip
    same, int8 = read_parity(table)
    assert same == "In float every pixel of every mask is PyTorch's, in all engines."
    assert (
        "99.950 %" in int8 and "at worst 99.900 % in a case (int8 on openvino)" in int8 and "10 % of" in int8
    )
    assert "In float the engines'" in read_parity(table.assign(**{"equal pixels, worst case": 0.99}))[0]
    assert len(read_parity(table[:1])) == 1


def test_layers_and_profile_in_words():
    layers = pd.DataFrame(
        [
            ("int8, encoder", "FC", "int8", 60.0),
            ("int8, encoder", "Norm", "f32", 30.0),
            ("int8, encoder", "Add", "f32", 10.0),
            ("int8_nncf, encoder", "FC", "int8", 5.0),
            ("int8_nncf, encoder", "FC", "f32", 5.0),
            ("float, encoder", "FC", "f32", 9.0),
        ],
        columns=["arm", "operation", "precision", "ms"],
    )
    assert read_layers(layers) == [
        "Of the int8 encoder's time 60 % is spent in layers that run in int8; "
        "of the rest most in Norm (30 % of all).",
        "The other int8 exports of the encoder reach 50 % in int8_nncf.",
    ]
    assert read_layers(layers[:1]) == [
        "Of the int8 encoder's time 100 % is spent in layers that run in int8."
    ]
    assert read_layers(layers[-1:]) == []
    profile = pd.DataFrame(
        [
            ("float_fast, encoder, f32", "all", "", 200.0, 100.0),
            ("int8, encoder, f32", "attention", "int8", 50.0, 10.0),
            ("int8, encoder, f32", "norm", "f32", 30.0, 20.0),
            ("int8, encoder, f32", "all", "", 100.0, 40.0),
        ],
        columns=["arm", "kind", "precision", "ms", "limit ms"],
    )
    whole, worst = read_profile(profile)
    assert whole == "The int8 encoder takes 100 ms and the rewritten float one 200 ms, 2.00 times as long."
    assert "attention in int8 loses most" in worst and "50 ms where 10 would do, 40 % of" in worst
    assert len(read_profile(profile[1:])) == 1


def test_starts_in_words():
    rows = [
        ("float", "no cache", 0.9),
        ("float", "warm cache", 0.4),
        ("int8", "no cache", 2.2),
        ("int8", "warm cache", 0.8),
    ]
    (sentence,) = read_starts(pd.DataFrame(rows, columns=["arm", "start", "seconds"]))
    assert sentence.endswith("float in 0.4 s instead of 0.9, int8 in 0.8 s instead of 2.2.")
