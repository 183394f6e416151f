"""Writes a fitted stack as one ONNX graph: descriptors in; value, raw interval and similarity out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from enzyme_stability.errors import MissingDependencyError
from enzyme_stability.heads.landmark_ridge import CLIP

if TYPE_CHECKING:
    import lightgbm
    import onnx

    from enzyme_stability.heads.stacked import FittedStack

OPSET = 17
_TREE_DOMAIN = "ai.onnx.ml"


class _Graph:
    """Collects nodes and weights; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, values: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: object) -> str:
        from onnx import helper

        result = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [result], **attributes))
        return result

    def trees(self, booster: lightgbm.Booster, features: str, width: int) -> str:
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType

        model = convert_lightgbm(booster, initial_types=[("features", FloatTensorType([None, width]))])
        (node,) = [n for n in model.graph.node if n.op_type == "TreeEnsembleRegressor"]
        result = f"v{len(self.nodes)}"
        node.input[0], node.output[0], node.name = features, result, result
        self.nodes.append(node)
        return result

    def mean(self, values: list[str], name: str) -> str:
        return self.add("Mean", *values, name=name)


def to_onnx(stack: FittedStack, *, with_growth_temperature: bool) -> bytes:
    """The serialised graph.

    Inputs: ``descriptors`` (n, width) float32 and, where asked for, ``growth_temperature`` (n, 1) float32 in degC.
    Outputs, each (n, 1) float32: ``tm``, ``lower``, ``upper`` in degC, and ``similarity`` (0..1) to the nearest
    landmark protein of the first ridge.

    Raises:
        MissingDependencyError: onnx or onnxmltools is not installed.
    """
    try:
        from onnx import TensorProto, helper
    except ImportError:
        raise MissingDependencyError("Exporting a model", "train") from None
    models = stack.trees_with_growth if with_growth_temperature else stack.trees
    if models is None:
        raise ValueError("this stack was never given a growth temperature")
    graph = _Graph()
    parts = [graph.add("Gather", "descriptors", graph.constant(stack.columns.astype(np.int64)), axis=1)]
    for number, (scaling, ridge) in enumerate(zip(stack.scalings, stack.ridges, strict=True)):
        used = np.flatnonzero(scaling.weight > 0)
        picked = graph.add("Gather", "descriptors", graph.constant(used.astype(np.int64)), axis=1)
        centred = graph.add("Sub", picked, graph.constant(scaling.mean[used]))
        scaled = graph.add("Div", centred, graph.constant(scaling.deviation[used]))
        limit = [graph.constant(np.array(bound, dtype=np.float32)) for bound in (-CLIP, CLIP)]
        scaled = graph.add("Mul", graph.add("Clip", scaled, *limit), graph.constant(scaling.weight[used]))
        landmarks = graph.add("Cast", graph.constant(ridge.landmarks), to=TensorProto.FLOAT)
        product = graph.add("MatMul", scaled, graph.add("Transpose", landmarks, perm=[1, 0]))
        own = graph.add("ReduceSumSquare", scaled, axes=[1], keepdims=1)
        their = (ridge.landmarks.astype(np.float32) ** 2).sum(axis=1)[None]
        twice = graph.add("Mul", product, graph.constant(np.array(2, dtype=np.float32)))
        distance = graph.add("Relu", graph.add("Sub", graph.add("Add", own, graph.constant(their)), twice))
        kernel = graph.add("Exp", graph.add("Neg", distance))
        if number == 0:
            graph.add("ReduceMax", kernel, name="similarity", axes=[1], keepdims=1)
        weighted = graph.add("MatMul", kernel, graph.constant(ridge.coefficients))
        parts.append(graph.add("Add", weighted, graph.constant(ridge.offset)))
    width = stack.columns.size + sum(ridge.offset.size for ridge in stack.ridges) + with_growth_temperature
    inputs = [helper.make_tensor_value_info("descriptors", TensorProto.FLOAT, [None, stack.scalings[0].mean.size])]
    if with_growth_temperature:
        parts.append("growth_temperature")
        inputs.append(helper.make_tensor_value_info("growth_temperature", TensorProto.FLOAT, [None, 1]))
    features = graph.add("Concat", *parts, axis=1)
    for name, boosters in models.items():
        graph.mean([graph.trees(booster, features, width) for booster in boosters], name)
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1])
        for name in ("tm", "lower", "upper", "similarity")
    ]
    made = helper.make_graph(graph.nodes, "stacked_head", inputs, outputs, graph.weights)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_TREE_DOMAIN, 3)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=9, producer_name="enzyme_stability")
    serialised: bytes = model.SerializeToString()
    return serialised
