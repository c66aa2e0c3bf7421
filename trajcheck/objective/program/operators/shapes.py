"""Views, pieces, copies in another shape, indexing, and tensors out of nothing."""

from __future__ import annotations

SCHEMAS = """
viewed view(Tensor(a) self, SymInt[] size) -> Tensor(a)
views view.dtype(Tensor(a) self, ScalarType dtype) -> Tensor(a)
views _unsafe_view(Tensor self, SymInt[] size) -> Tensor
reshaped flatten.using_ints(Tensor(a) self, int start_dim=0, int end_dim=-1) -> Tensor(a)
views unflatten.int(Tensor(a) self, int dim, SymInt[] sizes) -> Tensor(a)
views squeeze(Tensor(a) self) -> Tensor(a)
views squeeze.dim(Tensor(a) self, int dim) -> Tensor(a)
views squeeze.dims(Tensor(a) self, int[] dim) -> Tensor(a)
views unsqueeze(Tensor(a) self, int dim) -> Tensor(a)
views transpose.int(Tensor(a) self, int dim0, int dim1) -> Tensor(a)
views t(Tensor(a) self) -> Tensor(a)
views permute(Tensor(a) self, int[] dims) -> Tensor(a)
views movedim.int(Tensor(a) self, int source, int destination) -> Tensor(a)
views movedim.intlist(Tensor(a) self, int[] source, int[] destination) -> Tensor(a)
views moveaxis.int(Tensor(a) self, int source, int destination) -> Tensor(a)
views swapaxes(Tensor(a) self, int axis0, int axis1) -> Tensor(a)
views swapdims(Tensor(a) self, int dim0, int dim1) -> Tensor(a)
widened expand(Tensor(a) self, SymInt[] size, *, bool implicit=False) -> Tensor(a)
widened expand_as(Tensor(a) self, Tensor other) -> Tensor(a)
widened broadcast_to(Tensor(a) self, SymInt[] size) -> Tensor(a)
views slice.Tensor(Tensor(a) self, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1) -> Tensor(a)
views select.int(Tensor(a) self, int dim, SymInt index) -> Tensor(a)
views narrow(Tensor(a) self, int dim, SymInt start, SymInt length) -> Tensor(a)
pieces chunk(Tensor(a) self, int chunks, int dim=0) -> Tensor(a)[]
pieces split.Tensor(Tensor(a) self, SymInt split_size, int dim=0) -> Tensor(a)[]
pieces split.sizes(Tensor(a) self, SymInt[] split_size, int dim=0) -> Tensor(a)[]
pieces split_with_sizes(Tensor(a) self, SymInt[] split_sizes, int dim=0) -> Tensor(a)[]
pieces tensor_split.sections(Tensor(a) self, SymInt sections, int dim=0) -> Tensor(a)[]
pieces unbind.int(Tensor(a) self, int dim=0) -> Tensor(a)[]
views diagonal(Tensor(a) self, int offset=0, int dim1=0, int dim2=1) -> Tensor(a)
widened unfold(Tensor(a) self, int dimension, int size, int step) -> Tensor(a)
views numpy_T(Tensor(a) self) -> Tensor(a)
views mT(Tensor(a) self) -> Tensor(a)
views mH(Tensor(a) self) -> Tensor(a)
views adjoint(Tensor(a) self) -> Tensor(a)
views matrix_H(Tensor(a) self) -> Tensor(a)
views detach(Tensor(a) self) -> Tensor(a)
views alias(Tensor(a) self) -> Tensor(a)
reshaped ravel(Tensor(a) self) -> Tensor(a)
views view_as(Tensor(a) self, Tensor other) -> Tensor(a)
views real(Tensor(a) self) -> Tensor(a)
views imag(Tensor(a) self) -> Tensor(a)
views conj(Tensor(a) self) -> Tensor(a)
views view_as_real(Tensor(a) self) -> Tensor(a)
views view_as_complex(Tensor(a) self) -> Tensor(a)
views lift_fresh(Tensor(a) self) -> Tensor(a)
widened broadcast_tensors(Tensor[] tensors) -> Tensor[]
reshaped reshape(Tensor(a) self, SymInt[] shape) -> Tensor(a)
reshaped reshape_as(Tensor(a) self, Tensor other) -> Tensor(a)
inputs cat(Tensor[] tensors, int dim=0) -> Tensor
inputs concat(Tensor[] tensors, int dim=0) -> Tensor
inputs stack(Tensor[] tensors, int dim=0) -> Tensor
inputs hstack(Tensor[] tensors) -> Tensor
inputs vstack(Tensor[] tensors) -> Tensor
inputs dstack(Tensor[] tensors) -> Tensor
inputs column_stack(Tensor[] tensors) -> Tensor
selected index_select(Tensor self, int dim, Tensor index) -> Tensor
inputs index_add(Tensor self, int dim, Tensor index, Tensor source, *, Scalar alpha=1) -> Tensor
inputs index_fill.int_Scalar(Tensor self, int dim, Tensor index, Scalar value) -> Tensor
inputs index_fill.int_Tensor(Tensor self, int dim, Tensor index, Tensor value) -> Tensor
inputs index_copy(Tensor self, int dim, Tensor index, Tensor source) -> Tensor
inputs scatter.src(Tensor self, int dim, Tensor index, Tensor src) -> Tensor
inputs scatter.value(Tensor self, int dim, Tensor index, Scalar value) -> Tensor
inputs scatter_add(Tensor self, int dim, Tensor index, Tensor src) -> Tensor
inputs scatter.reduce(Tensor self, int dim, Tensor index, Tensor src, *, str reduce) -> Tensor
inputs scatter_reduce.two(Tensor self, int dim, Tensor index, Tensor src, str reduce, *, bool include_self=True) ->
    Tensor
inputs slice_scatter(Tensor self, Tensor src, int dim=0, SymInt? start=None, SymInt? end=None, SymInt step=1) ->
    Tensor
inputs select_scatter(Tensor self, Tensor src, int dim, SymInt index) -> Tensor
inputs diagonal_scatter(Tensor self, Tensor src, int offset=0, int dim1=0, int dim2=1) -> Tensor
broadcast masked_select(Tensor self, Tensor mask) -> Tensor
inputs pixel_shuffle(Tensor self, int upscale_factor) -> Tensor
inputs pixel_unshuffle(Tensor self, int downscale_factor) -> Tensor
inputs channel_shuffle(Tensor self, SymInt groups) -> Tensor
inputs rot90(Tensor self, int k=1, int[] dims=[0, 1]) -> Tensor
inputs fliplr(Tensor self) -> Tensor
inputs flipud(Tensor self) -> Tensor
inputs atleast_1d(Tensor self) -> Tensor
inputs atleast_2d(Tensor self) -> Tensor
inputs atleast_3d(Tensor self) -> Tensor
nonzero nonzero(Tensor self) -> Tensor
inputs diagonal_copy(Tensor self, int offset=0, int dim1=0, int dim2=1) -> Tensor
gathered gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor
gathered take_along_dim(Tensor self, Tensor indices, int? dim=None) -> Tensor
gathered take(Tensor self, Tensor index) -> Tensor
indexed index.Tensor(Tensor self, Tensor?[] indices) -> Tensor
indexed index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor
repeated repeat(Tensor self, SymInt[] repeats) -> Tensor
repeated tile(Tensor self, SymInt[] dims) -> Tensor
repeated repeat_interleave.self_int(Tensor self, SymInt repeats, int? dim=None, *, SymInt? output_size=None) -> Tensor
inputs meshgrid(Tensor[] tensors) -> Tensor[]
inputs meshgrid.indexing(Tensor[] tensors, *, str indexing) -> Tensor[]
diagonals diag_embed(Tensor self, int offset=0, int dim1=-2, int dim2=-1) -> Tensor
diagonal diag(Tensor self, int diagonal=0) -> Tensor
one_hot one_hot(Tensor self, int num_classes=-1) -> Tensor
padded pad(Tensor self, SymInt[] pad, str mode="constant", float? value=None) -> Tensor
padded constant_pad_nd(Tensor self, SymInt[] pad, Scalar value=0) -> Tensor
padded reflection_pad1d(Tensor self, SymInt[2] padding) -> Tensor
padded reflection_pad2d(Tensor self, SymInt[4] padding) -> Tensor
padded reflection_pad3d(Tensor self, SymInt[6] padding) -> Tensor
padded replication_pad1d(Tensor self, SymInt[2] padding) -> Tensor
padded replication_pad2d(Tensor self, SymInt[4] padding) -> Tensor
padded replication_pad3d(Tensor self, SymInt[6] padding) -> Tensor
made zeros(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None)
    -> Tensor
made ones(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None)
    -> Tensor
made full(SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None) -> Tensor
made rand(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None)
    -> Tensor
made randn(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None)
    -> Tensor
made randint(SymInt high, SymInt[] size, *, ScalarType? dtype=4, Layout? layout=None, Device? device=None, bool?
    pin_memory=None) -> Tensor
made randint.low(SymInt low, SymInt high, SymInt[] size, *, ScalarType? dtype=4, Layout? layout=None, Device?
    device=None, bool? pin_memory=None) -> Tensor
made randperm(SymInt n, *, ScalarType? dtype=4, Layout? layout=None, Device? device=None, bool? pin_memory=None) ->
    Tensor
eye eye(SymInt n, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) ->
    Tensor
eye eye.m(SymInt n, SymInt m, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None) -> Tensor
made arange(Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) ->
    Tensor
made arange.start(Scalar start, Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None) -> Tensor
made arange.start_step(Scalar start, Scalar end, Scalar step=1, *, ScalarType? dtype=None, Layout? layout=None,
    Device? device=None, bool? pin_memory=None) -> Tensor
made linspace(Scalar start, Scalar end, int steps, *, ScalarType? dtype=None, Layout? layout=None, Device?
    device=None, bool? pin_memory=None) -> Tensor
made new_zeros(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None) -> Tensor
made new_ones(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None) -> Tensor
made new_full(Tensor self, SymInt[] size, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device?
    device=None, bool? pin_memory=None) -> Tensor
made new_empty(Tensor self, SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None) -> Tensor
made empty.memory_format(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
made scalar_tensor(Scalar s, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None) -> Tensor
made tril_indices(int row, int col, int offset=0, *, ScalarType? dtype=4, Layout? layout=None, Device? device=None,
    bool? pin_memory=None) -> Tensor
made triu_indices(int row, int col, int offset=0, *, ScalarType? dtype=4, Layout? layout=None, Device? device=None,
    bool? pin_memory=None) -> Tensor
made normal.Tensor_float(Tensor mean, float std=1., *, Generator? generator=None) -> Tensor
made normal.Tensor_Tensor(Tensor mean, Tensor std, *, Generator? generator=None) -> Tensor
made normal.float_Tensor(float mean, Tensor std, *, Generator? generator=None) -> Tensor
made normal.float_float(float mean, float std, SymInt[] size, *, Generator? generator=None, ScalarType? dtype=None,
    Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor
inputs concatenate(Tensor[] tensors, int dim=0) -> Tensor
inputs row_stack(Tensor[] tensors) -> Tensor
pieces unsafe_chunk(Tensor self, int chunks, int dim=0) -> Tensor[]
pieces unsafe_split.Tensor(Tensor self, SymInt split_size, int dim=0) -> Tensor[]
pieces unsafe_split_with_sizes(Tensor self, SymInt[] split_sizes, int dim=0) -> Tensor[]
views linalg_diagonal(Tensor(a) A, *, int offset=0, int dim1=-2, int dim2=-1) -> Tensor(a)
"""
