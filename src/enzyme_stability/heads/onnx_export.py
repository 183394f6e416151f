"""Writes a fitted stack as one ONNX graph: descriptors in; value, raw interval and similarity out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from enzyme_stability.heads.graph import Graph, require_onnx
from enzyme_stability.heads.landmark_ridge import CLIP

if TYPE_CHECKING:
    from enzyme_stability.heads.stacked import FittedStack


def to_onnx(stack: FittedStack, *, with_growth_temperature: bool) -> bytes:
    """The serialised graph.

    Inputs: ``descriptors`` (n, width) float32 and, where asked for, ``growth_temperature`` (n, 1) float32 in degC.
    Outputs, each (n, 1) float32: ``tm``, ``lower``, ``upper`` in degC, and ``similarity`` (0..1) to the nearest
    landmark protein of the first ridge.

    Raises:
        MissingDependencyError: onnx or onnxmltools is not installed.
    """
    require_onnx()
    models = stack.trees_with_growth if with_growth_temperature else stack.trees
    if models is None:
        raise ValueError("this stack was never given a growth temperature")
    graph = Graph()
    parts = [graph.add("Gather", "descriptors", graph.constant(stack.columns.astype(np.int64)), axis=1)]
    for number, (scaling, ridge) in enumerate(zip(stack.scalings, stack.ridges, strict=True)):
        used = np.flatnonzero(scaling.weight > 0)
        picked = graph.add("Gather", "descriptors", graph.constant(used.astype(np.int64)), axis=1)
        centred = graph.add("Sub", picked, graph.constant(scaling.mean[used]))
        scaled = graph.add("Div", centred, graph.constant(scaling.deviation[used]))
        limit = [graph.constant(np.array(bound, dtype=np.float32)) for bound in (-CLIP, CLIP)]
        scaled = graph.add("Mul", graph.add("Clip", scaled, *limit), graph.constant(scaling.weight[used]))
        kernel = graph.similarity(scaled, ridge.landmarks)
        if number == 0:
            graph.add("ReduceMax", kernel, name="similarity", axes=[1], keepdims=1)
        weighted = graph.add("MatMul", kernel, graph.constant(ridge.coefficients))
        parts.append(graph.add("Add", weighted, graph.constant(ridge.offset)))
    width = stack.columns.size + sum(ridge.offset.size for ridge in stack.ridges) + with_growth_temperature
    inputs: dict[str, tuple[int | None, ...]] = {"descriptors": (None, stack.scalings[0].mean.size)}
    if with_growth_temperature:
        parts.append("growth_temperature")
        inputs["growth_temperature"] = (None, 1)
    features = graph.add("Concat", *parts, axis=1)
    for name, boosters in models.items():
        graph.mean([graph.trees(booster, features, width) for booster in boosters], name)
    return graph.serialise(inputs)
