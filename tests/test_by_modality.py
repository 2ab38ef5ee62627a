"""Several exports of which each case gets the one of its modality: the choice, the masks, and errors."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hospital_data import cube_values, write_series
from small_data import rectangle_case

from qmsam_core.data import Case, CaseError, read_segmentation
from qmsam_core.deploy import Predictor, open_engine
from qmsam_core.deploy.batch import predict_folder
from qmsam_core.deploy.by_modality import (
    FALLBACK,
    PredictorByModality,
    exports_in,
    is_by_modality,
    known_modality,
    modality_of,
    served_by,
)
from qmsam_core.deploy.export import export_model
from qmsam_core.deploy.exported import FROM_NOISE, ExportError
from qmsam_core.deploy.files.inputs import Input, find_inputs
from qmsam_core.deploy.files.reading import Reading
from qmsam_core.deploy.predict import main as predict_command
from qmsam_core.models import build_model

SEEDS = {FALLBACK: 0, "CT": 1, "MR+us": 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of three exports, each of another random network."""
    folder = tmp_path_factory.mktemp("models")
    for name, seed in SEEDS.items():
        export_model(build_model("narrow", seed=seed).eval(), folder / name)
    return folder


@pytest.fixture
def cases(tmp_path):
    """A folder with an image and a volume of modalities that have a model, and one of another."""
    root = tmp_path / "cases"
    for name, volume in (("3DBox_CT_1", True), ("2DBox_US_2", False), ("2DBox_Fundus_3", False)):
        rectangle_case(name, 1, volume).save(root / f"{name}.npz")
    return root


MODEL_OF = {"3DBox_CT_1.npz": "CT", "2DBox_US_2.npz": "MR+us", "2DBox_Fundus_3.npz": FALLBACK}


class Opened(list):
    """Opens engines and remembers the names of their folders."""

    def __call__(self, folder):
        self.append(folder.name)
        return open_engine("openvino", folder, 1)


def several(models, **options):
    return PredictorByModality(models, Opened(), **options)


def statuses(rows):
    return {row["case"]: row["status"] for row in rows}


# The modality of a case -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written, meant",
    [
        ("CT", "CT"), ("xray", "X-Ray"), ("X_Ray", "X-Ray"), ("x-ray", "X-Ray"), ("us", "US"),
        ("Microscope", "Microscopy"), ("microscopy", "Microscopy"), ("Heart", None), ("", None),
    ],
)  # fmt: skip
def test_modalities_have_one_spelling(written, meant):
    assert known_modality(written) == meant


@pytest.mark.parametrize(
    "place, given, modality",
    [
        ("3DBox_CT_0566.npz", None, "CT"),
        ("US/3DBox_CT_0566.npz", "MR", "CT"),  # its name tells it
        ("2DBox_Microscope_0008.npz", None, "Microscopy"),
        ("2DBox_US.npz", None, "US"),
        ("US/AMD_0003.npz", "MR", "MR"),
        ("US/AMD_0003.npz", None, "US"),
        ("MR/MyHospital/2DBox_x.npz", None, "MR"),
        ("MR/fundus/a.png", None, "Fundus"),
        ("MR/fundus/a.png", "endoscopy", "Endoscopy"),
        ("a.nii.gz", "Heart", "Heart"),
        ("patients/a.npz", None, ""),
        ("CT_scans/a.npz", None, ""),
    ],
)
def test_what_tells_the_modality(tmp_path, place, given, modality):
    root = tmp_path / "in"
    (root / place).parent.mkdir(parents=True)
    (root / place).touch()
    (one,) = find_inputs(root)
    assert modality_of(one, Reading(given)) == modality


def test_the_input_folder_counts_and_those_above_it_do_not(tmp_path, monkeypatch):
    folder = tmp_path / "US" / "PET"
    rectangle_case("a", 1, False).save(folder / "a.npz")
    rectangle_case("b", 1, False).save(tmp_path / "CT" / "in" / "b.npz")
    assert modality_of(Input.case(folder / "a.npz"), Reading()) == "PET"
    monkeypatch.chdir(folder)
    assert [modality_of(one, Reading()) for one in find_inputs(Path("."))] == ["PET"]
    assert [modality_of(one, Reading()) for one in find_inputs(tmp_path / "CT" / "in")] == [""]


def test_a_dicom_series_tells_its_own(tmp_path):
    write_series(tmp_path / "US" / "series", modality="PT")
    (one,) = find_inputs(tmp_path / "US")
    assert modality_of(one, Reading()) == "PET"
    with pytest.raises(CaseError, match="is a PET series; --modality says CT"):
        modality_of(one, Reading("CT"))


# The exports of a folder ------------------------------------------------------------------------------------


def folders(root, *names):
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "export.json").write_text("{}")
    return root


