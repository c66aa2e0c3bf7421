/* The loop itself, for LANES doubles at a time. kernel.c includes this file once for each set of instructions: TARGET is
   the compiler's attribute for it, NAME(x) a name of its own, DOUBLES, WORDS_OF and KEEP what it has instructions for.

   A product is summed in LANES sums, in the order of the elements, whatever else is made beside it: its last digits
   depend neither on the other products nor on how they were put together. */

typedef double NAME(doubles) __attribute__((vector_size(8 * LANES), aligned(8)));
typedef float NAME(floats) __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t NAME(words) __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t NAME(halves) __attribute__((vector_size(2 * LANES), aligned(2)));
#define VECTOR NAME(doubles)
#define FLOATS NAME(floats)
#define WORDS NAME(words)
#define HALVES NAME(halves)

TARGET INLINE VECTOR NAME(widened)(const char *from, int type) {
    if (type == F64) return *(const VECTOR *)from;
    if (type == F32) return DOUBLES(*(const FLOATS *)from);
    const WORDS bits = WORDS_OF(*(const HALVES *)from);
    if (type == BF16) return DOUBLES((FLOATS)(bits << 16));
    /* Half precision: put where a float has its exponent and mantissa, it is the number times 2^-112, also where it is
       subnormal. NaN and Inf get a float's exponent. */
    const WORDS special = (WORDS)((bits & 0x7c00u) == 0x7c00u) & 0x7f800000u;
    const FLOATS scaled = (FLOATS)((bits & 0x7fffu) << 13) * 0x1p112f;
    return DOUBLES((FLOATS)((WORDS)scaled | special | (bits & 0x8000u) << 16));
}

TARGET INLINE void NAME(add)(double *restrict out, VECTOR sum) { *(VECTOR *)out += sum; }

/* to <- the numbers at `from`, divided by `divisor` where `divide`; `padded` of them, those after `count` zero. */
TARGET INLINE void NAME(widen_as)(int type, int divide, double *restrict to, const char *from, int64_t count,
                                  int64_t padded, double divisor) {
    const int64_t size = SIZE(type), whole = count / LANES * LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        if ((size * i & 63) == 0) __builtin_prefetch(from + size * (i + TILE), 0, 2);
        VECTOR value = NAME(widened)(from + size * i, type);
        if (divide) value /= divisor;
        *(VECTOR *)(to + i) = value;
    }
    for (int64_t i = whole; i < padded; i += LANES) {
        char rest[8 * LANES] = {0};
        if (i < count) memcpy(rest, from + size * i, (size_t)(size * (count - i)));
        VECTOR value = NAME(widened)(rest, type);
        if (divide) value /= divisor;
        memcpy(to + i, &value, sizeof(double) * (size_t)(padded - i < LANES ? padded - i : LANES));
    }
}

TARGET static void NAME(widen)(double *restrict to, const char *from, int32_t type, int64_t count, int64_t padded,
                               double divisor) {
#define WIDEN_CASE(type)                                                                                               \
    case type:                                                                                                         \
        if (divisor == 1.0)                                                                                            \
            NAME(widen_as)(type, 0, to, from, count, padded, divisor);                                                 \
        else                                                                                                           \
            NAME(widen_as)(type, 1, to, from, count, padded, divisor);                                                 \
        break;
    switch (type) {
        WIDEN_CASE(F64)
        WIDEN_CASE(F32)
        WIDEN_CASE(F16)
        WIDEN_CASE(BF16)
    }
#undef WIDEN_CASE
}

/* A value, from a vector of floats (raw) or from a slot; its square; and its differences from `many` others, with their
   squares. Each is stored where it has a place. */
TARGET INLINE void NAME(differ_as)(int raw, int many, const char *from, double *to, double *square,
                                   const double *const *others, double *const *tos, double *const *squares,
                                   int64_t count) {
    VECTOR sum = {0}, sums[MOST_DIFFERENCES] = {{0}};
    for (int64_t i = 0; i < count; i += LANES) {
        if (raw && (i & 15) == 0) __builtin_prefetch(from + 4 * (i + TILE), 0, 2);
        VECTOR value = raw ? NAME(widened)(from + 4 * i, F32) : *(const VECTOR *)(from + 8 * i);
        KEEP(value);
        if (raw) *(VECTOR *)(to + i) = value;
        sum += value * value;
        UNROLL for (int n = 0; n < many; n++) {
            const VECTOR difference = value - *(const VECTOR *)(others[n] + i);
            *(VECTOR *)(tos[n] + i) = difference;
            sums[n] += difference * difference;
        }
    }
    NAME(add)(square, sum);
    for (int n = 0; n < many; n++) NAME(add)(squares[n], sums[n]);
}

