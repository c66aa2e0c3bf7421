/* Sums over float32 tensors in a processor's memory, in one pass: what a step costs is reading its vectors once.

   Differences and the sums of gradients are formed in float32, as torch forms them; products are made and summed in double. A
   function takes tensors as addresses, `count` of them with n[i] elements each; nothing here calls Python, or keeps
   anything. compiled.py calls it, without the interpreter's lock. */

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* So many elements ahead of where a vector is read it is asked for. A processor looks ahead by itself no further than to
   the end of a page of 4 kB, and vectors that lie in no near cache took twice as long. */
#define AHEAD 4096
#define ASK(x, i, n, write) ((i) + AHEAD < (n) ? __builtin_prefetch((x) + (i) + AHEAD, write) : (void)0)

#define FUNCTIONS(SUFFIX, LANES, TARGET, DOUBLES)                                                                     \
    typedef float floats_##SUFFIX __attribute__((vector_size(4 * LANES)));                                            \
    typedef double doubles_##SUFFIX __attribute__((vector_size(8 * LANES)));                                          \
    TARGET INLINE floats_##SUFFIX load_##SUFFIX(const float *from) {                                                  \
        floats_##SUFFIX found;                                                                                        \
        memcpy(&found, from, sizeof found);                                                                           \
        return found;                                                                                                 \
    }                                                                                                                 \
    TARGET INLINE double total_##SUFFIX(doubles_##SUFFIX sums) {                                                      \
        double total = 0;                                                                                             \
        for (int i = 0; i < LANES; i++) total += sums[i];                                                             \
        return total;                                                                                                 \
    }                                                                                                                 \
    TARGET static double squares_##SUFFIX(const float *x, int64_t n) {                                                \
        doubles_##SUFFIX sums[4] = {{0}};                                                                             \
        int64_t i = 0;                                                                                                \
        for (; i + 4 * LANES <= n; i += 4 * LANES) {                                                                  \
            ASK(x, i, n, 0);                                                                                          \
            for (int k = 0; k < 4; k++) {                                                                             \
                doubles_##SUFFIX wide = DOUBLES(load_##SUFFIX(x + i + k * LANES), doubles_##SUFFIX);                  \
                sums[k] += wide * wide;                                                                               \
            }                                                                                                         \
        }                                                                                                             \
        double total = total_##SUFFIX(sums[0] + sums[1] + sums[2] + sums[3]);                                         \
        for (; i < n; i++) total += (double)x[i] * x[i];                                                              \
        return total;                                                                                                 \
    }                                                                                                                 \
    TARGET static void print_##SUFFIX(const float *x, const float *factors, int64_t n, double *out) {                 \
        doubles_##SUFFIX dots[2] = {{0}}, squares[2] = {{0}};                                                         \
        int64_t i = 0;                                                                                                \
        for (; i + 2 * LANES <= n; i += 2 * LANES) {                                                                  \
            ASK(x, i, n, 0);                                                                                          \
            for (int k = 0; k < 2; k++) {                                                                             \
                doubles_##SUFFIX wide = DOUBLES(load_##SUFFIX(x + i + k * LANES), doubles_##SUFFIX);                  \
                dots[k] += wide * DOUBLES(load_##SUFFIX(factors + i + k * LANES), doubles_##SUFFIX);                  \
                squares[k] += wide * wide;                                                                            \
            }                                                                                                         \
        }                                                                                                             \
        out[0] = total_##SUFFIX(dots[0] + dots[1]);                                                                   \
        out[1] = total_##SUFFIX(squares[0] + squares[1]);                                                             \
        for (; i < n; i++) {                                                                                          \
            out[0] += (double)x[i] * factors[i];                                                                      \
            out[1] += (double)x[i] * x[i];                                                                            \
        }                                                                                                             \
    }                                                                                                                 \
    TARGET static double moved_##SUFFIX(const float *x, float *before, int64_t n) {                                   \
        doubles_##SUFFIX sums[4] = {{0}};                                                                             \
        int64_t i = 0;                                                                                                \
        for (; i + 4 * LANES <= n; i += 4 * LANES) {                                                                  \
            ASK(x, i, n, 0);                                                                                          \
            ASK(before, i, n, 1);                                                                                     \
            for (int k = 0; k < 4; k++) {                                                                             \
                floats_##SUFFIX now = load_##SUFFIX(x + i + k * LANES);                                               \
                floats_##SUFFIX moved = now - load_##SUFFIX(before + i + k * LANES);                                  \
                doubles_##SUFFIX wide = DOUBLES(moved, doubles_##SUFFIX);                                             \
                sums[k] += wide * wide;                                                                               \
                memcpy(before + i + k * LANES, &now, sizeof now);                                                     \
            }                                                                                                         \
        }                                                                                                             \
        double total = total_##SUFFIX(sums[0] + sums[1] + sums[2] + sums[3]);                                         \
        for (; i < n; i++) {                                                                                          \
            float moved = x[i] - before[i];                                                                           \
            total += (double)moved * moved;                                                                           \
            before[i] = x[i];                                                                                         \
        }                                                                                                             \
        return total;                                                                                                 \
    }                                                                                                                 \
    TARGET static void window_##SUFFIX(const float *g, const float *x, const float *origin, float *sum, int64_t n,    \
                                       float divisor, double *out) {                                                  \
        doubles_##SUFFIX dots[2] = {{0}}, squares[2] = {{0}};                                                         \
        int64_t i = 0;                                                                                                \
        for (; i + 2 * LANES <= n; i += 2 * LANES) {                                                                  \
            ASK(g, i, n, 0);                                                                                          \
            ASK(x, i, n, 0);                                                                                          \
            ASK(origin, i, n, 0);                                                                                     \
            ASK(sum, i, n, 1);                                                                                        \
            for (int k = 0; k < 2; k++) {                                                                             \
                int64_t at = i + k * LANES;                                                                           \
                floats_##SUFFIX each = load_##SUFFIX(g + at);                                                         \
                if (divisor != 1) each /= divisor;                                                                    \
                floats_##SUFFIX added = load_##SUFFIX(sum + at) + each;                                               \
                memcpy(sum + at, &added, sizeof added);                                                               \
                floats_##SUFFIX moved = load_##SUFFIX(x + at) - load_##SUFFIX(origin + at);                           \
                doubles_##SUFFIX wide = DOUBLES(each, doubles_##SUFFIX);                                              \
                dots[k] += wide * DOUBLES(moved, doubles_##SUFFIX);                                                   \
                squares[k] += wide * wide;                                                                            \
            }                                                                                                         \
        }                                                                                                             \
        double dot = total_##SUFFIX(dots[0] + dots[1]), square = total_##SUFFIX(squares[0] + squares[1]);             \
        for (; i < n; i++) {                                                                                          \
            float each = divisor != 1 ? g[i] / divisor : g[i], moved = x[i] - origin[i];                              \
            sum[i] += each;                                                                                           \
            dot += (double)each * moved;                                                                              \
            square += (double)each * each;                                                                            \
        }                                                                                                             \
        out[0] += dot;                                                                                                \
        out[1] += square;                                                                                             \
    }

#define CONVERTED(x, type) __builtin_convertvector(x, type)
FUNCTIONS(anywhere, 2, , CONVERTED)

#if defined(__x86_64__)
#define DISPATCH 1
#include <immintrin.h>
/* The compiler would take the conversion apart. */
#define WIDENED(x, type) ((type)_mm256_cvtps_pd((__m128)(x)))
FUNCTIONS(avx2, 4, __attribute__((target("avx2,fma"))), WIDENED)
#endif

/* Of this interface; compiled.py uses no other. */
int32_t trajcheck_sums_version(void) { return 3; }

static int avx2(void) {
#ifdef DISPATCH
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

#ifdef DISPATCH
#define CHOSEN(name, ...) (fast ? name##_avx2(__VA_ARGS__) : name##_anywhere(__VA_ARGS__))
#else
#define CHOSEN(name, ...) name##_anywhere(__VA_ARGS__)
#endif

/* The sum of |x|^2. */
double trajcheck_squares(const float *const *x, const int64_t *n, int64_t count) {
    int fast = avx2();
    double total = 0;
    for (int64_t i = 0; i < count; i++) total += CHOSEN(squares, x[i], n[i]);
    (void)fast;
    return total;
}

/* Of each tensor <x, factors>, with the first of them, and |x|^2. */
void trajcheck_prints(const float *const *x, const int64_t *n, int64_t count, const float *factors, double *out) {
    int fast = avx2();
    for (int64_t i = 0; i < count; i++) CHOSEN(print, x[i], factors, n[i], out + 2 * i);
    (void)fast;
}

/* The sum of |x - before|^2; x is what was before from then on. */
double trajcheck_moved(const float *const *x, float *const *before, const int64_t *n, int64_t count) {
    int fast = avx2();
    double total = 0;
    for (int64_t i = 0; i < count; i++) total += CHOSEN(moved, x[i], before[i], n[i]);
    (void)fast;
    return total;
}

/* G += g / divisor; out[0] += <g, x - origin> / divisor, out[1] += |g / divisor|^2. */
void trajcheck_window(const float *const *g, const float *const *x, const float *const *origin, float *const *sum,
                      const int64_t *n, int64_t count, double divisor, double *out) {
    int fast = avx2();
    for (int64_t i = 0; i < count; i++) CHOSEN(window, g[i], x[i], origin[i], sum[i], n[i], (float)divisor, out);
    (void)fast;
}

/* Elements of `width` bytes that lie `step` elements apart, n[i] of them from from[i] on, one after the other in `out`. */
#define GATHER(type)                                                                                                  \
    for (int64_t i = 0; i < count; i++) {                                                                             \
        const type *at = from[i];                                                                                     \
        type *to = (type *)out + done;                                                                                \
        for (int64_t k = 0; k < n[i]; k++) to[k] = at[k * step[i]];                                                   \
        done += n[i];                                                                                                 \
    }

void trajcheck_gather(const void *const *from, const int64_t *step, const int64_t *n, int64_t count, int64_t width,
                      void *out) {
    int64_t done = 0;
    if (width == 8) {
        GATHER(int64_t)
    } else if (width == 4) {
        GATHER(int32_t)
    } else if (width == 2) {
        GATHER(int16_t)
    } else {
        GATHER(int8_t)
    }
}

/* Whether they are, bit by bit, what `known` holds. */
#define COMPARE(type)                                                                                                 \
    for (int64_t i = 0; i < count; i++) {                                                                             \
        const type *at = from[i], *was = (const type *)known + done;                                                  \
        type different = 0;                                                                                           \
        for (int64_t k = 0; k < n[i]; k++) different |= at[k * step[i]] ^ was[k];                                     \
        if (different) return 0;                                                                                      \
        done += n[i];                                                                                                 \
    }

int32_t trajcheck_gathered(const void *const *from, const int64_t *step, const int64_t *n, int64_t count, int64_t width,
                           const void *known) {
    int64_t done = 0;
    if (width == 8) {
        COMPARE(int64_t)
    } else if (width == 4) {
        COMPARE(int32_t)
    } else if (width == 2) {
        COMPARE(int16_t)
    } else {
        COMPARE(int8_t)
    }
    return 1;
}
