"""Phantoms: valid, deterministic, several objects, not ellipses, kept when right."""


import numpy as np
import pytest

from qmsam_core.data import Case, SliceIndex, tight_boxes
from qmsam_core.data.phantoms import MODALITIES, case_counts, make_case, write_phantoms
from qmsam_core.data.phantoms.physics import beam_noise, k_space_cut, poisson, rician, speckle, window
from qmsam_core.data.phantoms.shapes import blob, ellipse, inside, label_map, mesh, smooth_noise


def inscribed_ellipse_dice(labels):
    """Dice of each object with the ellipse (ellipsoid) inscribed in its box."""
    labels = labels if labels.ndim == 3 else labels[None]
    axes = np.ogrid[tuple(slice(side) for side in labels.shape)]
    for label, box in zip(*tight_boxes(labels)):
        middle, half = (box[:3] + box[3:]) / 2, (box[3:] - box[:3] + 1) / 2
        inner = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, middle[::-1], half[::-1])) <= 1
        truth = labels == label
        yield 2 * (inner & truth).sum() / (inner.sum() + truth.sum())


@pytest.mark.parametrize("modality", MODALITIES)
def test_case_is_valid_and_deterministic(modality, tmp_path):
    case = make_case(modality, 4, size=64)
    again = make_case(modality, 4, size=64)
    np.testing.assert_array_equal(case.images, again.images)
    np.testing.assert_array_equal(case.labels, again.labels)
    assert not np.array_equal(case.images, make_case(modality, 5, size=64).images)
    case.save(tmp_path / f"{case.name}.npz")
    loaded = Case.load(tmp_path / f"{case.name}.npz")
    assert loaded.is_volume == (modality in ("CT", "MR", "PET")) and max(loaded.plane_shape) == 64
    ids, boxes = tight_boxes(loaded.labels)
    np.testing.assert_array_equal(ids, np.arange(1, len(boxes) + 1))
    np.testing.assert_array_equal(boxes, loaded.boxes)
    assert case.images.std() > 10 and len(np.unique(case.images)) > 50


def test_objects_are_several_and_no_ellipses():
    scores, objects = [], {}
    for modality in MODALITIES:
        for seed in range(3):
            labels = make_case(modality, seed).labels
            objects.setdefault(modality, []).append(labels.max())
            scores.append(np.mean(list(inscribed_ellipse_dice(labels))))
    assert 0.75 <= np.mean(scores) <= 0.85
    assert all(10 <= n <= 40 for n in objects.pop("Microscopy"))
    assert max(max(n) for n in objects.values()) <= 7 and np.mean([max(n) > 1 for n in objects.values()]) > 0.8


def test_counts_keep_the_order_of_table_2_and_grow():
    slices = {m: n * (14 if m in ("CT", "MR", "PET") else 1) for m, n in case_counts(400).items()}
    values = [slices[m] for m in MODALITIES]
    assert all(a >= b - 14 for a, b in zip(values, values[1:])) and values[0] > 15 * values[-1]
    assert sum(case_counts(400).values()) == 400 and set(case_counts(5).values()) == {3}
    assert all(a <= b for a, b in zip(case_counts(60).values(), case_counts(61).values()))


def test_counts_can_follow_table_2_in_proportion():
    slices = {m: (n - 3) * (14 if m in ("CT", "MR", "PET") else 1) for m, n in case_counts(100_000, imbalance=1).items()}
    assert slices["CT"] / slices["MR"] == pytest.approx(1218411 / 236804, rel=0.01)
    assert slices["CT"] / slices["Microscopy"] == pytest.approx(1218411 / 1000, rel=0.01)
    assert len(set(case_counts(330, imbalance=0).values())) <= 3  # volumes count their slices


