"""The three answers at the top of a run's pages: sentences from made-up tables, in both directions."""

import pandas as pd
import pytest

from qmsam_core.study.answer_accuracy import (
    ARMS,
    CALIBRATED,
    TRAINED,
    accuracy_verdict,
    where_it_loses,
    why_it_loses,
)
from qmsam_core.study.answer_claims import claims_sentences, claims_verdict
from qmsam_core.study.answer_speed import machine_of, speed_sentences, speed_verdict
from qmsam_core.study.answers import COLUMNS, NOT_RUN, answers
from qmsam_core.study.compared_models import COMPARED, SUMMARISED
from qmsam_core.timing.engine_speed import INSTRUCTION_SETS

NAN = float("nan")


def summary(difference=-0.002, low=-0.005, high=0.001, agreed=(0.99, 0.96), ms=100.0):
    names = ["model", "dsc", "difference to float", "difference low", "difference high"]
    rows = [
        ("float", 0.9, NAN, NAN, NAN, 1.0, 150.0),
        (CALIBRATED, 0.9, -0.001, -0.002, 0.0, agreed[0], ms),
        (TRAINED, 0.9 + difference, difference, low, high, agreed[1], ms),
    ]
    return pd.DataFrame(rows, columns=[*names, "agreement with float", "ms"])


def scores(us_calibrated=0.89):
    rows = [("Baseline", 0.9), ("Calibrated", us_calibrated), ("Proposed", 0.8)]
    return pd.DataFrame(
        [(arm, case, "US", dsc, 0.9) for arm, dsc in rows for case in ("a", "b")],
        columns=["arm", "case", "modality", "dsc", "agreement"],
    )


def test_the_names_of_rows_are_those_that_the_tables_have():
    assert {CALIBRATED, TRAINED, "float"} <= set(SUMMARISED)
    assert ARMS[CALIBRATED] in COMPARED and ARMS["float"] in COMPARED
    assert next(iter(INSTRUCTION_SETS)) == "ALL"  # the first row of isa_gain.csv, which is not told twice


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((-0.005, 0.001), "Yes, on average."),
        ((0.001, 0.004), "Yes, on average it even gains."),
        ((-0.04, -0.011), "No, not on average."),
        ((-0.04, 0.001), "Cannot be told: it may lose a point or nothing."),
        ((NAN, NAN), "Cannot be told from so few cases."),
        ((-0.002, -0.002), "Cannot be told from so few cases."),  # no width: one case a modality
    ],
)
def test_accuracy_is_kept_if_the_interval_excludes_a_loss_of_a_point(interval, verdict):
    assert accuracy_verdict(summary(-0.002, *interval), None)[0] == verdict


def test_accuracy_in_numbers():
    first, second = accuracy_verdict(summary(), scores())[1]
    assert "DSC of 89.8 % on 2 cases, float 90.0 %: -0.20 points (95 %: -0.50 to +0.10)" in first
    assert (
        "to 99.0 % when it is only calibrated, and to 96.0 % after training, which moved them away" in second
    )
    assert "brought them nearer" in accuracy_verdict(summary(agreed=(0.7, 0.8)), None)[1][1]
    assert accuracy_verdict(summary(agreed=(NAN, 0.8)), None)[1][1] == ""
    assert "too few cases for an interval" in accuracy_verdict(summary(low=NAN, high=NAN), None)[1][0]
    assert accuracy_verdict(summary().iloc[:1], None)[0] == "Cannot be told."


def paired(*rows):
    names = ["modality", "cases", "difference", "difference_low", "difference_high"]
    return pd.DataFrame([*rows, ("Average", 9, -0.01, -0.02, 0.01)], columns=names)


LOSES, EVEN, FEW = ("CT", 4, -0.03, -0.04, -0.02), ("MR", 4, 0.0, -0.01, 0.01), ("US", 1, -0.08, NAN, NAN)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([LOSES, EVEN, FEW], "It loses in CT (-3.00 points)."),
        ([EVEN, FEW], "No modality's loss can be told from chance; US falls most (-8.00 points, 1 case)."),
        ([EVEN, ("X", 2, 0.01, NAN, NAN)], "No modality falls by more than a point; the lowest is MR"),
        ([LOSES], "All cases are of one modality, CT."),
    ],
)
def test_where_it_loses(rows, said):
    assert where_it_loses(paired(*rows), None)[0].startswith(said)


