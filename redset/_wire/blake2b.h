/* BLAKE2b (RFC 7693): digests of 16 bytes, and keyed ones of 8.

   Theory of operation

   A digest compresses its input block by block. Only the last block is special. So all blocks
   before it are compressed one after another, and the last ones of four inputs together: in the
   lanes of vector registers four take about as long as one.

       redset_put_lane(lanes, 0, ...); ... redset_put_lane(lanes, 3, ...);
       redset_end_lanes(lanes, 4);
       lanes.h[0][i], lanes.h[1][i]  are the digest of lane i

   A lane holds a state, the words of its last block, and the number of bytes before the end of
   that block. Of the states that result only the two words of a digest of 16 bytes are kept.

   A keyed digest compresses its key first. The state after that is kept for all inputs. */

#ifndef REDSET_BLAKE2B_H
#define REDSET_BLAKE2B_H

#include "words.h"

#define REDSET_BLOCK 128
#define REDSET_WORDS 16
#define REDSET_LANES 4
#define REDSET_LAST (~(uint64_t)0)

static const uint64_t redset_iv[8] = {
    0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
    0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u,
};

/* The compression function F, section 3.2. All indices are constants: compilers rarely unroll a
   loop over them. */
#define REDSET_ROTR(x, n) ((x) >> (n) | (x) << (64 - (n)))
#define REDSET_G(a, b, c, d, x, y) do { \
    a += (x); a += b; d = REDSET_ROTR(d ^ a, 32); c += d; b = REDSET_ROTR(b ^ c, 24); \
    a += (y); a += b; d = REDSET_ROTR(d ^ a, 16); c += d; b = REDSET_ROTR(b ^ c, 63); \
} while (0)
#define REDSET_ROUND(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) do { \
    REDSET_G(v0, v4, v8, v12, w[a], w[b]); REDSET_G(v1, v5, v9, v13, w[c], w[d]); \
    REDSET_G(v2, v6, v10, v14, w[e], w[f]); REDSET_G(v3, v7, v11, v15, w[g], w[h]); \
    REDSET_G(v0, v5, v10, v15, w[i], w[j]); REDSET_G(v1, v6, v11, v12, w[k], w[l]); \
    REDSET_G(v2, v7, v8, v13, w[m], w[n]); REDSET_G(v3, v4, v9, v14, w[o], w[p]); \
} while (0)

#define REDSET_ROUNDS do { \
    REDSET_ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); \
    REDSET_ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3); \
    REDSET_ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4); \
    REDSET_ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8); \
    REDSET_ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13); \
    REDSET_ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9); \
    REDSET_ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11); \
    REDSET_ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10); \
    REDSET_ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5); \
    REDSET_ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0); \
    REDSET_ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); \
    REDSET_ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3); \
} while (0)

static void redset_compress(uint64_t *h, const uint64_t *w, uint64_t t, uint64_t last)
{
    uint64_t v0 = h[0], v1 = h[1], v2 = h[2], v3 = h[3];
    uint64_t v4 = h[4], v5 = h[5], v6 = h[6], v7 = h[7];
    uint64_t v8 = redset_iv[0], v9 = redset_iv[1], v10 = redset_iv[2], v11 = redset_iv[3];
    uint64_t v12 = redset_iv[4] ^ t, v13 = redset_iv[5];
    uint64_t v14 = redset_iv[6] ^ last, v15 = redset_iv[7];

    REDSET_ROUNDS;
    h[0] ^= v0 ^ v8; h[1] ^= v1 ^ v9; h[2] ^= v2 ^ v10; h[3] ^= v3 ^ v11;
    h[4] ^= v4 ^ v12; h[5] ^= v5 ^ v13; h[6] ^= v6 ^ v14; h[7] ^= v7 ^ v15;
}

/* One digest. */

static inline void redset_begin(uint64_t *h, uint64_t size, uint64_t key_size)
{
    memcpy(h, redset_iv, 64);
    h[0] ^= (uint64_t)0x01010000 ^ key_size << 8 ^ size;
}

/* Read up to a block into words that are `apart` words apart; zeros follow.

   For so few bytes memset and memcpy cost more than this loop. */
