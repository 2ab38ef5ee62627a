"""Import a hospital's folder: NIfTI, DICOM and PNG files with masks become cases in the challenge's format.

    python -m qmsam_core.data.importers nifti  IMAGE(S) MASK(S) --out data --modality MR --dataset MyHospital
    python -m qmsam_core.data.importers dicom  SERIES [MASK(S)] --out data --window lung
    python -m qmsam_core.data.importers images IMAGE(S) MASK(S) --out data --modality Fundus

Each command writes `<out>/<Modality>/<DataSet>/{2DBox,3DBox}_<Modality>_<name>.npz`, ready for
`SliceIndex.build(out)`.

**Orientation.** A volume is cut along the plane it was acquired in, the one across its coarsest axis. A
volume whose spacings are alike is cut along axial slices. `--plane` decides otherwise. Slices lie as on a
radiologist's screen (`planes`). The axes are permuted and flipped to the nearest such order. Nothing is
resampled, so an oblique scan stays oblique. The challenge's own files keep whatever order their source had.
`spacing` is (x, y, z) in mm, along the stored axes. Images keep the pixel rows and columns of their file, and
are turned upright where their EXIF orientation says so. A case holds its `source`, from which
`data.source.Source` finds the way back to the file's own grid.

**Grey values.** CT volumes are windowed in HU. 8-bit images (2-D) stay as they are. Everything else is
stretched between two percentiles of its non-zero values.

**Labels.** Ids are 1..N without gaps, in the order of the ids or names found. Label i+1 belongs to box i and
has the name `names[i]`: the name of the segment, structure or file, or the id in the label map. An object of
several parts keeps one label, unless `--instances` splits it into connected components. Where named
structures overlap, the smaller one keeps the shared voxels, and a note reports the overlap. Boxes are tight
around the whole objects.

**What cannot be used.** Files are read to their end and checked before a case is written. A damaged file, an
incomplete series, or a mask that seems to be none stops its own case. A structure, segment or object that
cannot be kept is named and counted, and the rest of its case is imported. Both set the exit code.
"""
