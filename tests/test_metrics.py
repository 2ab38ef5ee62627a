"""DSC and NSD against values of the challenge's script and against values worked out by hand."""

import json
from math import inf, nan, pi, sqrt
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from qmsam_core.evaluate import inscribed_ellipse, score_case, score_cases, surface
from qmsam_core.evaluate.intervals import average_interval, paired_differences, spread_interval
from qmsam_core.evaluate.metrics import modality_of
from qmsam_core.evaluate.surface import neighbour_codes, surface_dice
from qmsam_core.evaluate.surface_elements import surface_areas
from qmsam_core.evaluate.tables import spread_per_modality

REFERENCE = Path(__file__).parent / "reference"
OFFICIAL = json.loads((REFERENCE / "metrics_conformance.json").read_text())


@pytest.fixture(scope="module")
def masks():
    with np.load(REFERENCE / "metrics_conformance.npz") as file:
        return dict(file)


def square(top=10, left=10, side=20, shape=(60, 60), label=1):
    image = np.zeros(shape, dtype=np.uint8)
    image[top : top + side, left : left + side] = label
    return image


def voxels(*places, shape=(9, 9, 9)):
    volume = np.zeros(shape, dtype=np.uint8)
    for label, place in enumerate(places, start=1):
        volume[place] = label
    return volume


def blobs(rng, shape=(9, 14, 12)):
    """Return a lumpy random mask that touches some borders of the volume and not others."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(rng.standard_normal(shape), 1.5)
    return field > np.quantile(field, 0.7)


@pytest.mark.parametrize("row", OFFICIAL, ids=lambda row: f"case{row['case']}")
def test_official_values(row, masks):
    score = score_case(
        masks[f"gt_{row['case']}"],
        masks[f"seg_{row['case']}"],
        spacing=row["spacing"],
        tolerance=row["tolerance"],
    )
    assert score.dsc == pytest.approx(row["dsc_case"], abs=1e-9)
    assert score.nsd == pytest.approx(row["nsd_case"], abs=1e-6)
    assert score.dsc_per_label == pytest.approx(row["dsc_per_label"], abs=1e-9)
    assert score.nsd_per_label == pytest.approx(row["nsd_per_label"], abs=1e-6)


@pytest.mark.parametrize("shift", [0, 1, 2, 5, 10, 19, 20, 30])
def test_shifted_square_has_the_dice_of_its_overlap(shift):
    score = score_case(square(), square(left=10 + shift))
    assert score.dsc == pytest.approx(max(0, 20 - shift) / 20, abs=1e-12)
    if shift <= 2:
        assert score.nsd == 1
    if score.dsc <= 0.2:
        assert score.nsd == 0


@pytest.mark.parametrize(("apart", "expected"), [(0, 1.0), (1, 1.0), (2, 1.0), (3, 0.5), (4, 0.0)])
def test_single_voxels_by_hand(apart, expected):
    """A voxel's surface has two layers. For voxels 3 mm apart, only the facing layers are 2 mm apart."""
    score = score_case(voxels((4, 4, 2)), voxels((4, 4, 2 + apart)))
    assert score.nsd_per_label == pytest.approx((expected,))
    assert score.dsc == (1 if apart == 0 else 0)
    assert score.nsd == (1 if apart == 0 else 0)  # a case with DSC 0 has NSD 0


@pytest.mark.parametrize(("spacing", "expected"), [((3, 1, 1), 0.5), ((1, 1, 3), 1.0)])
def test_spacing_lies_on_the_axes_as_stored(spacing, expected):
    score = score_case(voxels((4, 4, 4)), voxels((5, 4, 4)), spacing=spacing)
    assert score.nsd_per_label == pytest.approx((expected,))


def test_tolerance_is_inclusive_and_matters():
    gt, seg = voxels((4, 4, 2)), voxels((4, 4, 5))
    assert score_case(gt, seg, tolerance=2.0).nsd_per_label == pytest.approx((0.5,))
    assert score_case(gt, seg, tolerance=1.999).nsd_per_label == (0.0,)
    assert score_case(gt, gt, tolerance=0).nsd == 1


def test_surface_of_one_voxel_is_eight_corner_triangles():
    codes = neighbour_codes(np.ones((1, 1, 1), dtype=bool))
    assert sorted(codes.ravel()) == [1, 2, 4, 8, 16, 32, 64, 128]
    assert surface_areas((1.0, 1.0, 1.0))[codes].sum() == pytest.approx(sqrt(3))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.8, 0.7), (0.31, 2.2, 1.3)])
