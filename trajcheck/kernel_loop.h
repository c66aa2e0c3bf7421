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
   gradient g. All are at hand but the next iterate and g, both of one type: they are widened on the way, and next_to <-
   next; where `keep`, g_to <- g. With all sums and what they are made of, a processor's registers are just enough. */
TARGET INLINE void NAME(step_as)(int type, int keep, const char *next_from, const char *g_from, const double *px,
                                 const double *pbefore, const double *pfirst, const double *preference, double *next_to,
                                 double *g_to, double *const *outs, int64_t count) {
    const int64_t size = SIZE(type);
    VECTOR s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}, s4 = {0}, s5 = {0};
    VECTOR s6 = {0}, s7 = {0}, s8 = {0}, s9 = {0}, s10 = {0}, s11 = {0};
    for (int64_t i = 0; i < count; i += LANES) {
        if ((size * i & 63) == 0) {
            __builtin_prefetch(next_from + size * (i + TILE), 0, 2);
            __builtin_prefetch(g_from + size * (i + TILE), 0, 2);
        }
        VECTOR next = NAME(widened)(next_from + size * i, type), g = NAME(widened)(g_from + size * i, type), other;
        KEEP(next); KEEP(g);
        *(VECTOR *)(next_to + i) = next;
        if (keep) *(VECTOR *)(g_to + i) = g;
        s0 += next * next, s1 += g * g;
        KEEP(s0); KEEP(s1);
        other = next - *(const VECTOR *)(preference + i);
        KEEP(other);
        s2 += other * other, s3 += g * other;
        KEEP(s2); KEEP(s3);
        VECTOR x = *(const VECTOR *)(px + i);
        KEEP(x);
        s4 += g * x;
        next -= x;
        KEEP(s4); KEEP(next);
        s5 += next * next, s6 += g * next;
        KEEP(s5); KEEP(s6);
        other = x - *(const VECTOR *)(preference + i);
        KEEP(other);
        s7 += g * other, s8 += next * other;
        KEEP(s7); KEEP(s8);
        other = x - *(const VECTOR *)(pbefore + i);
        KEEP(other);
        s9 += g * other, s10 += next * other;
        KEEP(s9); KEEP(s10);
        x -= *(const VECTOR *)(pfirst + i);
        s11 += x * x;
        KEEP(s11);
    }
    const VECTOR sums[STEP_PRODUCTS] = {s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11};
    for (int n = 0; n < STEP_PRODUCTS; n++) NAME(add)(outs[n], sums[n]);
}

TARGET static void NAME(step)(int type, int keep, const char *next_from, const char *g_from, const double *x,
                              const double *before, const double *first, const double *reference, double *next_to,
                              double *g_to, double *const *outs, int64_t count) {
#define SHAPE(type, keep)                                                                                              \
    case 2 * (type) + (keep):                                                                                          \
        NAME(step_as)(type, keep, next_from, g_from, x, before, first, reference, next_to, g_to, outs, count);         \
        break;
    switch (2 * type + keep) {
        SHAPE(F64, 0) SHAPE(F64, 1) SHAPE(F32, 0) SHAPE(F32, 1)
        SHAPE(F16, 0) SHAPE(F16, 1) SHAPE(BF16, 0) SHAPE(BF16, 1)
    }
#undef SHAPE
}

/* The products of a step that belong to `many` references more. */
TARGET INLINE void NAME(towards_as)(int many, const double *px, const double *pnext, const double *pg,
                                    const double *const *references, double *const *outs, int64_t count) {
    VECTOR sums[TOWARDS_PRODUCTS * MOST_TOWARDS] = {{0}};
    for (int64_t i = 0; i < count; i += LANES) {
        VECTOR x = *(const VECTOR *)(px + i), next = *(const VECTOR *)(pnext + i), g = *(const VECTOR *)(pg + i);
        VECTOR step = next - x;
        KEEP(x); KEEP(next); KEEP(g); KEEP(step);
        UNROLL for (int n = 0; n < many; n++) {
            VECTOR *const s = sums + TOWARDS_PRODUCTS * n;
            VECTOR other = next - *(const VECTOR *)(references[n] + i);
            KEEP(other);
            s[0] += other * other, s[1] += g * other;
            KEEP(s[0]); KEEP(s[1]);
            other = x - *(const VECTOR *)(references[n] + i);
            KEEP(other);
            s[2] += g * other, s[3] += step * other;
            KEEP(s[2]); KEEP(s[3]);
        }
    }
    for (int n = 0; n < TOWARDS_PRODUCTS * many; n++) NAME(add)(outs[n], sums[n]);
}