/* Products of a with b, with `more` values, and of both a and b with `common` values. Where a is a vector of floats
   (raw), it is stored and squared as well. Each value is loaded once. Without common values there is no b. */
TARGET INLINE void NAME(cross_as)(int raw, int common, int more, const char *from, double *to, const double *b,
                                  const double *const *values, double *const *outs, int64_t count) {
    VECTOR sums[MOST_PRODUCTS] = {{0}};
    for (int64_t i = 0; i < count; i += LANES) {
        if (raw && (i & 15) == 0) __builtin_prefetch(from + 4 * (i + TILE), 0, 2);
        VECTOR left = raw ? NAME(widened)(from + 4 * i, F32) : *(const VECTOR *)(from + 8 * i), other = left;
        KEEP(left);
        if (raw) {
            *(VECTOR *)(to + i) = left;
            sums[0] += left * left;
        }
        if (common) {
            other = *(const VECTOR *)(b + i);
            KEEP(other);
            sums[raw] += left * other;
        }
        UNROLL for (int n = 0; n < common; n++) {
            VECTOR value = *(const VECTOR *)(values[n] + i);
            KEEP(value);
            sums[raw + 1 + 2 * n] += left * value;
            sums[raw + 2 + 2 * n] += other * value;
        }
        UNROLL for (int n = 0; n < more; n++)
            sums[raw + (common ? 1 : 0) + 2 * common + n] += left * *(const VECTOR *)(values[common + n] + i);
    }
    for (int n = 0; n < raw + (common ? 1 : 0) + 2 * common + more; n++) NAME(add)(outs[n], sums[n]);
}

/* One function for each shape, so that the compiler sees its numbers and keeps its sums in registers. */
TARGET static void NAME(differ)(int raw, int many, const char *from, double *to, double *square,
                                const double *const *others, double *const *tos, double *const *squares,
                                int64_t count) {
#define SHAPE(raw, many)                                                                                               \
    case 8 * (raw) + (many):                                                                                           \
        NAME(differ_as)(raw, many, from, to, square, others, tos, squares, count);                                     \
        break;
    switch (8 * raw + many) {
        SHAPE(0, 0) SHAPE(0, 1) SHAPE(0, 2) SHAPE(0, 3) SHAPE(0, 4)
        SHAPE(1, 0) SHAPE(1, 1) SHAPE(1, 2) SHAPE(1, 3) SHAPE(1, 4)
    }
#undef SHAPE
}

TARGET static void NAME(cross)(int raw, int common, int more, const char *from, double *to, const double *b,
                               const double *const *values, double *const *outs, int64_t count) {
#define SHAPE(raw, common, more)                                                                                       \
    case 64 * (raw) + 8 * (common) + (more):                                                                           \
        NAME(cross_as)(raw, common, more, from, to, b, values, outs, count);                                               \
        break;
#define SHAPES(raw)                                                                                                    \
    SHAPE(raw, 0, 0) SHAPE(raw, 0, 1) SHAPE(raw, 0, 2) SHAPE(raw, 0, 3) SHAPE(raw, 0, 4)                               \
    SHAPE(raw, 1, 0) SHAPE(raw, 1, 1) SHAPE(raw, 1, 2) SHAPE(raw, 1, 3) SHAPE(raw, 1, 4)                               \
    SHAPE(raw, 2, 0) SHAPE(raw, 2, 1) SHAPE(raw, 2, 2) SHAPE(raw, 2, 3) SHAPE(raw, 2, 4)                               \
    SHAPE(raw, 3, 0) SHAPE(raw, 3, 1) SHAPE(raw, 3, 2) SHAPE(raw, 3, 3) SHAPE(raw, 3, 4)                               \
    SHAPE(raw, 4, 0) SHAPE(raw, 4, 1) SHAPE(raw, 4, 2)
    switch (64 * raw + 8 * common + more) {
        SHAPES(0)
        SHAPES(1)
    }
#undef SHAPES
#undef SHAPE
}

