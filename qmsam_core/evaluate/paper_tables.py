"""The numbers of the paper's Tables 1 to 10 as data frames, one row per observation, in base units.

`PAPER["table7"]` and the other frames hold DSC and NSD as fractions (0..1), times in seconds, and counts. The
paper calls one modality Microscope in its results and Microscopy in Table 2. Here it is always Microscopy.
Merged cells of the paper are repeated in each row. Absent values (Table 8: memory limit exceeded) are NaN.
"""

from __future__ import annotations

import pandas as pd

# The order of Table 7, then the modalities that only Table 10 or Table 2 has.
MODALITIES = (
    "CT",
    "MR",
    "PET",
    "US",
    "X-Ray",
    "Dermoscopy",
    "Endoscopy",
    "Fundus",
    "Microscopy",
    "OCT",
    "Mammography",
)

_TABLE_1 = """
LiteMedSAM | 5.7e6  | 6.2e3 | 4.1e6
MedSAM     | 89.7e6 | 6.2e3 | 4.1e6
"""

_TABLE_2 = """
CT          | 1218411
MR          | 236804
PET         | 89059
Endoscopy   | 43443
X-Ray       | 34893
Dermoscopy  | 3694
US          | 1646
OCT         | 1436
Mammography | 1233
Fundus      | 1057
Microscopy  | 1000
"""

# Stage, batch size, hours. The other settings are the same in all stages.
_TABLE_3 = """
1 | 2 | 5
2 | 4 | 2.5
3 | 2 | 1
"""

_TABLE_4 = """
System                  | Ubuntu 20.04.3 LTS
CPU                     | Intel(R) Xeon(R) Gold 5218R CPU@2.10GHz
RAM                     | 16 x 32GB
GPU                     | 4 x NVIDIA GeForce RTX 3090
CUDA version            | 12.2
Programming language    | Python 3.11
Deep learning framework | PyTorch 2.0.1
Specific dependencies   | Brevitas 0.10.3
Code                    | https://github.com/AVC2-UESTC/QMedSAM
"""

# Precision, engine, seconds for LiteMedSAM (Table 5), seconds for MedSAM (Table 6).
_TABLES_5_AND_6 = """
float | PyTorch      | 1.180 | 10.181
float | ONNX Runtime | 0.787 | 5.707
float | OpenVINO     | 0.574 | 4.202
int8  | ONNX Runtime | 0.769 | 4.531
int8  | OpenVINO     | 0.585 | 3.558
"""

# Percent, DSC and NSD in turn: Stage 3, Stage 2, Stage 1, Baseline.
_TABLE_7 = """
CT         | 89.35 | 92.84 | 89.73 | 93.23 | 89.86 | 93.27 | 90.78 | 93.08
MR         | 82.41 | 87.29 | 82.73 | 87.76 | 82.91 | 87.87 | 86.43 | 90.37
PET        | 64.80 | 56.33 | 63.37 | 49.52 | 63.86 | 48.75 | 57.64 | 43.05
US         | 87.87 | 92.41 | 87.93 | 92.50 | 87.88 | 92.39 | 94.54 | 96.62
X-Ray      | 78.73 | 84.19 | 78.14 | 83.80 | 78.62 | 84.31 | 79.15 | 84.46
Dermoscopy | 91.71 | 93.31 | 92.15 | 93.75 | 92.12 | 93.70 | 91.59 | 93.21
Endoscopy  | 93.37 | 96.61 | 93.56 | 96.71 | 94.08 | 97.12 | 94.81 | 97.70
Fundus     | 93.24 | 94.66 | 93.85 | 95.19 | 92.97 | 94.30 | 94.40 | 95.77
Microscope | 70.11 | 77.35 | 71.77 | 79.21 | 72.77 | 80.18 | 60.54 | 65.12
Average    | 83.51 | 86.11 | 83.69 | 85.74 | 83.90 | 85.76 | 83.32 | 84.38
"""

