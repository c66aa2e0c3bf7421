"""Numbers out of tensors: their sizes, and the one element that they hold."""

from __future__ import annotations

SCHEMAS = """
views sym_size.int(Tensor self, int dim) -> SymInt
views sym_numel(Tensor self) -> SymInt
views sym_stride.int(Tensor self, int dim) -> SymInt
views item(Tensor self) -> Scalar
views _local_scalar_dense(Tensor self) -> Scalar
"""