/* to <- a + factor b, and its square. */
TARGET static void NAME(regularise)(double *restrict to, const double *a, const double *b, double factor,
                                    double *restrict square, int64_t count) {
    VECTOR sum = {0};
    for (int64_t i = 0; i < count; i += LANES) {
        const VECTOR value = *(const VECTOR *)(a + i) + factor * *(const VECTOR *)(b + i);
        *(VECTOR *)(to + i) = value;
        sum += value * value;
    }
    NAME(add)(square, sum);
}

/* The usual products of a step (program.py): of x, the iterates before and after it, the first one, a reference, and the
   gradient g, all as they stand in their files. Widening them takes less than keeping them as doubles would: what the
   time goes into is the products, whose sums and factors a processor's registers just hold.

   `type` is that of the iterates. With `wide_g` the gradient is of doubles instead, with `wide_reference` the reference.
   The last numbers, too few for the lanes, are padded with zeros. */
TARGET INLINE void NAME(step_as)(int type, int wide_g, int wide_reference, const char *const *from, double *const *outs,
                                 int64_t count) {
    const int type_g = wide_g ? F64 : type, type_reference = wide_reference ? F64 : type;
    for (int64_t start = 0; start < count; start += TILE) {
        const int64_t stop = count - start < TILE ? count - start : TILE;
        char rest[STEP_VECTORS][8 * LANES];
        const char *g_at = from[0] + SIZE(type_g) * start, *next_at = from[1] + SIZE(type) * start;
        const char *x_at = from[2] + SIZE(type) * start, *before_at = from[3] + SIZE(type) * start;
        const char *first_at = from[4] + SIZE(type) * start, *reference_at = from[5] + SIZE(type_reference) * start;
        VECTOR s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, s4 = {0}, s5 = {0};
        VECTOR s6 = {0}, s7 = {0}, s8 = {0}, s9 = {0}, s10 = {0}, s11 = {0};
        int64_t i = 0, end = stop / LANES * LANES, left = stop - end;
    again:
#define AT(at, type) NAME(widened)((at) + SIZE(type) * i, type)
#define PAD(at, n, type) at = memcpy(rest[n], (at) + SIZE(type) * end, (size_t)(SIZE(type) * left))
        for (; i < end; i += LANES) {
            VECTOR g = AT(g_at, type_g), next = AT(next_at, type), other;
            KEEP(g); KEEP(next);
            s0 += next * next, s1 += g * g;
            KEEP(s0); KEEP(s1);
            other = next - AT(reference_at, type_reference);
            KEEP(other);
            s2 += other * other, s3 += g * other;
            KEEP(s2); KEEP(s3);
            VECTOR x = AT(x_at, type);
            KEEP(x);
            s4 += g * x;
            next -= x;
            KEEP(s4); KEEP(next);
            s5 += next * next, s6 += g * next;
            KEEP(s5); KEEP(s6);
            other = x - AT(reference_at, type_reference);
            KEEP(other);
            s7 += g * other, s8 += next * other;
            KEEP(s7); KEEP(s8);
            other = x - AT(before_at, type);
            KEEP(other);
            s9 += g * other, s10 += next * other;
            KEEP(s9); KEEP(s10);
            x -= AT(first_at, type);
            s11 += x * x;
            KEEP(s11);
        }
        if (left) {
            memset(rest, 0, sizeof rest);
            PAD(g_at, 0, type_g), PAD(next_at, 1, type), PAD(x_at, 2, type), PAD(before_at, 3, type);
            PAD(first_at, 4, type), PAD(reference_at, 5, type_reference);
            i = left = 0, end = LANES;
            goto again;
        }
        const VECTOR sums[STEP_PRODUCTS] = {s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11};
        for (int n = 0; n < STEP_PRODUCTS; n++) NAME(add)(outs[n], sums[n]);
    }
}

