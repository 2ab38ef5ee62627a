"""Small files in hospital formats, and helpers that import them.

They hold a bright cube at a known place: a volume in any orientation, a DICOM series, a SEG, an RTSTRUCT.
"""

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from qmsam_core.data import Case
from qmsam_core.data.importers.__main__ import main

SHAPE = (6, 16, 20)
SPACING = (0.8, 0.9, 2.5)
ORIGIN = (-7.0, 11.0, -30.0)
CUBE = (slice(2, 4), slice(3, 8), slice(4, 10))
CUBE_BOX = [4, 3, 2, 9, 7, 3]
RODS = (slice(0, 6), slice(12, 14), slice(15, 18))
ROD_BOX = [15, 12, 0, 17, 13, 5]
FRAME = generate_uid(entropy_srcs=["frame"])


def cube_labels() -> np.ndarray:
    """Return labels uint8 (z,y,x): the cube is label 1, a rod through all slices is label 2."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[CUBE], labels[RODS] = 1, 2
    return labels


def cube_values() -> np.ndarray:
    """Return HU int16 (z,y,x): air -1000, cube 40, rod 240. A voxel of -60 marks the corner x = y = z = 0."""
    values = np.full(SHAPE, -1000, np.int16)
    values[CUBE], values[RODS], values[0, 0, 0] = 40, 240, -60
    return values


def image_of(array: np.ndarray, order: str = "LPS", degrees: float = 0.0) -> sitk.Image:
    """Return an image of an axial array.

    Args:
        array: voxels in axial order (z,y,x).
        order: orientation code of the stored axes, such as LPS.
        degrees: rotation about the head-foot axis.
    """
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    image.SetDirection([c, -s, 0, s, c, 0, 0, 0, 1])
    return sitk.DICOMOrient(image, order)


def write_image(path: Path, array: np.ndarray, order: str = "LPS", degrees: float = 0.0) -> Path:
    """Write `image_of(array, order, degrees)` as NIfTI or another format of SimpleITK. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image_of(array, order, degrees), str(path))
    return path


def write_series(
    folder: Path,
    image: sitk.Image | None = None,
    modality: str = "CT",
    series: str = "1",
    slopes=(1.0,),
    digits: int = 6,
) -> list[Path]:
    """Write a DICOM series, one file for each slice. File names are not in the order of the slices.

    Args:
        folder: where to write the files.
        image: image to write. None writes `cube_values`.
        modality: CT, MR or PT.
        series: name of the series. Its UID is made from it.
        slopes: rescale slopes. The values of slice k are stored divided by `slopes[k % n]`.
        digits: decimals of the positions.

    Returns:
        Paths in the order of the slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image = image_of(cube_values()) if image is None else image
    array, direction = sitk.GetArrayFromImage(image), np.array(image.GetDirection()).reshape(3, 3)
    uid, paths = generate_uid(entropy_srcs=["series", series]), []
    for k, plane in enumerate(array):
        data = _base(
            folder / f"{(k * 7 + 3) % len(array):03d}.dcm",
            {"CT": "CT", "MR": "MR", "PT": "PositronEmissionTomography"}[modality],
        )
        data.Modality, data.SeriesInstanceUID, data.FrameOfReferenceUID = modality, uid, FRAME
        data.SeriesDescription, data.InstanceNumber, data.SeriesNumber = f"series {series}", k + 1, 1
        data.ImagePositionPatient = [
            f"{v:.{digits}f}" for v in image.TransformIndexToPhysicalPoint((0, 0, k))
        ]
        data.ImageOrientationPatient = [f"{v:.8f}" for v in (*direction[:, 0], *direction[:, 1])]
        width, height, depth = image.GetSpacing()
        data.PixelSpacing, data.SliceThickness = [height, width], depth
        slope = slopes[k % len(slopes)]
        data.RescaleSlope, data.RescaleIntercept = slope, 0
        _pixels(data, np.rint(plane / slope).astype(np.int16))
        data.save_as(data.filename, enforce_file_format=True)
        paths.append(Path(data.filename))
    return paths


def write_multi_frame(path: Path, series: list[Path]) -> Path:
    """Write the slices of a CT series as one multi-frame file. Returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    slices = [pydicom.dcmread(p) for p in series]
    hd.legacy.LegacyConvertedEnhancedCTImage(slices, generate_uid(), 1, generate_uid(), 1).save_as(path)
    return path


