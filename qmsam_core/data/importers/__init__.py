"""Any hospital's folder as input: NIfTI, DICOM and PNG with masks become cases in the challenge's format.

    python -m qmsam_core.data.importers nifti  IMAGE(S) MASK(S) --out data --modality MR --dataset MyHospital
    python -m qmsam_core.data.importers dicom  SERIES [MASK(S)] --out data --window lung
    python -m qmsam_core.data.importers images IMAGE(S) MASK(S) --out data --modality Fundus

writes `<out>/<Modality>/<DataSet>/{2DBox,3DBox}_<Modality>_<name>.npz`, ready for `SliceIndex.build(out)`.

**Orientation.** A volume is stored (z, y, x) with z from inferior to superior, y from anterior to posterior and x from the
patient's right to left: axial slices seen as on a radiologist's screen, the patient's right on the left of the image (ITK's "LPS").
The axes are permuted and flipped to the nearest such order; nothing is resampled, so an oblique scan stays oblique (the
challenge's own files keep whatever order their source had; only (z, y, x) is common to them). `spacing` is (x, y, z) in
mm of the stored axes. Images are stored with the pixel rows and columns of the file; EXIF rotation is not applied.

**Grey values.** CT is windowed in HU by a named window; everything else that is not already 8-bit is stretched between two percentiles
of its non-zero voxels.

**Labels.** 1..N without gaps in the order of the ids or names found, box i for label i+1. An object of several parts keeps one label unless
`--instances` splits it into connected components. Where named structures overlap, the smaller one is kept on top, and a note says so.
"""