def test_folder_is_made_once_and_mended(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr("qmsam_core.data.phantoms.collection.make_case", lambda m, s: made.append(m) or make_case(m, s, size=48))
    root = write_phantoms(tmp_path / "phantoms", 33, seed=1)
    assert len(made) == 33
    index = SliceIndex.build(root)
    assert sorted(index.modalities) == sorted(MODALITIES) and index.problems == [] and index.cases.modality.value_counts().min() == 3
    made.clear()
    write_phantoms(root, 33, seed=1)
    assert made == []
    paths = sorted(root.rglob("*.npz"))
    paths[0].write_bytes(b"damaged")
    paths[1].unlink()
    own = root / "CT/own.npz"
    own.write_bytes(paths[2].read_bytes())
    write_phantoms(root, 35, seed=1)
    assert len(made) == 4
    before = {p: p.read_bytes() for p in root.rglob("2DBox*.npz")}
    write_phantoms(root, 33, seed=2)
    assert len(list(root.rglob("?DBox*.npz"))) == 33 and own.exists()
    assert not set(before) & set(root.rglob("2DBox*.npz"))


@pytest.mark.parametrize("arguments", [("Photo", 0), ("CT", -1), ("CT", 0, 16)])
def test_impossible_requests_are_named(arguments):
    with pytest.raises(ValueError, match="expected"):
        make_case(*arguments)


def test_circle_has_its_area_at_any_size():
    for side in (64, 200):
        area = inside(ellipse(mesh((side, side)), (0, 0), (0.5, 0.5))).mean()
        assert area == pytest.approx(np.pi * 0.25 / 4, rel=0.02)


def test_smooth_blob_is_an_ellipse():
    m = mesh((80, 100))
    np.testing.assert_allclose(blob(m, (0.1, 0.2), (0.4, 0.3), np.random.default_rng(0), 0.0, 0.3), ellipse(m, (0.1, 0.2), (0.4, 0.3), 0.3), rtol=1e-4)


@pytest.mark.parametrize("shape", [(60, 80), (6, 40, 50)])
@pytest.mark.parametrize("sigma", [0.1, 2.0, 30.0])
def test_smooth_noise_is_normalised(shape, sigma):
    noise = smooth_noise(shape, sigma, np.random.default_rng(0))
    assert noise.shape == shape and noise.std() == pytest.approx(1, abs=0.01) and abs(noise.mean()) < 0.35


def test_label_map_drops_fragments_and_numbers_without_gaps():
    a, b, c = (np.zeros((20, 20), bool) for _ in range(3))
    a[2:8, 2:8], a[15, 15], b[0, 0], c[5:18, 5:18] = True, True, True, True
    labels = label_map((20, 20), [a, b, c])
    assert np.unique(labels).tolist() == [0, 1, 2] and labels[15, 15] == 2 and labels[3, 3] == 1 and labels[0, 0] == 0


def test_noise_has_the_statistics_of_its_physics():
    rng = np.random.default_rng(0)
    assert poisson(np.full(100_000, 0.5), 40, rng).var() == pytest.approx(0.5 / 40, rel=0.03)
    assert rician(np.zeros(100_000), 2.0, rng).mean() == pytest.approx(2 * np.sqrt(np.pi / 2), rel=0.02)
    grains = speckle((400, 400), 0.2, 0.2, rng)
    assert grains.std() / grains.mean() == pytest.approx(0.523, abs=0.03)  # Rayleigh: sqrt(4/pi - 1)


def test_beam_noise_grows_with_attenuation_and_falls_with_dose():
    disc = inside(ellipse(mesh((96, 96)), (0, 0), (0.8, 0.8)))
    deviation = {}
    for density, photons in ((0.01, 1e5), (0.02, 1e5), (0.02, 1e6)):
        noise = beam_noise((disc * density).astype(np.float32), photons, 3.0, np.random.default_rng(0))
        deviation[density, photons] = noise[disc].std()
    assert deviation[0.02, 1e5] > 2 * deviation[0.01, 1e5]
    assert deviation[0.02, 1e5] / deviation[0.02, 1e6] == pytest.approx(10**0.5, rel=0.2)


def test_k_space_cut_keeps_the_mean_and_drops_fine_detail():
    plane = np.indices((32, 32)).sum(0)[None] % 2
    np.testing.assert_allclose(k_space_cut(plane, 0.5), 0.5, atol=1e-5)


def test_window():
    np.testing.assert_array_equal(window(np.array([-200.0, -160, 41, 240, 900]), -160, 240), [0, 0, 128, 255, 255])
