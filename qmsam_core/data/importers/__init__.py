"""Import a hospital's folder: NIfTI, DICOM and PNG files with masks become cases in the challenge's format.

    python -m qmsam_core.data.importers nifti  IMAGE(S) MASK(S) --out data --modality MR --dataset MyHospital
    python -m qmsam_core.data.importers dicom  SERIES [MASK(S)] --out data --window lung
    python -m qmsam_core.data.importers images IMAGE(S) MASK(S) --out data --modality Fundus

Each command writes `<out>/<Modality>/<DataSet>/{2DBox,3DBox}_<Modality>_<name>.npz`, ready for
`SliceIndex.build(out)`.

**Orientation.** A volume is stored as (z, y, x). z runs from inferior to superior, y from anterior to
posterior and x from the patient's right to left (ITK calls this "LPS"). An axial slice then looks as on a
radiologist's screen, with the patient's right on the left of the image. The axes are permuted and flipped to
the nearest such order. Nothing is resampled, so an oblique scan stays oblique. The challenge's own files keep
whatever order their source had; only (z, y, x) is common to them. `spacing` is (x, y, z) in mm, along the
stored axes. Images keep the pixel rows and columns of their file. EXIF rotation is not applied.

**Grey values.** CT volumes are windowed in HU. 8-bit images (2-D) stay as they are. Everything else is
stretched between two percentiles of its non-zero values.

**Labels.** Ids are 1..N without gaps, in the order of the ids or names found. Label i+1 belongs to box i. An
object of several parts keeps one label, unless `--instances` splits it into connected components. Where named
structures overlap, the smaller one keeps the shared voxels, and a note reports the overlap.
"""