def test_surface_areas_are_monais(spacing):
    from monai.metrics.utils import get_code_to_measure_table

    np.testing.assert_allclose(
        surface_areas(spacing), get_code_to_measure_table(spacing)[0].numpy(), rtol=1e-6
    )


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 0.7), (0.9, 1.1, 3.0), (2.0, 1.0, 0.5)])
@pytest.mark.parametrize("seed", range(4))
def test_offsets_and_distance_maps_agree(spacing, seed, monkeypatch):
    rng = np.random.default_rng(seed)
    gt, seg = blobs(rng), blobs(rng)
    by_offsets = surface_dice(gt, seg, spacing, 2.0)
    monkeypatch.setattr(surface, "MOST_OFFSETS", 0)
    surface._offsets_within.cache_clear()
    by_maps = surface_dice(gt, seg, spacing, 2.0)
    surface._offsets_within.cache_clear()
    assert by_offsets == by_maps
    assert 0 < by_offsets < 1


@pytest.mark.parametrize("seed", range(4))
def test_surroundings_change_nothing(seed):
    """Cropping is exact: the same objects with much more air around them score the same."""
    rng = np.random.default_rng(seed)
    gt, seg = (blobs(rng).astype(np.uint8) for _ in range(2))
    roomy = [np.pad(mask, ((7, 2), (3, 9), (0, 5))) for mask in (gt, seg)]
    spacing = (1.7, 0.9, 1.2)
    assert score_case(*roomy, spacing=spacing) == score_case(gt, seg, spacing=spacing)


def test_fine_spacing_takes_the_distance_map():
    score = score_case(voxels((4, 4, 2)), voxels((4, 4, 5)), spacing=(0.05, 0.05, 0.05))
    assert score.nsd_per_label == (1.0,)
    assert surface._offsets_within((0.05, 0.05, 0.05), 2.0) is None


def test_empty_prediction_scores_nothing():
    score = score_case(square(), np.zeros((60, 60), np.uint8))
    assert (score.dsc, score.nsd, score.missed) == (0, 0, 1)


@pytest.mark.parametrize("seg", [np.zeros((60, 60), np.uint8), square()])
def test_empty_ground_truth_is_no_score(seg):
    score = score_case(np.zeros((60, 60), np.uint8), seg)
    assert np.isnan(score.dsc) and np.isnan(score.nsd)
    assert score.labels == score.skipped_labels == ()


def test_missing_label_ids_are_left_out_and_named():
    gt = square(label=2) + square(top=35, left=35, label=5)
    score = score_case(gt, np.where(gt == 5, 0, gt))
    assert score.labels == (2, 5)
    assert score.skipped_labels == (1, 3, 4)
    assert score.dsc_per_label == (1, 0)
    assert score.dsc == 0.5 and score.nsd == 0.5


def test_labels_beyond_the_ground_truth_do_not_count():
    gt = square()
    assert score_case(gt, gt + square(top=35, left=35, label=9)).dsc == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, bool])
def test_integer_types_score_alike(dtype):
    assert score_case(square().astype(dtype), square(left=15).astype(dtype)).dsc == 0.75


