"""Layers with weights seen as matrix products, so that one method fits them all."""

import torch
from torch import Tensor, nn


class MatrixForm:
    """A layer with weights as G matrix products: output (n, G, R) = input (n, G, K) @ weight (G, R, K)^T.

    G is the number of groups of a convolution, R the number of outputs of a group. K counts the inputs of a
    group times the cells of the kernel. A transposed convolution whose kernel is its stride gives R the
    factor of its cells.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer, weight = layer, layer.weight
        self.transposed = isinstance(layer, nn.ConvTranspose2d)
        self.groups = getattr(layer, "groups", 1)
        self.cells = 1 if self.transposed else weight[0, 0].numel() if weight.ndim == 4 else 1
        self.channels = weight.shape[0] if self.transposed else weight.shape[1] * self.groups
        self.outputs = weight.shape[1] if self.transposed else weight.shape[0]

    @property
    def takes_noise(self) -> bool:
        """Whether constant noise on the input is a constant in the output that a bias can take back.

        That is so for linear layers and 1x1 convolutions. Other kernels reach over the border, into padding
        without noise, or give every cell of an output channel a constant of its own.
        """
        alone = self.cells == 1 and self.groups == 1 and not self.transposed
        return alone and self.layer.bias is not None

    def matrix(self, weight: Tensor) -> Tensor:
        """Bring a weight of the layer's shape to (G, R, K)."""
        if self.transposed:
            return weight.flatten(1).T[None]
        return weight.reshape(self.groups, self.outputs // self.groups, -1)

    def weight(self, matrix: Tensor) -> Tensor:
        """Undo `matrix`."""
        if self.transposed:
            return matrix[0].T.reshape(self.layer.weight.shape)
        return matrix.reshape(self.layer.weight.shape)

    def by_column(self, values: Tensor) -> Tensor:
        """Repeat one value a channel (C,) for the columns of each group: (G, K)."""
        return values.repeat_interleave(self.cells).view(self.groups, -1)

    def by_row(self, values: Tensor) -> Tensor:
        """Repeat one value an output channel for the rows of each group: (G, R, 1)."""
        if self.transposed:
            return values.repeat_interleave(self.layer.weight[0, 0].numel()).view(1, -1, 1)
        return values.view(self.groups, -1, 1)

    def of_row(self, values: Tensor) -> Tensor:
        """Take the sum over the rows of each output channel: (G, R) -> (outputs,)."""
        return values.reshape(self.outputs, -1).sum(1)

    def channels_last(self, x: Tensor) -> Tensor:
        """View an input as rows of channels (..., C)."""
        return x.movedim(1, -1) if self.layer.weight.ndim == 4 else x

    def vectors(self, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Sample input vectors at random places, (count, G, K)."""
        if self.layer.weight.ndim == 2:
            rows = x.reshape(-1, self.channels)
            return rows[torch.randint(len(rows), (count,), generator=generator)].unsqueeze(1)
        layer, (batch, _, height, width) = self.layer, x.shape
        # a cell of a transposed convolution's input is one vector
        kernel, stride, padding = (
            ((1, 1), (1, 1), (0, 0)) if self.transposed else (layer.kernel_size, layer.stride, layer.padding)
        )
        image = torch.randint(batch, (count, 1, 1), generator=generator)
        rows, columns = (
            torch.randint((side + 2 * p - k) // s + 1, (count, 1), generator=generator) * s
            - p
            + torch.arange(k)
            for side, k, s, p in zip((height, width), kernel, stride, padding)
        )
        rows, columns = rows[:, :, None], columns[:, None]
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        found = x[image, :, rows.clamp(0, height - 1), columns.clamp(0, width - 1)]  # (n, kh, kw, C)
        return (found * inside[..., None].to(x.device)).permute(0, 3, 1, 2).reshape(count, self.groups, -1)


def product(x: Tensor, matrix: Tensor) -> Tensor:
    """(n, G, K) and (G, R, K) -> (n, G, R)."""
    if len(matrix) == 1:
        return x @ matrix[0].T
    return torch.einsum("ngk,grk->ngr", x, matrix)
