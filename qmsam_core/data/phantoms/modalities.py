"""What each modality shows: one function each, which paints one slice on a canvas.

All slices of a volume are painted by the same function with the same random shapes; only z differs.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from .canvas import Canvas


def ct(c: Canvas) -> None:
    """Abdomen: liver with a lesion, spleen, kidneys and aorta, bowel, ribs and a vertebra."""
    fat = c.draw(0.04, 0.12)
    for inset, tone in ((0, 0.3), (fat, 0.5), (fat + 0.08, 0.3)):
        cavity = c.blob((0, 0), (0.93 - inset, 0.73 - inset), 0.02)
        c.paint(cavity, tone, rough=0.03)
    for turn in np.linspace(-2.3, 2.3, 9) * (1 + 0.06 * c.z):  # ribs come down as z changes
        place = (0.89 - fat) * np.sin(turn), (fat - 0.68) * np.cos(turn)
        c.paint(c.blob(place, (0.1, 0.035), 0.05, turn), 0.9)
    for y, radii, tone in ((0.5, (0.25, 0.04), 0.9), (0.42, (0.15, 0.12), 0.9), (0.54, (0.05, 0.04), 0.5)):
        c.paint(c.blob((0, y), radii, 0.05), tone, rough=0.04)
    for x in c.draw(-0.2, 0.35, 9):
        c.paint(c.blob((x, c.draw(-0.4, 0.1)), (0.1, 0.06), 0.2, c.draw(0, 3)) & cavity, c.draw(0.42, 0.52))
    liver = c.blob((-0.4, -0.05), (0.4, 0.45), 0.1, 0, (0.2, 2.5)) | c.blob((0, -0.28), (0.35, 0.16))
    c.add(liver & cavity & ~c.blob((-0.1, 0.22), (0.25, 0.26)), c.draw(0.62, 0.7), rough=0.04)
    spleen = c.blob((0.58, 0.05), (0.24, 0.4), 0.1, -0.3, (0.3, 1.5)) & ~c.blob((0.4, -0.04), (0.22, 0.33))
    c.add(spleen & cavity, c.draw(0.6, 0.72))
    for side in (-1, 1):
        kidney = c.blob((side * 0.36, 0.3), (0.13, 0.19), 0.08, -0.4 * side, (c.draw(-0.4, 0.1), 1.3))
        c.add(kidney & ~c.blob((side * 0.27, 0.3), (0.09, 0.08)), c.draw(0.8, 0.9))
    c.add(c.blob((0.07, 0.22), (0.085, 0.085)), c.draw(0.85, 0.95))
    c.add(c.lobed((c.draw(-0.55, -0.35), c.draw(-0.2, 0)), 0.2, (c.draw(-0.4, 0.4), 0.9)) & cavity, 0.42)


def mr(c: Canvas) -> None:
    """Head: scalp, skull, folded cortex, ventricles (dark in T1, bright in T2) and a tumour."""
    fluid, grey, white = ((1.0, 0.6, 0.42), (0.1, 0.42, 0.6))[c.rng.integers(2)]
    for inset, tone in ((0, 0.85), (0.06, 0.05), (0.12, fluid), (0.15, grey), (0.2, grey)):
        inside = c.blob((0, 0), (0.82 - inset, 0.97 - inset), 0.01)
        c.paint(inside, tone)
    c.paint(inside & (np.abs(c.texture(0.12)) > 0.3) | c.blob((0, 0), (0.45, 0.6), 0.05), white, 0.02)
    c.paint(inside & (np.abs(c.x) < 0.012) & (np.abs(c.y) > 0.45), fluid)
    for side in (-1, 1):
        c.paint(c.blob((side * 0.25, 0.05), (0.09, 0.18), 0.1, side * 0.3), grey, 0.03)
        front = c.blob((side * 0.14, -0.17), (0.07, 0.22), 0.1, side * 0.35, (0, 1.4))
        c.add(front | c.blob((side * 0.16, 0.18), (0.08, 0.26), 0.1, -side * 0.35, (0, 1.4)), fluid, 0.015)
    place = (c.rng.choice([-1, 1]) * c.draw(0.38, 0.44), c.draw(-0.4, 0.4))
    c.add(inside & c.lobed(place, c.draw(0.24, 0.32), (c.draw(-0.3, 0.3), 0.9)), 0.85, 0.02, rough=0.08)


def pet(c: Canvas) -> None:
    """Torso, dark, with lungs and the warmer liver and spine, and bright lobed lesions."""
    c.paint(c.blob((0, 0), (0.85, 0.62), 0.03), 0.1, 0.05, rough=0.2)
    for x in (-0.38, 0.38):
        c.paint(c.blob((x, -0.05), (0.25, 0.36), 0.08, 0, (0.6, 1.2)), 0.04, 0.05)
    liver, spine = c.blob((-0.35, 0), (0.4, 0.38), 0.1, 0, (-1, 1)), c.blob((0, 0.4), (0.1, 0.09))
    c.paint(liver | spine, 0.2, 0.05, rough=0.1)
    for turn in c.draw(0, 2 * np.pi) + np.arange(c.rng.integers(1, 5)) * c.draw(1.3, 1.6):
        place, depth = (0.48 * np.cos(turn), 0.34 * np.sin(turn)), (c.draw(-0.3, 0.3), c.draw(0.6, 1.1))
        c.add(c.lobed(place, c.draw(0.16, 0.3), depth), c.draw(0.6, 1.0), 0.025, rough=0.06)


def endoscopy(c: Canvas) -> None:
    """Pink, folded mucosa around the dark lumen, polyps that bulge out of it, dark corners."""
    lens = np.abs(c.x / c.right) ** 5 + np.abs(c.y / c.bottom) ** 5 < 0.9
    lumen = c.draw(-0.3, 0.3, 2)
    distance = np.hypot(c.x - lumen[0], c.y - lumen[1]) * np.exp(0.1 * c.texture(0.5))
    c.picture += (0.95, c.draw(0.5, 0.6), c.draw(0.42, 0.5))
    folds = np.abs(np.sin(6 * np.log(distance + 0.3)))
    c.shade((0.95 + 0.2 * folds + 0.05 * c.texture(0.2)) * np.clip(distance / 0.6, 0.08, 1))
    for turn in c.draw(0, 2 * np.pi) + np.arange(c.rng.integers(1, 4)) * c.draw(1.6, 2.1):
        place, radius = lumen + (0.62 * np.cos(turn), 0.55 * np.sin(turn)), c.draw(0.28, 0.42)
        polyp = (c.lobed(place, radius) | c.blob(place, (radius, 0.6 * radius), 0.15, c.draw(0, 3))) & lens
        c.paint(np.roll(polyp, int(0.06 * c.unit), 0), (0.3, 0.1, 0.08), 0.05, 0.7)  # its shadow
        c.add(polyp, (0.75, c.draw(0.25, 0.4), c.draw(0.2, 0.35)), 0.015, rough=0.08)
        c.shade(1 + 0.5 * cv2.distanceTransform(np.uint8(polyp), cv2.DIST_L2, 5) / (radius * c.unit))
    c.paint(c.texture(0.08) > 2.8, 1.0, strength=0.8)  # wet highlights
    c.shade(np.exp(-0.25 * (c.x**2 + c.y**2)) * lens)


def xray(c: Canvas) -> None:
    """Chest film: dark lungs crossed by ribs, bright spine, clavicles, heart and diaphragm."""
    c.paint(c.blob((0, 0.6), (1.0, 1.6), 0.02) | c.blob((0, -0.1), (1.2, 0.6), 0.05), 0.58, 0.08)
    heart = c.blob((c.draw(0.08, 0.16), 0.3), (c.draw(0.36, 0.44), 0.3), 0.06, c.draw(0.3, 0.6))
    for side in (-1, 1):
        lung = c.blob((side * 0.43, -0.02), (c.draw(0.33, 0.38), c.draw(0.76, 0.84)), 0.05, side * 0.12)
        above = c.y < c.draw(0.42, 0.6) + c.draw(0.5, 1.5) * (c.x - side * 0.35) ** 2
        c.add(lung & above & ~heart & (np.abs(c.x) > 0.15), 0.2, 0.02, rough=0.1)
    for mask, tone, edge in ((heart, 0.72, 0.02), (c.y > 0.75, 0.7, 0.15), (np.abs(c.x) < 0.1, 0.85, 0.02)):
        c.paint(mask, tone, edge, 0.7)
    for side, outwards in ((-1, np.pi), (1, 0.0)):
        for top in np.linspace(-0.85, 0.5, 9):
            rib = c.line((side * 0.08, top), outwards - side * 0.35, 0.9, 0.07, side * 1.3)
            c.paint(rib, 0.75, 0.015, 0.2)
        c.paint(c.line((side * 0.1, -0.62), outwards - side * 0.1, 0.8, 0.09, -side * 0.4), 0.85, 0.015, 0.4)
    c.objects += [heart] if c.rng.random() < 0.6 else []


def dermoscopy(c: Canvas) -> None:
    """Skin with hairs and one or two pigmented, ragged lesions of uneven colour."""
    c.picture += (c.draw(0.82, 0.93), c.draw(0.62, 0.7), c.draw(0.52, 0.62))
    c.shade(1 + 0.02 * c.texture(0.05) + 0.02 * c.texture(0.5))
    radius = c.draw(0.35, 0.6)
    lesion = c.lobed((0, 0), radius) | c.blob((0, 0), (radius, 0.65 * radius), 0.2, c.draw(0, 3))
    second = c.blob((1.6 * radius, c.draw(-0.6, 0.6)), (0.18, 0.13), 0.2, c.draw(0, 3)) & ~lesion
    for mask in (lesion, second)[: c.rng.integers(1, 3)]:
        tone = c.draw(0.4, 0.65) * np.array([1.0, c.draw(0.55, 0.7), c.draw(0.4, 0.55)])
        c.add(mask, tone, c.draw(0.02, 0.05), 0.95, rough=0.18)
    for _ in range(c.rng.choice([0, 6, 14])):
        hair = c.line(c.draw(-1, 1, 2), c.draw(0, 6), c.draw(0.5, 1.5), 0.012, c.draw(-1, 1))
        c.paint(hair, (0.15, 0.1, 0.08), 0.005, 0.8)
    c.shade(np.exp(-0.12 * (c.x**2 + c.y**2)))


def ultrasound(c: Canvas) -> None:
    """Layered tissue in a fan: dark masses with a shadow behind, or darker cysts with more light behind."""
    apex = -c.bottom - c.draw(0.2, 0.5)
    reach, turn = np.hypot(c.x, c.y - apex), np.arctan2(c.x, c.y - apex)
    depth = reach + apex + c.bottom
    fan = (np.abs(turn) < c.draw(0.6, 0.75)) & (depth > 0.05) & (depth < 1.96 * c.bottom)
    c.picture += 0.5 * np.exp(0.25 * c.texture(0.3))[..., None]
    for layer in np.cumsum(c.draw(0.25, 0.5, 4)):
        c.paint(np.abs(depth - layer + 0.02 * c.texture(0.3)) < 0.02, 0.9, 0.02, 0.5)
    for x in (0, -0.5, 0.5)[: c.rng.integers(1, 4)]:
        place, cyst = (x + c.draw(-0.1, 0.1), c.draw(-0.1, 0.4)), c.rng.random() < 0.5
        lean = c.rng.choice([-1, 1]) * c.draw(0.4, 1.0)
        mass = c.blob(place, (c.draw(0.3, 0.4), c.draw(0.17, 0.23)), 0.1, lean)
        behind = (np.abs(turn - np.arctan2(place[0], place[1] - apex)) < 0.2) & (c.y > place[1])
        c.paint(behind, 0.75 if cyst else 0.35, 0.06, 0.3)
        c.add(mass & fan, 0.08 if cyst else 0.16, 0.015)
    c.speckle(0.6 * turn, reach)
    c.shade(fan)


def oct_scan(c: Canvas) -> None:
    """Retina in section: bright and dark layers that bulge over dark pockets of fluid."""
    place = c.draw(-0.5, 0.5)
    thick = 0.75 + c.draw(0.1, 0.25) * np.exp(-(((c.x - place) / 0.6) ** 2))
    base = 0.45 + 0.08 * (c.x - c.draw(-0.5, 0.5)) ** 2 + 0.01 * c.texture(0.3)
    depth = (c.y - base) / thick + 1  # 0 at the retina's inner border, 1 at the outer
    edges = (-0.01, 0.01, 0.15, 0.2, 0.4, 0.45, 0.55, 0.6, 0.85, 0.88, 0.98, 1.02, 1.2, 2.0)
    tones = (0.03, 0.75, 0.6, 0.45, 0.5, 0.35, 0.45, 0.3, 0.35, 0.85, 0.9, 0.5, 0.4, 0.1)
    c.picture += np.interp(depth, edges, tones)[..., None]
    c.add(c.blob((place, 0.42), (c.draw(0.4, 0.6), c.draw(0.15, 0.25)), 0.08) & (depth < 0.86), 0.05)
    for number in range(c.rng.integers(2, 6)):
        centre = (place + (number - 1.5) * c.draw(0.28, 0.34), 0.45 - c.draw(0.35, 0.5))
        cyst = c.blob(centre, (c.draw(0.1, 0.17), c.draw(0.12, 0.25)), 0.15)
        c.add(cyst & (depth > 0.12) & (depth < 0.84), 0.04)
    c.speckle(c.x, c.y)


def mammography(c: Canvas) -> None:
    """Breast at the film's edge with fat, gland and muscle; bright, lobed or spiculated masses."""
    wall = -c.right
    breast = c.blob((wall, 0), (c.draw(1.1, 1.4), c.draw(0.82, 0.95)), 0.03)
    c.paint(breast, 0.25, 0.02, rough=0.05)
    c.paint(breast & c.blob((wall + 0.5, 0), (0.5, 0.55), 0.15), 0.38, 0.1, rough=0.15)
    c.paint(breast & (1.7 * (c.x - wall) + c.y < c.draw(-0.4, -0.1)), 0.6, 0.02)
    for y in (0.0, 0.45, -0.35)[: c.rng.integers(1, 4)]:
        place, radius = (wall + c.draw(0.4, 0.8), y + c.draw(-0.15, 0.15)), c.draw(0.2, 0.3)
        for turn in c.draw(0, 2 * np.pi, c.rng.choice([0, 12])):
            c.paint(breast & c.line(place, turn, 1.6 * radius, 0.015), 0.7, 0.01, 0.5)
        c.add(breast & c.lobed(place, radius), c.draw(0.75, 0.9), 0.02, rough=0.06)


