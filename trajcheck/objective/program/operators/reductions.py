"""Sums, means, norms, extremes; order."""

from __future__ import annotations

SCHEMAS = """
inputs sum(Tensor self, *, ScalarType? dtype=None) -> Tensor
inputs sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor
inputs mean(Tensor self, *, ScalarType? dtype=None) -> Tensor
inputs mean.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor
inputs prod(Tensor self, *, ScalarType? dtype=None) -> Tensor
inputs prod.dim_int(Tensor self, int dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor
inputs nansum(Tensor self, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor
inputs nanmean(Tensor self, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor
inputs var(Tensor self, bool unbiased=True) -> Tensor
inputs var.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor
inputs var.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor
inputs std(Tensor self, bool unbiased=True) -> Tensor
inputs std.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor
inputs std.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor
inputs var_mean(Tensor self, bool unbiased=True) -> (Tensor, Tensor)
inputs var_mean.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> (Tensor, Tensor)
inputs var_mean.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> (Tensor,
    Tensor)
inputs std_mean.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> (Tensor,
    Tensor)
inputs amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor
inputs amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor
inputs aminmax(Tensor self, *, int? dim=None, bool keepdim=False) -> (Tensor min, Tensor max)
inputs max(Tensor self) -> Tensor
inputs max.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)
inputs min(Tensor self) -> Tensor
inputs min.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)
inputs argmax(Tensor self, int? dim=None, bool keepdim=False) -> Tensor
inputs argmin(Tensor self, int? dim=None, bool keepdim=False) -> Tensor
inputs all(Tensor self) -> Tensor
inputs all.dim(Tensor self, int dim, bool keepdim=False) -> Tensor
inputs any(Tensor self) -> Tensor
inputs any.dim(Tensor self, int dim, bool keepdim=False) -> Tensor
inputs logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor
inputs norm.Scalar(Tensor self, Scalar p=2) -> Tensor
inputs norm.ScalarOpt_dim(Tensor self, Scalar? p, int[1] dim, bool keepdim=False) -> Tensor
inputs norm.ScalarOpt_dtype(Tensor self, Scalar? p, *, ScalarType dtype) -> Tensor
inputs norm.ScalarOpt_dim_dtype(Tensor self, Scalar? p, int[1] dim, bool keepdim, *, ScalarType dtype) -> Tensor
inputs linalg_vector_norm(Tensor self, Scalar ord=2, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None)
    -> Tensor
inputs linalg_norm(Tensor self, Scalar? ord=None, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) ->
    Tensor
inputs linalg_matrix_norm(Tensor self, Scalar ord, int[] dim=[-2, -1], bool keepdim=False, *, ScalarType? dtype=None)
    -> Tensor
inputs frobenius_norm.dim(Tensor self, int[1] dim, bool keepdim=False) -> Tensor
inputs count_nonzero(Tensor self, int? dim=None) -> Tensor
inputs count_nonzero.dim_IntList(Tensor self, int[] dim) -> Tensor
inputs median(Tensor self) -> Tensor
inputs median.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)
inputs trace(Tensor self) -> Tensor
inputs dist(Tensor self, Tensor other, Scalar p=2) -> Tensor
inputs cummax(Tensor self, int dim) -> (Tensor values, Tensor indices)
inputs cummin(Tensor self, int dim) -> (Tensor values, Tensor indices)
inputs sort(Tensor self, int dim=-1, bool descending=False) -> (Tensor values, Tensor indices)
inputs sort.stable(Tensor self, *, bool? stable, int dim=-1, bool descending=False) -> (Tensor values, Tensor indices)
inputs argsort(Tensor self, int dim=-1, bool descending=False) -> Tensor
inputs argsort.stable(Tensor self, *, bool stable, int dim=-1, bool descending=False) -> Tensor
inputs topk(Tensor self, SymInt k, int dim=-1, bool largest=True, bool sorted=True) -> (Tensor values, Tensor indices)
inputs kthvalue(Tensor self, SymInt k, int dim=-1, bool keepdim=False) -> (Tensor values, Tensor indices)
inputs diff(Tensor self, int n=1, int dim=-1, Tensor? prepend=None, Tensor? append=None) -> Tensor
inputs bucketize.Tensor(Tensor self, Tensor boundaries, *, bool out_int32=False, bool right=False) -> Tensor
inputs searchsorted.Tensor(Tensor sorted_sequence, Tensor self, *, bool out_int32=False, bool right=False, str?
    side=None, Tensor? sorter=None) -> Tensor
inputs equal(Tensor self, Tensor other) -> bool
inputs isin.Tensor_Tensor(Tensor elements, Tensor test_elements, *, bool assume_unique=False, bool invert=False) ->
    Tensor
inputs std_mean(Tensor self, bool unbiased=True) -> (Tensor, Tensor)
inputs std_mean.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> (Tensor, Tensor)
inputs nanmedian(Tensor self) -> Tensor
inputs nanmedian.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)
inputs trapezoid.x(Tensor y, Tensor x, *, int dim=-1) -> Tensor
inputs trapezoid.dx(Tensor y, *, Scalar dx=1, int dim=-1) -> Tensor
inputs norm_except_dim(Tensor v, int pow=2, int dim=0) -> Tensor
inputs index_reduce(Tensor self, int dim, Tensor index, Tensor source, str reduce, *, bool include_self=True) ->
    Tensor
covariance cov(Tensor self, *, int correction=1, Tensor? fweights=None, Tensor? aweights=None) -> Tensor
"""