def write_seg(path: Path, series: list[Path], masks: dict[str, np.ndarray]) -> Path:
    """Write a binary DICOM SEG of named masks (z,y,x). Slices without an object are left out, as is usual."""
    sources = [pydicom.dcmread(p) for p in series]
    described = [
        hd.seg.SegmentDescription(
            k, name, codes.SCT.Tissue, codes.SCT.Organ, hd.seg.SegmentAlgorithmTypeValues.MANUAL
        )
        for k, name in enumerate(masks, 1)
    ]
    file = hd.seg.Segmentation(
        sources,
        np.stack(list(masks.values()), axis=-1).astype(np.uint8),
        hd.seg.SegmentationTypeValues.BINARY,
        described,
        generate_uid(),
        2,
        generate_uid(),
        1,
        "maker",
        "model",
        "1",
        "serial",
    )
    file.save_as(path)
    return path


def write_rtstruct(
    path: Path, structures: dict[str, list[np.ndarray]], frame: str = FRAME, series_uid: str = ""
) -> Path:
    """Write an RTSTRUCT of closed contours.

    Args:
        path: file to write.
        structures: contours by the structure's name. Each contour is (n,3) in mm.
        frame: UID of the frame of reference.
        series_uid: UID of the series that the structures belong to. Empty names none.
    """
    data = _base(path, "RTStructureSet")
    data.Modality, data.SeriesInstanceUID = "RTSTRUCT", generate_uid()
    data.StructureSetROISequence, data.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(structures.items(), 1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour.ContourData = [f"{v:.5f}" for v in np.ravel(points)]
            drawn.ContourSequence.append(contour)
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(drawn)
    if series_uid:
        data.ReferencedFrameOfReferenceSequence = [
            _nested("RTReferencedStudySequence", _nested("RTReferencedSeriesSequence", series_uid))
        ]
    data.save_as(path, enforce_file_format=True)
    return path


def rectangle(image: sitk.Image, z: int, x: tuple[float, float], y: tuple[float, float]) -> np.ndarray:
    """Return the corners (4,3) in mm of a rectangle on slice `z`. `x` and `y` are its limits in voxels."""
    corners = [(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)]
    return np.array(
        [image.TransformContinuousIndexToPhysicalPoint([float(v) for v in corner]) for corner in corners]
    )


def imported(tmp_path, *arguments, code=0):
    """Run the import command into `tmp_path/out`. Checks its exit code and returns the cases by name."""
    assert main([*map(str, arguments), "--out", str(tmp_path / "out")]) == code
    return {path.stem: Case.load(path) for path in sorted((tmp_path / "out").rglob("*.npz"))}


def check_cube(case, labels=None, boxes=(CUBE_BOX, ROD_BOX)):
    """Assert that a case is axial and has these labels (default: cube and rod), these boxes and `SPACING`."""
    np.testing.assert_array_equal(case.labels, cube_labels() if labels is None else labels)
    np.testing.assert_array_equal(case.boxes, boxes)
    np.testing.assert_allclose(case.spacing, SPACING, rtol=1e-5)
    assert case.is_volume and case.images.shape == SHAPE and case.images.dtype == np.uint8


def error_of(capsys):
    """Return the printed error lines."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


def _base(path: Path, sop_class: str) -> FileDataset:
    meta = FileMetaDataset()
    name = f"{sop_class}{'' if sop_class == 'RTStructureSet' else 'Image'}Storage"
    meta.MediaStorageSOPClassUID = UID(getattr(pydicom.uid, name))
    meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    data.PatientID, data.PatientName = "1", "Case^One"
    data.PatientBirthDate = data.PatientSex = data.StudyDate = data.StudyTime = data.AccessionNumber = (
        data.StudyID
    ) = ""
    return data


def _pixels(data: FileDataset, plane: np.ndarray) -> None:
    data.Rows, data.Columns = plane.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.PixelData = plane.tobytes()


def _nested(key: str, value: str | Dataset) -> Dataset:
    inner = value
    if isinstance(value, str):
        inner = Dataset()
        inner.SeriesInstanceUID = value
    outer = Dataset()
    setattr(outer, key, [inner])
    return outer
