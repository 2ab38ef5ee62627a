"""The two graphs that are exported, and the clean-up that changes no value of them."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor, nn

from ..models import Sam


class EncoderGraph(nn.Module):
    """images (B, 3, S, S) float32 in 0..1 -> embeddings (B, C, g, g)."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.image_encoder = model.image_encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.image_encoder(images)


class DecoderGraph(nn.Module):
    """embedding (1, C, g, g) of one image, boxes (N, 4) in model px -> low-res mask logits (N, M, M).

    The prompt encoder is part of it; the IoU head and the hypernetworks of the masks that are not used are not.
    """

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.prompt_encoder = model.prompt_encoder
        self.mask_decoder = model.mask_decoder
        self.register_buffer("positions", model.prompt_encoder.image_positions())

    def forward(self, embedding: Tensor, boxes: Tensor) -> Tensor:
        sparse = self.prompt_encoder(boxes)
        image = (embedding + self.prompt_encoder.dense()).expand(sparse.shape[0], -1, -1, -1)
        tokens, image = self.mask_decoder.transform(image, self.positions, sparse)
        return self.mask_decoder.mask(tokens, image)[:, 0]


def clean(graph: onnx.ModelProto) -> dict[str, int]:
    """Remove from an exported graph, in place, what changes none of its values.

    Integer weights lie inside the range that the `Clip` before their `DequantizeLinear` allows, so the clip does nothing but hide the pattern
    that OpenVINO's low-precision pass looks for. Initialisers listed as inputs keep ONNX Runtime from folding constants.

    Returns:
        How many of each were removed.
    """
    initialisers = {i.name: i for i in graph.graph.initializer}
    clips = list(needless_clips(graph, initialisers))
    for clip in clips:
        for node in graph.graph.node:
            node.input[:] = [clip.input[0] if name == clip.output[0] else name for name in node.input]
        graph.graph.node.remove(clip)
    inputs = [i for i in graph.graph.input if i.name in initialisers]
    for extra in inputs:
        graph.graph.input.remove(extra)
    return {"clips": len(clips), "initialisers_as_inputs": len(inputs)}


def needless_clips(graph: onnx.ModelProto, initialisers: dict[str, onnx.TensorProto]) -> Iterator[onnx.NodeProto]:
    """The `Clip` nodes whose input is a constant that lies inside their bounds."""
    constants = {name: numpy_helper.to_array(tensor) for name, tensor in initialisers.items()}
    for node in graph.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    for node in graph.graph.node:
        if node.op_type == "Clip" and all(name in constants for name in node.input):
            value, low, high = (constants[name].astype(np.int64) for name in node.input)
            if value.min() >= low and value.max() <= high:
                yield node
