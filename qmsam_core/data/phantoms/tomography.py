"""CT, MR and PET volumes: anatomy in physical quantities, then what the scanner makes of it."""

from __future__ import annotations

import numpy as np

from . import physics
from .shapes import Mesh, blob, ellipse, fractal_noise, inside, label_map, lobulated, mesh, paint, smooth_min, smooth_noise, soft

Volume = tuple[np.ndarray, np.ndarray, np.ndarray]  # uint8 (D,H,W), labels (D,H,W), spacing (3,) mm as x, y, z
_WATER = 0.02  # attenuation of water, 1/mm, near 60 keV


def make_ct(rng: np.random.Generator, size: int) -> Volume:
    """Chest or abdomen, in Hounsfield units, with photon noise from simulated projections, in a named display window."""
    m = mesh((int(rng.integers(12, 17)), size, size))
    pixel = 360.0 / size
    thorax = rng.random() < 0.45
    hounsfield, masks = _thorax(m, rng) if thorax else _abdomen(m, rng)
    hounsfield = physics.blur(hounsfield, 0.012 * m.unit)
    photons = 10 ** rng.uniform(5.4, 6.3)
    for plane in hounsfield:
        plane += physics.beam_noise((plane / 1000 + 1) * _WATER, photons, pixel, rng) / _WATER * 1000
    level, width = (-500, 1500) if thorax and rng.random() < 0.4 else (40, 400)
    images = physics.window(hounsfield, level - width / 2, level + width / 2)
    return images, label_map(m.shape, masks), np.array([pixel, pixel, rng.choice([2.5, 5.0])])


def _trunk(m: Mesh, rng: np.random.Generator, fat: float) -> tuple[np.ndarray, Mesh]:
    """Air, table, skin, subcutaneous fat, the muscle wall, spine and ribs in Hounsfield units, and the warped mesh organs use."""
    hu = np.full(m.shape, -1000.0, dtype=np.float32)
    table = np.abs(m.y - 0.86 + 0.08 * m.x**2) / 0.02
    paint(hu, table, 90.0, 0.4)
    w = m.warped(0.02, 0.5, rng)
    paint(hu, ellipse(w, (0, 0.02), (0.94, 0.74), power=2.3), 30, 0.01)
    paint(hu, ellipse(w, (0, 0.02), (0.925, 0.725), power=2.3), -100 + 6 * smooth_noise(m.shape, 2, rng), 0.01)
    wall = (0.925 - fat, 0.725 - fat)
    paint(hu, ellipse(w, (0, 0.04), wall, power=2.2), 58, 0.01)
    return hu, w


def _bones(hu: np.ndarray, w: Mesh, rng: np.random.Generator, cage: tuple[float, float], ribs: int) -> None:
    """Vertebra with canal and processes, and rib sections around the cage that move with z."""
    for x in (-0.16, 0.16):
        paint(hu, ellipse(w, (x, 0.6), (0.15, 0.045), np.sign(x) * 0.5), 420, 0.15)
    paint(hu, ellipse(w, (0, 0.68), (0.03, 0.12)), 450, 0.15)
    paint(hu, blob(w, (0, 0.45), (0.16, 0.13), rng, 0.06, 0.0), 560, 0.05)
    paint(hu, ellipse(w, (0, 0.45), (0.125, 0.1)), 210 + 50 * smooth_noise(w.shape, 1.5, rng), 0.1)
    paint(hu, ellipse(w, (0, 0.59), (0.055, 0.05)), 25, 0.1)
    for turn in np.linspace(-2.2, 2.2, ribs) + rng.normal(0, 0.05, ribs):
        drift = float(turn) + 0.22 * float(np.sign(turn)) * w.z[:, :1, :1]
        x0, y0 = cage[0] * np.sin(drift), 0.04 - cage[1] * np.cos(drift)
        tangent = np.arctan2(cage[1] * np.sin(turn), cage[0] * np.cos(turn))
        cos, sin = float(np.cos(tangent)), float(np.sin(tangent))
        along, across = cos * (w.x - x0) + sin * (w.y - y0), cos * (w.y - y0) - sin * (w.x - x0)
        paint(hu, np.hypot(along / 0.1, across / 0.03), 520, 0.25)


