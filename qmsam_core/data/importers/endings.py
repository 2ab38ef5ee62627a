"""Endings of the files that the importers read.

They lie apart from the readers, whose libraries take long to load.
"""

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
"""Endings of files with a geometry that SimpleITK reads. The sub-command `nifti` takes them all."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Endings of 2-D images that OpenCV reads."""
