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
        *(VECTOR *)(to + i) = value;
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

/* The whole program for one tile: `count` elements of a segment from `start` on. */
TARGET static void NAME(tile)(const block *work, double *slots, int64_t segment, int64_t start, int64_t count) {
    double unused[PARTIAL] __attribute__((aligned(64))) = {0};
    double *const out = work->out + PARTIAL * work->outputs * segment, *const scratch = slots;
    const int64_t padded = (count + PARTIAL - 1) / PARTIAL * PARTIAL;
    const int32_t *next = work->code, *const end = next + work->words;
    slots += SLOT; /* the first is for what is not kept */
#define PLACE(slot) ((slot) < 0 ? scratch : slots + SLOT * (slot))
#define OUT(number) ((number) < 0 ? unused : out + PARTIAL * (number))
    while (next < end) {
        const int32_t what = *next++, source = *next++;
        const int vector = source >= 0;
        const char *from = vector ? (const char *)work->vectors[source] : (const char *)PLACE(~source);
        if (vector) from += SIZE(work->types[source]) * start;
        /* floats are widened on the way, whole tiles of them; all else beforehand */
        const int raw = vector && work->types[source] == F32 && work->divisors[source] == 1.0 && count == padded;
        if (what == DIFFER) { /* source, to, square; many; other, to, square of each */
            double *const to = PLACE(next[0]), *const square = OUT(next[1]);
            const int many = next[2];
            const double *others[MOST_DIFFERENCES];
            double *tos[MOST_DIFFERENCES], *squares[MOST_DIFFERENCES];
            next += 3;
            for (int n = 0; n < many; n++, next += 3)
                others[n] = PLACE(next[0]), tos[n] = PLACE(next[1]), squares[n] = OUT(next[2]);
            if (vector && !raw) {
                NAME(widen)(to, from, work->types[source], count, padded, work->divisors[source]);
                from = (const char *)to;
            }
            NAME(differ)(raw, many, from, to, square, others, tos, squares, padded);
        } else if (what == CROSS) {
            /* source, to, square, b, common, more; a slot for each value; an output for each product; `to` and `square`
               are of a vector alone */
            double *const to = PLACE(next[0]);
            const double *values[MOST_PRODUCTS], *const b = PLACE(next[2]);
            double *outs[MOST_PRODUCTS + 1];
            const int common = next[3], more = next[4], products = (common ? 1 : 0) + 2 * common + more;
            outs[0] = OUT(next[1]);
            next += 5;
            for (int n = 0; n < common + more; n++, next++) values[n] = PLACE(*next);
            for (int n = 0; n < products; n++, next++) outs[n + 1] = OUT(*next);
            if (vector && !raw) {
                NAME(widen)(to, from, work->types[source], count, padded, work->divisors[source]);
                NAME(differ)(0, 0, (const char *)to, to, outs[0], 0, 0, 0, padded);
                from = (const char *)to;
            }
            NAME(cross)(raw, common, more, from, to, b, values, raw ? outs : outs + 1, padded);
        } else { /* REGULARISE: a, b, to, square */
            NAME(regularise)(PLACE(next[1]), (const double *)from, PLACE(next[0]), work->decay[segment], OUT(next[2]),
                             padded);
            next += 3;
        }
    }
#undef PLACE
#undef OUT
}

TARGET static void NAME(run)(const block *work) {
    double *const slots = (double *)(((uintptr_t)work->slots + 63) & ~(uintptr_t)63);
    for (int64_t segment = 0; segment < work->segments; segment++) {
        const int64_t stop = work->borders[segment + 1];
        for (int64_t start = work->borders[segment]; start < stop; start += TILE)
            NAME(tile)(work, slots, segment, start, stop - start < TILE ? stop - start : TILE);
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
