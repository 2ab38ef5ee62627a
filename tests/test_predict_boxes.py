"""Tables of boxes: every way to write a box, and what is said about rows that cannot be used."""

import codecs
import json

import numpy as np
import pytest
import SimpleITK as sitk
from hospital_data import CUBE_BOX, ROD_BOX, cube_labels, cube_values, image_of
from PIL import Image

from qmsam_core.data import Case, CaseError
from qmsam_core.deploy.files.box_table import BoxTableError, read_box_table, rows_by_input
from qmsam_core.deploy.files.inputs import find_inputs
from qmsam_core.deploy.files.reading import Reading

LABELS, VALUES = cube_labels(), cube_values()


def table(tmp_path, text, name="boxes.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def cases(tmp_path, text, root=None, name="boxes.csv", modality="CT"):
    """Read every input below `tmp_path/in` with a table of boxes. Returns cases or errors by name."""
    inputs = find_inputs(root or tmp_path / "in")
    rows, errors = rows_by_input(read_box_table(table(tmp_path, text, name)), inputs)
    found = {}
    for one in inputs:
        try:
            found[one.name] = Reading(modality, rows=rows).case(one)[0]
        except CaseError as error:
            found[one.name] = error
    return found, errors


def volume(tmp_path, order, name="a.nii.gz"):
    """Write the cube's image, its axes stored in `order`. Returns it and the cube's box in its own voxels."""
    (tmp_path / "in").mkdir(exist_ok=True)
    image = image_of(VALUES, order)
    sitk.WriteImage(image, str(tmp_path / "in" / name))
    z, y, x = np.nonzero(sitk.GetArrayFromImage(image_of(LABELS, order)) == 1)
    return image, [int(v) for v in (x.min(), y.min(), z.min(), x.max(), y.max(), z.max())]


def corners_in_mm(image, box, ras):
    low, high = (np.array(image.TransformIndexToPhysicalPoint(end)) for end in (box[:3], box[3:]))
    if ras:
        low[:2], high[:2] = -low[:2], -high[:2]
    return [*np.minimum(low, high), *np.maximum(low, high)]


CORNERS = "x_min,y_min,z_min,x_max,y_max,z_max"


@pytest.mark.parametrize("order", ["LPS", "RAS", "PIR"])
@pytest.mark.parametrize("way", ["corners", "sizes", "from 1", "LPS", "ras", "sizes in RAS"])
def test_a_box_written_in_any_way_is_the_cube_s(tmp_path, order, way):
    image, box = volume(tmp_path, order)
    sizes = [*box[:3], *(b - a + 1 for a, b in zip(box[:3], box[3:]))]
    lps, ras = (corners_in_mm(image, box, ras) for ras in (False, True))
    header, values = {
        "corners": (f"name,{CORNERS}", ["cube", *box]),
        "sizes": ("name,x,y,z,width,height,depth", ["cube", *sizes]),
        "from 1": (f"name,{CORNERS},first", ["cube", *(v + 1 for v in box), 1]),
        "LPS": (f"name,{CORNERS},frame", ["cube", *lps, "LPS"]),
        "ras": (f"Name,{CORNERS.upper()},Frame", ["cube", *ras, "ras"]),
        "sizes in RAS": (
            "name,x,y,z,width,height,depth,frame",
            ["cube", *ras[:3], *np.subtract(ras[3:], ras[:3]), "RAS"],
        ),
    }[way]
    found, errors = cases(tmp_path, f"{header}\n{','.join(map(str, values))}\n")
    case = found["a.nii.gz"]
    assert not errors and case.names == ("cube",) and case.labels is None
    z, y, x = np.nonzero(case.images == 128)  # 40 HU, the cube
    assert case.boxes.tolist() == [[x.min(), y.min(), z.min(), x.max(), y.max(), z.max()]]


def test_json_with_what_holds_for_all(tmp_path):
    _, box = volume(tmp_path, "LPS")
    assert box == CUBE_BOX
    names = CORNERS.split(",")
    content = {
        "first": 1,
        "boxes": [
            {"name": "cube", **dict(zip(names, (v + 1 for v in CUBE_BOX)))},
            {"name": "rod", **dict(zip(names, (v + 1 for v in ROD_BOX)))},
        ],
    }
    found, errors = cases(tmp_path, json.dumps(content), name="boxes.json")
    assert found["a.nii.gz"].boxes.tolist() == [CUBE_BOX, ROD_BOX] and not errors
    assert found["a.nii.gz"].names == ("cube", "rod")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_tables_of_spreadsheets(tmp_path, separator):
    image, box = volume(tmp_path, "LPS")
    values = [str(round(v, 3)).replace(".", ",") for v in corners_in_mm(image, box, True)]
    text = "\n".join(separator.join(row) for row in ([*CORNERS.split(","), "frame"], [*values, "RAS"]))
    found, _ = cases(tmp_path, "\ufeff" + text)
    assert found["a.nii.gz"].boxes.tolist() == [CUBE_BOX]


@pytest.mark.parametrize("file", ["sub/a.png", "a.png", "a", "sub/a", "sub\\a.png"])
def test_rows_find_their_image_and_images_their_rows(tmp_path, file):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in ("sub/a.png", "b.png"):
        Image.fromarray(np.full((20, 30), 7, np.uint8)).save(tmp_path / "in" / name)
    text = f"file,xmin,ymin,xmax,ymax\n{file},1,2,3,4\nb.png,5,6,7,8\n{file},2,2,9,9\nc.png,1,1,2,2\n"
    found, errors = cases(tmp_path, text)
    assert found["sub/a.png"].boxes.tolist() == [[1, 2, 3, 4], [2, 2, 9, 9]]
    assert found["b.png"].boxes.tolist() == [[5, 6, 7, 8]] and found["b.png"].names == ()
    (error,) = errors
    assert str(error).startswith("boxes.csv row 5: file 'c.png' fits none of")


def test_a_name_of_two_images_is_refused_and_a_row_without_file_too(tmp_path):
    for name in ("p/a.png", "q/a.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        Image.fromarray(np.full((20, 30), 7, np.uint8)).save(tmp_path / "in" / name)
    found, errors = cases(tmp_path, "file,x,y,width,height\na.png,1,1,2,2\n,1,1,2,2\np/a.png,1,1,2,2\n")
    assert [str(error).split(": ")[0] for error in errors] == ["boxes.csv row 2", "boxes.csv row 3"]
    assert "p/a.png, q/a.png" in str(errors[0]) and found["p/a.png"].boxes.tolist() == [[1, 1, 2, 2]]
    assert "--boxes" in str(found["q/a.png"])


@pytest.mark.parametrize(
    "header, row, words",
    [
        (CORNERS, "0,0,0,20,5,5", "row 2: box [0, 0, 0, 20, 5, 5]"),
        (CORNERS, "-1,0,0,5,5,5", "leaves the image of 20x16x6"),
        (CORNERS + ",first", "0,1,1,5,5,5,1", "leaves the image"),
        (CORNERS, "9,9,2,3,3,1", "is it x, y, width, height?"),
        (CORNERS, "1,1,1,a,5,5", "x_max is 'a'; expected a number"),
        (CORNERS, "1,1,,5,5,", "has no z_min, z_max"),
        ("x,y,z,width,height,depth", "1,1,1,0,2,2", "a size must be positive"),
        (CORNERS + ",frame", "1,1,1,5,5,5,MNI", "frame 'mni'; expected voxel, LPS or RAS"),
        (CORNERS + ",frame", "500,500,1,510,510,5,LPS", "leaves the image"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, header, row, words):
    volume(tmp_path, "LPS")
    found, _ = cases(tmp_path, f"{header}\n{row}\n")
    message = str(found["a.nii.gz"])
    assert words in message and "boxes.csv row 2" in message and "\n" not in message


@pytest.mark.parametrize(
    "text, name",
    [
        ("", "boxes.csv"),
        ("a,b\n1,2\n", "boxes.csv"),
        ("x_min,y_min\n1,2\n", "boxes.csv"),
        ("{", "boxes.json"),
        ("[1, 2]", "boxes.json"),
        ("{}", "boxes.json"),
        ("[]", "boxes.json"),
    ],
)
def test_a_table_of_something_else_is_refused(tmp_path, text, name):
    with pytest.raises(BoxTableError, match="expected") as found:
        read_box_table(table(tmp_path, text, name))
    assert name in str(found.value) and "\n" not in str(found.value)


PLAIN = f"name,{CORNERS}\n"


@pytest.mark.parametrize(
    "content",
    [
        ("sep=;\n" + PLAIN.replace(",", ";") + "Läsion;4;3;2;9;7;3\n").encode(),
        ("sep=\t\r\n" + PLAIN.replace(",", "\t") + "Läsion\t4\t3\t2\t9\t7\t3\r\n").encode(),
        ("\n# made by me, on Monday\n;;\n" + PLAIN.replace(",", ";") + "Läsion;4;3;2;9;7;3\n").encode(),
        (PLAIN + "Läsion,4,3,2,9,7,3\n").encode("utf-16"),
        codecs.BOM_UTF16_BE + (PLAIN + "Läsion,4,3,2,9,7,3\n").encode("utf-16-be"),
        (PLAIN + "Läsion,4,3,2,9,7,3\n").encode("utf-8-sig"),
        (PLAIN + "Läsion,4,3,2,9,7,3\n").replace("\n", "\r").encode(),
        (PLAIN + "Läsion,4,3,2,9,7,3,\n").encode(),
        (PLAIN.strip() + ",,\nLäsion,4,3,2,9,7,3,,\n").encode(),
        (PLAIN + '"Läsion" , 4, 3, 2, 9, 7, 3\n').encode(),
    ],
    ids="sep tab preface utf-16 utf-16-be bom old-mac comma-in-row commas spaces".split(),
)
def test_what_spreadsheets_add_to_a_table_changes_nothing(tmp_path, content):
    volume(tmp_path, "LPS")
    (tmp_path / "b.csv").write_bytes(content)
    rows, errors = rows_by_input(read_box_table(tmp_path / "b.csv"), find_inputs(tmp_path / "in"))
    (one,) = find_inputs(tmp_path / "in")
    case, _ = Reading("CT", rows=rows).case(one)
    assert case.boxes.tolist() == [CUBE_BOX] and case.names == ("Läsion",) and not errors


@pytest.mark.parametrize(
    "content, words",
    [
        ((PLAIN + "Läsion,4,3,2,9,7,3\n").encode("cp1252"), "CSV UTF-8"),
        ((PLAIN + "a,4,3,2,9,7,3\n").encode("utf-16-le"), "CSV UTF-8"),
        ((PLAIN + "kidney, left,4,3,2,9,7,3\n").encode(), "row 2 has 8 fields, the header 7"),
        ((PLAIN + "a,4,3,2,9,7,3\n\nkidney, left,4,3,2,9,7,3\n").encode(), "row 4 has 8 fields"),
        ((PLAIN + "7,4,5,1,12,14,3,4\n").encode(), "row 2 has 8 fields"),
        (b"name,left,top,right,bottom\na,1,2,3,4\n", "1 rows with columns name, left, top, right, bottom"),
        (b"\n\n# nothing\n", "it is empty"),
    ],
)
def test_a_table_that_would_be_misread_is_refused(tmp_path, content, words):
    (tmp_path / "b.csv").write_bytes(content)
    with pytest.raises(BoxTableError) as found:
        read_box_table(tmp_path / "b.csv")
    assert words in str(found.value) and "\n" not in str(found.value)
    if "left,4" in content.decode("latin-1"):
        assert '"kidney, left"' in str(found.value)


def test_rows_have_the_numbers_of_their_lines(tmp_path):
    text = "# mine\n\n" + PLAIN + '\n\na,4,5,1,12,14,3\n\n"b\nb",1,1,1,2,2,2\nc,1,1,1,2,2,2\n'
    where = [row.where for row in read_box_table(table(tmp_path, text))]
    assert where == ["boxes.csv row 6", "boxes.csv row 8", "boxes.csv row 10"]


@pytest.mark.parametrize("file", ["b.png", "./b.png", "b", "in/b.png", "in\\b.png", "absolute"])
def test_the_exact_path_wins_and_a_path_to_the_input_is_one(tmp_path, file):
    for name in ("b.png", "sub/b.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30), 7, np.uint8)).save(tmp_path / "in" / name)
    file = tmp_path / "in" / "b.png" if file == "absolute" else file
    found, errors = cases(tmp_path, f"file,x,y,width,height\n{file},1,1,2,2\nsub/b.png,3,3,2,2\n")
    assert not errors and found["b.png"].boxes.tolist() == [[1, 1, 2, 2]]
    assert found["sub/b.png"].boxes.tolist() == [[3, 3, 4, 4]]


def test_a_box_in_mm_that_reaches_past_the_image_is_cut_with_a_note(tmp_path):
    image, _ = volume(tmp_path, "LPS")
    low, high = np.array(image.GetOrigin()) - 50, image.TransformIndexToPhysicalPoint((9, 7, 3))
    text = f"{CORNERS},frame\n{','.join(map(str, (*low, *high)))},LPS\n"
    (one,) = find_inputs(tmp_path / "in")
    rows, _ = rows_by_input(read_box_table(table(tmp_path, text)), [one])
    case, notes = Reading("CT", rows=rows).case(one)
    assert case.boxes.tolist() == [[0, 0, 0, 9, 7, 3]]
    assert len(notes) == 1 and "boxes.csv row 2" in notes[0] and "is cut to [0, 0, 0, 9, 7, 3]" in notes[0]


def roi(image, box, frame="LPS", **values):
    """ROI of 3D Slicer around the voxels of `box`, as its markups file holds it."""
    corners = np.array(corners_in_mm(image, box, frame == "RAS"))
    centre, spacing = (corners[:3] + corners[3:]) / 2, np.array(image.GetSpacing())
    size = corners[3:] - corners[:3] + spacing
    markup = {"type": "ROI", "coordinateSystem": frame, "coordinateUnits": "mm", "roiType": "Box"}
    markup |= {"center": centre.tolist(), "size": size.tolist(), "orientation": [-1, 0, 0, 0, -1, 0, 0, 0, 1]}
    return markup | values


@pytest.mark.parametrize("frame", ["LPS", "RAS"])
@pytest.mark.parametrize("way", ["center", "control point", "turned"])
def test_a_roi_of_slicer_is_a_box(tmp_path, frame, way):
    image, box = volume(tmp_path, "LPS")
    markup = roi(image, box, frame)
    if way == "control point":
        markup["controlPoints"] = [{"label": "R-1", "position": markup.pop("center")}]
    elif way == "turned":  # by 90 degrees: its x runs along y
        x, y, z = markup["size"]
        markup |= {"orientation": [0, -1, 0, 1, 0, 0, 0, 0, 1], "size": [y, x, z]}
    found, errors = cases(tmp_path, json.dumps({"markups": [markup]}), name="Left kidney.mrk.json")
    case = found["a.nii.gz"]
    assert case.boxes.tolist() == [CUBE_BOX] and case.names == ("Left kidney",) and not errors


@pytest.mark.parametrize(
    "values, words",
    [
        ({"orientation": [0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1]}, "is rotated"),
        ({"type": "Fiducial"}, "is of type 'Fiducial'"),
        ({"size": None}, "size is None"),
        ({"center": None}, "center is None"),
        ({"coordinateSystem": "IJK"}, "coordinateSystem 'IJK'"),
    ],
)
def test_a_roi_that_is_no_box_is_refused(tmp_path, values, words):
    image, box = volume(tmp_path, "LPS")
    markups = [roi(image, box), roi(image, box, **values)]
    with pytest.raises(BoxTableError) as found:
        read_box_table(table(tmp_path, json.dumps({"markups": markups}), "r.mrk.json"))
    assert words in str(found.value) and "markup 2" in str(found.value)


def test_boxes_of_an_npz_are_in_its_own_voxels_and_replace_its_own(tmp_path):
    own = Case("3DBox_CT_a", np.zeros((4, 9, 8), np.uint8), np.array([[0, 0, 0, 1, 1, 1]]), None, np.ones(3))
    own.save(tmp_path / "in" / "3DBox_CT_a.npz")
    found, _ = cases(tmp_path, f"{CORNERS}\n1,2,3,7,8,3\n")
    assert found["3DBox_CT_a.npz"].boxes.tolist() == [[1, 2, 3, 7, 8, 3]]
    found, _ = cases(tmp_path, f"{CORNERS},frame\n1,2,3,7,8,3,RAS\n")
    assert "has no position in mm" in str(found["3DBox_CT_a.npz"])


def test_an_image_turned_by_exif_takes_boxes_as_viewers_show_it(tmp_path):
    (tmp_path / "in").mkdir()
    upright = np.zeros((12, 30), np.uint8)
    upright[2:5, 20:28] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(upright)).save(tmp_path / "in" / "a.png", exif=exif)
    found, _ = cases(tmp_path, "x,y,width,height\n20,2,8,3\n")
    case = found["a.png"]
    assert case.boxes.tolist() == [[20, 2, 27, 4]] and (case.images[2:5, 20:28] == 200).all()


def test_a_volume_file_needs_a_modality_and_an_image_none(tmp_path):
    volume(tmp_path, "LPS")
    found, _ = cases(tmp_path, f"{CORNERS}\n1,1,1,2,2,2\n", modality=None)
    assert "give --modality CT" in str(found["a.nii.gz"])
    Image.fromarray(np.full((20, 30), 7, np.uint8)).save(tmp_path / "b.png")
    found, _ = cases(tmp_path, "x,y,width,height\n1,1,2,2\n", tmp_path / "b.png", modality=None)
    assert found["b.png"].boxes.tolist() == [[1, 1, 2, 2]]