def test_the_exports_of_a_folder(tmp_path):
    root = folders(tmp_path, "default", "CT", "MR+pet+X-Ray", ".hidden")
    (root / "README.md").touch()
    exports = exports_in(root)
    assert is_by_modality(root) and set(exports) == {"default", "CT", "MR+pet+X-Ray"}
    assert served_by(exports) == {"CT": "CT"} | dict.fromkeys(("MR", "PET", "X-Ray"), "MR+pet+X-Ray")


def test_an_export_is_no_folder_of_exports(models, tmp_path):
    assert is_by_modality(models)
    assert not is_by_modality(models / "CT") and not is_by_modality(tmp_path / "nowhere")
    folders(tmp_path / "run", ".", "int8")  # an export with another beside its files is still an export
    assert not is_by_modality(tmp_path / "run")


@pytest.mark.parametrize(
    "names, words",
    [
        (["CT"], "has no sub-folder default/; expected one, with the export"),
        (
            ["default", "int8"],
            "int8: 'int8' is no modality; expected a sub-folder default, or one named CT, MR",
        ),
        (["default", "CT+"], "CT+: '' is no modality"),
        (["default", "CT", "MR+ct"], "MR+ct: serves CT, as "),
        (["default", "Microscope+Microscopy"], "serves Microscopy, as "),
    ],
)
def test_folders_that_cannot_be_used_are_named(tmp_path, names, words):
    root = folders(tmp_path / "models", *names)
    with pytest.raises(ExportError) as error:
        PredictorByModality(root, Opened())
    assert str(error.value).startswith(str(root)) and words in str(error.value)


def test_an_export_that_is_a_folder_of_exports_too_is_refused(tmp_path):
    with pytest.raises(ExportError, match="is an export and holds the folder default/"):
        is_by_modality(folders(tmp_path, ".", "default"))


def test_a_sub_folder_without_export_is_named(models, tmp_path):
    shutil.copytree(models, tmp_path / "models")
    (tmp_path / "models" / "OCT").mkdir()
    with pytest.raises(ExportError, match="OCT/export.json: no such file"):
        several(tmp_path / "models")


# Segmenting -------------------------------------------------------------------------------------------------


def test_each_case_gets_the_masks_of_its_model_alone(models, cases, tmp_path):
    lines = []
    rows = predict_folder(several(models), sorted(cases.iterdir()), tmp_path / "out", lines.append)
    assert {row["case"]: row["model"] for row in rows} == MODEL_OF
    for name, model in MODEL_OF.items():
        alone = Predictor(open_engine("openvino", models / model, 1)).segment(Case.load(cases / name))
        other = Predictor(open_engine("openvino", models / ("CT" if model != "CT" else FALLBACK), 1))
        found = read_segmentation(tmp_path / "out" / name)
        np.testing.assert_array_equal(found, alone)
        assert not np.array_equal(found, other.segment(Case.load(cases / name)))
    assert sorted(lines) == [
        "CT: segmented by model CT",
        "Fundus: segmented by model default, as none is its own",
        "US: segmented by model MR+us",
    ]
    table = pd.read_csv(tmp_path / "out" / "timing.csv").set_index("case")
    assert table["model"].to_dict() == MODEL_OF and table.columns[-1] == "model"


def test_masks_apart_and_settings_are_those_of_each_model(models, cases, tmp_path):
    predictor = several(models, propagate=True, decode_block=1)
    assert predictor.of("CT").propagate and predictor.of("CT").decode_block == 1
    predict_folder(predictor, sorted(cases.iterdir()), tmp_path / "out", apart=True)
    alone = Predictor(open_engine("openvino", models / "CT", 1), propagate=True)
    masks = alone.segment_apart(Case.load(cases / "3DBox_CT_1.npz"))
    written = sorted(p for p in (tmp_path / "out" / "3DBox_CT_1").rglob("*") if p.is_file())
    assert len(written) == len(Case.load(cases / "3DBox_CT_1.npz").boxes)
    for i, path in enumerate(written):
        np.testing.assert_array_equal(read_segmentation(path) > 0, masks[i] > 0)


def test_an_engine_is_opened_once_and_only_when_a_case_asks_for_it(models, cases, tmp_path):
    rectangle_case("2DBox_US_4", 4, False).save(cases / "2DBox_US_4.npz")
    (cases / "2DBox_Fundus_3.npz").unlink()
    opened = Opened()
    predictor = PredictorByModality(models, opened)
    assert opened == []
    lines = []
    predict_folder(predictor, sorted(cases.iterdir()), tmp_path / "out", lines.append)
    assert sorted(opened) == ["CT", "MR+us"] and len(lines) == 2
    predict_folder(predictor, sorted(cases.iterdir()), tmp_path / "again")
    assert len(opened) == 2


