"""Losses of the study: segmentation (paper section 3.2) and distillation of the image encoder (section 3.3, stage one)."""

import torch
from torch import Tensor, nn


def segmentation_loss(released: bool = False) -> nn.Module:
    """Loss of low-res mask logits (B, 1, M, M) against masks 0/1 of the same shape, averaged over the batch.

    The paper says Dice + focal, without weights; the released code computes Dice with squared terms + binary cross-entropy.
    """
    from monai.losses import (
        DiceCELoss,
        DiceFocalLoss,
    )  # MONAI takes five seconds to load, and only training needs it

    if released:
        return DiceCELoss(sigmoid=True, squared_pred=True)
    return DiceFocalLoss(sigmoid=True, gamma=2.0)


def embedding_iou(student: Tensor, teacher: Tensor) -> Tensor:
    """Overlap of each two embeddings (B, C, g, g) as sets of active (positive) cells: intersection over union (B,), numbers in 0..1 without gradient.

    The paper multiplies the mean squared error with "the intersection over union ratio across the image embeddings" and says no more;
    this is the literal reading, image by image, so that a batch may be divided among processes. Two embeddings without any active cell overlap wholly.
    """
    a, b = student.detach().flatten(1) > 0, teacher.detach().flatten(1) > 0
    union = (a | b).sum(1)
    return torch.where(union > 0, (a & b).sum(1) / union.clamp(min=1), 1.0)


def mask_iou(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean IoU of masks from logits (N, 1, M, M), binarised at 0, with the truth 0/1 of the same shape; no gradient. Two empty masks have 0."""
    a, b = logits.detach() > 0, masks > 0.5
    union = (a | b).flatten(1).sum(1)
    return ((a & b).flatten(1).sum(1) / union.clamp(min=1)).mean()


def distillation_loss(student: Tensor, teacher: Tensor, overlap: Tensor) -> Tensor:
    """Mean over the batch of the embeddings' (B, C, g, g) mean squared error times their overlap: `embedding_iou` (B,) in the paper, the mean `mask_iou` of
    the teacher in the released code."""
    errors = nn.functional.mse_loss(student, teacher, reduction="none").flatten(1).mean(1)
    return (errors * overlap).mean()
