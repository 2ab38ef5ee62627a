"""The container of the CVPR 2024 challenge "MedSAM on Laptop": its files, its build context, its contents.

- `Dockerfile`, `predict.sh` and `requirements.txt` go into the image as they are.
- `build_context` gathers them with the model and the part of the package that segments npz cases.
- `image_contents` says what takes how many MB.
"""
