/* The inner loop of the streaming pass: a short program of widenings, subtractions and inner products, run tile by tile
   over a block of elements.

   program.py writes the program for some rows of a report; no formula stands here. Every vector of the block is widened
   to double once a tile, differences are formed in double, products are summed in double. The slots that a program uses
   at a time fit a processor's first or second cache.

   Nothing here calls Python; kernel.py calls it without the interpreter's lock. */

#include <stdint.h>
#include <string.h>

#define TILE 256
#define LANES 16
#define PARTIAL 4
#define SLOTS 256

enum { F64 = 0, F32 = 1, F16 = 2, BF16 = 3 };
enum { WIDEN = 0, SUBTRACT = 1, DOT = 2 };

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static
#endif

#if defined(__GNUC__) && defined(__x86_64__)
#define DISPATCH 1
#endif

typedef struct {
    int32_t what, to, a, b; /* WIDEN slot <- vector a; SUBTRACT slot <- slot a - slot b; DOT out += <slot a, slot b> */
} instruction;

typedef struct {
    const instruction *program;
    int64_t instructions;
    const void *const *vectors;
    const int32_t *types;
    const double *divisors; /* what each vector is divided by; 1 for most */
    int64_t length;         /* elements of the block */
    double *out; /* PARTIAL sums for each product */
} block;

typedef double tile[TILE];

INLINE float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = (half >> 10) & 31u, mantissa = half & 0x3ffu, bits;
    float value;
    if (exponent == 31) {
        bits = sign | 0x7f800000u | (mantissa << 13);
    } else if (exponent) {
        bits = sign | ((exponent + 112u) << 23) | (mantissa << 13);
    } else { /* zero or subnormal: mantissa * 2^-24, exact in float */
        value = (float)mantissa * 5.9604644775390625e-08f;
        memcpy(&bits, &value, sizeof bits);
        bits |= sign;
    }
    memcpy(&value, &bits, sizeof value);
    return value;
}

INLINE void widen(double *restrict to, const void *from, int32_t type, int64_t start, int64_t count, double divisor) {
    int64_t i;
    if (type == F32) {
        const float *values = (const float *)from + start;
        if (count == TILE) {
            for (i = 0; i < TILE; i++) to[i] = (double)values[i];
        } else {
            for (i = 0; i < count; i++) to[i] = (double)values[i];
        }
    } else if (type == F64) {
        memcpy(to, (const double *)from + start, (size_t)count * sizeof *to);
    } else if (type == BF16) {
        const uint16_t *values = (const uint16_t *)from + start;
        for (i = 0; i < count; i++) {
            uint32_t bits = (uint32_t)values[i] << 16;
            float value;
            memcpy(&value, &bits, sizeof value);
            to[i] = (double)value;
        }
    } else {
        const uint16_t *values = (const uint16_t *)from + start;
        for (i = 0; i < count; i++) to[i] = (double)half_to_float(values[i]);
    }
    for (i = count; i < TILE; i++) to[i] = 0.0; /* the last tile: zeros add nothing */
    if (divisor != 1.0)
        for (i = 0; i < TILE; i++) to[i] /= divisor;
}

INLINE void subtract(double *restrict to, const double *a, const double *b) {
    for (int i = 0; i < TILE; i++) to[i] = a[i] - b[i];
}

/* Four partial sums to a product: adding them up in every tile would cost as much as multiplying. */
INLINE void dot(double *restrict out, const double *a, const double *b) {
    double sums[LANES] = {0};
    for (int i = 0; i < TILE; i += LANES)
        for (int lane = 0; lane < LANES; lane++) sums[lane] += a[i + lane] * b[i + lane];
    for (int lane = 0; lane < PARTIAL; lane++)
        out[lane] += (sums[lane] + sums[lane + 4]) + (sums[lane + 8] + sums[lane + 12]);
}

INLINE void run(const block *work) {
    tile slots[SLOTS] __attribute__((aligned(64)));
    for (int64_t start = 0; start < work->length; start += TILE) {
        const int64_t left = work->length - start, count = left < TILE ? left : TILE;
        for (int64_t k = 0; k < work->instructions; k++) {
            const instruction next = work->program[k];
            if (next.what == DOT) {
                dot(work->out + PARTIAL * next.to, slots[next.a], slots[next.b]);
            } else if (next.what == SUBTRACT) {
                subtract(slots[next.to], slots[next.a], slots[next.b]);
            } else {
                widen(slots[next.to], work->vectors[next.a], work->types[next.a], start, count, work->divisors[next.a]);
            }
        }
    }
}

static void run_anywhere(const block *work) { run(work); }

#ifdef DISPATCH
__attribute__((target("avx2,fma"))) static void run_avx2(const block *work) { run(work); }
__attribute__((target("avx512f,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512"))) static void
run_avx512(const block *work) {
    run(work);
}
#endif

/* Of this interface; kernel.py uses no other. */
int32_t trajcheck_version(void) { return 3; }

/* 2: AVX-512, 1: AVX2 with FMA, 0: neither. */
int32_t trajcheck_level(void) {
#ifdef DISPATCH
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

/* Run a program over one block, adding to `out`, with instructions of at most `level`. Slots are below SLOTS. */
void trajcheck_run(const block *work, int32_t level) {
#ifdef DISPATCH
    if (level >= 2) {
        run_avx512(work);
        return;
    }
    if (level == 1) {
        run_avx2(work);
        return;
    }
#endif
    (void)level;
    run_anywhere(work);
}
