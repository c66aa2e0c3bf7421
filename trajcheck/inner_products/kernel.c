/* The inner loop of the streaming pass: for one block of elements and some rows of a report after the other, the reads
   that fill the block's vectors, and a short program of differences and inner products, run tile by tile over them.

   program.py writes the programs, and says what each instruction makes. Vectors are widened to double, differences
   formed in double, products summed in double. The slots that a program uses at a time fit a processor's
   first or second cache; what is loaded is used for several products at once, which is what the time goes into.

   Nothing here calls Python; loop.py calls it without the interpreter's lock, once for a block. */

#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOT_REGULAR (-1)      /* in the place of an errno: what is to be read is a pipe, a device, a folder */
#define TILE 256              /* elements of a tile */
#define SPAN (8 * TILE)       /* elements that several instructions go through in turn where they keep nothing */
#define SLOT (TILE + 8)       /* doubles from slot to slot: not a power of two, which caches dislike */
#define MOST_LANES 8          /* doubles that a processor multiplies at once, and so sums for each product of a tile */
#define MOST_DIFFERENCES 4    /* in one instruction */
#define MOST_PRODUCTS 12      /* in one instruction */
#define STEP_PRODUCTS 12      /* in STEP */
#define STEP_VECTORS 6        /* that it is made of */
#define TOWARDS_PRODUCTS 4    /* in TOWARDS, for each reference */
#define REPLAYED_PRODUCTS 9   /* in REPLAYED */
#define REPLAYED_TOWARDS_PRODUCTS 3
#define MOST_TOWARDS 2        /* references in one TOWARDS or REPLAYED_TOWARDS */
#define TOWARDS_VECTORS (3 + MOST_TOWARDS)
#define SCRATCH STEP_VECTORS  /* slots for what is not kept */
#define STAGED 2048           /* elements read at a time where they are not kept as they stand in the file */
#define SIZE(type) ((type) == F64 ? 8 : (type) == F32 ? 4 : 2)

enum { F64 = 0, F32 = 1, F16 = 2, BF16 = 3 };
enum { DIFFER = 0, CROSS = 1, REGULARISE = 2, STEP = 3, TOWARDS = 4, REPLAYED = 5, REPLAYED_TOWARDS = 6 };

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 12")

/* The program of some rows, and where its vectors are in memory. */
typedef struct {
    const int32_t *code; /* instructions; a source is a vector's number or ~ a slot's, -1 is "nowhere" */
    int64_t words;
    const void *const *vectors;
    const int32_t *types;
    const double *divisors; /* what each vector is divided by; 1 for most */
    const int32_t *made;    /* where its products are among those of all programs */
    int64_t products;
    int64_t direct; /* how many instructions it has, where all of them keep nothing (STEP and after it); otherwise 0 */
} program;

/* A range of a file, and where it goes: as it stands there, or widened to doubles. */
typedef struct {
    int64_t file; /* a descriptor; or -1: the file `path` is opened for this range alone */
    int64_t path; /* an address, as `to` is */
    int64_t offset, count; /* in bytes; elements */
    int64_t to, type, as;
} range;

/* Programs, and a block that they run over, one after the other. */
typedef struct {
    const program *programs;
    int64_t count;
    const int64_t *reads;   /* how many ranges are read before each program runs */
    const range *ranges;
    const int64_t *borders; /* of the segments: where each begins in the block, and where the last ends */
    int64_t segments;
    const double *decay; /* the factors of REGULARISE: at each level, those of the segments */
    double *memory;      /* trajcheck_memory() doubles */
    double *out;         /* for each segment the products of all programs */
    int64_t outputs;     /* products of all programs */
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

/* Of this interface; loop.py uses no other. */
int32_t trajcheck_version(void) { return 12; }

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

/* Doubles that `block.memory` must hold for programs of so many slots and products: some slots and the sums of a product
   more, for what is not kept, and 7 to begin where a cache line does. */
int64_t trajcheck_memory(int64_t slots, int64_t products) {
    return SLOT * (slots + SCRATCH) + MOST_LANES * (products + 1) + 7;
}

/* Run a program over one block, adding its sums to the block's, with instructions of at most `level`. */
static void run(const program *what, const block *work, int32_t level) {
#ifdef DISPATCH
    if (level >= 2) {
        run_avx512(what, work);
        return;
    }
    if (level == 1) {
        run_avx2(what, work);
        return;
    }
#endif
    (void)level;
    run_anywhere(what, work);
}

/* Read bytes of a file. How many are missing; `error` is why: an errno, or 0 where the file ended early. */
static int64_t read_bytes(int file, char *to, int64_t offset, int64_t left, int32_t *error) {
    while (left > 0) {
        const ssize_t got = pread(file, to, (size_t)left, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            *error = got < 0 ? errno : 0;
            return left;
        }
        to += got, offset += got, left -= got;
    }
    return 0;
}

/* A descriptor of a regular file; below 0 with the `error`. What is none is opened without waiting for it, and closed. */
static int open_regular(const char *path, int32_t *error) {
    const int file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat found;
    if (file < 0) {
        *error = errno == ENXIO ? NOT_REGULAR : errno;
        return -1;
    }
    if (fstat(file, &found) || !S_ISREG(found.st_mode)) {
        *error = NOT_REGULAR;
        close(file);
        return -1;
    }
    return file;
}

static int64_t read_range(const range *what, int32_t *error) {
    const int64_t size = SIZE(what->type);
    char *const to = (char *)(intptr_t)what->to;
    const int file = what->file >= 0 ? (int)what->file : open_regular((const char *)(intptr_t)what->path, error);
    int64_t missing = 0;
    if (file < 0) return size * what->count;
    if (what->type == what->as)
        missing = read_bytes(file, to, what->offset, size * what->count, error);
    else
        for (int64_t done = 0; done < what->count && !missing; done += STAGED) {
            char staged[8 * STAGED];
            const int64_t left = what->count - done, some = left < STAGED ? left : STAGED;
            missing = read_bytes(file, staged, what->offset + size * done, size * some, error);
            if (missing)
                missing += size * (left - some);
            else
                widen_anywhere((double *)to + done, staged, (int32_t)what->type, some, some, 1.0);
        }
    if (what->file < 0) close(file);
    return missing;
}

/* Read and run every program over one block after the other, adding to each `out`. How many blocks were done; where
   that is not all of them, range number `place` of the next could not be read: `missing` bytes were not there, and
   `error` is why: an errno, NOT_REGULAR, or 0 where the file ended early. */
int64_t trajcheck_run(const block *work, int64_t blocks, int32_t level, int64_t *place, int32_t *error, int64_t *missing) {
    for (int64_t done = 0; done < blocks; done++, work++) {
        *place = 0;
        for (int64_t n = 0; n < work->count; n++) {
            for (int64_t left = work->reads[n]; left > 0; left--, ++*place)
                if ((*missing = read_range(work->ranges + *place, error))) return done;
            run(work->programs + n, work, level);
        }
    }
    return blocks;
}