def test_without_modalities_nothing_is_said_of_them():
    assert where_it_loses(paired(), None) == []
    assert where_it_loses(paired(("CT", 1, NAN, NAN, NAN)), None) == []


def test_many_modalities_that_lose_are_counted():
    rows = [(f"M{k}", 4, -0.01 * k, -0.1, -0.001) for k in range(1, 6)]
    said = where_it_loses(paired(*rows), None)[0]
    assert said == "It loses in M5 (-5.00 points), M4 (-4.00 points), M3 (-3.00 points) and 2 more."


@pytest.mark.parametrize(("before", "said"), [(0.89, "mostly by training"), (0.81, "not by training")])
def test_what_the_worst_modality_had_before_training(before, said):
    told = where_it_loses(paired(EVEN, FEW), scores(before))[0]
    assert f"in US {said}: before it, {100 * (before - 0.9):+.2f} points." in told


@pytest.mark.parametrize(
    ("encoder", "decoder", "said"),
    [
        (0.8, 0.98, "The encoder loses more"),
        (0.98, 0.8, "The decoder loses more"),
        (0.9, 0.905, "Both parts"),
    ],
)
def test_why_it_loses(encoder, decoder, said):
    table = pd.DataFrame({"name": ["encoder only", "decoder only"], "agreement": [encoder, decoder]})
    (told,) = why_it_loses(table)
    assert told.startswith(said) and f"the encoder agrees with float to {100 * encoder:.1f} %" in told


def test_what_fitted_scales_bring():
    table = pd.DataFrame({"name": ["the paper's", "ours"], "agreement": [0.8, 0.97]})
    assert "mends it: 97.0 % for both parts, with the paper's quantisers 80.0 %" in why_it_loses(table)[0]
    assert "mends nothing" in why_it_loses(table.assign(agreement=[0.97, 0.97]))[0]
    assert why_it_loses(table.iloc[:1]) == []


def gain(best=1.9, released=0.7, plain=2.0, paper=0.98):
    names = ["table", "engine", "speed-up paper", "speed-up over plain float", "speed-up over best float"]
    rows = [
        ("Table 5", "ONNX Runtime", 1.0, 0.7, 0.6, "OpenVINO"),
        ("Table 5", "OpenVINO", paper, plain, best, "OpenVINO, rewritten"),
        ("Table 5", "OpenVINO, released style", NAN, 1.1, released, "OpenVINO, rewritten"),
    ]
    return pd.DataFrame(rows, columns=[*names, "best float"])


def isa(*ratios):
    sets = ["everything", "AVX2 with VNNI", "AVX2"]
    rows = [(name, "an image and a box", r) for name, r in zip(sets, ratios)] + [("AVX2", "decoder", 9.0)]
    return pd.DataFrame(rows, columns=["instruction set", "part", "speed-up over best float"])


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (1.9, "1.90 times as fast as the fastest float here."),
        (0.62, "0.62 times as fast as the fastest float here: it is slower."),
        (1.04, "As fast as the fastest float here (1.04 times)."),
        (NAN, "Cannot be told."),
    ],
)
def test_the_verdict_on_speed(ratio, verdict):
    assert speed_verdict(gain(ratio)) == verdict
    assert speed_verdict(gain().iloc[:1]) == speed_verdict(None) == "Cannot be told."
    assert speed_verdict(None, isa(ratio, 0.5)) == verdict


def test_speed_in_numbers():
    said = speed_sentences(gain(), isa(1.9, 1.5, 0.6), summary(), "A CPU, 2 threads")
    assert said == [
        "On A CPU, 2 threads, one image and one box take 100 ms in int8 and 190 ms in the fastest float "
        "(OpenVINO, rewritten).",
        "Held to fewer of its instructions: 1.50 times under AVX2 with VNNI; 0.60 times under AVX2.",
        "Exported in the authors' style the same weights are slower than float (0.70 times).",
        "Over float exported plainly: 2.00 times for LiteMedSAM (0.98 in the paper).",
    ]


def test_speed_with_less_measured():
    assert speed_sentences(gain().iloc[:1], isa(1.9), None, "A CPU") == ["Measured on A CPU."]
    assert speed_sentences(None, None, None, "A CPU") == []
    assert "faster (1.30 times)" in speed_sentences(gain(released=1.3), None, None, "A CPU")[1]
    assert "as fast as float (1.00 times)" in speed_sentences(gain(released=1.0), None, None, "A CPU")[1]