# Case, size as stored, objects, seconds of the baseline and of the proposed method.
_TABLE_8 = """
3DBox_CT_0566         | 287 x 512 x 512 | 6   | 591.1 | 142.1
3DBox_CT_0888         | 237 x 512 x 512 | 6   | 168.7 | 51.0
3DBox_CT_0860         | 246 x 512 x 512 | 1   | 23.4  | 12.4
3DBox_MR_0621         | 115 x 400 x 400 | 6   | 245.6 | 51.5
3DBox_MR_0121         | 64 x 290 x 320  | 6   | 168.4 | 31.4
3DBox_MR_0179         | 84 x 512 x 512  | 1   | 22.5  | 11.9
3DBox_PET_0001        | 264 x 200 x 200 | 1   | 15.1  | 7.3
2DBox_US_0525         | 256 x 256 x 3   | 1   | 1.6   | 0.7
2DBox_X-Ray_0053      | 320 x 640 x 3   | 34  | 9.2   | 1.8
2DBox_Dermoscopy_0003 | 3024 x 4032 x 3 | 1   | 6.5   | 1.1
2DBox_Endoscopy_0086  | 480 x 560 x 3   | 1   | 2.3   | 0.6
2DBox_Fundus_0003     | 2048 x 2048 x 3 | 1   | 3.5   | 0.7
2DBox_Microscope_0008 | 1536 x 2040 x 3 | 19  | 15.6  | 1.6
2DBox_Microscope_0016 | 1920 x 2560 x 3 | 241 | nan   | 14.0
"""

# Percent, DSC and NSD in turn: Stage 3, Stage 2, Stage 1. The last row repeats Table 7's averages.
_TABLE_9 = """
CT         | 88.71 | 92.37 | 87.02 | 91.14 | 88.81 | 92.45
MR         | 81.55 | 86.48 | 80.91 | 86.18 | 81.61 | 86.40
PET        | 64.41 | 55.09 | 64.35 | 54.73 | 65.21 | 52.62
US         | 86.93 | 91.76 | 86.09 | 90.87 | 87.43 | 91.85
X-Ray      | 79.07 | 84.53 | 76.44 | 82.13 | 76.18 | 81.83
Dermoscopy | 91.65 | 93.24 | 92.63 | 94.20 | 91.75 | 93.34
Endoscopy  | 93.42 | 96.65 | 93.99 | 97.09 | 92.65 | 95.84
Fundus     | 93.18 | 94.59 | 96.05 | 97.20 | 92.93 | 94.33
Microscope | 72.29 | 79.64 | 71.03 | 78.52 | 72.94 | 80.40
Average    | 83.47 | 86.04 | 83.17 | 85.79 | 83.28 | 85.45
Proposed   | 83.51 | 86.11 | 83.69 | 85.74 | 83.90 | 85.76
"""

# DSC in percent, NSD in percent, seconds: proposed, then baseline.
_TABLE_10 = """
CT         | 69.74 | 71.91 | 11.78 | 55.75 | 58.48 | 38.78
MR         | 69.33 | 61.77 | 6.20  | 64.80 | 62.75 | 18.57
X-Ray      | 80.13 | 89.56 | 2.50  | 85.51 | 94.40 | 9.95
Endoscopy  | 89.81 | 93.15 | 2.18  | 94.41 | 96.95 | 7.56
Fundus     | 79.05 | 81.28 | 2.23  | 87.47 | 89.58 | 8.77
Microscope | 79.68 | 81.72 | 2.58  | 84.36 | 86.15 | 16.34
OCT        | 72.72 | 79.50 | 2.24  | 73.31 | 80.20 | 8.39
PET        | 76.53 | 67.52 | 4.87  | 76.94 | 66.98 | 14.90
US         | 87.49 | 92.09 | 2.75  | 85.24 | 89.73 | 8.96
Average    | 78.28 | 79.83 | 4.15  | 78.64 | 80.58 | 14.69
"""


def harmonised(modality: str) -> str:
    """Return the one name of a modality: Microscope becomes Microscopy, others stay."""
    return "Microscopy" if modality == "Microscope" else modality