def test_many_labels_need_more_than_a_byte():
    gt = np.kron(np.arange(1, 401, dtype=np.uint16).reshape(20, 20), np.ones((3, 3), np.uint16))
    assert score_case(gt, gt).dsc_per_label == (1.0,) * 400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seg": np.zeros((60, 61), np.uint8)}, r"seg: found shape \(60, 61\), expected that of gt"),
        ({"seg": np.zeros((60, 60))}, "seg: found float64"),
        ({"gt": np.zeros((2, 3, 4, 5), np.uint8)}, "gt: found uint8 of shape"),
        ({"gt": np.full((60, 60), -1)}, "gt: found the label -1"),
        ({"spacing": (1, 1)}, "spacing: found"),
        ({"spacing": (1, 0, 1)}, "spacing: found"),
        ({"spacing": (1, nan, 1)}, "spacing: found"),
        ({"tolerance": -1}, "tolerance: found -1"),
        ({"tolerance": inf}, "tolerance: found inf"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {"gt": square(), "seg": square(), **change}
    with pytest.raises(ValueError, match=message):
        score_case(**arguments)


# The ellipse baseline


def image_case(*boxes, shape=(200, 300, 3)):
    return SimpleNamespace(
        name="2DBox_US_1", images=np.zeros(shape, np.uint8), boxes=np.array(boxes), labels=None, spacing=None
    )


@pytest.mark.parametrize("box", [(0, 0, 299, 199), (20, 30, 219, 129), (10, 10, 109, 109)])
def test_ellipse_fills_pi_quarters_of_its_box(box):
    x_min, y_min, x_max, y_max = box
    segs = inscribed_ellipse(image_case(box))
    assert segs.shape == (200, 300) and segs.dtype == np.uint8
    area = (x_max - x_min + 1) * (y_max - y_min + 1)
    assert np.count_nonzero(segs) / area == pytest.approx(pi / 4, rel=0.01)
    rows, columns = np.nonzero(segs)
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == box


def test_ellipsoid_fills_pi_sixths_of_its_box():
    case = SimpleNamespace(
        name="3DBox_CT_1", images=np.zeros((40, 60, 80), np.uint8), boxes=np.array([[10, 5, 2, 69, 54, 37]])
    )
    segs = inscribed_ellipse(case)
    assert np.count_nonzero(segs) / (60 * 50 * 36) == pytest.approx(pi / 6, rel=0.01)
    z, y, x = np.nonzero(segs)
    assert (x.min(), y.min(), z.min(), x.max(), y.max(), z.max()) == (10, 5, 2, 69, 54, 37)


def test_one_pixel_box_holds_its_pixel_and_later_boxes_win():
    segs = inscribed_ellipse(image_case((10, 10, 30, 30), (20, 20, 20, 20)))
    assert segs[20, 20] == 2 and segs[15, 20] == 1


def test_more_boxes_than_a_byte_holds():
    segs = inscribed_ellipse(
        image_case(*[(i, i, i, i) for i in range(200)], *[(i + 50, i, i + 50, i) for i in range(100)])
    )
    assert segs.max() == 300


def test_box_over_the_edge_is_cut():
    segs = inscribed_ellipse(image_case((280, 180, 319, 219)))
    assert segs.any() and segs.shape == (200, 300)


def test_ellipse_without_boxes_is_refused():
    case = image_case()
    case.boxes = None
    with pytest.raises(ValueError, match="2DBox_US_1: found no boxes"):
        inscribed_ellipse(case)


# Many cases


@pytest.fixture
def files(tmp_path):
    """Three cases and their predictions on disk. Their DSC is 1, 0.75 and 0."""
    pairs = []
    for name, shift in {"2DBox_CT_a": 0, "2DBox_CT_b": 5, "2DBox_Microscope_c": 30}.items():
        gt, seg = tmp_path / f"{name}.npz", tmp_path / f"seg_{name}.npz"
        np.savez(gt, imgs=np.zeros((60, 60, 3), np.uint8), gts=square())
        np.savez(seg, segs=square(left=10 + shift))
        pairs.append((gt, seg))
    return pairs


@pytest.mark.parametrize("processes", [1, 2])
def test_score_cases_from_files(files, processes):
    scores = score_cases(files, processes=processes)
    assert scores["case"].tolist() == ["2DBox_CT_a", "2DBox_CT_b", "2DBox_Microscope_c"]
    assert scores["modality"].tolist() == ["CT", "CT", "Microscope"]
    assert scores["dsc"].tolist() == [1, 0.75, 0]
    assert scores["objects"].tolist() == [1, 1, 1] and scores["missed"].tolist() == [0, 0, 1]


def test_score_cases_in_memory_with_a_modality():
    case = SimpleNamespace(name="mine", labels=np.repeat(square()[None], 3, axis=0), spacing=(1.0, 1.0, 5.0))
    scores = score_cases([(case, case.labels, "MR"), (case, case.labels)])
    assert scores["modality"].tolist() == ["MR", "unknown"]
    assert scores["nsd"].tolist() == [1, 1]


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("as_file", [False, True])
def test_labels_with_gaps_are_numbered_as_the_boxes_are(tmp_path, boxed, as_file):
    """Without stored boxes, labels 1 and 3 are predicted as 1 and 2. With them, box i has label i+1."""
    gt = square() + square(top=35, left=35, label=3)
    boxes = np.array([[10, 10, 29, 29], [0, 0, 5, 5], [35, 35, 54, 54]]) if boxed else None
    seg = gt if boxed else np.where(gt == 3, 2, gt)
    case = SimpleNamespace(name="2DBox_US_1", labels=gt, boxes=boxes, spacing=None)
    if as_file:
        case = tmp_path / "2DBox_US_1.npz"
        np.savez(case, imgs=np.zeros((60, 60, 3), np.uint8), gts=gt, **({"boxes": boxes} if boxed else {}))
    row = score_cases([(case, seg)]).iloc[0]
    assert (row["dsc"], row["nsd"], row["objects"], row["missed"], row["skipped"]) == (1, 1, 2, 0, int(boxed))


def test_labels_of_no_use_are_named_with_their_file(tmp_path):
    np.savez(tmp_path / "x.npz", gts=square().astype(float))
    with pytest.raises(ValueError, match=r"x\.npz: gts: found float64"):
        score_cases([(tmp_path / "x.npz", square())])


def test_score_cases_of_nothing_keeps_its_columns():
    assert list(score_cases([])) == [
        "case",
        "modality",
        "group",
        "dsc",
        "nsd",
        "objects",
        "missed",
        "skipped",
        "worst_dsc",
    ]


def test_files_without_the_array_are_named(files, tmp_path):
    (gt, seg), *_ = files
    with pytest.raises(ValueError, match=f"{seg}: found segs, expected gts"):
        score_cases([(seg, seg)])
    with pytest.raises(ValueError, match=f"{gt}: found imgs, gts, expected segs"):
        score_cases([(gt, gt)])


@pytest.mark.parametrize(
    ("name", "modality"), [("3DBox_CT_0566", "CT"), ("2DBox_X-Ray_0053", "X-Ray"), ("scan", "unknown")]
)
def test_modality_stands_in_the_name(name, modality):
    assert modality_of(name) == modality


# Bootstrap intervals


def interval(values, groups=None):
    """Return the interval of one modality's mean."""
    return average_interval([values], None if groups is None else [groups])


def test_interval_holds_the_mean_and_narrows_with_cases():
    rng = np.random.default_rng(0)
    few, many = rng.normal(0.8, 0.1, 10), rng.normal(0.8, 0.1, 1000)
    low, high = interval(few)
    assert low < few.mean() < high
    narrow = interval(many)
    assert narrow[1] - narrow[0] == pytest.approx(2 * 1.96 * 0.1 / sqrt(1000), rel=0.1)
    assert interval(few) == interval(few)


def test_interval_edge_cases():
    assert np.isnan(interval([0.5])).all()
    assert interval([0.5, nan, 0.5]) == (0.5, 0.5)
    assert np.isnan(interval([])).all()


def test_average_interval_weighs_groups_alike():
    low, high = average_interval([[0.0, 1.0] * 50, [1.0] * 100])
    assert low < 0.75 < high and high - low == pytest.approx(1.96 * 0.5 / 10, rel=0.1)


def test_modalities_of_one_case_make_the_interval_no_narrower():
    rng = np.random.default_rng(1)
    means = rng.normal(0, 1, 11)
    groups = [means[k] + rng.normal(0, 0.1, 40) for k in range(11)]
    few = [values if k < 2 else values[:1] for k, values in enumerate(groups)]
    width = {name: np.diff(average_interval(found))[0] for name, found in (("all", groups), ("few", few))}
    # Only the first two modalities have enough cases to estimate a spread.
    spread = np.mean([values.var(ddof=1) for values in groups[:2]]) ** 0.5
    assert width["few"] == pytest.approx(2 * 1.96 * spread * sqrt(9 + 2 / 40) / 11, rel=0.05)
    assert width["few"] > 4 * width["all"]
    assert np.isnan(average_interval([[0.1], [0.9]])).all()


@pytest.mark.parametrize("cases", [2, 3, 5])
def test_intervals_of_few_cases_allow_for_how_few_they_are(cases):
    """The resampled means spread as the mean itself: s / sqrt(n), where s has n - 1 degrees of freedom."""
    values = np.random.default_rng(cases).normal(0, 1, cases)
    groups = [values] * 30
    low, high = average_interval(groups)
    assert high - low == pytest.approx(2 * 1.96 * values.std(ddof=1) / sqrt(cases * 30), rel=0.08)


def test_cases_of_one_volume_are_drawn_together():
    """Six volumes have ten nearly equal slices each. The bootstrap interval is that of six values."""
    volumes = np.random.default_rng(3).normal(0, 1, 6)
    values, groups = (
        np.repeat(volumes, 10) + np.tile(np.linspace(-0.01, 0.01, 10), 6),
        np.repeat(list("abcdef"), 10),
    )
    alone, together = interval(values), interval(values, groups=groups)
    assert together == pytest.approx(interval(volumes), abs=1e-6)
    assert together[1] - together[0] > 3 * (alone[1] - alone[0])
    assert average_interval([values, values + 1], groups=[groups, groups]) == pytest.approx(
        average_interval([volumes, volumes + 1]), abs=1e-6
    )
    assert interval(values, groups=range(60)) == alone
    assert np.isnan(interval(values, groups=["a"] * 60)).all()  # one volume shows no spread


def test_groups_of_unlike_size_count_by_their_cases():
    """Volume a has two slices, b one. The mean of two draws is 0 (a twice), 1 (b twice) or 1/3 (a and b)."""
    ends = interval([0.0, 0.0, 1.0], groups=["a", "a", "b"])
    assert ends == pytest.approx((1 / 3 - sqrt(2) / 3, 1 / 3 + 2 / 3 * sqrt(2)))


def test_a_modality_of_one_volume_borrows_the_others_spread():
    several, one = [0.0, 1.0, 0.0, 1.0], [0.5, 0.5, 0.5]
    low, high = average_interval([several, one], groups=[list("abcd"), list("xxx")])
    assert high - low > np.diff(average_interval([several, one * 10]))[0]


def test_differences_and_spreads_know_groups():
    rng = np.random.default_rng(4)
    frame = pd.DataFrame(
        {"case": [f"c{k}" for k in range(12)], "modality": "OCT", "group": np.repeat(list("abc"), 4)}
    )
    first, second = (frame.assign(dsc=np.repeat(rng.normal(0, 0.1, 3), 4) + level) for level in (0.7, 0.8))
    wide, narrow = (
        paired_differences(a, second).set_index("modality").loc["OCT"]
        for a in (first, first.drop(columns="group"))
    )
    assert wide["difference_high"] - wide["difference_low"] > 1.5 * (
        narrow["difference_high"] - narrow["difference_low"]
    )
    assert wide["difference"] == narrow["difference"] and wide["cases"] == 12
    told, untold = (
        spread_per_modality(a).set_index("modality").loc["OCT"] for a in (first, first.drop(columns="group"))
    )
    assert told["high"] - told["low"] > 1.5 * (untold["high"] - untold["low"])


def test_paired_differences_by_hand():
    first = pd.DataFrame(
        {"case": ["a", "b", "c"], "modality": ["CT", "CT", "Microscope"], "dsc": [0.8, 0.6, 0.9]}
    )
    second = pd.DataFrame(
        {"case": ["c", "b", "a"], "modality": ["Microscopy", "CT", "CT"], "dsc": [0.5, 0.7, 0.7]}
    )
    table = paired_differences(first, second).set_index("modality")
    assert table["difference"].round(9).to_dict() == {"CT": 0, "Microscopy": 0.4, "Average": 0.2}
    assert table["cases"].to_dict() == {"CT": 2, "Microscopy": 1, "Average": 3}
    assert table.loc["CT", ["difference_low", "difference_high"]].tolist() == pytest.approx(
        [-0.1 * sqrt(2), 0.1 * sqrt(2)]
    )
    assert table.loc["Microscopy", ["difference_low", "difference_high"]].isna().all()
    assert table.loc["CT", "worse"] == 0.5
    with pytest.raises(ValueError, match="no case scored in both"):
        paired_differences(first, second.assign(case="x" + second["case"]))


def test_interval_of_the_spread_over_modalities():
    def arm(means, noise=0.0):
        rng = np.random.default_rng(2)
        rows = [
            (f"M{k}", f"M{k}_{n}", mean + noise * rng.normal())
            for k, mean in enumerate(means)
            for n in range(6)
        ]
        return pd.DataFrame(rows, columns=["modality", "case", "dsc"])

    even, uneven = [0.8] * 4, [0.7, 0.9] * 2
    assert spread_interval(arm(uneven), arm(even)) == pytest.approx((0.1, 0.1))
    low, high = spread_interval(arm(even, 0.05), arm(uneven))
    assert low < -0.1 + 0.05 / sqrt(6) < high and low < high < 0
    single = arm(even).groupby("modality").head(1)
    assert np.isnan(spread_interval(single, single)).all()