def fundus(c: Canvas) -> None:
    """Retina in its round field: disc with a pale cup, vessels that leave it, dark macula, exudates."""
    side, radius = c.rng.choice([-1, 1]), c.draw(0.24, 0.3)
    disc = np.array([side * c.draw(0.35, 0.5), c.draw(-0.08, 0.08)])
    c.picture += (c.draw(0.75, 0.9), c.draw(0.32, 0.42), c.draw(0.1, 0.18))
    c.shade(1 + 0.06 * c.texture(0.3))
    c.paint(c.blob(disc - (side * 0.85, -0.05), (0.17, 0.17)), (0.45, 0.15, 0.06), 0.1, 0.7)
    c.add(c.blob(disc, (radius, 1.1 * radius), 0.06), (0.95, 0.68, 0.35), 0.015)
    for way, length in ((-1, 1.4), (-1, 1.0), (1, 0.8)):  # towards the macula and away from it
        for up in (-1, 1):
            heading, bend = np.arctan2(up, side * way * c.draw(0.1, 0.9)), -up * side * way * c.draw(0.6, 1.3)
            c.paint(c.line(disc, heading, length, 0.022 * length, bend), (0.42, 0.08, 0.05), 0.008, 0.7)
    c.add(c.blob(disc, (0.5 * radius, 0.5 * radius), 0.12), (1.0, 0.98, 0.85), 0.015, 0.9)
    field = np.hypot(c.x, c.y) < 0.97
    for y in (-0.45, 0.45, 0.0)[: c.rng.integers(1, 4)]:
        exudate = c.lobed(disc - (side * c.draw(0.55, 0.9), y + c.draw(-0.1, 0.1)), c.draw(0.14, 0.2))
        c.add(exudate & field, (0.98, 0.85, 0.5), 0.015, 0.9, rough=0.05)
    c.shade(np.exp(-0.25 * (c.x**2 + c.y**2)) * field)


