"""Graphs to export in each style, with named inputs and outputs, and a clean-up that changes no value."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from ..models import Sam
from ..models.efficientvit import EfficientViT
from ..models.tiny_vit import TinyViT
from ..models.vit import ViT
from .exported import PREPARED
from .rewrites.constant_values import int8_products
from .rewrites.decoder import BoxesGraph, PrepareGraph
from .rewrites.efficientvit import EfficientViTGraph
from .rewrites.tiny_vit import TinyViTGraph
from .rewrites.vit import ViTGraph

STYLES = {
    "released": "as the authors' released code: clips kept, four hypernetworks and the IoU head computed, "
    "the embedding repeated for each box",
    "clean": "the model as it is traced, then a clean-up that changes no value",
    "fast": "the model rewritten for the engine without changing its function, "
    "and what depends on the image alone apart from the boxes",
    "linear": "as fast, with int8 in linear layers alone, which is what ONNX Runtime gains from",
}

FAST = {TinyViT: TinyViTGraph, ViT: ViTGraph, EfficientViT: EfficientViTGraph}
"""Encoders, and how they are rewritten for inputs of a size."""


@dataclass(frozen=True)
class Part:
    """One file of an export.

    Attributes:
        name: name of the part and its file.
        graph: the network to export.
        inputs: example inputs by name.
        outputs: names of the outputs.
        free: names of the inputs and outputs whose first axis has no fixed size.
    """

    name: str
    graph: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    free: tuple[str, ...]


def parts_of(model: Sam, style: str) -> list[Part]:
    """Return a model's parts in one of the `STYLES`: `encoder`, `decoder`, in `REWRITTEN` ones `prepare`.

    Raises:
        ValueError: the style is unknown.
    """
    if style not in STYLES:
        raise ValueError(f"style = {style!r}; expected one of {', '.join(STYLES)}")
    size = model.image_size
    image = {"images": torch.rand(1, 3, size, size)}
    boxes = torch.tensor([[0.25, 0.25, 0.75, 0.75], [0.1, 0.2, 0.5, 0.9]]) * model.frame
    embedding = {"embedding": torch.rand(1, model.config.dim, model.embedding_size, model.embedding_size)}
    if style == "linear":
        with int8_products():
            return parts_of(model, "fast")
    if style == "fast":
        fast = FAST[type(model.image_encoder)](model.image_encoder, size)
        prepare = PrepareGraph(model).eval()
        with torch.no_grad():
            prepared = dict(zip(PREPARED, prepare(*embedding.values())))
        return [
            Part("encoder", fast, image, ("embeddings",), ("images", "embeddings")),
            Part("prepare", prepare, embedding, PREPARED, ()),
            Part("decoder", BoxesGraph(model), {**prepared, "boxes": boxes}, ("masks",), ("boxes", "masks")),
        ]
    outputs, decoder = (
        (("masks",), DecoderGraph) if style == "clean" else (("masks", "iou"), ReleasedDecoderGraph)
    )
    return [
        Part("encoder", EncoderGraph(model), image, ("embeddings",), ("images", "embeddings")),
        Part("decoder", decoder(model), {**embedding, "boxes": boxes}, outputs, ("boxes", *outputs)),
    ]


class EncoderGraph(nn.Module):
    """Images (B, 3, S, S) float32 in 0..1 -> embeddings (B, C, g, g)."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.image_encoder = model.image_encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.image_encoder(images)


class DecoderGraph(nn.Module):
    """Embedding (1, C, g, g) of one image and boxes (N, 4) in model px -> low-res mask logits (N, M, M).

    The prompt encoder is part of it. The IoU head and the hypernetworks of unused masks are not.
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


class ReleasedDecoderGraph(nn.Module):
    """As `DecoderGraph`, with all that the released code computes.

    Outputs are masks (N, M, M) of the first of four hypernetworks, and predicted IoU (N, 1).
    """

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.prompt_encoder, self.mask_decoder = model.prompt_encoder, model.mask_decoder

    def forward(self, embedding: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        decoder, sparse = self.mask_decoder, self.prompt_encoder(boxes)
        image = embedding.repeat_interleave(sparse.shape[0], 0) + self.prompt_encoder.dense()
        positions = self.prompt_encoder.image_positions().repeat_interleave(sparse.shape[0], 0)
        tokens, image = decoder.transform(image, positions, sparse)
        upscaled = decoder.output_upscaling(image)
        weights = [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        masks = decoder.mask_product(torch.stack(weights, 1), upscaled.flatten(2)).unflatten(
            2, upscaled.shape[2:]
        )
        return masks[:, 0], decoder.iou_prediction_head(tokens[:, 0])[:, :1]


def clean(graph: onnx.ModelProto) -> dict[str, int]:
    """Simplify an exported graph in place without changing any of its values.

    Integer weights lie inside the range that the `Clip` before their `DequantizeLinear` allows. So the clip
    does nothing, but it hides the pattern that OpenVINO's low-precision pass looks for. Initialisers listed
    as inputs keep ONNX Runtime from folding constants. The addition is explained in `shield_norms`.

    Returns:
        How many of each were removed or added.
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
    return {"clips": len(clips), "initialisers_as_inputs": len(inputs), "shielded_norms": shield_norms(graph)}


def shield_norms(graph: onnx.ModelProto) -> int:
    """Add 1e-30 between a quantised convolution without bias and the norm behind it.

    The addition changes no float32 of any ordinary size. Without it, OpenVINO's low-precision pass moves the
    convolution's dequantisation scale behind the norm. Measured on trained and untrained networks, the neck's
    output then deviates by 5 to 10 % (root mean square), whatever the norm's epsilon and the convolution's
    scale. With the addition it deviates by 0.002 to 1 %, because the pass moves no scale past it. The
    convolution stays int8.

    Returns:
        Number of norms shielded.
    """
    makers = {output: node for node in graph.graph.node for output in node.output}
    readers: dict[str, set[str]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    shielded = 0
    for place, node in reversed(list(enumerate(graph.graph.node))):
        quantised = (
            node.op_type == "Conv"
            and len(node.input) == 2
            and getattr(makers.get(node.input[1]), "op_type", "") == "DequantizeLinear"
        )
        if quantised and "ReduceMean" in readers.get(node.output[0], ()):
            output, bare, tiny = node.output[0], f"{node.output[0]}_unshielded", f"{node.output[0]}_tiny"
            node.output[0] = bare
            graph.graph.initializer.append(numpy_helper.from_array(np.array(1e-30, np.float32), tiny))
            graph.graph.node.insert(
                place + 1, onnx.helper.make_node("Add", [bare, tiny], [output], name=f"{node.name}_shield")
            )
            shielded += 1
    return shielded


def needless_clips(
    graph: onnx.ModelProto, initialisers: dict[str, onnx.TensorProto]
) -> Iterator[onnx.NodeProto]:
    """Yield the `Clip` nodes whose input is a constant inside their bounds."""
    constants = {name: numpy_helper.to_array(tensor) for name, tensor in initialisers.items()}
    for node in graph.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    for node in graph.graph.node:
        if node.op_type == "Clip" and all(name in constants for name in node.input):
            value, low, high = (constants[name].astype(np.int64) for name in node.input)
            if value.min() >= low and value.max() <= high:
                yield node
