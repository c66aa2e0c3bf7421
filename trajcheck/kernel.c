/* The inner loop of the streaming pass: a short program of differences and inner products, run tile by tile over a block
   of elements; and the reads that fill the block.

   program.py writes the program for some rows of a report; no formula stands here. Vectors are widened to double,
   differences formed in double, products summed in double. The slots that a program uses at a time fit a processor's
   first or second cache; what is loaded is used for several products at once, which is what the time goes into.

   Nothing here calls Python; kernel.py calls it without the interpreter's lock. */

#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define TILE 256              /* elements of a tile */
#define SLOT (TILE + 8)       /* doubles from slot to slot: not a power of two, which caches dislike */
#define PARTIAL 8             /* sums for each product: as many as a processor multiplies at once */
#define MOST_DIFFERENCES 4    /* in one instruction */
#define MOST_PRODUCTS 12      /* in one instruction */
#define SIZE(type) ((type) == F64 ? 8 : (type) == F32 ? 4 : 2)

enum { F64 = 0, F32 = 1, F16 = 2, BF16 = 3 };
enum { DIFFER = 0, CROSS = 1, REGULARISE = 2 };

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 12")

typedef struct {
    const int32_t *code; /* instructions; a source is a vector's number or ~ a slot's, -1 is "nowhere" */
    int64_t words;
    const void *const *vectors;
    const int32_t *types;
    const double *divisors; /* what each vector is divided by; 1 for most */
    const int64_t *borders; /* of the segments: where each begins in the block, and where the last ends */
    int64_t segments;
    const double *decay; /* the factor of REGULARISE in each segment */
    double *slots;       /* SLOT doubles for each, and one more; 7 to begin where a cache line does */
    double *out;         /* for each segment and product PARTIAL sums */
    int64_t outputs;     /* products */
} block;

#define NAME(x) x##_anywhere
#define LANES 2
#define TARGET
#define DOUBLES(x) __builtin_convertvector(x, VECTOR)
#define WORDS_OF(x) __builtin_convertvector(x, WORDS)
#define KEEP(x) (void)0
#include "kernel_loop.h"

#if defined(__x86_64__)
#define DISPATCH 1
#include <immintrin.h>

/* The compiler would take the conversions apart, and load twice what is used twice. */
#define NAME(x) x##_avx2
#define LANES 4
#define TARGET __attribute__((target("avx2,fma")))
#define DOUBLES(x) ((VECTOR)_mm256_cvtps_pd((__m128)(x)))
#define WORDS_OF(x) ((WORDS)_mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)&(x))))
#define KEEP(x) __asm__("" : "+x"(x))
#include "kernel_loop.h"

#define NAME(x) x##_avx512
#define LANES 8
#define TARGET __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")))
#define DOUBLES(x) ((VECTOR)_mm512_cvtps_pd((__m256)(x)))
#define WORDS_OF(x) ((WORDS)_mm256_cvtepu16_epi32((__m128i)(x)))
#define KEEP(x) __asm__("" : "+v"(x))
#include "kernel_loop.h"
#endif

/* Of this interface; kernel.py uses no other. */
int32_t trajcheck_version(void) { return 5; }

/* 2: AVX-512, 1: AVX2 with FMA, 0: neither. */
int32_t trajcheck_level(void) {
#ifdef DISPATCH
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

/* Doubles that `block.slots` must hold for a program of so many slots. */
int64_t trajcheck_memory(int64_t slots) { return SLOT * (slots + 1) + 7; }

/* Run a program over one block, adding to `out`, with instructions of at most `level`. */
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

/* Read `count` ranges: (file descriptor, offset, bytes, address) each. How many were read; then, where one was not,
   `error` is why: an errno, or 0 where the file ended early, and `missing` how many bytes were not there. */
int64_t trajcheck_read(const int64_t *ranges, int64_t count, int32_t *error, int64_t *missing) {
    for (int64_t n = 0; n < count; n++, ranges += 4) {
        int64_t offset = ranges[1], left = ranges[2];
        char *to = (char *)(intptr_t)ranges[3];
        while (left > 0) {
            const ssize_t got = pread((int)ranges[0], to, (size_t)left, (off_t)offset);
            if (got < 0 && errno == EINTR) continue;
            if (got <= 0) {
                *error = got < 0 ? errno : 0;
                *missing = left;
                return n;
            }
            to += got, offset += got, left -= got;
        }
    }
    return count;
}