def _rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]


def _per_arm(text: str, arms: list[str], metrics: list[str]) -> pd.DataFrame:
    """Turn rows with `metrics` repeated for each arm into one row per arm. Percents become fractions."""
    records = []
    for modality, *cells in _rows(text):
        for place, arm in enumerate(arms):
            values = map(float, cells[place * len(metrics) : (place + 1) * len(metrics)])
            scaled = {m: round(v / 100, 4) if m in ("dsc", "nsd") else v for m, v in zip(metrics, values)}
            records.append({"modality": harmonised(modality), "arm": arm, **scaled})
    return pd.DataFrame(records)


def _parameters() -> pd.DataFrame:
    columns = ["image_encoder", "prompt_encoder", "mask_decoder"]
    return pd.DataFrame(
        [
            {"model": model, **{c: round(float(v)) for c, v in zip(columns, values)}}
            for model, *values in _rows(_TABLE_1)
        ]
    )


def _protocols() -> pd.DataFrame:
    shared = {
        "pretrained_model": "LiteMedSAM",
        "world_size": 4,
        "samples_per_modality": 900,
        "optimizer": "SGD",
        "momentum": 0.9,
        "epochs": 14,
        "learning_rate": 0.01,
        "warmup_epochs": 5,
        "annealing_epochs": 10,
    }
    return pd.DataFrame(
        [
            {"stage": int(s), "batch_size": int(b), **shared, "training_hours": float(h)}
            for s, b, h in _rows(_TABLE_3)
        ]
    )


def _engine_speed(column: int) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"precision": p, "engine": e, "seconds": float((a, b)[column])}
            for p, e, a, b in _rows(_TABLES_5_AND_6)
        ]
    )


def _running_time() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "case": case,
                "size": size,
                "objects": int(objects),
                "seconds_baseline": float(baseline),
                "seconds_proposed": float(proposed),
            }
            for case, size, objects, baseline, proposed in _rows(_TABLE_8)
        ]
    )


# Section 2.1: bytes of the training data as distributed, and as the baseline unpacks them, both rounded.
_DISK = [("compressed cases", 160e9), ("unpacked slices", 10e12)]


PAPER: dict[str, pd.DataFrame] = {
    "table1": _parameters(),
    "table2": pd.DataFrame([{"modality": m, "samples": int(n)} for m, n in _rows(_TABLE_2)]),
    "table3": _protocols(),
    "table4": pd.DataFrame(_rows(_TABLE_4), columns=["item", "value"]),
    "table5": _engine_speed(0),
    "table6": _engine_speed(1),
    "table7": _per_arm(_TABLE_7, ["Stage 3", "Stage 2", "Stage 1", "Baseline"], ["dsc", "nsd"]),
    "table8": _running_time(),
    "table9": _per_arm(_TABLE_9, ["Stage 3", "Stage 2", "Stage 1"], ["dsc", "nsd"]),
    "disk": pd.DataFrame(_DISK, columns=["as", "bytes"]),
    "table10": _per_arm(_TABLE_10, ["Proposed", "Baseline"], ["dsc", "nsd", "seconds"]),
}

REP_MEDSAM = pd.DataFrame(
    [
        ("3DBox_CT_0566", 437.0, 194.2, 73.6, 100.0),
        ("3DBox_CT_0888", 115.5, 53.4, 25.1, 36.2),
        ("3DBox_CT_0860", 16.6, 8.0, 6.2, 8.6),
        ("3DBox_MR_0621", 174.8, 80.5, 25.8, 34.3),
        ("3DBox_MR_0121", 119.1, 54.6, 16.2, 20.0),
        ("3DBox_MR_0179", 14.9, 7.2, 5.4, 7.4),
    ],
    columns=["case", "baseline", "Rep-MedSAM", "Rep-MedSAM, updated", "Rep-MedSAM in C++"],
)
"""Seconds that another entry of the challenge gives for cases of Table 8, on a machine of its own."""