def microscopy(c: Canvas) -> None:
    """Up to thirty wavy cells, some bent or touching, violet on pink tissue or bright on black."""
    stained, size, wanted = c.rng.random() < 0.5, c.draw(0.13, 0.17), c.rng.integers(14, 31)
    ground, tone = ((0.93, 0.75, 0.86), (0.45, 0.3, 0.62)) if stained else (0.03, 0.65)
    c.picture += ground
    c.shade(1 + 0.05 * c.texture(0.2))
    taken = np.zeros(c.shape, dtype=bool)
    for _ in range(4 * wanted):
        place, angle, radius = c.draw(-0.92, 0.92, 2), c.draw(0, 3), size * c.draw(0.7, 1.3)
        cell = c.blob(place, (radius, 0.7 * radius), 0.15, angle)
        if c.rng.random() < 0.3:
            bay = place + 0.6 * radius * np.array([np.sin(angle), -np.cos(angle)])
            cell &= ~c.blob(bay, (0.4 * radius, 0.4 * radius))
        if (cell & taken).sum() < 0.2 * cell.sum() and len(c.objects) < wanted:
            c.add(cell & ~taken, np.multiply(tone, c.draw(0.7, 1.3)), 0.006, rough=0.15)
            taken |= cell


class Scene(NamedTuple):
    """How a modality is drawn, and how many slices of it the paper's training data have (Table 2)."""

    paint: Callable[[Canvas], None]
    slices_in_paper: int
    height: int  # by default, pixels
    width: int
    field: float = 0.0  # width of a volume, mm; 0 for images


SCENES = {
    "CT": Scene(ct, 1218411, 128, 128, 360.0),
    "MR": Scene(mr, 236804, 128, 112, 200.0),
    "PET": Scene(pet, 89059, 96, 96, 400.0),
    "Endoscopy": Scene(endoscopy, 43443, 190, 224),
    "X-Ray": Scene(xray, 34893, 224, 200),
    "Dermoscopy": Scene(dermoscopy, 3694, 168, 224),
    "US": Scene(ultrasound, 1646, 180, 224),
    "OCT": Scene(oct_scan, 1436, 156, 224),
    "Mammography": Scene(mammography, 1233, 224, 180),
    "Fundus": Scene(fundus, 1057, 224, 224),
    "Microscopy": Scene(microscopy, 1000, 224, 224),
}