def test_the_machine_is_that_of_the_timings():
    records = {
        name: {"environment": {"cpu": {"model": name, "vnni": True, "avx2": True}, "threads": 1}}
        for name in ("a", "06_engine_speed")
    }
    assert machine_of(records) == "06_engine_speed (avx2, vnni), 1 thread"
    assert (
        machine_of({"a": records["a"]}) == "a (avx2, vnni), 1 thread" and machine_of({}) == "an unnamed CPU"
    )


def claims(*verdicts):
    rows = [
        (f"claim {k}: x minus y", "Table 1", "1x", "2x (1 to 3)", *both) for k, both in enumerate(verdicts)
    ]
    return pd.DataFrame(rows, columns=COLUMNS["10_beyond/claims.csv"])


YES, NO, OPEN, NEW = "yes", "no", "cannot be told", "not shown"


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        ([(YES, YES), (YES, NO), (YES, OPEN)], "1 of 2 judged here."),
        ([(YES, YES)], "None of 1 judged here."),
        ([(YES, NO), (NO, YES)], "1 of 1 judged here; 1 by the paper's own numbers."),
        ([(YES, OPEN), (NO, NO)], "None judged here; 1 by the paper's own numbers."),
        ([(YES, OPEN), (NEW, YES)], "Cannot be told: this run can judge no claim."),
    ],
)
def test_the_verdict_on_claims(verdicts, verdict):
    assert claims_verdict(claims(*verdicts)) == verdict


def test_claims_are_named_by_what_speaks_against_them():
    said = claims_sentences(
        claims((YES, YES), (YES, NO), (NO, NO), (NO, YES), (NO, OPEN), (NEW, NO), (YES, OPEN))
    )
    assert said == [
        "Fails here: claim 1 (Table 1: 1x, here 2x).",
        "Denied by the paper's own numbers, and here: claim 2 (Table 1: 1x, here 2x).",
        "Denied by the paper's own numbers, but true here: claim 3 (Table 1: 1x, here 2x).",
        "Denied by the paper's own numbers, open here: claim 4 (Table 1: 1x, here 2x).",
        "Not shown in the paper, and not so here: claim 5 (Table 1: 1x, here 2x).",
        "Cannot be told here: claim 6 (Table 1).",
    ]
    assert claims_sentences(claims((YES, YES), (NEW, YES), (NEW, OPEN))) == []
    many = claims(*[(YES, OPEN)] * 5)
    assert claims_sentences(many)[0].endswith("claim 2 (Table 1); and 2 more.")


def write(folder, tables):
    for path, table in tables.items():
        (folder / path).parent.mkdir(exist_ok=True)
        table.to_csv(folder / path, index=False)


def test_answers_of_a_run(tmp_path):
    recipes = pd.DataFrame({"name": ["the paper's", "ours"], "agreement": [0.8, 0.97]})
    tables = [summary(), paired(LOSES, EVEN), scores(), recipes, gain(), isa(1.9, 0.6), claims((YES, NO))]
    write(tmp_path, dict(zip(COLUMNS, tables)))
    accuracy, speed, denied = answers(tmp_path, {})
    assert (
        accuracy.verdict.startswith("Yes") and speed.verdict.startswith("1.90") and denied.verdict[0] == "1"
    )
    for part in ("on 2 cases", "loses in CT", "mends it"):
        assert any(part in sentence for sentence in accuracy.sentences)
    for answer in (accuracy, speed, denied):
        assert not any(".csv" in sentence for sentence in answer.sentences) and answer.seen


def test_a_run_that_lacks_tables_or_columns_says_so(tmp_path):
    assert [answer.verdict for answer in answers(tmp_path, {})] == [NOT_RUN] * 3
    write(
        tmp_path,
        {"10_beyond/claims.csv": claims().head(0), "06_engine_speed/int8_gain.csv": gain()[["table"]]},
    )
    for answer, path in zip(
        answers(tmp_path, {}), ("09_testing/summary.csv", "06_engine_speed/int8_gain.csv")
    ):
        assert answer.verdict == NOT_RUN and path in answer.sentences[-1]
    write(tmp_path, {"09_testing/summary.csv": summary()})
    first = answers(tmp_path, {})[0]
    assert first.verdict == "Yes, on average." and "09_testing/paired.csv" in first.sentences[-1]
