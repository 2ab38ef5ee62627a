"""Plausible weights for networks whose own are not at hand, so that their activations have real ranges.

They are good for time and size. Masks mean nothing, except those of MobileSAM, whose network is LiteMedSAM's
behind the patch embedding.
"""

import torch
from torch import Tensor, nn

from .sam import Sam


def borrow(model: Sam, donor: Sam) -> None:
    """Give MobileSAM the weights of LiteMedSAM, in place.

    The patch embeddings differ: 3x3 kernels of stride 2 in the one, 1x1 kernels in the other. Each 1x1 kernel
    is spread evenly over the nine pixels, so that the patch embedding averages its input and then does as the
    donor's. What only the model has keeps its values.
    """
    own, given = model.state_dict(), donor.state_dict()
    for key, value in own.items():
        source = given.get(key)
        if source is None:
            continue
        if source.shape != value.shape:
            source = source.expand_as(value) / value[0, 0].numel()
        value.copy_(source)


@torch.no_grad()
def settle(model: Sam, images: Tensor) -> None:
    """Set the statistics of all batch norms to those of images (B, 3, S, S), in place.

    With random weights the signal would otherwise fade or grow from layer to layer. All norms then see
    inputs of unit variance, as in a trained network.
    """
    norms = [module for module in model.image_encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
        norm.train()
    model.image_encoder(images)
    for norm in norms:
        norm.eval()
