"""Builds ONNX graphs node by node: the form in which every head is saved."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from enzyme_stability.errors import MissingDependencyError

if TYPE_CHECKING:
    import lightgbm
    import onnx

OPSET = 17
OUTPUTS = ("tm", "lower", "upper", "similarity")
"""What every head gives, in degC but for the similarity (0..1) to the nearest protein it remembers."""

_TREE_DOMAIN = "ai.onnx.ml"


class Graph:
    """Collects nodes and weights; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, values: np.ndarray) -> str:
        """Weights, of any type."""
        from onnx import numpy_helper

        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, operator: str, *inputs: str, name: str = "", **attributes: object) -> str:
        """A node with one result."""
        from onnx import helper

        result = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [result], **attributes))
        return result

    def trees(self, booster: lightgbm.Booster, features: str, width: int) -> str:
        """A tree ensemble on features (n, width)."""
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType

        model = convert_lightgbm(booster, initial_types=[("features", FloatTensorType([None, width]))])
        (node,) = [n for n in model.graph.node if n.op_type == "TreeEnsembleRegressor"]
        result = f"v{len(self.nodes)}"
        node.input[0], node.output[0], node.name = features, result, result
        self.nodes.append(node)
        return result

    def mean(self, values: list[str], name: str) -> str:
        """The mean of several results."""
        return self.add("Mean", *values, name=name)

    def similarity(self, scaled: str, landmarks: np.ndarray) -> str:
        """exp(-squared distance) of every row to every landmark, both of them scaled; float16 is how they are kept."""
        from onnx import TensorProto

        kept = self.add("Cast", self.constant(landmarks), to=TensorProto.FLOAT)
        product = self.add("MatMul", scaled, self.add("Transpose", kept, perm=[1, 0]))
        own = self.add("ReduceSumSquare", scaled, axes=[1], keepdims=1)
        their = (landmarks.astype(np.float32) ** 2).sum(axis=1)[None]
        twice = self.add("Mul", product, self.constant(np.array(2, dtype=np.float32)))
        distance = self.add("Relu", self.add("Sub", self.add("Add", own, self.constant(their)), twice))
        return self.add("Exp", self.add("Neg", distance))

    def serialise(
        self,
        inputs: Mapping[str, tuple[int | None, ...]],
        metadata: Mapping[str, str] | None = None,
        *,
        integers: Collection[str] = (),
        outputs: Mapping[str, int] = dict.fromkeys(OUTPUTS, 1),
    ) -> bytes:
        """The finished graph.

        Args:
            inputs: Shape of each; float32.
            metadata: Kept in the file.
            integers: Those inputs that are int64.
            outputs: Width ``k`` of each, of shape (n, k), float32; a head's by default.
        """
        from onnx import TensorProto, helper

        kinds = {name: TensorProto.INT64 if name in integers else TensorProto.FLOAT for name in inputs}
        taken = [helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in inputs.items()]
        given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, k]) for name, k in outputs.items()]
        made = helper.make_graph(self.nodes, "head", taken, given, self.weights)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_TREE_DOMAIN, 3)]
        model = helper.make_model(made, opset_imports=opsets, ir_version=9, producer_name="enzyme_stability")
        helper.set_model_props(model, dict(metadata or {}))
        serialised: bytes = model.SerializeToString()
        return serialised


def require_onnx() -> None:
    """Say before hours of training that their result could not be saved."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise MissingDependencyError("Exporting a model", "train") from None
