/* Words of 64 bits, in the little-endian order of BLAKE2b. */

#ifndef REDSET_WORDS_H
#define REDSET_WORDS_H

#include <Python.h>
#include <stdint.h>
#include <string.h>

/* Compilers make one load of this. */
static inline uint64_t redset_load(const void *from)
{
    const unsigned char *p = (const unsigned char *)from;
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24
        | (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48
        | (uint64_t)p[7] << 56;
}

/* Load up to 8 bytes, as if zeros followed. */
static inline uint64_t redset_load_few(const void *from, Py_ssize_t size)
{
    const unsigned char *p = (const unsigned char *)from;
    uint64_t word = 0;
    while (size-- > 0)
        word = word << 8 | p[size];
    return word;
}

/* Reverse the bytes: the number compares as the bytes do. */
static inline uint64_t redset_in_order(uint64_t word)
{
    word = word >> 32 | word << 32;
    word = (word >> 16 & 0xffff0000ffffu) | (word & 0xffff0000ffffu) << 16;
    return (word >> 8 & 0xff00ff00ff00ffu) | (word & 0xff00ff00ff00ffu) << 8;
}

static inline void redset_store(void *to, uint64_t word)
{
    unsigned char bytes[8];
    int i;
    for (i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(word >> 8 * i);
    memcpy(to, PY_LITTLE_ENDIAN ? (void *)&word : bytes, 8);
}

/* Mix both halves of a product into one word (https://github.com/wangyi-fudan/wyhash). */
static inline uint64_t redset_mix(uint64_t a, uint64_t b)
{
#ifdef __SIZEOF_INT128__
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else
    uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t low = a0 * b0, mid = a1 * b0 + (low >> 32), other = a0 * b1 + (uint32_t)mid;
    return (other << 32 | (uint32_t)low) ^ (a1 * b1 + (mid >> 32) + (other >> 32));
#endif
}

#endif