/* The products of a step that belong to `many` references more: of the gradient, the next iterate, x, and them. */
TARGET INLINE void NAME(towards_as)(int type, int wide_g, int wide_reference, int many, const char *const *from,
                                    double *const *outs, int64_t count) {
    const int type_g = wide_g ? F64 : type, type_reference = wide_reference ? F64 : type;
    for (int64_t start = 0; start < count; start += TILE) {
        const int64_t stop = count - start < TILE ? count - start : TILE;
        char rest[TOWARDS_VECTORS][8 * LANES];
        const char *g_at = from[0] + SIZE(type_g) * start, *next_at = from[1] + SIZE(type) * start;
        const char *x_at = from[2] + SIZE(type) * start, *reference_at = from[3] + SIZE(type_reference) * start;
        const char *other_at = many > 1 ? from[4] + SIZE(type_reference) * start : reference_at;
        VECTOR sums[TOWARDS_PRODUCTS * MOST_TOWARDS] = {{0}};
        int64_t i = 0, end = stop / LANES * LANES, left = stop - end;
    again:
        for (; i < end; i += LANES) {
            VECTOR g = AT(g_at, type_g), next = AT(next_at, type), x = AT(x_at, type), step = next - x;
            KEEP(g); KEEP(next); KEEP(x); KEEP(step);
            UNROLL for (int n = 0; n < many; n++) {
                VECTOR *const s = sums + TOWARDS_PRODUCTS * n;
                VECTOR reference = AT(n ? other_at : reference_at, type_reference), other = next - reference;
                KEEP(reference); KEEP(other);
                s[0] += other * other, s[1] += g * other;
                KEEP(s[0]); KEEP(s[1]);
                other = x - reference;
                KEEP(other);
                s[2] += g * other, s[3] += step * other;
                KEEP(s[2]); KEEP(s[3]);
            }
        }
        if (left) {
            memset(rest, 0, sizeof rest);
            PAD(g_at, 0, type_g), PAD(next_at, 1, type), PAD(x_at, 2, type), PAD(reference_at, 3, type_reference);
            if (many > 1) PAD(other_at, 4, type_reference);
            i = left = 0, end = LANES;
            goto again;
        }
        for (int n = 0; n < TOWARDS_PRODUCTS * many; n++) NAME(add)(outs[n], sums[n]);
    }
}

/* Fetches what of a vector is TILE elements further on, a line of the cache at a time: two instructions that go through
   the same elements in turn break the streams that a processor would follow by itself. */
#define AHEAD(at, type)                                                                                                \
    if ((SIZE(type) * i & 63) == 0) __builtin_prefetch((at) + SIZE(type) * (i + TILE), 0, 2)

/* The usual products of a replayed row, of g, the gradient at the iterate before, x, that iterate, the next one, and
   the gradient as it was recorded. `decay` is the factor of x in the regularised gradient. */
TARGET INLINE void NAME(replayed_as)(int type, int wide_g, int wide_recorded, const char *const *from,
                                     double *const *outs, double decay, int64_t count) {
    const int type_g = wide_g ? F64 : type, type_recorded = wide_recorded ? F64 : type;
    for (int64_t start = 0; start < count; start += TILE) {
        const int64_t stop = count - start < TILE ? count - start : TILE;
        char rest[STEP_VECTORS][8 * LANES];
        const char *g_at = from[0] + SIZE(type_g) * start, *old_at = from[1] + SIZE(type_g) * start;
        const char *x_at = from[2] + SIZE(type) * start, *before_at = from[3] + SIZE(type) * start;
        const char *next_at = from[4] + SIZE(type) * start, *recorded_at = from[5] + SIZE(type_recorded) * start;
        VECTOR s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, s4 = {0}, s5 = {0}, s6 = {0}, s7 = {0}, s8 = {0};
        int64_t i = 0, end = stop / LANES * LANES, left = stop - end;
    again:
        for (; i < end; i += LANES) {
            AHEAD(g_at, type_g); AHEAD(old_at, type_g); AHEAD(recorded_at, type_recorded);
            AHEAD(x_at, type); AHEAD(before_at, type); AHEAD(next_at, type);
            VECTOR g = AT(g_at, type_g), x = AT(x_at, type), other = AT(next_at, type) - x;
            KEEP(g); KEEP(x); KEEP(other);
            s0 += g * g, s1 += g * x, s2 += g * other;
            KEEP(s0); KEEP(s1); KEEP(s2);
            other = g + decay * x;
            s3 += other * other;
            KEEP(s3);
            x -= AT(before_at, type);
            KEEP(x);
            s4 += g * x;
            KEEP(s4);
            other = AT(old_at, type_g);
            KEEP(other);
            s5 += other * x;
            KEEP(s5);
            other = g - other;
            s6 += other * other;
            KEEP(s6);
            other = AT(recorded_at, type_recorded);
            KEEP(other);
            s7 += other * other;
            KEEP(s7);
            g -= other;
            s8 += g * g;
            KEEP(s8);
        }
        if (left) {
            memset(rest, 0, sizeof rest);
            PAD(g_at, 0, type_g), PAD(old_at, 1, type_g), PAD(x_at, 2, type), PAD(before_at, 3, type);
            PAD(next_at, 4, type), PAD(recorded_at, 5, type_recorded);
            i = left = 0, end = LANES;
            goto again;
        }
        const VECTOR sums[REPLAYED_PRODUCTS] = {s0, s1, s2, s3, s4, s5, s6, s7, s8};
        for (int n = 0; n < REPLAYED_PRODUCTS; n++) NAME(add)(outs[n], sums[n]);
    }
}

