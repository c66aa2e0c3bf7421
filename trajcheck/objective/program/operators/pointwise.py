"""Element by element: arithmetic, activations, comparisons, casts, masks and noise."""

from __future__ import annotations

SCHEMAS = """
largest abs(Tensor self) -> Tensor
largest neg(Tensor self) -> Tensor
largest exp(Tensor self) -> Tensor
largest exp2(Tensor self) -> Tensor
largest expm1(Tensor self) -> Tensor
largest log(Tensor self) -> Tensor
largest log2(Tensor self) -> Tensor
largest log10(Tensor self) -> Tensor
largest log1p(Tensor self) -> Tensor
largest sqrt(Tensor self) -> Tensor
largest rsqrt(Tensor self) -> Tensor
largest square(Tensor self) -> Tensor
largest reciprocal(Tensor self) -> Tensor
largest sin(Tensor self) -> Tensor
largest cos(Tensor self) -> Tensor
largest tan(Tensor self) -> Tensor
largest asin(Tensor self) -> Tensor
largest acos(Tensor self) -> Tensor
largest atan(Tensor self) -> Tensor
largest sinh(Tensor self) -> Tensor
largest cosh(Tensor self) -> Tensor
largest tanh(Tensor self) -> Tensor
largest asinh(Tensor self) -> Tensor
largest acosh(Tensor self) -> Tensor
largest atanh(Tensor self) -> Tensor
largest sigmoid(Tensor self) -> Tensor
largest erf(Tensor self) -> Tensor
largest erfc(Tensor self) -> Tensor
largest erfinv(Tensor self) -> Tensor
largest lgamma(Tensor self) -> Tensor
largest digamma(Tensor self) -> Tensor
largest floor(Tensor self) -> Tensor
largest ceil(Tensor self) -> Tensor
largest round(Tensor self) -> Tensor
largest round.decimals(Tensor self, *, int decimals) -> Tensor
largest trunc(Tensor self) -> Tensor
largest frac(Tensor self) -> Tensor
largest sign(Tensor self) -> Tensor
largest sgn(Tensor self) -> Tensor
largest relu(Tensor self) -> Tensor
largest relu6(Tensor self) -> Tensor
largest gelu(Tensor self, *, str approximate="none") -> Tensor
largest silu(Tensor self) -> Tensor
largest mish(Tensor self) -> Tensor
largest elu(Tensor self, Scalar alpha=1, Scalar scale=1, Scalar input_scale=1) -> Tensor
largest selu(Tensor self) -> Tensor
largest celu(Tensor self, Scalar alpha=1.) -> Tensor
largest hardtanh(Tensor self, Scalar min_val=-1, Scalar max_val=1) -> Tensor
largest hardswish(Tensor self) -> Tensor
largest hardsigmoid(Tensor self) -> Tensor
largest leaky_relu(Tensor self, Scalar negative_slope=0.01) -> Tensor
largest softplus(Tensor self, Scalar beta=1, Scalar threshold=20) -> Tensor
largest softshrink(Tensor self, Scalar lambd=0.5) -> Tensor
largest hardshrink(Tensor self, Scalar lambd=0.5) -> Tensor
largest log_sigmoid(Tensor self) -> Tensor
largest threshold(Tensor self, Scalar threshold, Scalar value) -> Tensor
largest logit(Tensor self, float? eps=None) -> Tensor
largest sinc(Tensor self) -> Tensor
largest logical_not(Tensor self) -> Tensor
largest bitwise_not(Tensor self) -> Tensor
largest isnan(Tensor self) -> Tensor
largest isinf(Tensor self) -> Tensor
largest isfinite(Tensor self) -> Tensor
largest nan_to_num(Tensor self, float? nan=None, float? posinf=None, float? neginf=None) -> Tensor
largest clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor
largest clamp_min(Tensor self, Scalar min) -> Tensor
largest clamp_max(Tensor self, Scalar max) -> Tensor
largest clip(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor
largest glu(Tensor self, int dim=-1) -> Tensor
largest prelu(Tensor self, Tensor weight) -> Tensor
largest rrelu(Tensor self, Scalar lower=0.125, Scalar upper=0.33333333333333331, bool training=False, Generator?
    generator=None) -> Tensor
largest resolve_conj(Tensor(a) self) -> Tensor(a)
largest resolve_neg(Tensor(a) self) -> Tensor(a)
largest conj_physical(Tensor self) -> Tensor
largest angle(Tensor self) -> Tensor
largest clone(Tensor self, *, MemoryFormat? memory_format=None) -> Tensor
largest contiguous(Tensor(a) self, *, MemoryFormat memory_format=0) -> Tensor(a)
largest to.dtype(Tensor(a) self, ScalarType dtype, bool non_blocking=False, bool copy=False, MemoryFormat?
    memory_format=None) -> Tensor(a)
largest to.dtype_layout(Tensor(a) self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None, bool non_blocking=False, bool copy=False, MemoryFormat? memory_format=None) -> Tensor(a)
largest to.device(Tensor(a) self, Device device, ScalarType dtype, bool non_blocking=False, bool copy=False,
    MemoryFormat? memory_format=None) -> Tensor(a)
largest to.other(Tensor(a) self, Tensor other, bool non_blocking=False, bool copy=False, MemoryFormat?
    memory_format=None) -> Tensor(a)
largest _to_copy(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None, bool non_blocking=False, MemoryFormat? memory_format=None) -> Tensor
largest type_as(Tensor self, Tensor other) -> Tensor
largest positive(Tensor(a) self) -> Tensor(a)
largest pow.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor
largest special_expm1(Tensor self) -> Tensor
largest special_log1p(Tensor self) -> Tensor
largest special_expit(Tensor self) -> Tensor
largest special_erf(Tensor self) -> Tensor
largest special_erfc(Tensor self) -> Tensor
largest special_logit(Tensor self, float? eps=None) -> Tensor
largest special_digamma(Tensor self) -> Tensor
largest special_gammaln(Tensor self) -> Tensor
largest special_exp2(Tensor self) -> Tensor
largest add.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor
largest sub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor
largest mul.Scalar(Tensor self, Scalar other) -> Tensor
largest div.Scalar(Tensor self, Scalar other) -> Tensor
largest div.Scalar_mode(Tensor self, Scalar other, *, str? rounding_mode) -> Tensor
largest rsub.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor
largest floor_divide.Scalar(Tensor self, Scalar other) -> Tensor
largest remainder.Scalar(Tensor self, Scalar other) -> Tensor
largest fmod.Scalar(Tensor self, Scalar other) -> Tensor
largest pow.Scalar(Scalar self, Tensor exponent) -> Tensor
largest eq.Scalar(Tensor self, Scalar other) -> Tensor
largest ne.Scalar(Tensor self, Scalar other) -> Tensor
largest lt.Scalar(Tensor self, Scalar other) -> Tensor
largest le.Scalar(Tensor self, Scalar other) -> Tensor
largest gt.Scalar(Tensor self, Scalar other) -> Tensor
largest ge.Scalar(Tensor self, Scalar other) -> Tensor
largest bitwise_and.Scalar(Tensor self, Scalar other) -> Tensor
largest bitwise_or.Scalar(Tensor self, Scalar other) -> Tensor
largest bitwise_xor.Scalar(Tensor self, Scalar other) -> Tensor
largest __and__.Scalar(Tensor self, Scalar other) -> Tensor
largest __or__.Scalar(Tensor self, Scalar other) -> Tensor
largest __xor__.Scalar(Tensor self, Scalar other) -> Tensor
largest dropout(Tensor input, float p, bool train) -> Tensor
largest alpha_dropout(Tensor input, float p, bool train) -> Tensor
largest feature_dropout(Tensor input, float p, bool train) -> Tensor
largest feature_alpha_dropout(Tensor input, float p, bool train) -> Tensor
largest native_dropout(Tensor input, float p, bool? train) -> (Tensor, Tensor)
largest bernoulli(Tensor self, *, Generator? generator=None) -> Tensor
largest bernoulli.p(Tensor self, float p, *, Generator? generator=None) -> Tensor
largest zeros_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
largest ones_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
largest full_like(Tensor self, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
largest empty_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
largest rand_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
largest randn_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool?
    pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
largest lift_fresh_copy(Tensor self) -> Tensor
largest softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor
largest log_softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor
largest _softmax(Tensor self, int dim, bool half_to_float) -> Tensor
largest _log_softmax(Tensor self, int dim, bool half_to_float) -> Tensor
largest cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor
largest cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor
largest logcumsumexp(Tensor self, int dim) -> Tensor
largest flip(Tensor self, int[] dims) -> Tensor
largest roll(Tensor self, SymInt[1] shifts, int[1] dims=[]) -> Tensor
largest tril(Tensor self, SymInt diagonal=0) -> Tensor
largest triu(Tensor self, SymInt diagonal=0) -> Tensor
broadcast add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor
broadcast sub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor
broadcast mul.Tensor(Tensor self, Tensor other) -> Tensor
broadcast div.Tensor(Tensor self, Tensor other) -> Tensor
broadcast div.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor
broadcast rsub.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor
broadcast floor_divide(Tensor self, Tensor other) -> Tensor
broadcast remainder.Tensor(Tensor self, Tensor other) -> Tensor
broadcast remainder.Scalar_Tensor(Scalar self, Tensor other) -> Tensor
broadcast fmod.Tensor(Tensor self, Tensor other) -> Tensor
broadcast pow.Tensor_Tensor(Tensor self, Tensor exponent) -> Tensor
broadcast maximum(Tensor self, Tensor other) -> Tensor
broadcast minimum(Tensor self, Tensor other) -> Tensor
broadcast max.other(Tensor self, Tensor other) -> Tensor
broadcast min.other(Tensor self, Tensor other) -> Tensor
broadcast fmax(Tensor self, Tensor other) -> Tensor
broadcast fmin(Tensor self, Tensor other) -> Tensor
broadcast atan2(Tensor self, Tensor other) -> Tensor
broadcast hypot(Tensor self, Tensor other) -> Tensor
broadcast eq.Tensor(Tensor self, Tensor other) -> Tensor
broadcast ne.Tensor(Tensor self, Tensor other) -> Tensor
broadcast lt.Tensor(Tensor self, Tensor other) -> Tensor
broadcast le.Tensor(Tensor self, Tensor other) -> Tensor
broadcast gt.Tensor(Tensor self, Tensor other) -> Tensor
broadcast ge.Tensor(Tensor self, Tensor other) -> Tensor
broadcast logical_and(Tensor self, Tensor other) -> Tensor
broadcast logical_or(Tensor self, Tensor other) -> Tensor
broadcast logical_xor(Tensor self, Tensor other) -> Tensor
broadcast bitwise_and.Tensor(Tensor self, Tensor other) -> Tensor
broadcast bitwise_or.Tensor(Tensor self, Tensor other) -> Tensor
broadcast bitwise_xor.Tensor(Tensor self, Tensor other) -> Tensor
broadcast __and__.Tensor(Tensor self, Tensor other) -> Tensor
broadcast __or__.Tensor(Tensor self, Tensor other) -> Tensor
broadcast __xor__.Tensor(Tensor self, Tensor other) -> Tensor
broadcast where.self(Tensor condition, Tensor self, Tensor other) -> Tensor
broadcast where.ScalarOther(Tensor condition, Tensor self, Scalar other) -> Tensor
broadcast where.ScalarSelf(Tensor condition, Scalar self, Tensor other) -> Tensor
broadcast where.Scalar(Tensor condition, Scalar self, Scalar other) -> Tensor
broadcast lerp.Scalar(Tensor self, Tensor end, Scalar weight) -> Tensor
broadcast lerp.Tensor(Tensor self, Tensor end, Tensor weight) -> Tensor
broadcast addcmul(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor
broadcast addcdiv(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor
broadcast masked_fill.Scalar(Tensor self, Tensor mask, Scalar value) -> Tensor
broadcast masked_fill.Tensor(Tensor self, Tensor mask, Tensor value) -> Tensor
broadcast clamp.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor
broadcast clamp_min.Tensor(Tensor self, Tensor min) -> Tensor
broadcast clamp_max.Tensor(Tensor self, Tensor max) -> Tensor
broadcast xlogy.Tensor(Tensor self, Tensor other) -> Tensor
broadcast xlogy.Scalar_Other(Tensor self, Scalar other) -> Tensor
broadcast xlogy.Scalar_Self(Scalar self, Tensor other) -> Tensor
broadcast logaddexp(Tensor self, Tensor other) -> Tensor
broadcast logaddexp2(Tensor self, Tensor other) -> Tensor
broadcast copysign.Tensor(Tensor self, Tensor other) -> Tensor
broadcast true_divide.Tensor(Tensor self, Tensor other) -> Tensor
broadcast multiply.Tensor(Tensor self, Tensor other) -> Tensor
broadcast subtract.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor
broadcast divide.Tensor(Tensor self, Tensor other) -> Tensor
broadcast heaviside(Tensor self, Tensor values) -> Tensor
broadcast isclose(Tensor self, Tensor other, float rtol=1.0000000000000001e-05, float atol=1e-08, bool
    equal_nan=False) -> Tensor
broadcast complex(Tensor real, Tensor imag) -> Tensor
broadcast polar(Tensor abs, Tensor angle) -> Tensor
broadcast cross(Tensor self, Tensor other, int? dim=None) -> Tensor
broadcast linalg_cross(Tensor self, Tensor other, *, int dim=-1) -> Tensor
broadcast cosine_similarity(Tensor x1, Tensor x2, int dim=1, float eps=1e-08) -> Tensor
broadcast pairwise_distance(Tensor x1, Tensor x2, float p=2., float eps=9.9999999999999995e-07, bool keepdim=False) ->
    Tensor
inputs masked_scatter(Tensor self, Tensor mask, Tensor source) -> Tensor
largest absolute(Tensor self) -> Tensor
largest negative(Tensor self) -> Tensor
largest arctan(Tensor self) -> Tensor
largest arcsin(Tensor self) -> Tensor
largest arccos(Tensor self) -> Tensor
largest deg2rad(Tensor self) -> Tensor
largest rad2deg(Tensor self) -> Tensor
largest signbit(Tensor self) -> Tensor
largest isneginf(Tensor self) -> Tensor
largest isposinf(Tensor self) -> Tensor
largest i0(Tensor self) -> Tensor
largest polygamma(int n, Tensor self) -> Tensor
largest multiply.Scalar(Tensor self, Scalar other) -> Tensor
largest subtract.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor
largest divide.Scalar(Tensor self, Scalar other) -> Tensor
largest true_divide.Scalar(Tensor self, Scalar other) -> Tensor
largest copysign.Scalar(Tensor self, Scalar other) -> Tensor
largest float_power.Scalar(Scalar self, Tensor exponent) -> Tensor
largest float_power.Tensor_Scalar(Tensor self, Scalar exponent) -> Tensor
largest greater.Scalar(Tensor self, Scalar other) -> Tensor
largest greater_equal.Scalar(Tensor self, Scalar other) -> Tensor
largest less.Scalar(Tensor self, Scalar other) -> Tensor
largest less_equal.Scalar(Tensor self, Scalar other) -> Tensor
largest not_equal.Scalar(Tensor self, Scalar other) -> Tensor
largest bernoulli.Tensor(Tensor self, Tensor p, *, Generator? generator=None) -> Tensor
largest randint_like(Tensor self, SymInt high, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None,
    bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
largest randint_like.low_dtype(Tensor self, SymInt low, SymInt high, *, ScalarType? dtype=None, Layout? layout=None,
    Device? device=None, bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor
largest poisson(Tensor self, Generator? generator=None) -> Tensor
largest fill.Scalar(Tensor self, Scalar value) -> Tensor
largest fill.Tensor(Tensor self, Tensor value) -> Tensor
largest renorm(Tensor self, Scalar p, int dim, Scalar maxnorm) -> Tensor
broadcast arctan2(Tensor self, Tensor other) -> Tensor
broadcast divide.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor
broadcast float_power.Tensor_Tensor(Tensor self, Tensor exponent) -> Tensor
broadcast greater.Tensor(Tensor self, Tensor other) -> Tensor
broadcast greater_equal.Tensor(Tensor self, Tensor other) -> Tensor
broadcast less.Tensor(Tensor self, Tensor other) -> Tensor
broadcast less_equal.Tensor(Tensor self, Tensor other) -> Tensor
broadcast not_equal.Tensor(Tensor self, Tensor other) -> Tensor
broadcast ldexp.Tensor(Tensor self, Tensor other) -> Tensor
broadcast clip.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor
filled _weight_norm(Tensor v, Tensor g, int dim=0) -> Tensor
broadcast linalg_vecdot(Tensor x, Tensor y, *, int dim=-1) -> Tensor
"""
