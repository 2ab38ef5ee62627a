"""How faithful a quantised model is to its float model on a few slices, by modality.

The DSC against the label cannot tell a good mask from a filled box where the float model is poor. Three
numbers can: the agreement of the masks, the noise on the embedding, and the agreement with the ellipse in the
box. A faithful model has the float model's agreement with the ellipse.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import torch
from torch import Tensor

from ..models import Sam
from .sensitivity import mask_agreement, signal_to_noise


def ellipse_masks(boxes: Tensor, image_size: int, mask_size: int) -> Tensor:
    """Fill boxes with their inscribed ellipses at the size of the low-res mask.

    Args:
        boxes: (B, 4) in model px: the low and the high edges, x before y.
        image_size: side S of the network's input in px.
        mask_size: side M of the low-res mask.

    Returns:
        Bool (B, 1, M, M). A pixel belongs to the ellipse if its centre does. A box smaller than a pixel
        may hold no centre.
    """
    centres = (torch.arange(mask_size, device=boxes.device) + 0.5) * image_size / mask_size
    low, high = boxes[:, :2, None], boxes[:, 2:, None]
    x, y = (((centres - (low + high) / 2) / ((high - low) / 2).clamp_min(1e-6)) ** 2).unbind(1)
    return (x[:, None, None, :] + y[:, None, :, None]) <= 1


@torch.no_grad()
def fidelity(float_model: Sam, model: Sam, batches: Iterable[dict], name: str = "int8") -> pd.DataFrame:
    """Compare a quantised model with its float model, by modality.

    Args:
        float_model: the model before quantisation, in evaluation mode.
        model: the quantised model, in evaluation mode and on the same device.
        batches: batches of `train.evaluation_batches`, with image (B, 3, S, S), box (B, 4) in model px and
            modality.
        name: begins the names of the quantised model's columns.

    Returns:
        One row for each modality and a last row Average, the unweighted mean of the modalities. Columns
        modality, slices, `<name> agreement` (Dice of the low-res masks with the float model's, 0..1),
        `<name> embedding db` (signal-to-quantisation-noise ratio of the embedding; infinite if it is equal),
        `<name> ellipse agreement` and `float ellipse agreement` (Dice with the ellipse in the box, 0..1).
    """
    rows = []
    for batch in batches:
        image, box = batch["image"], batch["box"]
        expected, reference, _ = float_model(image, box)
        found, embedding, _ = model(image, box)
        ellipses = ellipse_masks(box, model.frame, model.mask_size)
        columns = {
            f"{name} agreement": mask_agreement(expected > 0, found > 0).tolist(),
            f"{name} embedding db": [signal_to_noise(*pair) for pair in zip(reference, embedding)],
            f"{name} ellipse agreement": mask_agreement(ellipses, found > 0).tolist(),
            "float ellipse agreement": mask_agreement(ellipses, expected > 0).tolist(),
        }
        rows.append(pd.DataFrame({"modality": batch["modality"], **columns}))
    groups = pd.concat(rows, ignore_index=True).groupby("modality", sort=False)
    table = groups.mean()
    average = table.mean().to_frame("Average").T
    table.insert(0, "slices", groups.size())
    average.insert(0, "slices", table["slices"].sum())
    return pd.concat([table, average]).rename_axis("modality").reset_index()