/* Those that belong to `many` references: of g, x, the iterate some steps on, and them. */
TARGET INLINE void NAME(replayed_towards_as)(int type, int wide_g, int wide_reference, int many,
                                             const char *const *from, double *const *outs, double decay,
                                             int64_t count) {
    const int type_g = wide_g ? F64 : type, type_reference = wide_reference ? F64 : type;
    for (int64_t start = 0; start < count; start += TILE) {
        const int64_t stop = count - start < TILE ? count - start : TILE;
        char rest[TOWARDS_VECTORS][8 * LANES];
        const char *g_at = from[0] + SIZE(type_g) * start, *x_at = from[1] + SIZE(type) * start;
        const char *skip_at = from[2] + SIZE(type) * start, *reference_at = from[3] + SIZE(type_reference) * start;
        const char *other_at = many > 1 ? from[4] + SIZE(type_reference) * start : reference_at;
        VECTOR sums[REPLAYED_TOWARDS_PRODUCTS * MOST_TOWARDS] = {{0}};
        int64_t i = 0, end = stop / LANES * LANES, left = stop - end;
    again:
        for (; i < end; i += LANES) {
            AHEAD(skip_at, type); AHEAD(reference_at, type_reference);
            if (many > 1) AHEAD(other_at, type_reference);
            VECTOR g = AT(g_at, type_g), x = AT(x_at, type), skip = AT(skip_at, type), regularised = g + decay * x;
            KEEP(g); KEEP(x); KEEP(skip); KEEP(regularised);
            UNROLL for (int n = 0; n < many; n++) {
                VECTOR *const s = sums + REPLAYED_TOWARDS_PRODUCTS * n;
                VECTOR reference = AT(n ? other_at : reference_at, type_reference), other = x - reference;
                KEEP(reference); KEEP(other);
                s[0] += g * other, s[1] += regularised * other;
                KEEP(s[0]); KEEP(s[1]);
                other = skip - reference;
                s[2] += g * other;
                KEEP(s[2]);
            }
        }
        if (left) {
            memset(rest, 0, sizeof rest);
            PAD(g_at, 0, type_g), PAD(x_at, 1, type), PAD(skip_at, 2, type), PAD(reference_at, 3, type_reference);
            if (many > 1) PAD(other_at, 4, type_reference);
            i = left = 0, end = LANES;
            goto again;
        }
        for (int n = 0; n < REPLAYED_TOWARDS_PRODUCTS * many; n++) NAME(add)(outs[n], sums[n]);
    }
#undef AT
#undef PAD
#undef AHEAD
}

/* By the place of a kind in SHAPE_OF. */
TARGET static void NAME(usual)(int shape, int type, int wide_g, int wide_other, const char *const *from,
                               double *const *outs, double decay, int64_t count) {
#define SHAPE(shape, type, wide_g, wide_other)                                                                         \
    case 16 * (shape) + 4 * (type) + 2 * (wide_g) + (wide_other):                                                      \
        if ((shape) == 0)                                                                                              \
            NAME(step_as)(type, wide_g, wide_other, from, outs, count);                                                \
        else if ((shape) <= MOST_TOWARDS)                                                                              \
            NAME(towards_as)(type, wide_g, wide_other, shape, from, outs, count);                                      \
        else if ((shape) == MOST_TOWARDS + 1)                                                                          \
            NAME(replayed_as)(type, wide_g, wide_other, from, outs, decay, count);                                     \
        else                                                                                                           \
            NAME(replayed_towards_as)(type, wide_g, wide_other, (shape) - MOST_TOWARDS - 1, from, outs, decay,         \
                                      count);                                                                          \
        break;
#define SHAPES(shape, type)                                                                                            \
    SHAPE(shape, type, 0, 0) SHAPE(shape, type, 0, 1) SHAPE(shape, type, 1, 0) SHAPE(shape, type, 1, 1)
#define TYPES(shape) SHAPE(shape, F64, 0, 0) SHAPES(shape, F32) SHAPES(shape, F16) SHAPES(shape, BF16)
    switch (16 * shape + 4 * type + 2 * wide_g + wide_other) {
        TYPES(0) TYPES(1) TYPES(2) TYPES(3) TYPES(4) TYPES(5)
    }
#undef TYPES
#undef SHAPES
#undef SHAPE
}