def _abdomen(m: Mesh, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Liver with vessels and lesion, spleen, kidneys, aorta, stomach and bowel; up to six labels, the lesion nested in the liver."""
    fat = rng.uniform(0.05, 0.16)
    hu, w = _trunk(m, rng, fat)
    cavity = (0.84 - fat, 0.62 - fat)
    paint(hu, ellipse(w, (0, -0.02), cavity, power=2.2), -95 + 8 * smooth_noise(m.shape, 2, rng), 0.02)
    _bones(hu, w, rng, (0.87 - fat, 0.66 - fat), 9)
    for x in (-0.24, 0.24):
        paint(hu, blob(w, (x, 0.42), (0.1, 0.14), rng, 0.08, 0.0), 60, 0.06)
    g = m.warped(0.035, 0.22, rng)
    peritoneum = ellipse(w, (0, -0.02), (cavity[0] - 0.02, cavity[1] - 0.02), power=2.2)
    for _ in range(11):
        place = (rng.uniform(-0.35, 0.6), rng.uniform(-0.45, 0.25), rng.uniform(-1, 1))
        loop = np.maximum(blob(g, place, (rng.uniform(0.07, 0.16), rng.uniform(0.06, 0.1), 0.9), rng, 0.15), peritoneum)
        paint(hu, loop, 45, 0.06)
        paint(hu, loop + 0.3, rng.choice([-700.0, 15.0, 25.0, 180.0], p=[0.15, 0.4, 0.35, 0.1]), 0.1)
    stomach = np.maximum(blob(g, (0.3, -0.22, 0.3), (0.3, 0.2, 1.6), rng, 0.12, 0.5), peritoneum)
    paint(hu, stomach, 55, 0.04)
    paint(hu, stomach + 0.14, np.where(m.y < -0.24 + 0.02 * rng.standard_normal(), -950.0, 18.0), 0.04)
    liver = _liver(g, rng, peritoneum)
    spleen = np.maximum(np.maximum(blob(g, (0.56, 0.1, 0.4), (0.18, 0.34, 1.4), rng, 0.14, -0.35), 1.75 - ellipse(g, (0.36, 0.0), (0.3, 0.36))), peritoneum)
    kidneys = [_kidney(g, x, rng) for x in (-0.43, 0.43)]
    aorta = blob(m, (0.06 + 0.02 * m.z, 0.25), (0.075, 0.075), rng, 0.03)
    cava = blob(m, (-0.13, 0.22), (0.09, 0.065), rng, 0.08, 0.2)
    lesion = lobulated(g, (-0.42 + rng.normal(0, 0.06), -0.1 + rng.normal(0, 0.06), rng.uniform(-0.4, 0.4)), rng.uniform(0.12, 0.2), rng, 4, 0.8)
    phase = rng.uniform(0.3, 1.0)  # contrast phase
    paint(hu, liver, 65 + 50 * phase + 5 * smooth_noise(m.shape, 2, rng), 0.02)
    veins = np.exp(-((smooth_noise(m.shape, 0.11 * m.unit, rng) / 0.12) ** 2)) * (smooth_noise(m.shape, 0.2 * m.unit, rng) > 0.5)
    hu += 45 * phase * veins * soft(liver + 0.1, 0.05)
    paint(hu, lesion, 45 + 15 * rng.standard_normal() + 6 * smooth_noise(m.shape, 3, rng), 0.2)
    paint(hu, spleen, 60 + 60 * phase, 0.03)
    for cortex, sinus in kidneys:
        paint(hu, cortex, 60 + 130 * phase + 25 * smooth_noise(m.shape, 0.05 * m.unit, rng), 0.05)
        paint(hu, sinus, -40, 0.2)
    paint(hu, cava, 60 + 80 * phase, 0.06)
    paint(hu, aorta, 60 + 180 * phase, 0.06)
    organs = [liver, spleen, *(np.maximum(cortex, 2 - sinus) for cortex, sinus in kidneys), aorta, np.maximum(lesion, liver)]
    return hu, [inside(level) for level in organs]


def _liver(g: Mesh, rng: np.random.Generator, peritoneum: np.ndarray) -> np.ndarray:
    """Large right lobe tapering into a left lobe that reaches across the midline, less so towards the feet."""
    right = blob(g, (-0.42, -0.08, 0.2), (0.42, 0.42, 2.6), rng, 0.08, 0.0)
    left = blob(g, (-0.02, -0.3, 0.5), (0.36, 0.13, 1.1), rng, 0.12, 0.15)
    dents = 1.25 - ellipse(g, (-0.12, 0.22), (0.2, 0.2))
    return np.maximum(np.maximum(smooth_min([right, left], 0.12), dents), peritoneum)


def _kidney(g: Mesh, x: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Levels of a bean-shaped kidney and of the fatty sinus that opens towards the midline."""
    lean = -np.sign(x) * rng.uniform(0.2, 0.6)
    z = rng.uniform(-0.5, 0.0)
    cortex = blob(g, (x, 0.3, z), (0.14, 0.19, 1.25), rng, 0.06, lean)
    sinus = ellipse(g, (x - np.sign(x) * 0.08, 0.3, z), (0.09, 0.08, 0.7), lean)
    return cortex, sinus


def _thorax(m: Mesh, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Lungs with vessels, heart and great vessels, and nodules that may touch the pleura; labels lungs, heart, nodules."""
    fat = rng.uniform(0.03, 0.1)
    hu, w = _trunk(m, rng, fat)
    _bones(hu, w, rng, (0.83 - fat, 0.62 - fat), 12)
    g = m.warped(0.03, 0.25, rng)
    paint(hu, ellipse(w, (0, -0.02), (0.3, 0.5)), -60, 0.1)
    heart = np.maximum(blob(g, (0.14, -0.12, -0.5), (0.34, 0.28, 1.7), rng, 0.08, 0.5), ellipse(w, (0, 0), (0.75 - fat, 0.56 - fat)))
    aorta = ellipse(m, (0.15, 0.3), (0.075, 0.075))
    arch = blob(g, (0.02, -0.14, 0.9), (0.13, 0.13, 0.7), rng, 0.1)
    airway = smooth_min([ellipse(m, (x, 0.06), (0.05, 0.045)) for x in (-0.06, 0.08)], 0.1)
    lungs = [np.maximum(_lung(g, x, fat, rng), 1.12 / np.maximum(np.minimum(heart, arch), 0.1)) for x in (-0.44, 0.44)]
    vessels = np.abs(smooth_noise(m.shape, 0.09 * m.unit, rng)) + 0.35 * np.hypot(np.abs(m.x) - 0.2, m.y)
    texture = -860 + 40 * smooth_noise(m.shape, 0.3 * m.unit, rng) + 25 * smooth_noise(m.shape, 1.5, rng) + 700 * np.exp(-((vessels / 0.16) ** 2))
    for lung in lungs:
        paint(hu, lung, texture, 0.015)
    blood = rng.uniform(50, 220)
    paint(hu, heart, 45, 0.02)
    paint(hu, heart + 0.25, 50 + blood * 0.7 + 12 * smooth_noise(m.shape, 0.15 * m.unit, rng), 0.15)
    for vessel in (arch, aorta):
        paint(hu, vessel, 40 + blood, 0.06)
    paint(hu, airway, -980, 0.1)
    nodules = [np.maximum(_nodule(g, rng), 2.03 - heart) for _ in range(rng.integers(1, 3))]
    for nodule in nodules:
        paint(hu, nodule, 35 + 10 * smooth_noise(m.shape, 2, rng), 0.08)
    return hu, [inside(level) for level in (*lungs, heart, *nodules)]


def _lung(g: Mesh, x: float, fat: float, rng: np.random.Generator) -> np.ndarray:
    size = (0.33 - fat / 2 + 0.02 * g.z, 0.5 - fat * 0.7)
    level = blob(g, (x, -0.01), size, rng, 0.05, 0.0)
    return np.maximum(level, 1.45 - ellipse(g, (0, 0.45), (0.26, 0.2)))


def _nodule(g: Mesh, rng: np.random.Generator) -> np.ndarray:
    side, turn = rng.choice([-1, 1]), rng.uniform(0, 2 * np.pi)
    place = (side * 0.46 + 0.16 * np.cos(turn), 0.28 * np.sin(turn) - 0.02, rng.uniform(-0.5, 0.5))
    return lobulated(g, place, rng.uniform(0.08, 0.16), rng, 4, 0.7)


def make_mr(rng: np.random.Generator, size: int) -> Volume:
    """Head or heart: tissue contrast of a random weighting, coil bias field, k-space truncation, Rician noise, percentile window."""
    head = rng.random() < 0.6
    m = mesh((int(rng.integers(12, 17)), size, int(size * (1.0 if not head else 0.875))))
    signal, masks = _head(m, rng) if head else _heart(m, rng)
    signal = physics.k_space_cut(physics.blur(signal, 0.4), rng.uniform(0.65, 0.95)) * physics.bias_field(m.shape, rng.uniform(0.1, 0.25), rng)
    images = physics.percentile_window(physics.rician(signal, rng.uniform(0.015, 0.04), rng))
    pixel = 220.0 / size if head else 300.0 / size
    return images, label_map(m.shape, masks), np.array([pixel, pixel, rng.choice([3.0, 5.0, 8.0])])


_WEIGHTINGS = {  # relative signal of fat, bone marrow, fluid, grey and white matter, muscle, lesion rim, lesion core, oedema
    "T1": dict(fat=1.0, marrow=0.7, fluid=0.13, grey=0.45, white=0.62, muscle=0.4, rim=0.95, core=0.28, oedema=0.38),
    "T2": dict(fat=0.75, marrow=0.45, fluid=1.0, grey=0.55, white=0.38, muscle=0.25, rim=0.6, core=0.85, oedema=0.78),
    "FLAIR": dict(fat=0.7, marrow=0.45, fluid=0.1, grey=0.55, white=0.42, muscle=0.3, rim=0.85, core=0.35, oedema=0.9),
}


def _head(m: Mesh, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Scalp, skull, folded cortex, ventricles and a glioma with oedema; labels oedema, tumour, its core (nested), two ventricles."""
    c = _WEIGHTINGS[rng.choice(list(_WEIGHTINGS))]
    w = m.warped(0.015, 0.5, rng)
    shrink = 1 - 0.1 * np.maximum(m.z, 0)  # the head narrows towards the vertex
    head = ellipse(w, (0, 0), (0.8, 0.97), power=2.2) / shrink
    signal = np.zeros(m.shape, dtype=np.float32)
    paint(signal, head, c["fat"], 0.02)
    paint(signal, head + 0.075, 0.05, 0.02)
    paint(signal, head + 0.105, c["marrow"] * 0.5, 0.02)
    paint(signal, head + 0.13, 0.05, 0.02)
    brain = head + 0.165
    paint(signal, brain, c["fluid"], 0.015)
    folds = np.abs(smooth_noise(m.shape, 0.085 * m.unit, rng))
    furrow = np.clip((1.0 - brain) / 0.3, 0, 1)
    sulci = np.exp(-((folds / 0.1) ** 2)) * (1 - furrow)
    sulci = np.maximum(sulci, np.exp(-(((m.x + 0.01 * smooth_noise(m.shape, 0.2 * m.unit, rng)) / 0.018) ** 2)) * (np.abs(m.y) > 0.42))
    paint(signal, brain + 0.025 + 0.5 * sulci, c["grey"], 0.02)
    ribbon = brain + 0.14 + 0.3 * np.exp(-((folds / 0.3) ** 2)) * (1 - furrow)
    paint(signal, ribbon, c["white"] + 0.015 * smooth_noise(m.shape, 2, rng), 0.03)
    g = m.warped(0.015, 0.15, rng)
    for side in (-1, 1):
        paint(signal, blob(g, (side * 0.19, 0.12, -0.2), (0.11, 0.17, 1.2), rng, 0.08, side * 0.4), 0.3 * c["white"] + 0.7 * c["grey"], 0.08)
        paint(signal, blob(g, (side * 0.15, -0.2, -0.1), (0.055, 0.12, 1.0), rng, 0.08, -side * 0.3), c["grey"], 0.1)
    ventricles = [_ventricle(g, side, rng.uniform(0.8, 1.35), rng) for side in (-1, 1)]
    side = rng.choice([-1, 1])
    place = (side * rng.uniform(0.3, 0.42), rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4))
    r = rng.uniform(0.15, 0.24)
    tumour = lobulated(g, place, r, rng, 4, 0.8)
    core = lobulated(g, place, r * 0.55, rng, 3, 0.5)
    oedema = np.maximum(blob(m.warped(0.05, 0.12, rng), place, (r * 1.5, r * 1.8, 1.1), rng, 0.3), ribbon - 0.02)
    paint(signal, oedema, c["oedema"], 0.12)
    for ventricle in ventricles:
        paint(signal, ventricle, c["fluid"], 0.08)
    paint(signal, tumour, c["rim"] * 0.6 + 0.4 * c["grey"] + 0.05 * smooth_noise(m.shape, 3, rng), 0.08)
    paint(signal, core, c["core"], 0.15)
    return signal, [inside(np.maximum(level, brain)) for level in (oedema, *ventricles, tumour, np.maximum(core, tumour))]


def _ventricle(g: Mesh, side: int, width: float, rng: np.random.Generator) -> np.ndarray:
    """Lateral ventricle of one side: frontal horn, body and occipital horn, a bent, curved shape."""
    front = ellipse(g, (side * 0.09 * width, -0.2, 0), (0.05 * width, 0.17, 1.3), -side * 0.35)
    body = ellipse(g, (side * 0.07 * width, 0.02, 0.1), (0.04 * width, 0.18, 1.0), side * 0.1)
    back = ellipse(g, (side * 0.17 * width, 0.28, -0.1), (0.06 * width, 0.2, 0.9), -side * 0.45)
    return smooth_min([front, body, back], 0.15)


def _heart(m: Mesh, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    """Short-axis cine: left ventricle in its ring of myocardium, crescent right ventricle; three labels, one nested in another."""
    fluidness = rng.uniform(0.8, 1.0)
    signal = np.full(m.shape, 0.02, dtype=np.float32)
    w = m.warped(0.03, 0.4, rng)
    body = ellipse(w, (0.1, 0.1), (1.12, 0.88), power=2.4)
    paint(signal, body, 0.85, 0.02)
    paint(signal, body + rng.uniform(0.06, 0.14), 0.3 + 0.04 * smooth_noise(m.shape, 0.06 * m.unit, rng), 0.02)
    g = m.warped(0.025, 0.2, rng)
    for place, radii in (((-0.62, -0.05), (0.3, 0.55)), ((0.68, -0.02), (0.28, 0.5))):
        lung = np.maximum(blob(g, place, radii, rng, 0.08, 0.0), body + 0.16)
        paint(signal, lung, 0.06 + 0.22 * np.exp(-((smooth_noise(m.shape, 0.06 * m.unit, rng) / 0.25) ** 2)), 0.04)
    paint(signal, np.maximum(blob(g, (-0.35, 0.72), (0.6, 0.3), rng, 0.1, 0.1), body + 0.12), 0.42 + 0.05 * smooth_noise(m.shape, 3, rng), 0.03)
    paint(signal, blob(g, (0.02, -0.02), (0.52, 0.42), rng, 0.06, 0.3), 0.75, 0.1)  # fat around the heart
    taper = 1 - 0.3 * np.maximum(-m.z, 0)
    lean, x, y = rng.uniform(-0.3, 0.3), rng.uniform(0.08, 0.2), rng.uniform(-0.08, 0.06)
    outer = blob(g, (x, y), (0.27, 0.25), rng, 0.05, lean) / taper
    cavity = blob(g, (x, y), (0.165, 0.15), rng, 0.09, lean) / taper
    right = np.maximum(blob(g, (x - 0.27, y + 0.03), (0.27, 0.3), rng, 0.1, lean + 0.4) / taper, 2.12 - outer)
    paint(signal, right - 0.08, 0.28, 0.05)
    paint(signal, right, fluidness, 0.06)
    paint(signal, outer, 0.24 + 0.03 * smooth_noise(m.shape, 2, rng), 0.05)
    paint(signal, cavity, fluidness * (1 + 0.05 * smooth_noise(m.shape, 0.08 * m.unit, rng)), 0.12)
    for turn in rng.uniform(0, 2 * np.pi, 2):  # papillary muscles
        paint(signal, ellipse(g, (x + 0.09 * np.cos(turn), y + 0.08 * np.sin(turn)), (0.03, 0.035)), 0.3, 0.3)
    paint(signal, ellipse(m, (0.2, 0.42), (0.07, 0.07)), fluidness, 0.1)
    return signal, [inside(level) for level in (outer, cavity, right)]


def make_pet(rng: np.random.Generator, size: int) -> Volume:
    """Torso in SUV: organs and lobulated lesions, blurred by the scanner's point spread, with counting noise and a smooth filter."""
    m = mesh((int(rng.integers(12, 17)), size, size))
    suv, lesions = _uptake(m, rng)
    psf = 0.035 * m.unit
    blurred = physics.blur(suv, psf)
    counts = 10 ** rng.uniform(0.9, 1.6)
    noisy = physics.blur(physics.poisson(blurred, counts, rng), rng.uniform(0.5, 0.75))
    top = max(np.quantile(noisy[inside(lesions[0])], 0.9) if inside(lesions[0]).any() else 6.0, 4.0) * rng.uniform(0.75, 1.0)
    images = physics.window(noisy, 0, top)
    return images, label_map(m.shape, [inside(level) for level in lesions]), np.array([360.0 / size] * 2 + [4.0])


def _uptake(m: Mesh, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
    suv = np.full(m.shape, 0.02, dtype=np.float32)
    w = m.warped(0.03, 0.4, rng)
    body = ellipse(w, (0, 0), (0.85, 0.62), power=2.3)
    paint(suv, body, 0.5, 0.03)
    paint(suv, body + 0.1, 0.9 + 0.12 * fractal_noise(m.shape, 0.2 * m.unit, rng), 0.05)
    for x in (-0.38, 0.38):
        paint(suv, blob(w, (x, -0.05, 0.6), (0.25, 0.36, 1.2), rng, 0.08, 0.0), 0.35, 0.08)
    paint(suv, blob(w, (-0.35, -0.02, -1.0), (0.42, 0.38, 1.0), rng, 0.1, 0.0), 2.1 + 0.15 * smooth_noise(m.shape, 3, rng), 0.1)
    paint(suv, ellipse(w, (0, 0.38), (0.1, 0.09)), 1.7, 0.2)
    wall = blob(w, (0.16, -0.12, 0.2), (0.24, 0.21, 0.7), rng, 0.06)
    if rng.random() < 0.6:  # myocardium takes up glucose in some patients only
        paint(suv, wall, 4.5, 0.08)
        paint(suv, wall + 0.45, 1.5, 0.2)
    lesions = []
    for _ in range(rng.integers(1, 5)):
        turn = rng.uniform(0, 2 * np.pi)
        place = (0.5 * np.cos(turn), 0.34 * np.sin(turn), rng.uniform(-0.5, 0.5))
        lesion = lobulated(w.warped(0.015, 0.1, rng), place, rng.uniform(0.09, 0.2), rng, int(rng.integers(3, 6)), rng.uniform(0.4, 0.8))
        heat = rng.uniform(5, 11) * (1 - rng.uniform(0, 0.5) * soft(lesion + 0.6, 0.3))  # some are cold (necrotic) inside
        paint(suv, lesion, heat, 0.1)
        lesions.append(lesion)
    return suv, lesions
