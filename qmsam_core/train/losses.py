"""Losses: segmentation (paper section 3.2) and distillation of the image encoder (section 3.3, stage one).

`mask_divergence` and `relative_error` are ours. They hold a quantised model to its float parent, without
labels.
"""

import torch
from torch import Tensor, nn


def segmentation_loss(released: bool = False) -> nn.Module:
    """Make the loss of low-res mask logits (B, 1, M, M) against 0/1 masks of the same shape.

    It is averaged over the batch. The paper states Dice + focal loss, without weights. The released code
    (`released`) uses Dice with squared terms + binary cross-entropy.
    """
    # Imported here because MONAI takes five seconds to load, and only training needs it.
    from monai.losses import DiceCELoss, DiceFocalLoss

    if released:
        return DiceCELoss(sigmoid=True, squared_pred=True)
    return DiceFocalLoss(sigmoid=True, gamma=2.0)


def embedding_iou(student: Tensor, teacher: Tensor) -> Tensor:
    """Compute the IoU of the active (positive) elements of embeddings (B, C, g, g), for each image.

    The paper multiplies the mean squared error with "the intersection over union ratio across the image
    embeddings" and gives no details. This is the literal reading. It is computed for each image, so that a
    batch may be divided among processes.

    Returns:
        IoU (B,), 0..1, without gradient. It is 1 if neither embedding has an active element.
    """
    a, b = student.detach().flatten(1) > 0, teacher.detach().flatten(1) > 0
    union = (a | b).sum(1)
    return torch.where(union > 0, (a & b).sum(1) / union.clamp(min=1), 1.0)


def mask_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """Compute the mean IoU of logits (N, 1, M, M), binarised at 0, with 0/1 masks of the same shape.

    There is no gradient. Two empty masks have IoU 0.
    """
    a, b = logits.detach() > 0, masks > 0.5
    union = (a | b).flatten(1).sum(1)
    return ((a & b).flatten(1).sum(1) / union.clamp(min=1)).mean()


def distillation_loss(student: Tensor, teacher: Tensor, overlap: Tensor) -> Tensor:
    """Average over the batch the mean squared error of embeddings (B, C, g, g), times their overlap.

    The overlap is `embedding_iou` (B,) in the paper, and the teacher's mean `mask_iou` in the released code.
    """
    errors = nn.functional.mse_loss(student, teacher, reduction="none").flatten(1).mean(1)
    return (errors * overlap).mean()


def mask_divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence of mask logits (B, 1, M, M) from a teacher's, averaged over the batch.

    It is summed over the pixels of a mask and divided by the area of the teacher's, so that a small object
    counts as much as a large one, as in the Dice. It is 0 where both are equal.
    """
    wanted = teacher.sigmoid()
    cross = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    own = nn.functional.binary_cross_entropy_with_logits(teacher, wanted, reduction="none")
    area = (teacher > 0).flatten(1).sum(1).clamp(min=1)
    return ((cross - own).flatten(1).sum(1) / area).mean()


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared error of embeddings (B, C, g, g), as a share of the teacher's square, averaged over the batch.

    Ten times its negative logarithm is the signal-to-noise ratio in dB.
    """
    errors = (student - teacher).square().flatten(1).sum(1)
    return (errors / teacher.square().flatten(1).sum(1)).mean()