/* The type of some vectors, if they have one and are not to be divided; -1 otherwise. */
INLINE int NAME(common)(const program *what, const int32_t *sources, int count) {
    const int type = what->types[sources[0]];
    for (int n = 0; n < count; n++)
        if (what->types[sources[n]] != type || what->divisors[sources[n]] != 1.0) return -1;
    return type;
}

/* An instruction that keeps nothing, of `gradients`, then `iterates`, then `others`. What does not fit the iterates' type
   is widened to doubles beforehand, a tile at a time. */
TARGET static void NAME(direct)(const program *what, int shape, const int32_t *sources, int gradients, int iterates,
                                int others, double *scratch, double *const *outs, double decay, int64_t start,
                                int64_t count) {
    const int of_g = NAME(common)(what, sources, gradients);
    const int of_iterates = NAME(common)(what, sources + gradients, iterates);
    const int of_others = NAME(common)(what, sources + gradients + iterates, others);
    const int type = of_iterates < 0 ? F64 : of_iterates;
    const int wide_g = of_g != type, wide_other = of_others != type;
    const int widened = of_iterates < 0 || (wide_g && of_g != F64) || (wide_other && of_others != F64);
    const int64_t most = widened ? TILE : count;
    for (int64_t done = 0; done < count; done += most) {
        const int64_t some = count - done < most ? count - done : most;
        const char *from[STEP_VECTORS];
        for (int n = 0; n < gradients + iterates + others; n++) {
            const int32_t source = sources[n], own = what->types[source];
            const int of = n < gradients ? of_g : n < gradients + iterates ? of_iterates : of_others;
            from[n] = (const char *)what->vectors[source] + SIZE(own) * (start + done);
            if (of < 0 || (of != type && of != F64)) {
                double *const to = scratch + SLOT * n;
                NAME(widen)(to, from[n], own, some, some, what->divisors[source]);
                from[n] = (const char *)to;
            }
        }
        NAME(usual)(shape, type, type != F64 && wide_g, type != F64 && wide_other, from, outs, decay, some);
    }
}

/* The whole program for `count` elements of a segment from `start` on: a tile, or more where it keeps nothing. `sums`:
   LANES of each product, and before them those of what nobody asked for. */