static inline void redset_fill_block(
    uint64_t *block, Py_ssize_t apart, const char *data, Py_ssize_t size)
{
    Py_ssize_t i;
    for (i = 0; i < REDSET_WORDS; i++) {
        if (size >= 8) {
            block[i * apart] = redset_load(data);
            data += 8;
            size -= 8;
        } else if (size) {
            block[i * apart] =
                i ? redset_load(data - 8 + size) >> (64 - 8 * size) : redset_load_few(data, size);
            size = 0;
        } else {
            block[i * apart] = 0;
        }
    }
}

/* Compress the input after `done` bytes, except the last block. Return the bytes done by then.

   At least one byte follows, or the whole input is empty. */
static inline uint64_t redset_reach_end(
    uint64_t *h, uint64_t done, const char **data, Py_ssize_t *size)
{
    uint64_t block[REDSET_WORDS];
    while (*size > REDSET_BLOCK) {
        done += REDSET_BLOCK;
        redset_fill_block(block, 1, *data, REDSET_BLOCK);
        redset_compress(h, block, done, 0);
        *data += REDSET_BLOCK;
        *size -= REDSET_BLOCK;
    }
    return done;
}

static void redset_end(uint64_t *h, uint64_t done, const char *data, Py_ssize_t size)
{
    uint64_t block[REDSET_WORDS];
    done = redset_reach_end(h, done, &data, &size);
    redset_fill_block(block, 1, data, size);
    redset_compress(h, block, done + (uint64_t)size, REDSET_LAST);
}

static inline void redset_store_digest(void *out, uint64_t first, uint64_t second)
{
    redset_store(out, first);
    redset_store((char *)out + 8, second);
}

static void redset_digest(void *out, const char *data, Py_ssize_t size)
{
    uint64_t h[8];
    redset_begin(h, 16, 0);
    redset_end(h, 0, data, size);
    redset_store_digest(out, h[0], h[1]);
}

/* A keyed digest that is begun: the state before and after the block that holds the key. */
typedef struct {
    uint64_t bare[8];
    uint64_t state[8];
    uint64_t block[REDSET_WORDS];
    uint64_t done;
} redset_keyed;

static void redset_begin_keyed(redset_keyed *keyed, const char *key, Py_ssize_t size)
{
    redset_begin(keyed->bare, 8, (uint64_t)size);
    memcpy(keyed->state, keyed->bare, 64);
    redset_fill_block(keyed->block, 1, key, size);
    keyed->done = size ? REDSET_BLOCK : 0;
    if (size)
        redset_compress(keyed->state, keyed->block, REDSET_BLOCK, 0);
}

static int64_t redset_end_keyed(const redset_keyed *keyed, const void *data, Py_ssize_t size)
{
    uint64_t h[8];
    if (size || !keyed->done) {
        memcpy(h, keyed->state, 64);
        redset_end(h, keyed->done, (const char *)data, size);
    } else {
        memcpy(h, keyed->bare, 64);
        redset_compress(h, keyed->block, REDSET_BLOCK, REDSET_LAST);
    }
    return (int64_t)h[0];
}

/* Several digests. */

typedef struct {
    uint64_t h[8][REDSET_LANES];
    uint64_t block[16][REDSET_LANES];
    uint64_t done[REDSET_LANES];
} redset_lanes;

/* Compress the input after `done` bytes, except the last block, which is put into a lane. */
static inline void redset_put_lane(
    redset_lanes *lanes, Py_ssize_t lane, uint64_t *h, uint64_t done, const char *data,
    Py_ssize_t size)
{
    Py_ssize_t i;
    done = redset_reach_end(h, done, &data, &size);
    for (i = 0; i < 8; i++)
        lanes->h[i][lane] = h[i];
    redset_fill_block(&lanes->block[0][lane], REDSET_LANES, data, size);
    lanes->done[lane] = done + (uint64_t)size;
}

static inline void redset_put_digest(
    redset_lanes *lanes, Py_ssize_t lane, const char *data, Py_ssize_t size)
{
    uint64_t h[8];
    redset_begin(h, 16, 0);
    redset_put_lane(lanes, lane, h, 0, data, size);
}

static inline void redset_put_keyed(
    redset_lanes *lanes, Py_ssize_t lane, const redset_keyed *keyed, const char *data,
    Py_ssize_t size)
{
    uint64_t h[8];
    memcpy(h, keyed->state, 64);
    redset_put_lane(lanes, lane, h, keyed->done, data, size);
}

