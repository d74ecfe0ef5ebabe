"""The ECG side as an ONNX model, for runtimes other than torch: the encoder's convolutions, or all up to the embedding.

The graph is written out, not traced: torch's exporter takes five seconds of CPU for it, and each serving process needs
one when it starts.
"""

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from mets_ray.model.ecg_encoder import LOW_PASS
from mets_ray.model.folded import Block, Convolution, FoldedEncoder, fold
from mets_ray.model.mets import Mets

INPUT, OUTPUT, EMBEDDING = "signal_mv", "hidden", "embedding"
OPSET, _IR_VERSION = 18, 10  # what the runtimes of the last years read
_SMALLEST_NORM = 1e-12  # as torch.nn.functional.normalize


def onnx_model(folded: FoldedEncoder, samples: int) -> bytes:
    """A serialised ONNX model: `signal_mv` float32 [batch, lead, samples] to `hidden` [batch, feature, position].

    Only the batch is dynamic. samples: of each ECG.
    """
    graph = _Graph(samples)
    hidden = _convolved(graph, folded)
    features, positions = folded.blocks[-1].second.layer.out_channels, graph.positions[hidden]
    return graph.model(hidden, OUTPUT, ["batch", features, positions], folded.leads)


def embedding_model(mets: Mets, samples: int) -> bytes:
    """A serialised ONNX model: `signal_mv` float32 [batch, lead, samples] to `embedding` [batch, dimension].

    As `Mets.embed_ecg` without a focus: unit vectors. Only the batch is dynamic. mets: float32, in `eval()`, on a CPU.
    """
    folded, projection = fold(mets.ecg_encoder), mets.ecg_projection
    graph = _Graph(samples)
    features = graph.node("ReduceMean", _convolved(graph, folded), graph.constant([-1]), keepdims=0)
    projected = graph.linear(features, projection)
    norm = graph.node("ReduceL2", projected, graph.constant([-1]), keepdims=1)
    embedding = graph.node("Div", projected, graph.node("Max", norm, graph.constant([_SMALLEST_NORM])))
    return graph.model(embedding, EMBEDDING, ["batch", projection.out_features], folded.leads)


def _convolved(graph: "_Graph", folded: FoldedEncoder) -> str:
    stem = graph.convolution(INPUT, folded.stem)
    if folded.lead_gain is not None and folded.lead_bias is not None:
        stem = _with_lead_mask(graph, stem, folded.lead_gain, folded.lead_bias)
    hidden = _pooled(graph, graph.node("Relu", stem), folded.stem.layer.out_channels, antialias=folded.antialias)
    graph.halve_positions(hidden, stem)
    for block in folded.blocks:
        hidden = _block(graph, hidden, block)
    return hidden


def _pooled(graph: "_Graph", hidden: str, channels: int, *, antialias: bool) -> str:
    if not antialias:
        return graph.node("MaxPool", hidden, kernel_shape=[3], strides=[2], pads=[1, 1])
    highest = graph.node("MaxPool", hidden, kernel_shape=[3], strides=[1], pads=[1, 1])
    low_pass = graph.constant(torch.tensor(LOW_PASS).expand(channels, 1, -1))
    return graph.node("Conv", highest, low_pass, strides=[2], pads=[1, 1], group=channels)


class _Graph:
    """Nodes and constants so far, and the number of positions of each value."""

    def __init__(self, samples: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.positions = {INPUT: samples}

    def model(self, last: str, output: str, shape: list[str | int], leads: int) -> bytes:
        """The serialised model whose `output` is the value `last`."""
        self.nodes.append(helper.make_node("Identity", [last], [output]))
        model = helper.make_model(
            helper.make_graph(
                self.nodes,
                "ecg_encoder",
                [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", leads, self.positions[INPUT]])],
                [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
                self.initializers,
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
        )
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())

    def constant(self, values: Tensor | list[int] | list[float]) -> str:
        array = values.detach().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        if inputs[0] in self.positions:
            self.positions[name] = self.positions[inputs[0]]
        return name

    def linear(self, features: str, layer: nn.Linear) -> str:
        return self.node("Gemm", features, self.constant(layer.weight), self.constant(layer.bias), transB=1)

    def halve_positions(self, name: str, of: str) -> None:
        self.positions[name] = (self.positions[of] + 1) // 2

    def convolution(self, hidden: str, convolution: Convolution) -> str:
        layer, norm = convolution.layer, convolution.group_norm
        inputs = [hidden, self.constant(layer.weight)] + ([] if layer.bias is None else [self.constant(layer.bias)])
        padding, (stride,) = int(layer.padding[0]), layer.stride
        made = self.node("Conv", *inputs, strides=[stride], pads=[padding, padding])
        if stride == 2:
            self.halve_positions(made, hidden)
        if norm is None:
            return made
        # ONNX has group normalisation in two forms that differ by its version; instances of groups are in all of them.
        groups, channels, positions = norm.num_groups, norm.num_channels, self.positions[made]
        as_groups = self.node("Reshape", made, self.constant([0, groups, -1]))
        ones, zeros = self.constant([1.0] * groups), self.constant([0.0] * groups)
        as_groups = self.node("InstanceNormalization", as_groups, ones, zeros, epsilon=norm.eps)
        made = self.node("Reshape", as_groups, self.constant([0, channels, positions]))
        self.positions[made] = positions
        scaled = self.node("Mul", made, self.constant(norm.weight[:, None]))
        return self.node("Add", scaled, self.constant(norm.bias[:, None]))


def _with_lead_mask(graph: _Graph, stem: str, lead_gain: Tensor, lead_bias: Tensor) -> str:
    largest = graph.node("ReduceMax", graph.node("Abs", INPUT), graph.constant([-1]), keepdims=0)
    absent = graph.node("Cast", graph.node("Equal", largest, graph.constant([0.0])), to=TensorProto.FLOAT)
    last = graph.constant([-1])
    gain, bias = (
        graph.node("Unsqueeze", graph.node("MatMul", absent, graph.constant(vectors)), last)
        for vectors in (lead_gain, lead_bias)
    )
    scaled = graph.node("Mul", stem, graph.node("Add", gain, graph.constant([1.0])))
    return graph.node("Add", scaled, bias)


def _block(graph: _Graph, hidden: str, block: Block) -> str:
    first = graph.node("Relu", graph.convolution(hidden, block.first))
    residual = graph.convolution(first, block.second)
    if block.excitation is not None:
        squeeze, widen = block.excitation
        means = graph.node("ReduceMean", residual, graph.constant([-1]), keepdims=0)
        weights = graph.node("Sigmoid", graph.linear(graph.node("Relu", graph.linear(means, squeeze)), widen))
        residual = graph.node("Mul", residual, graph.node("Unsqueeze", weights, graph.constant([-1])))
    shortcut = hidden if block.shortcut is None else graph.convolution(hidden, block.shortcut)
    return graph.node("Relu", graph.node("Add", residual, shortcut))