def test_cases_are_kept_when_run_again_and_those_of_another_choice_are_not(models, cases, tmp_path):
    run = partial(predict_folder, cases=sorted(cases.iterdir()), output=tmp_path / "out")
    run(several(models))
    opened = Opened()
    rows = run(PredictorByModality(models, opened))
    assert set(statuses(rows).values()) == {"kept"} and not opened
    assert {row["case"]: row["model"] for row in rows} == MODEL_OF
    table = pd.read_csv(tmp_path / "out" / "timing.csv").set_index("case")
    assert table["model"].to_dict() == MODEL_OF and table["total"].notna().all()
    (cases / "3DBox_CT_1.npz").touch()  # its time changes
    assert statuses(run(several(models))) == {**dict.fromkeys(MODEL_OF, "kept"), "3DBox_CT_1.npz": "done"}


def test_a_case_whose_model_is_another_now_is_made_again(models, tmp_path):
    """Folders of the same files: nothing but the folder's name tells the modality."""
    for name in ("CT", "US"):
        path = tmp_path / name / "a.npz"
        rectangle_case("a", 1, False).save(path)
        os.utime(path, ns=(10**18, 10**18))
    run = partial(predict_folder, several(models), output=tmp_path / "out")
    assert statuses(run([tmp_path / "CT" / "a.npz"])) == {"a.npz": "done"}
    assert statuses(run([tmp_path / "US" / "a.npz"])) == {"a.npz": "done"}
    assert statuses(run([tmp_path / "US" / "a.npz"])) == {"a.npz": "kept"}


def test_a_change_of_one_model_makes_all_again_and_one_model_alone_is_another_predictor(
    models, cases, tmp_path
):
    shutil.copytree(models, tmp_path / "models")
    run = partial(predict_folder, cases=sorted(cases.iterdir()), output=tmp_path / "out")
    run(several(tmp_path / "models"))
    (tmp_path / "models" / "CT").rename(tmp_path / "models" / "PET")
    assert set(statuses(run(several(tmp_path / "models"))).values()) == {"done"}
    export_model(build_model("narrow", seed=5).eval(), tmp_path / "models" / "PET")
    assert set(statuses(run(several(tmp_path / "models"))).values()) == {"done"}
    rows = run(Predictor(open_engine("openvino", models / FALLBACK, 1)))
    assert set(statuses(rows).values()) == {"done"} and not any("model" in row for row in rows)
    assert "model" not in pd.read_csv(tmp_path / "out" / "timing.csv")


def test_a_model_that_breaks_later_fails_its_own_cases(models, cases, tmp_path):
    shutil.copytree(models, tmp_path / "models")
    predictor = several(tmp_path / "models")
    (tmp_path / "models" / "CT" / "export.json").unlink()
    rows = predict_folder(predictor, sorted(cases.iterdir()), tmp_path / "out", lambda line: None)
    status = statuses(rows)
    assert "CT/export.json: no such file" in status.pop("3DBox_CT_1.npz")
    assert set(status.values()) == {"done"}


# The command ------------------------------------------------------------------------------------------------


def command(capsys, *arguments, code=0):
    assert predict_command([*map(str, arguments), "--threads", "1"]) == code
    return capsys.readouterr().err


def test_the_command_takes_a_folder_of_exports(models, cases, tmp_path, capsys):
    arguments = ["-i", cases, "-o", tmp_path / "out", "--model", models, "--memory-limit", "64G"]
    error = command(capsys, *arguments)
    assert "Fundus: segmented by model default, as none is its own" in error
    assert "segmented by" not in command(capsys, *arguments)
    assert set(pd.read_csv(tmp_path / "out" / "timing.csv")["status"]) == {"kept"}


def test_the_given_modality_chooses_where_files_do_not_tell_it(models, tmp_path, capsys):
    from hospital_data import cube_labels, write_image

    write_image(tmp_path / "in" / "a.nii.gz", cube_values())
    write_image(tmp_path / "masks" / "a.nii.gz", cube_labels())
    arguments = ["-i", tmp_path / "in", "--boxes-from", tmp_path / "masks", "--model", models]
    assert "MR: segmented by model MR+us" in command(
        capsys, *arguments, "--modality", "MR", "-o", tmp_path / "mr"
    )
    assert "Heart: segmented by model default" in command(
        capsys, *arguments, "--modality", "Heart", "-o", tmp_path / "heart"
    )


def test_an_export_that_fits_no_image_is_refused_before_anything_starts(models, cases, tmp_path, capsys):
    shutil.copytree(models, tmp_path / "models")
    path = tmp_path / "models" / "MR+us" / "export.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"origin": FROM_NOISE}))
    error = command(capsys, "-i", cases, "-o", tmp_path / "out", "--model", tmp_path / "models", code=2)
    assert "MR+us: activation scales from one image of noise" in error
    assert not (tmp_path / "out").exists()