#if defined(__GNUC__) && defined(__x86_64__)
#define REDSET_VECTORS 1
#include <immintrin.h>
typedef uint64_t redset_v __attribute__((vector_size(32)));
/* The same in memory, with any alignment of words. */
typedef uint64_t redset_u __attribute__((vector_size(32), aligned(8), may_alias));
#define REDSET_ALL(word) ((redset_v){(word), (word), (word), (word)})

#define REDSET_END_VECTORS(lanes) do { \
    redset_u *h = (redset_u *)(lanes)->h; \
    const redset_u *w = (const redset_u *)(lanes)->block; \
    redset_v v0 = h[0], v1 = h[1], v2 = h[2], v3 = h[3]; \
    redset_v v4 = h[4], v5 = h[5], v6 = h[6], v7 = h[7]; \
    redset_v v8 = REDSET_ALL(redset_iv[0]), v9 = REDSET_ALL(redset_iv[1]); \
    redset_v v10 = REDSET_ALL(redset_iv[2]), v11 = REDSET_ALL(redset_iv[3]); \
    redset_v v12 = REDSET_ALL(redset_iv[4]) ^ *(const redset_u *)(lanes)->done; \
    redset_v v13 = REDSET_ALL(redset_iv[5]); \
    redset_v v14 = REDSET_ALL(~redset_iv[6]), v15 = REDSET_ALL(redset_iv[7]); \
    REDSET_ROUNDS; \
    h[0] ^= v0 ^ v8; \
    h[1] ^= v1 ^ v9; \
} while (0)

__attribute__((target("avx512f,avx512vl"))) static void redset_end_avx512(redset_lanes *lanes)
{
    REDSET_END_VECTORS(lanes);
}

/* AVX2 has no instruction that rotates; one that moves bytes serves for three of the four. */
#undef REDSET_ROTR
#define REDSET_ROTR(x, n) REDSET_ROTR_##n(x)
#define REDSET_ROTR_32(x) ((redset_v)_mm256_shuffle_epi32((__m256i)(x), 0xb1))
#define REDSET_ROTR_24(x) ((redset_v)_mm256_shuffle_epi8((__m256i)(x), by24))
#define REDSET_ROTR_16(x) ((redset_v)_mm256_shuffle_epi8((__m256i)(x), by16))
#define REDSET_ROTR_63(x) ((x) >> 63 ^ ((x) + (x)))

__attribute__((target("avx2"))) static void redset_end_avx2(redset_lanes *lanes)
{
    const __m256i by24 = _mm256_setr_epi8(
        3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10,
        3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10);
    const __m256i by16 = _mm256_setr_epi8(
        2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9,
        2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9);
    REDSET_END_VECTORS(lanes);
}

/* Compress the last blocks of all lanes, if the processor can. Return whether it did. */
static int redset_end_vectors(redset_lanes *lanes, Py_ssize_t count)
{
    Py_ssize_t i, j;
    int wide = __builtin_cpu_supports("avx512vl") ? 2 : __builtin_cpu_supports("avx2") ? 1 : 0;
    if (!wide)
        return 0;
    /* The values of the other lanes do not matter, but they must have some. */
    for (i = count; i < REDSET_LANES; i++) {
        for (j = 0; j < 8; j++)
            lanes->h[j][i] = 0;
        for (j = 0; j < 16; j++)
            lanes->block[j][i] = 0;
        lanes->done[i] = 0;
    }
    if (wide == 2)
        redset_end_avx512(lanes);
    else
        redset_end_avx2(lanes);
    return 1;
}
#endif

/* End the digests of the first lanes: their first two words are in `h`. */
static void redset_end_lanes(redset_lanes *lanes, Py_ssize_t count)
{
    Py_ssize_t i, j;
    uint64_t h[8], block[16];
#ifdef REDSET_VECTORS
    if (count > 1 && redset_end_vectors(lanes, count))
        return;
#endif
    for (i = 0; i < count; i++) {
        for (j = 0; j < 8; j++)
            h[j] = lanes->h[j][i];
        for (j = 0; j < 16; j++)
            block[j] = lanes->block[j][i];
        redset_compress(h, block, lanes->done[i], REDSET_LAST);
        lanes->h[0][i] = h[0];
        lanes->h[1][i] = h[1];
    }
}

#endif
