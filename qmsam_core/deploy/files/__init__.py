"""One's own files as input and output: what a folder holds, its boxes, and masks in the format that came in.

- `inputs` finds what can be segmented, and `reading` makes a case of each.
- `box_table` and `mask_pairs` tell where its boxes come from, `grid_boxes` puts them on the axes of the case.
- `mask_files` writes masks back, with `dicom_seg` for DICOM and `nifti_header` for the geometry of NIfTI.
"""