TARGET static void NAME(towards)(int many, const double *x, const double *next, const double *g,
                                 const double *const *references, double *const *outs, int64_t count) {
    if (many == 1)
        NAME(towards_as)(1, x, next, g, references, outs, count);
    else
        NAME(towards_as)(MOST_TOWARDS, x, next, g, references, outs, count);
}

/* The whole program for one tile: `count` elements of a segment from `start` on. `sums`: LANES of each product, and
   before them those of what nobody asked for. */
TARGET static void NAME(tile)(const program *what, double decay, double *slots, double *sums, int64_t start,
                              int64_t count) {
    double *const scratch = slots;
    const int64_t padded = (count + MOST_LANES - 1) / MOST_LANES * MOST_LANES;
    const int32_t *next = what->code, *const end = next + what->words;
    slots += SLOT; /* the first is for what is not kept */
#define PLACE(slot) ((slot) < 0 ? scratch : slots + SLOT * (slot))
#define OUT(number) (sums + LANES * ((number) + 1))
#define VECTOR_AT(source) ((const char *)what->vectors[source] + SIZE(what->types[source]) * start)
#define DIRECT(source) (count == padded && what->divisors[source] == 1.0)
    while (next < end) {
        const int32_t kind = *next++, source = *next++;
        const int vector = source >= 0;
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
        } else if (kind == REGULARISE) { /* a, b, to, square */
            NAME(regularise)(PLACE(next[1]), (const double *)from, PLACE(next[0]), decay, OUT(next[2]), padded);
            next += 3;
        } else if (kind == STEP) {
            /* next, g (both sources); x, before, first, reference; where next and g are kept; an output for each
               product */
            const int32_t other = next[0];
            const double *const x = PLACE(next[1]), *const before = PLACE(next[2]), *const first = PLACE(next[3]);
            const double *const reference = PLACE(next[4]);
            double *const next_to = PLACE(next[5]), *const g_to = PLACE(next[6]);
            const int keep = next[6] >= 0;
            double *outs[STEP_PRODUCTS];
            const char *g = other >= 0 ? VECTOR_AT(other) : (const char *)PLACE(~other);
            int type = F64;
            next += 7;
            for (int n = 0; n < STEP_PRODUCTS; n++, next++) outs[n] = OUT(*next);
            if (vector && other >= 0 && what->types[source] == what->types[other] && DIRECT(source) && DIRECT(other))
                type = what->types[source];
            else {
                if (vector) {
                    NAME(widen)(next_to, from, what->types[source], count, padded, what->divisors[source]);
                    from = (const char *)next_to;
                }
                if (other >= 0) {
                    NAME(widen)(g_to, g, what->types[other], count, padded, what->divisors[other]);
                    g = (const char *)g_to;
                }
            }
            NAME(step)(type, keep, from, g, x, before, first, reference, next_to, g_to, outs, padded);
        } else { /* TOWARDS: x (a slot), next, g; many; their slots; outputs of each */
            const double *const after = PLACE(next[0]), *const g = PLACE(next[1]), *references[MOST_TOWARDS];
            double *outs[TOWARDS_PRODUCTS * MOST_TOWARDS];
            const int many = next[2];
            next += 3;
            for (int n = 0; n < many; n++, next++) references[n] = PLACE(*next);
            for (int n = 0; n < TOWARDS_PRODUCTS * many; n++, next++) outs[n] = OUT(*next);
            NAME(towards)(many, (const double *)from, after, g, references, outs, padded);
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
    for (int64_t segment = 0; segment < work->segments; segment++, out += work->outputs) {
        const int64_t stop = work->borders[segment + 1];
        memset(sums, 0, sizeof(double) * LANES * (size_t)(what->products + 1));
        for (int64_t start = work->borders[segment]; start < stop; start += TILE)
            NAME(tile)(what, work->decay[segment], slots, sums, start, stop - start < TILE ? stop - start : TILE);
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