TARGET static void NAME(tile)(const program *what, const double *decay, int64_t segments, double *slots, double *sums,
                              int64_t start, int64_t count) {
    double *const scratch = slots;
    const int64_t padded = (count + MOST_LANES - 1) / MOST_LANES * MOST_LANES;
    const int32_t *next = what->code, *const end = next + what->words;
    slots += SLOT * SCRATCH; /* the first are for what is not kept */
#define PLACE(slot) ((slot) < 0 ? scratch : slots + SLOT * (slot))
#define OUT(number) (sums + LANES * ((number) + 1))
#define VECTOR_AT(source) ((const char *)what->vectors[source] + SIZE(what->types[source]) * start)
#define DIRECT(source) (count == padded && what->divisors[source] == 1.0)
    while (next < end) {
        const int32_t kind = *next++, source = *next++;
        const int vector = source >= 0 && kind < STEP;
        const char *from = vector ? VECTOR_AT(source) : (const char *)PLACE(~source);
        /* floats are widened on the way, whole tiles of them; all else beforehand */
        const int raw = vector && what->types[source] == F32 && DIRECT(source);
        if (kind == DIFFER) { /* source, to; many; other and to of each; outputs: its square, those of each */
            double *const to = PLACE(next[0]), *tos[MOST_DIFFERENCES], *squares[MOST_DIFFERENCES];
            const double *others[MOST_DIFFERENCES];
            const int many = next[1];
            next += 2;
            for (int n = 0; n < many; n++, next += 2) others[n] = PLACE(next[0]), tos[n] = PLACE(next[1]);
            double *const square = OUT(*next++);
            for (int n = 0; n < many; n++, next++) squares[n] = OUT(*next);
            const int only = vector && !many && square == sums; /* it is widened, and no more */
            if (vector && (only || !raw)) {
                NAME(widen)(to, from, what->types[source], count, padded, what->divisors[source]);
                from = (const char *)to;
            }
            if (!only) NAME(differ)(raw, many, from, to, square, others, tos, squares, padded);
        } else if (kind == CROSS) {
            /* source, to, b, common, more; a slot for each value; outputs: the square, each product; `to` and the square
               are of a vector alone */
            double *const to = PLACE(next[0]);
            const double *values[MOST_PRODUCTS], *const b = PLACE(next[1]);
            double *outs[MOST_PRODUCTS + 1];
            const int common = next[2], more = next[3], products = (common ? 1 : 0) + 2 * common + more;
            next += 4;
            for (int n = 0; n < common + more; n++, next++) values[n] = PLACE(*next);
            for (int n = 0; n < products + 1; n++, next++) outs[n] = OUT(*next);
            if (vector && !raw) {
                NAME(widen)(to, from, what->types[source], count, padded, what->divisors[source]);
                NAME(differ)(0, 0, (const char *)to, to, outs[0], 0, 0, 0, padded);
                from = (const char *)to;
            }
            NAME(cross)(raw, common, more, from, to, b, values, raw ? outs : outs + 1, padded);
        } else if (kind == REGULARISE) { /* a, b, to, level, square */
            NAME(regularise)(PLACE(next[1]), (const double *)from, PLACE(next[0]), decay[segments * next[2]],
                             OUT(next[3]), padded);
            next += 4;
        } else { /* how many references; a level of decay, for what is replayed; vectors; an output for each product */
            static const int gradients[] = {1, 1, 2, 1}, iterates[] = {4, 2, 3, 2};
            static const int products_of[] = {STEP_PRODUCTS, TOWARDS_PRODUCTS, REPLAYED_PRODUCTS,
                                              REPLAYED_TOWARDS_PRODUCTS};
            const int of = kind - STEP, many = source, others = many ? many : 1, products = products_of[of] * others;
            const double factor = of < 2 ? 0 : decay[segments * *next];
            const int32_t *const sources = ++next;
            double *outs[STEP_PRODUCTS];
            next += gradients[of] + iterates[of] + others;
            for (int n = 0; n < products; n++, next++) outs[n] = OUT(*next);
            NAME(direct)(what, of < 2 ? many : MOST_TOWARDS + 1 + many, sources, gradients[of], iterates[of], others,
                         scratch, outs, factor, start, count);
        }
    }
#undef PLACE
#undef OUT
#undef VECTOR_AT
#undef DIRECT
}

/* Tiles never reach over a segment's end; each segment's lanes are added up in one order. */
TARGET static void NAME(run)(const program *what, const block *work) {
    double *out = work->out;
    double *const sums = (double *)(((uintptr_t)work->memory + 63) & ~(uintptr_t)63);
    double *const slots = sums + MOST_LANES * (what->products + 1);
    const int64_t span = what->direct == 0 ? TILE : what->direct == 1 ? work->borders[work->segments] : SPAN;
    for (int64_t segment = 0; segment < work->segments; segment++, out += work->outputs) {
        const int64_t stop = work->borders[segment + 1];
        memset(sums, 0, sizeof(double) * LANES * (size_t)(what->products + 1));
        for (int64_t start = work->borders[segment]; start < stop; start += span)
            NAME(tile)(what, work->decay + segment, work->segments, slots, sums, start,
                       stop - start < span ? stop - start : span);
        for (int64_t n = 0; n < what->products; n++) {
            const double *const lanes = sums + LANES * (n + 1);
            double sum = 0;
            for (int lane = 0; lane < LANES; lane += 2) sum += lanes[lane] + lanes[lane + 1];
            out[what->made[n]] += sum;
        }
    }
}

#undef VECTOR
#undef FLOATS
#undef WORDS
#undef HALVES
#undef NAME
#undef LANES
#undef TARGET
#undef DOUBLES
#undef WORDS_OF
#undef KEEP
