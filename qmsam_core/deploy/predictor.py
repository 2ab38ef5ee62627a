"""Segment one case in memory: boxes in, labels out.

Every slice that a box crosses is encoded once, however many boxes it has. Boxes are decoded in blocks (paper
section 2.1). Many slices that do not depend on each other go through the engine's lanes, several at a time.
Otherwise, while the engine decodes a slice, one thread prepares and encodes the next slice, and another
enlarges the masks decoded last.

Where masks overlap, the object with the smaller box lies on top. `Predictor.segment_apart` keeps every mask
whole instead.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue

import numpy as np

from ..data.cases import MAX_LABEL, Case, CaseError
from ..data.preprocessing import PREPROCESSING
from ..data.transforms import Geometry
from .engines import Engine
from .masks import MaskPainter, MasksApart, ranks, relabel, tight
from .memory import block_within, equal_blocks, resident_bytes
from .volume_traversal import Visit, boxes_in_plane, follow, plan

KEPT_BYTES = 512 * 2**20
"""Most bytes of embeddings kept for a second visit. Beyond it a slice is encoded again. This holds a 3-D
case of 120 slices in LiteMedSAM's size."""


MANY = 32
"""Slices for which lanes pay. Opening them with compiled models at hand took what twenty slices saved."""


@dataclass
class Timing:
    """Where the time of one case went, and how often the network ran.

    Times are the seconds that each stage was busy. Stages overlap, so their sum may exceed `total`.
    """

    read: float = 0.0
    prepare: float = 0.0
    encode: float = 0.0
    decode: float = 0.0
    paint: float = 0.0
    write: float = 0.0
    total: float = 0.0
    slices: int = 0
    boxes: int = 0
    block: int = 0

    def timed(self, stage: str, function: Callable, *arguments):
        """Call a function and add its seconds to a stage."""
        started = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            setattr(self, stage, getattr(self, stage) + time.perf_counter() - started)

    def add(self, other: "Timing") -> None:
        """Add the seconds and slices of another timing, of work that went on beside."""
        for name in ("prepare", "encode", "decode", "paint", "slices"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Predictor:
    """Segments one case in memory.

    Attributes:
        engine: engine that encodes images and decodes boxes.
        decode_block: most boxes decoded at once (paper section 2.1: up to 255 boxes a case). More than 8
            gained no time where it was measured.
        interpolation: how slices are resized; None takes the network's own way.
        order: pad_then_normalise as in the paper, or normalise_then_pad as in the challenge's baseline (see
            `Preprocessing`); None takes the network's own.
        propagate: in volumes, take an object's box from its mask on the neighbouring slice, as the
            challenge's baseline does. False keeps the box, as the paper does.
        memory_limit: bytes for the whole process, None for no limit. Blocks get smaller to stay within it.
        timing: times of the last case.
    """

    engine: Engine
    decode_block: int = 8
    interpolation: str | None = None
    order: str | None = None
    propagate: bool = False
    memory_limit: int | None = None
    timing: Timing = field(default_factory=Timing)
    _base: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        own = PREPROCESSING[self.engine.preprocessing]
        self.interpolation = self.interpolation or own.interpolation
        self.order = self.order or own.order

    def segment(self, case: Case) -> np.ndarray:
        """Segment a case that has boxes.

        Returns:
            Labels (H, W) or (D, H, W), i + 1 where the mask of box i is: uint8, or uint16 if there are more
            than 255 boxes. Where masks meet, the smaller box wins, and of boxes of one size the later.

        Raises:
            CaseError: the case has no boxes, or more than the 65535 that labels can name.
        """
        check_boxes(case)
        segs = np.zeros((case.n_slices, *case.plane_shape), np.uint8 if len(case.boxes) <= 255 else np.uint16)
        order = ranks(case.boxes)

        def paint(painter: MaskPainter, z: int, i: int, logits: np.ndarray):
            return painter.paint(logits, int(order[i]), segs[z])

        self._timed_walk(case, paint)
        relabel(segs, order)
        return segs if case.is_volume else segs[0]

    def segment_apart(self, case: Case) -> "MasksApart":
        """Segment a case that has boxes, and keep the mask of each box whole where they overlap.

        Raises:
            CaseError: as `segment`.
        """
        check_boxes(case)
        shape = (case.n_slices, *case.plane_shape) if case.is_volume else case.plane_shape
        masks = MasksApart(shape, [[] for _ in case.boxes])

        def keep(painter: MaskPainter, z: int, i: int, logits: np.ndarray):
            painted = painter.enlarge(logits)
            if painted is not None:
                masks.add(i, z, *painted)
            return painted

        self._timed_walk(case, keep)
        return masks

    def _timed_walk(self, case: Case, paint: Callable) -> None:
        started = time.perf_counter()
        self.timing = Timing(boxes=len(case.boxes))
        self._walk(case, plan(case, self.propagate), paint)
        self.timing.total = time.perf_counter() - started

    def _walk(self, case: Case, visits: list[Visit], paint: Callable) -> None:
        geometry = Geometry.within(self.engine, *case.plane_shape).with_preprocessing(
            interpolation=self.interpolation, order=self.order
        )
        alone = all(visit.before is None for visit in visits)
        if len(visits) >= MANY and alone and self.memory_limit is None:
            lanes = self.engine.lanes()
            if len(lanes) > 1:
                self._walk_abreast(case, geometry, visits, paint, lanes)
                return
        self._walk_in_turn(case, geometry, visits, paint)

    def _walk_abreast(
        self, case: Case, geometry: Geometry, visits: list[Visit], paint: Callable, lanes: Sequence[Engine]
    ) -> None:
        """Segment each slice as a whole on the lane that is free."""
        boxes, self.timing.block = geometry.boxes(boxes_in_plane(case)), self.decode_block
        free: SimpleQueue = SimpleQueue()
        places = [(replace(self, engine=lane, timing=Timing()), MaskPainter(geometry)) for lane in lanes]
        for place in places:
            free.put(place)

        def segment(visit: Visit) -> None:
            lane, painter = place = free.get()
            try:
                embedding = lane._embedding(case, geometry, {}, visit)
                for block in equal_blocks(len(visit.ids), self.decode_block):
                    ids = visit.ids[block]
                    logits = lane.timing.timed("decode", lane.engine.decode, embedding, boxes[ids])
                    lane._paint(partial(paint, painter), visit, ids, logits, {}, geometry)
            finally:
                free.put(place)

        with ThreadPoolExecutor(len(lanes)) as pool:
            for _ in pool.map(segment, visits):
                pass
        for lane, _ in places:
            self.timing.add(lane.timing)

    def _walk_in_turn(self, case: Case, geometry: Geometry, visits: list[Visit], paint: Callable) -> None:
        """Segment slice after slice, and encode each while the one before it is decoded."""
        painter, boxes = MaskPainter(geometry), boxes_in_plane(case)
        # by slice and box id: the box that an object takes on the next slice
        found: dict[tuple[int, int], np.ndarray] = {}
        encoded = run_ahead(partial(self._embedding, case, geometry, {}), visits)
        with ThreadPoolExecutor(1) as pool:
            painting = pool.submit(lambda: None)  # so that there is always one to wait for
            for visit, embedding in zip(visits, encoded):
                own = geometry.boxes(boxes[visit.ids])
                for k, i in enumerate(visit.ids):
                    own[k] = found.get((visit.before, i), own[k])
                self.timing.block = self.timing.block or self._block(case, embedding.nbytes)
                for block in equal_blocks(len(visit.ids), self.timing.block):
                    logits = self.timing.timed("decode", self.engine.decode, embedding, own[block])
                    painting.result()
                    painting = pool.submit(
                        self._paint, partial(paint, painter), visit, visit.ids[block], logits, found, geometry
                    )
                if visit.before is not None:
                    painting.result()
            painting.result()

    def _embedding(
        self, case: Case, geometry: Geometry, kept: dict[int, np.ndarray], visit: Visit
    ) -> np.ndarray:
        if visit.z in kept:
            return kept.pop(visit.z)
        image = self.timing.timed("prepare", geometry.image, case.slice_image(visit.z))
        embedding = self.timing.timed("encode", self.engine.encode, image[None])
        self.timing.slices += 1
        if visit.again and (len(kept) + 1) * embedding.nbytes <= self._room_for_embeddings():
            kept[visit.z] = np.array(
                embedding
            )  # without what the engine has prepared, which is twice as large
        return embedding

    def _paint(
        self, paint: Callable, visit: Visit, ids: np.ndarray, logits: np.ndarray, found: dict, geometry
    ) -> None:
        started = time.perf_counter()
        for i, mask in zip(ids, logits):
            painted = paint(visit.z, int(i), mask)
            if visit.before is not None and painted is not None and (box := tight(*painted)) is not None:
                found[visit.z, i] = follow(box, geometry)
        self.timing.paint += time.perf_counter() - started

    def _block(self, case: Case, embedding_bytes: int) -> int:
        """Return how many boxes to decode at once: `decode_block`, or fewer (at least 1) within the limit."""
        if self.memory_limit is None:
            return self.decode_block
        pixels = case.plane_shape[0] * case.plane_shape[1]
        held = case.images.nbytes + case.n_slices * pixels
        self._base = self._base or resident_bytes() - held
        # twice what is held, because meanwhile the next case is read and the last one written
        most = block_within(self.memory_limit, self._base + 2 * held, embedding_bytes, pixels)
        return min(self.decode_block, max(1, most))

    def _room_for_embeddings(self) -> int:
        """Return the bytes for kept embeddings: a quarter of what the limit leaves. Boxes get the rest."""
        if self.memory_limit is None:
            return KEPT_BYTES
        return min(KEPT_BYTES, max(0, self.memory_limit - (self._base or resident_bytes())) // 4)


def run_ahead(function: Callable, items: Iterable) -> Iterator:
    """Run `map(function, items)` in a thread, one result ahead of the one in use."""
    with ThreadPoolExecutor(1) as pool:
        ahead: Future | None = None
        try:
            for item in items:
                current, ahead = ahead, pool.submit(function, item)
                if current is not None:
                    yield current.result()
            if ahead is not None:
                yield ahead.result()
        finally:
            if ahead is not None:
                ahead.cancel()


def check_boxes(case: Case) -> None:
    """Raise `CaseError` if a case has no boxes at all or more than labels can name."""
    if case.boxes is None:
        raise CaseError(case.name, "has no 'boxes'; expected (N,4) for an image or (N,6) for a volume")
    if len(case.boxes) > MAX_LABEL:
        raise CaseError(
            case.name,
            f"has {len(case.boxes)} boxes; expected at most {MAX_LABEL}, the most that labels can name",
        )
