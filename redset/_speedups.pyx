# cython: language_level=3, freethreading_compatible=True, auto_pickle=False, cdivision=True
"""The wire format compiled: the names, bytes and errors of ``_wire/fallback.py``, its specification.

What is rare (subclasses, foreign types, errors) is left to the fallback's own functions, so that
it cannot differ. What is frequent works on views, pointers into objects that are held meanwhile:
extraction has the GIL, digests, folding, sorting and copying have not.

There are no comprehensions of lists here: those of Cython 3.3 free an element twice where there is
no memory for the list to grow. Nor is there a return in an except clause: it takes for granted that
there was memory for a traceback.
"""

from collections.abc import Mapping
from types import MethodType

cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.dict cimport PyDict_Next
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.object cimport Py_TYPE, PyObject
from cpython.pythread cimport (
    NOWAIT_LOCK,
    WAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    PyThread_type_lock,
)
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.unicode cimport (
    PyUnicode_AsUTF8AndSize,
    PyUnicode_AsUTF8String,
    PyUnicode_CheckExact,
    PyUnicode_DecodeUTF8,
)
from libc.math cimport INFINITY
from libc.stdint cimport UINT32_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from redset._wire import fallback as _python
from redset import serializers as _serializers
from redset._wire.fallback import Bad, Chunk

IMPLEMENTATION = "cython"

FOLD_NONE, FOLD_FIRST, FOLD_LAST = 0, 1, 2
MEMORY_NONE, MEMORY_INTEGER, MEMORY_DIGEST = 0, 1, 2

_new_tuple = tuple.__new__
_JSON_OPTIONS = getattr(_serializers, "_OPTIONS", None)
cdef int JSON_DEPTH = _serializers._DUMPS_DEPTH
_OWN_METHODS = {name: vars(_serializers.JSONSerializer)[name] for name in ("dumps", "loads")}

cdef enum:
    LAST = 2  # FOLD_LAST
    INTEGER = 1  # MEMORY_INTEGER
    # Below so many entries (or digests) letting the GIL go costs more than it gives.
    MANY = 32

cdef extern from *:
    """
    #define REDSET_IS_ASCII(text) PyUnicode_IS_COMPACT_ASCII(text)

    /* 1 and a new reference, 0 where the key is missing, -1 with an exception. */
    static int redset_lookup(PyObject *dict, PyObject *key, PyObject **value)
    {
    #if PY_VERSION_HEX >= 0x030D0000
        return PyDict_GetItemRef(dict, key, value);
    #else
        *value = PyDict_GetItemWithError(dict, key);
        if (*value == NULL)
            return PyErr_Occurred() ? -1 : 0;
        Py_INCREF(*value);
        return 1;
    #endif
    }

    static inline uint64_t redset_load(const void *from)
    {
        const unsigned char *p = (const unsigned char *)from;
        return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24
            | (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48
            | (uint64_t)p[7] << 56;
    }

    /* Up to 8 bytes, as if zeros followed. */
    static inline uint64_t redset_load_few(const void *from, Py_ssize_t size)
    {
        const unsigned char *p = (const unsigned char *)from;
        uint64_t word = 0;
        while (size-- > 0)
            word = word << 8 | p[size];
        return word;
    }

    /* As a number that is ordered as the bytes are. */
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

    /* BLAKE2b (RFC 7693): the compression function F, section 3.2. All indices are
       constants: what a loop over them costs, compilers rarely win back. */
    static const uint64_t redset_iv[8] = {
        0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
        0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u,
    };

    #define REDSET_ROTR(x, n) ((x) >> (n) | (x) << (64 - (n)))
    #define REDSET_G(a, b, c, d, x, y) do { \\
        a += (x); a += b; d = REDSET_ROTR(d ^ a, 32); c += d; b = REDSET_ROTR(b ^ c, 24); \\
        a += (y); a += b; d = REDSET_ROTR(d ^ a, 16); c += d; b = REDSET_ROTR(b ^ c, 63); \\
    } while (0)
    #define REDSET_ROUND(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) do { \\
        REDSET_G(v0, v4, v8, v12, w[a], w[b]); REDSET_G(v1, v5, v9, v13, w[c], w[d]); \\
        REDSET_G(v2, v6, v10, v14, w[e], w[f]); REDSET_G(v3, v7, v11, v15, w[g], w[h]); \\
        REDSET_G(v0, v5, v10, v15, w[i], w[j]); REDSET_G(v1, v6, v11, v12, w[k], w[l]); \\
        REDSET_G(v2, v7, v8, v13, w[m], w[n]); REDSET_G(v3, v4, v9, v14, w[o], w[p]); \\
    } while (0)

    #define REDSET_ROUNDS do { \\
        REDSET_ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); \\
        REDSET_ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3); \\
        REDSET_ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4); \\
        REDSET_ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8); \\
        REDSET_ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13); \\
        REDSET_ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9); \\
        REDSET_ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11); \\
        REDSET_ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10); \\
        REDSET_ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5); \\
        REDSET_ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0); \\
        REDSET_ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); \\
        REDSET_ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3); \\
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

    /* The last block of each of four digests: state, words and bytes done of each lane. Four in
       the lanes of vector registers take about as long as one, where the processor has them. Of
       the states that come of it only what a digest of 16 bytes needs is kept: two words. */
    #define REDSET_LANES 4
    typedef struct {
        uint64_t h[8][REDSET_LANES];
        uint64_t block[16][REDSET_LANES];
        uint64_t done[REDSET_LANES];
    } redset_lanes;

    #if defined(__GNUC__) && defined(__x86_64__)
    #define REDSET_VECTORS 1
    #include <immintrin.h>
    typedef uint64_t redset_v __attribute__((vector_size(32)));
    /* The same in memory, wherever it stands. */
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

    /* Without an instruction that rotates, one that moves bytes serves for three of the four. */
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
    #endif

    static void redset_end_lanes(redset_lanes *lanes, Py_ssize_t count)
    {
        Py_ssize_t i, j;
        uint64_t h[8], block[16];
    #ifdef REDSET_VECTORS
        int wide = __builtin_cpu_supports("avx512vl") ? 2 : __builtin_cpu_supports("avx2") ? 1 : 0;
        if (count > 1 && wide) {
            /* What is in the other lanes does not matter, but that it is something. */
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
            return;
        }
    #endif
        for (i = 0; i < count; i++) {
            for (j = 0; j < 8; j++)
                h[j] = lanes->h[j][i];
            for (j = 0; j < 16; j++)
                block[j] = lanes->block[j][i];
            redset_compress(h, block, lanes->done[i], ~(uint64_t)0);
            lanes->h[0][i] = h[0];
            lanes->h[1][i] = h[1];
        }
    }

    /* The one workspace that is kept for the next chunk, whichever thread encodes it. */
    static void *redset_kept_work = NULL;
    #ifdef _MSC_VER
    #include <intrin.h>
    #define REDSET_EXCHANGE(with) _InterlockedExchangePointer(&redset_kept_work, (with))
    #else
    #define REDSET_EXCHANGE(with) \
        __atomic_exchange_n(&redset_kept_work, (with), __ATOMIC_ACQ_REL)
    #endif

    #ifdef __GNUC__
    #define REDSET_PREFETCH(address) __builtin_prefetch(address)
    #else
    #define REDSET_PREFETCH(address) ((void)(address))
    #endif

    static int redset_holds_null(const char *text, Py_ssize_t size)
    {
        unsigned char found = 0;
        Py_ssize_t i;
        for (i = 0; i + 3 < size; i++)
            found |= (text[i] == 'n') & (text[i + 1] == 'u') & (text[i + 2] == 'l')
                & (text[i + 3] == 'l');
        return found;
    }

    /* Both halves of a product in one word; see wyhash (https://github.com/wangyi-fudan/wyhash). */
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

    /* Split a number that is not whole into digits and how many of them follow the point: the
       fewest that give it back, as repr() has them. 0 where this way cannot say.
       number = m * 2**-e; the digits d fit if |d * 2**e - m * 10**places| < 10**places / 2. */
    static int redset_decimal(double number, uint64_t *digits, uint64_t *power)
    {
    #ifdef __SIZEOF_INT128__
        uint64_t bits, m;
        int e, places;
        memcpy(&bits, &number, 8);
        m = bits & 0xfffffffffffffu;
        e = 1075 - (int)(bits >> 52 & 0x7ff);
        /* Below a power of two the neighbours are closer; below 1e-4 repr has an exponent. */
        if (m == 0 || e < 1 || e > 66 || (number < 1e-4 && number > -1e-4))
            return 0;
        m |= (uint64_t)1 << 52;
        *power = 1;
        for (places = 1; places <= 19; places++) {
            unsigned __int128 product, rest, unit = (unsigned __int128)1 << e;
            *power *= 10;
            product = (unsigned __int128)m * *power;
            rest = product & (unit - 1);
            *digits = (uint64_t)(product >> e);
            if (rest == unit >> 1)
                return 0;
            if (rest > unit >> 1) {
                rest = unit - rest;
                ++*digits;
            }
            if (2 * rest == *power)
                return 0;
            if (2 * rest < *power)
                return places;
        }
    #endif
        return 0;
    }
    """
    bint is_ascii "REDSET_IS_ASCII"(object text)
    void* exchange_kept "REDSET_EXCHANGE"(void* work) noexcept
    int lookup "redset_lookup"(object dict, object key, PyObject** value) except -1
    uint64_t load "redset_load"(const void*) noexcept nogil
    uint64_t load_few "redset_load_few"(const void*, Py_ssize_t size) noexcept nogil
    uint64_t in_order "redset_in_order"(uint64_t) noexcept nogil
    void store "redset_store"(void*, uint64_t) noexcept nogil
    const uint64_t* IV "redset_iv"
    void compress "redset_compress"(
        uint64_t* h, const uint64_t* block, uint64_t t, uint64_t last) noexcept nogil
    ctypedef struct Lanes "redset_lanes":
        uint64_t h[8][4]
        uint64_t block[16][4]
        uint64_t done[4]
    void end_lanes "redset_end_lanes"(Lanes*, Py_ssize_t count) noexcept nogil
    void prefetch "REDSET_PREFETCH"(const void*) noexcept nogil
    bint holds_null "redset_holds_null"(const char*, Py_ssize_t) noexcept nogil
    uint64_t mix "redset_mix"(uint64_t, uint64_t) noexcept nogil
    int decimal "redset_decimal"(
        double number, uint64_t* digits, uint64_t* power) noexcept nogil

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    int Py_DTSF_ADD_DOT_0
    char* PyOS_double_to_string(double, char, int, int, int*) except NULL
    void PyMem_Free(void*)
    int PyLong_CheckExact(object)
    long long PyLong_AsLongLongAndOverflow(object, int* overflow) except? -1

# Bytes inside of an object that is held as long as the view.
cdef struct View:
    const char* data
    Py_ssize_t size
    PyObject* owner


# --- BLAKE2b

cdef enum:
    BLOCK = 128
    WORDS = 16
    LANES = 4  # REDSET_LANES

# A keyed digest, begun: the state before and after the block that holds the key.
cdef struct Keyed:
    uint64_t bare[8]
    uint64_t state[8]
    uint64_t block[WORDS]
    uint64_t done


cdef inline void begin_digest(uint64_t* h, uint64_t size, uint64_t key_size) noexcept nogil:
    memcpy(h, IV, 64)
    h[0] ^= <uint64_t> 0x01010000 ^ key_size << 8 ^ size


cdef inline void fill_block(
    uint64_t* block, Py_ssize_t apart, const char* data, Py_ssize_t size
) noexcept nogil:
    """Read up to a block, into words so far apart; zeros follow."""
    # By words: for so few bytes memset and memcpy cost more than the loop.
    cdef Py_ssize_t i
    for i in range(WORDS):
        if size >= 8:
            block[i * apart] = load(data)
            data += 8
            size -= 8
        elif size:
            block[i * apart] = (
                load(data - 8 + size) >> 64 - 8 * size if i else load_few(data, size)
            )
            size = 0
        else:
            block[i * apart] = 0


cdef inline uint64_t reach_end(
    uint64_t* h, uint64_t done, const char** data, Py_ssize_t* size
) noexcept nogil:
    """Digest what follows `done` bytes, but for the last block, and give how many there are then.

    At least one follows, or there are none at all.
    """
    cdef uint64_t block[WORDS]
    while size[0] > BLOCK:
        done += BLOCK
        fill_block(block, 1, data[0], BLOCK)
        compress(h, block, done, 0)
        data[0] += BLOCK
        size[0] -= BLOCK
    return done


cdef void end_digest(
    uint64_t* h, uint64_t done, const char* data, Py_ssize_t size
) noexcept nogil:
    """Digest what follows `done` bytes, as `reach_end` has it."""
    cdef uint64_t block[WORDS]
    done = reach_end(h, done, &data, &size)
    fill_block(block, 1, data, size)
    compress(h, block, done + <uint64_t> size, ~(<uint64_t> 0))


cdef inline void store_digest(void* out, uint64_t first, uint64_t second) noexcept nogil:
    store(out, first)
    store(<char*> out + 8, second)


cdef void digest_of(void* out, const char* data, Py_ssize_t size) noexcept nogil:
    cdef uint64_t h[8]
    begin_digest(h, 16, 0)
    end_digest(h, 0, data, size)
    store_digest(out, h[0], h[1])


cdef inline void put_lane(
    Lanes* lanes, Py_ssize_t lane, uint64_t* h, uint64_t done, const char* data, Py_ssize_t size
) noexcept nogil:
    """Let a lane digest what follows `done` bytes, as `reach_end` has it."""
    cdef Py_ssize_t i
    done = reach_end(h, done, &data, &size)
    for i in range(8):
        lanes.h[i][lane] = h[i]
    fill_block(&lanes.block[0][lane], LANES, data, size)
    lanes.done[lane] = done + <uint64_t> size


cdef inline void add_lane(
    Lanes* lanes, Py_ssize_t lane, const char* data, Py_ssize_t size
) noexcept nogil:
    """Digest in a lane, to 16 bytes."""
    cdef uint64_t h[8]
    begin_digest(h, 16, 0)
    put_lane(lanes, lane, h, 0, data, size)


cdef void begin_keyed(Keyed* keyed, const char* key, Py_ssize_t size) noexcept nogil:
    begin_digest(keyed.bare, 8, size)
    memcpy(keyed.state, keyed.bare, 64)
    fill_block(keyed.block, 1, key, size)
    keyed.done = BLOCK if size else 0
    if size:
        compress(keyed.state, keyed.block, BLOCK, 0)


cdef int64_t end_keyed(const Keyed* keyed, const void* data, Py_ssize_t size) noexcept nogil:
    cdef uint64_t h[8]
    if size or not keyed.done:
        memcpy(h, keyed.state, 64)
        end_digest(h, keyed.done, <const char*> data, size)
    else:
        memcpy(h, keyed.bare, 64)
        compress(h, keyed.block, BLOCK, ~(<uint64_t> 0))
    return <int64_t> h[0]


# --- RESP, written to where there is room

cdef const char* PAIRS = (
    b"00010203040506070809101112131415161718192021222324"
    b"25262728293031323334353637383940414243444546474849"
    b"50515253545556575859606162636465666768697071727374"
    b"75767778798081828384858687888990919293949596979899"
)

cdef enum:
    NUMBER = 20  # the digits of 2**64 - 1, and of -2**63 with its sign
    SCORE = 24  # -1.7976931348623157e+308


cdef inline int width_of(uint64_t number) noexcept nogil:
    cdef int width = 1
    while number >= 10000:
        number = number // 10000
        width += 4
    return width + (number >= 10) + (number >= 100) + (number >= 1000)


cdef inline char* put_number(char* out, uint64_t number) noexcept nogil:
    cdef char* end = out + width_of(number)
    cdef char* at = end
    while number >= 100:
        at -= 2
        memcpy(at, PAIRS + 2 * (number % 100), 2)
        number = number // 100
    if number >= 10:
        memcpy(at - 2, PAIRS + 2 * number, 2)
    else:
        at[-1] = <char> (48 + number)
    return end


cdef inline char* put_signed(char* out, int64_t number) noexcept nogil:
    if number >= 0:
        return put_number(out, <uint64_t> number)
    out[0] = c"-"
    return put_number(out + 1, <uint64_t> 0 - <uint64_t> number)


cdef inline char* put_head(char* out, char kind, Py_ssize_t number) noexcept nogil:
    out[0] = kind
    out = put_number(out + 1, number)
    out[0] = c"\r"
    out[1] = c"\n"
    return out + 2


cdef inline char* put_bulk(char* out, const void* data, Py_ssize_t size) noexcept nogil:
    out = put_head(out, c"$", size)
    memcpy(out, data, size)
    out += size
    out[0] = c"\r"
    out[1] = c"\n"
    return out + 2


cdef inline Py_ssize_t head_size(Py_ssize_t number) noexcept nogil:
    return 3 + width_of(number)


cdef inline uint64_t bulk_size(Py_ssize_t size) noexcept nogil:
    return <uint64_t> size + width_of(size) + 5


cdef int put_score(char* out, double score) noexcept nogil:
    """Write a score to `SCORE` bytes and give how many; 0 where it takes Python to write it."""
    cdef uint64_t digits, power
    cdef int64_t whole
    cdef int places, i
    cdef char* at
    if not -9007199254740992.0 < score < 9007199254740992.0:
        return 0
    whole = <int64_t> score
    if score == <double> whole:
        return <int> (put_signed(out, whole) - out)
    places = decimal(score, &digits, &power)
    if places == 0:
        return 0
    at = out
    if score < 0:
        at[0] = c"-"
        at += 1
    at = put_number(at, digits // power)
    at[0] = c"."
    digits = digits % power
    for i in range(places, 0, -1):
        at[i] = <char> (48 + digits % 10)
        digits = digits // 10
    return <int> (at + 1 + places - out)


cdef int put_any_score(char* out, double score) except -1:
    cdef int size = put_score(out, score)
    cdef char* text
    if size:
        return size
    text = PyOS_double_to_string(score, c"r", 0, Py_DTSF_ADD_DOT_0, NULL)
    while text[size] and size < SCORE:
        out[size] = text[size]
        size += 1
    PyMem_Free(text)
    return size


# A request that grows; short ones never touch the heap.
cdef struct Buffer:
    char* data
    Py_ssize_t size
    Py_ssize_t capacity
    char inside[512]


cdef inline void begin(Buffer* buffer) noexcept:
    buffer.data = buffer.inside
    buffer.size = 0
    buffer.capacity = sizeof(buffer.inside)


cdef inline void end(Buffer* buffer) noexcept:
    if buffer.data != buffer.inside:
        PyMem_RawFree(buffer.data)


cdef char* room(Buffer* buffer, Py_ssize_t size) except NULL:
    """Make room for `size` more bytes."""
    cdef Py_ssize_t capacity
    cdef char* data
    if size > buffer.capacity - buffer.size:
        if size > PY_SSIZE_T_MAX // 2 - buffer.size:
            raise MemoryError
        capacity = 2 * (buffer.size + size)
        if buffer.data == buffer.inside:
            data = <char*> PyMem_RawMalloc(capacity)
            if data != NULL:
                memcpy(data, buffer.data, buffer.size)
        else:
            data = <char*> PyMem_RawRealloc(buffer.data, capacity)
        if data == NULL:
            raise MemoryError
        buffer.data = data
        buffer.capacity = capacity
    return buffer.data + buffer.size


cdef int write_bulk(Buffer* buffer, const char* data, Py_ssize_t size) except -1:
    if size > PY_SSIZE_T_MAX - 64:
        raise MemoryError
    buffer.size = put_bulk(room(buffer, size + 64), data, size) - buffer.data
    return 0


cdef int write_argument(Buffer* buffer, object argument) except -1:
    cdef char digits[NUMBER]
    cdef const char* data
    cdef Py_ssize_t size
    cdef long long number
    cdef int overflow
    if PyBytes_CheckExact(argument):
        return write_bulk(buffer, PyBytes_AS_STRING(argument), PyBytes_GET_SIZE(argument))
    if PyUnicode_CheckExact(argument) and is_ascii(argument):
        data = PyUnicode_AsUTF8AndSize(argument, &size)
        return write_bulk(buffer, data, size)
    if PyLong_CheckExact(argument):
        number = PyLong_AsLongLongAndOverflow(argument, &overflow)
        if not overflow:
            return write_bulk(buffer, digits, put_signed(digits, number) - digits)
    written = _python.bulk((argument,))
    size = PyBytes_GET_SIZE(written)
    memcpy(room(buffer, size), PyBytes_AS_STRING(written), size)
    buffer.size += size
    return 0


def encode(arguments):
    """Encode one command as a RESP array of bulk strings."""
    cdef Buffer buffer
    cdef Py_ssize_t count = len(arguments)
    begin(&buffer)
    try:
        buffer.size = put_head(buffer.data, c"*", count) - buffer.data
        for argument in arguments:
            write_argument(&buffer, argument)
        return PyBytes_FromStringAndSize(buffer.data, buffer.size)
    finally:
        end(&buffer)


def bulk(arguments):
    """Encode arguments as RESP bulk strings, without the array's head."""
    cdef Buffer buffer
    begin(&buffer)
    try:
        for argument in arguments:
            write_argument(&buffer, argument)
        return PyBytes_FromStringAndSize(buffer.data, buffer.size)
    finally:
        end(&buffer)


cdef Py_ssize_t read_head(const char** at, const char* end) noexcept:
    """Read the number after a byte; -1 where it is not plainly one."""
    cdef const char* here = at[0] + 1
    cdef Py_ssize_t number = 0
    cdef int digits = 0
    while here < end and 48 <= here[0] <= 57 and digits < 9:
        number = 10 * number + (here[0] - 48)
        here += 1
        digits += 1
    if digits == 0 or end - here < 2 or here[0] != c"\r" or here[1] != c"\n":
        return -1
    at[0] = here + 2
    return number


def split(data):
    """Take a request of one or more commands apart into the arguments of each."""
    cdef const char* at
    cdef const char* end
    cdef Py_ssize_t count, size
    cdef list commands = [], arguments
    if not PyBytes_CheckExact(data):
        return _python.split(data)
    at = PyBytes_AS_STRING(data)
    end = at + PyBytes_GET_SIZE(data)
    while at < end:
        arguments = []
        count = read_head(&at, end)
        if count < 0:
            return _python.split(data)
        while count:
            if at >= end:
                return _python.split(data)
            size = read_head(&at, end)
            if size < 0 or size > end - at - 2:
                return _python.split(data)
            arguments.append(PyBytes_FromStringAndSize(at, size))
            at += size + 2
            count -= 1
        commands.append(arguments)
    return commands


# --- Scores

cdef double to_double(object value, bint timed) except? -1.0:
    cdef double score
    cdef long long number
    cdef int overflow
    if PyFloat_CheckExact(value):
        score = PyFloat_AS_DOUBLE(value)
        if score == score:
            return score
    elif PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if not overflow:
            return <double> number
    return _python.to_score(value, timed)


def to_score(value, bint timed=False):
    """Return a score as a float; TypeError or ValueError name what is wrong with it."""
    return to_double(value, timed)


def whole_score(score):
    """Return a score that a set with ties= can have; any other is a ValueError that says so."""
    return _python.whole_score(score)


def score_text(score):
    """Write a score with the fewest digits that give it back."""
    cdef char text[SCORE]
    if not PyFloat_CheckExact(score):
        return _python.score_text(score)
    return PyBytes_FromStringAndSize(text, put_any_score(text, PyFloat_AS_DOUBLE(score)))


cdef double scored(object item, object scorer, bint timed) except? -1.0:
    if isinstance(scorer, str):
        return to_double(read_field(item, scorer, "score"), timed)
    return to_double(scorer(item), timed)


def score_of(item, scorer, bint timed=False):
    """Score an item: by a constant, the field of that name, or a callable."""
    if isinstance(scorer, float):
        return scorer
    return scored(item, scorer, timed)


# --- Digests

def digest(data):
    """BLAKE2b with 16 bytes of output (RFC 7693)."""
    if not PyBytes_CheckExact(data):
        return _python.digest(data)
    result = PyBytes_FromStringAndSize(NULL, 16)
    digest_of(PyBytes_AS_STRING(result), PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return result


def digests(values):
    """Digest each value."""
    cdef tuple owners
    cdef list results = []
    cdef View* views
    cdef char** places
    cdef Lanes lanes
    cdef Py_ssize_t i, j, count, some
    if type(values) is not list and type(values) is not tuple or len(values) < MANY:
        return each_digest(values)
    # A copy: it holds the values while nobody holds the GIL.
    owners = tuple(values)
    count = len(owners)
    views = <View*> PyMem_RawMalloc(count * (sizeof(View) + sizeof(char*)))
    if views == NULL:
        raise MemoryError
    places = <char**> (views + count)
    try:
        for i in range(count):
            value = owners[i]
            if not PyBytes_CheckExact(value):
                return each_digest(owners)
            views[i].data = PyBytes_AS_STRING(value)
            views[i].size = PyBytes_GET_SIZE(value)
            result = PyBytes_FromStringAndSize(NULL, 16)
            places[i] = PyBytes_AS_STRING(result)
            results.append(result)
        i = 0
        with nogil:
            while i < count:
                some = min(LANES, count - i)
                for j in range(some):
                    add_lane(&lanes, j, views[i + j].data, views[i + j].size)
                end_lanes(&lanes, some)
                for j in range(some):
                    store_digest(places[i + j], lanes.h[0][j], lanes.h[1][j])
                i += LANES
        return results
    finally:
        PyMem_RawFree(views)


cdef list each_digest(object values):
    cdef list results = []
    for value in values:
        results.append(digest(value))
    return results


def memory_integer(identity, epoch):
    """Write the 64 bits by which a digest is remembered: a keyed BLAKE2b, as a signed decimal."""
    cdef Keyed keyed
    if not PyBytes_CheckExact(epoch) or PyBytes_GET_SIZE(epoch) > 64:
        return _python.memory_integer(identity, epoch)
    begin_keyed(&keyed, PyBytes_AS_STRING(epoch), PyBytes_GET_SIZE(epoch))
    return remembered(&keyed, identity, epoch)


def memory_integers(identities, epoch):
    """Write the memory's integer of each digest."""
    cdef Keyed keyed
    cdef list results = []
    if not PyBytes_CheckExact(epoch) or PyBytes_GET_SIZE(epoch) > 64:
        return _python.memory_integers(identities, epoch)
    begin_keyed(&keyed, PyBytes_AS_STRING(epoch), PyBytes_GET_SIZE(epoch))
    for identity in identities:
        results.append(remembered(&keyed, identity, epoch))
    return results


cdef object remembered(const Keyed* keyed, object identity, object epoch):
    cdef char text[NUMBER]
    cdef int64_t number
    if not PyBytes_CheckExact(identity):
        return _python.memory_integer(identity, epoch)
    number = end_keyed(keyed, PyBytes_AS_STRING(identity), PyBytes_GET_SIZE(identity))
    return PyBytes_FromStringAndSize(text, put_signed(text, number) - text)


# --- What an item is made of

cdef inline void view(View* out, object owner, const char* data, Py_ssize_t size) noexcept:
    Py_INCREF(owner)
    out.owner = <PyObject*> owner
    out.data = data
    out.size = size


cdef inline void leave(View* out) noexcept:
    cdef PyObject* owner = out.owner
    out.owner = NULL
    Py_XDECREF(owner)


cdef int view_bytes(View* out, object data) except -1:
    if not PyBytes_CheckExact(data):
        if not isinstance(data, bytes):
            raise TypeError(f"bytes expected, not {type(data).__name__}")
        data = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    view(out, data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return 0


cdef int view_text(View* out, object text) except -1:
    cdef const char* data
    cdef Py_ssize_t size
    if not PyUnicode_CheckExact(text):
        return view_bytes(out, text.encode())
    if is_ascii(text):
        data = PyUnicode_AsUTF8AndSize(text, &size)
        view(out, text, data, size)
        return 0
    # Not PyUnicode_AsUTF8AndSize: the text would keep its UTF-8 as long as it lives.
    return view_bytes(out, PyUnicode_AsUTF8String(text))


cdef object direct(object bound, str name):
    """The function of orjson behind a method of JSONSerializer; None behind anything else."""
    if not _serializers._USE_ORJSON or type(bound) is not MethodType:
        return None
    if bound.__func__ is not _OWN_METHODS[name]:
        return None
    return _serializers._orjson_dumps if name == "dumps" else _serializers._orjson_loads


cdef object dumps_directly(object item, object dumps, object write):
    """Do what JSONSerializer.dumps does for items that need no second look; those go to itself."""
    if not is_shallow(item, JSON_DEPTH):
        return dumps(item)
    data = write(item, None, _JSON_OPTIONS)
    if not PyBytes_CheckExact(data):
        return data
    if holds_null(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)):
        return dumps(item)
    return data


cdef inline bint is_plain(object value) noexcept:
    """Whether a value holds no other."""
    return (
        PyUnicode_CheckExact(value)
        or PyLong_CheckExact(value)
        or PyFloat_CheckExact(value)
        or value is None
        or value is True
        or value is False
    )


cdef bint is_shallow(object value, int depth) noexcept:
    """Whether these are JSON's own types, not nested deeper: orjson counts not all levels."""
    cdef PyObject* key
    cdef PyObject* inner
    cdef Py_ssize_t at = 0
    if is_plain(value):
        return True
    if depth == 0:
        return False
    if type(value) is dict:
        # Where there is no GIL another thread may change it meanwhile.
        with cython.critical_section(value):
            while PyDict_Next(value, &at, &key, &inner):
                if not is_plain(<object> inner) and not is_shallow(<object> inner, depth - 1):
                    return False
        return True
    if type(value) is list:
        for each in <list> value:
            if not is_shallow(each, depth - 1):
                return False
        return True
    if type(value) is tuple:
        for each in <tuple> value:
            if not is_shallow(each, depth - 1):
                return False
        return True
    return False


# Copies of what serializers made. An object that is let go at once costs its allocator little;
# 500 of orjson's, kept to the end of a chunk, cost twenty times as much as writing them.
cdef struct Block:
    Block* before

cdef struct Arena:
    Block* last
    char* free
    Py_ssize_t left

cdef enum:
    BLOCK_SIZE = 65536
    # What is larger is not copied; nor is what is empty, to where there may be no block yet.
    LARGE = 16384


cdef int copy_into(Arena* arena, View* out) except -1:
    """Let go of what a view is of, and view a copy."""
    cdef Block* block
    if out.size > LARGE or out.size == 0:
        return 0
    if arena.left < out.size:
        block = <Block*> PyMem_RawMalloc(sizeof(Block) + BLOCK_SIZE)
        if block == NULL:
            raise MemoryError
        block.before = arena.last
        arena.last = block
        arena.free = <char*> (block + 1)
        arena.left = BLOCK_SIZE
    memcpy(arena.free, out.data, out.size)
    out.data = arena.free
    arena.free += out.size
    arena.left -= out.size
    leave(out)
    return 0


cdef void empty_arena(Arena* arena) noexcept:
    """Free all blocks but one."""
    cdef Block* block = arena.last
    cdef Block* before
    if block == NULL:
        return
    while block.before != NULL:
        before = block.before
        PyMem_RawFree(block)
        block = before
    arena.last = block
    arena.free = <char*> (block + 1)
    arena.left = BLOCK_SIZE


cdef int view_made(View* out, object data, Arena* arena) except -1:
    """View what a serializer made; nobody else needs it."""
    if isinstance(data, str):
        view_text(out, data)
    elif PyBytes_CheckExact(data):
        view_bytes(out, data)
    elif isinstance(data, bytes):
        view_bytes(out, bytes(data))
    else:
        raise TypeError(
            f"serializer.dumps must return str or bytes, not {type(data).__name__}"
        )
    if arena != NULL:
        copy_into(arena, out)
    return 0


cdef bint is_structure(object item) except -1:
    """Whether an item is one of which str() is rarely meant to be stored."""
    return not (PyLong_CheckExact(item) or PyFloat_CheckExact(item)) and (
        isinstance(item, (dict, list, tuple, set, frozenset))
        or hasattr(type(item), "__dataclass_fields__")
    )


cdef int view_payload(
    View* out, object item, object dumps, object write, bint limited, Py_ssize_t limit,
    Arena* arena, object warn,
) except -1:
    if write is not None:
        view_made(out, dumps_directly(item, dumps, write), arena)
    elif dumps is not None:
        view_made(out, dumps(item), arena)
    elif isinstance(item, str):
        view_text(out, item)
    elif PyBytes_CheckExact(item):
        view_bytes(out, item)
    elif isinstance(item, bytes):
        view_bytes(out, bytes(item))
    else:
        if warn is not None and is_structure(item):
            warn(item)
        view_text(out, str(item))
    if limited and out.size > limit:
        raise ValueError(
            f"item has {out.size} bytes serialised, more than max_item_bytes={limit}"
        )
    return 0


cdef object owned(View* out):
    """Return a view as bytes."""
    owner = <object> out.owner
    if PyBytes_CheckExact(owner):
        return owner
    return PyBytes_FromStringAndSize(out.data, out.size)


cdef Py_ssize_t limit_of(object limit) except? -1:
    return max(min(limit, PY_SSIZE_T_MAX), -PY_SSIZE_T_MAX)


def payload(item, dumps, limit, warn=None):
    """Serialise an item; ``limit`` is the most bytes that it may have (0: any number).

    ``warn`` is called with what is stored as its text for want of a serializer, as dicts are.
    """
    cdef View data
    cdef bint limited = bool(limit)
    data.owner = NULL
    try:
        view_payload(
            &data, item, dumps, None, limited, limit_of(limit) if limited else 0, NULL,
            warn,
        )
        return owned(&data)
    finally:
        leave(&data)


def field_of(item, field):
    """Read a field of an item: the key of a mapping, else an attribute."""
    if type(item) is dict or isinstance(item, Mapping):
        return item[field]
    return getattr(item, field)


cdef object read_field(object item, object field, str role):
    cdef PyObject* found = NULL
    try:
        if type(item) is dict:
            if lookup(item, field, &found):
                value = <object> found
                Py_XDECREF(found)
                return value
        else:
            return field_of(item, field)
    except (KeyError, AttributeError):
        pass
    raise ValueError(
        f"item of type {type(item).__name__} has no field {field!r} to be its {role}"
    ) from None


cdef object key_of(object item, object key):
    if isinstance(key, str):
        return read_field(item, key, "key")
    if isinstance(key, tuple):
        return _python.joined_key([read_field(item, field, "key") for field in key])
    return key(item)


cdef int view_key(View* out, object key) except -1:
    """View the bytes of an identity, but for what a number is digested from."""
    if isinstance(key, str):
        return view_text(out, key)
    if PyBytes_CheckExact(key):
        return view_bytes(out, key)
    return view_bytes(out, _python.key_bytes(key))


def key_bytes(key):
    """Return the bytes of an identity: 1, "1" and b"1" are one key."""
    cdef View data
    data.owner = NULL
    try:
        view_key(&data, key)
        return owned(&data)
    finally:
        leave(&data)


def joined_key(parts):
    """Return the bytes of an identity of several parts, which are those of no others."""
    return _python.joined_key(parts)


cdef int digest_key(void* out, object item, object key) except -1:
    cdef View data
    data.owner = NULL
    try:
        view_key(&data, key_of(item, key))
        digest_of(out, data.data, data.size)
    finally:
        leave(&data)
    return 0


def identity(item, dumps, key):
    """Return the member that stands for an item: the digest of its key, or its serialised bytes."""
    if key is None:
        return payload(item, dumps, 0)
    result = PyBytes_FromStringAndSize(NULL, 16)
    digest_key(PyBytes_AS_STRING(result), item, key)
    return result


def identities(items, dumps, key):
    """Return the member of each item."""
    cdef list results = []
    for item in items:
        results.append(identity(item, dumps, key))
    return results


# --- Chunks

cdef struct Entry:
    View payload  # Until it is serialised, of a late one, the item itself.
    View key
    uint64_t tag[2]  # A hash of the key or the payload; of a key that stays, then its digest.
    double score
    Py_ssize_t index

# An entry that stays, as sorting moves it.
cdef struct Kept:
    uint64_t rank
    uint32_t entry

# What stands in an entry's line beside its member and payload.
cdef struct Line:
    uint64_t size
    int text_size, known_size
    char text[SCORE]
    char known[NUMBER]

# Memory that is used again: for how many elements there is room.
cdef struct Room:
    void* data
    Py_ssize_t count

cdef struct Work:
    Entry* entries
    Py_ssize_t capacity
    Py_ssize_t count
    Py_ssize_t used  # With the one that is being read.
    Kept* kept
    Py_ssize_t kept_count
    Kept* spare
    Line* lines
    uint32_t* table
    Room kept_room, spare_room, lines_room, table_room
    Arena arena
    Py_ssize_t dropped  # Entries that were known.
    bint keyed
    bint digested


# Members come from anywhere: which of them share a hash shall not be known outside.
cdef uint64_t SECRET = <uint64_t> <Py_ssize_t> hash(b"redset") ^ <uint64_t> 0x9e3779b97f4a7c15
cdef uint64_t SALT = <uint64_t> <Py_ssize_t> hash(b"redset, too") | 1


cdef uint64_t hash_of(const char* data, Py_ssize_t size) noexcept nogil:
    cdef uint64_t state = SECRET ^ <uint64_t> size, first, second
    while size > 16:
        state = mix(load(data) ^ SALT, load(data + 8) ^ state)
        data += 16
        size -= 16
    if size >= 8:
        first, second = load(data), load_few(data + 8, size - 8)
    else:
        first, second = load_few(data, size), 0
    return mix(mix(first ^ SALT, second ^ state), SECRET)


cdef int reserve(Work* work, Py_ssize_t capacity) except -1:
    cdef Entry* entries
    if capacity <= work.capacity:
        return 0
    if capacity > PY_SSIZE_T_MAX // <Py_ssize_t> sizeof(Entry):
        raise MemoryError
    entries = <Entry*> PyMem_RawRealloc(work.entries, capacity * sizeof(Entry))
    if entries == NULL:
        raise MemoryError
    work.entries = entries
    work.capacity = capacity
    return 0


cdef void* fit(Room* room, Py_ssize_t count, Py_ssize_t size) noexcept nogil:
    """Return memory for so many elements; NULL if there is none."""
    if room.count < count or room.data == NULL:
        PyMem_RawFree(room.data)
        room.count = count
        room.data = PyMem_RawMalloc(max(count, 1) * size)
    return room.data


cdef enum:
    # Of a chunk with more items the workspace is not kept.
    KEPT_ITEMS = 4096


cdef Work* take_work() except NULL:
    """Return a workspace: the one that is kept, since an allocator that gives memory back to the
    system after each chunk, to fault it in again, takes longer than the encoding."""
    cdef Work* work = <Work*> exchange_kept(NULL)
    if work == NULL:
        work = <Work*> PyMem_RawCalloc(1, sizeof(Work))
        if work == NULL:
            raise MemoryError
    return work


cdef void forget_items(Work* work) noexcept:
    """Let go of what was read."""
    cdef Py_ssize_t i
    for i in range(work.used):
        leave(&work.entries[i].payload)
        leave(&work.entries[i].key)
    work.count = work.used = work.kept_count = work.dropped = 0
    work.keyed = work.digested = False
    empty_arena(&work.arena)


cdef void give_back(Work* work) noexcept:
    forget_items(work)
    if work.capacity <= KEPT_ITEMS:
        work = <Work*> exchange_kept(work)
    if work != NULL:
        PyMem_RawFree(work.entries)
        PyMem_RawFree(work.kept_room.data)
        PyMem_RawFree(work.spare_room.data)
        PyMem_RawFree(work.lines_room.data)
        PyMem_RawFree(work.table_room.data)
        PyMem_RawFree(work.arena.last)
        PyMem_RawFree(work)


cdef inline const char* member_of(
    const Work* work, const Entry* entry, Py_ssize_t* size
) noexcept nogil:
    if work.keyed:
        size[0] = 16
        return <const char*> entry.tag
    size[0] = entry.payload.size
    return entry.payload.data


cdef inline const View* identity_of(const Work* work, const Entry* entry) noexcept nogil:
    return &entry.key if work.keyed else &entry.payload


cdef void digest_kept(Work* work) noexcept nogil:
    """Put the digest of each kept entry's identity in its tag, which folding needs no more."""
    cdef Lanes lanes
    cdef Entry* entry
    cdef const View* identity
    cdef Py_ssize_t i = 0, j, some
    while i < work.kept_count:
        some = min(LANES, work.kept_count - i)
        for j in range(some):
            identity = identity_of(work, &work.entries[work.kept[i + j].entry])
            add_lane(&lanes, j, identity.data, identity.size)
        end_lanes(&lanes, some)
        for j in range(some):
            entry = &work.entries[work.kept[i + j].entry]
            store_digest(entry.tag, lanes.h[0][j], lanes.h[1][j])
        i += LANES
    work.digested = True


cdef inline bint are_equal(const Work* work, const Entry* a, const Entry* b) noexcept nogil:
    cdef const View* one = identity_of(work, a)
    cdef const View* other = identity_of(work, b)
    return a.tag[0] == b.tag[0] and one.size == other.size and (
        one.data == other.data or memcmp(one.data, other.data, one.size) == 0
    )


cdef int keep_all(Work* work) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(work.count):
        work.kept[i].entry = <uint32_t> i
    work.kept_count = work.count
    return 0


cdef int fold_equals(Work* work, bint last) noexcept nogil:
    """Keep one of equal members, in the place of the first; -1 without memory."""
    cdef Entry* entry
    cdef Entry* other
    cdef View payload
    cdef const View* name
    cdef Py_ssize_t i, slots = 4
    cdef uint64_t at, mask
    while slots < 2 * work.count:
        slots *= 2
    mask = slots - 1
    work.table = <uint32_t*> fit(&work.table_room, slots, sizeof(uint32_t))
    if work.table == NULL:
        return -1
    memset(work.table, 0, slots * sizeof(uint32_t))
    for i in range(work.count):
        entry = &work.entries[i]
        name = identity_of(work, entry)
        entry.tag[0] = hash_of(name.data, name.size)
        at = entry.tag[0] & mask
        while True:
            if work.table[at] == 0:
                work.table[at] = <uint32_t> (i + 1)
                work.kept[work.kept_count].entry = <uint32_t> i
                work.kept_count += 1
                break
            other = &work.entries[work.table[at] - 1]
            if are_equal(work, entry, other):
                if last:
                    payload = other.payload
                    other.payload = entry.payload
                    entry.payload = payload
                    other.score = entry.score
                break
            at = (at + 1) & mask
    return 0


cdef int compare(const Work* work, uint32_t a, uint32_t b) noexcept nogil:
    cdef Py_ssize_t a_size, b_size
    cdef const char* a_data = member_of(work, &work.entries[a], &a_size)
    cdef const char* b_data = member_of(work, &work.entries[b], &b_size)
    cdef int order = memcmp(a_data, b_data, min(a_size, b_size))
    if order:
        return order
    return (a_size > b_size) - (a_size < b_size)


cdef inline uint64_t rank_of(double score) noexcept nogil:
    """Return a number that is ordered as scores are."""
    cdef uint64_t bits
    if score == 0:
        score = 0.0  # And not -0.0.
    memcpy(&bits, &score, 8)
    return ~bits if bits >> 63 else bits | <uint64_t> 1 << 63


cdef void sort_by_rank(Kept* kept, Kept* spare, Py_ssize_t count) noexcept nogil:
    """Sort stably: a few by insertion, many by radix, without the bytes that are all the same."""
    cdef uint32_t counts[8][256]
    cdef uint32_t total, size
    cdef Kept* source = kept
    cdef Kept* swap
    cdef Kept moved
    cdef Py_ssize_t i, at
    cdef uint64_t rank
    cdef int byte
    if count < 48:
        for i in range(1, count):
            moved = kept[i]
            at = i
            while at and kept[at - 1].rank > moved.rank:
                kept[at] = kept[at - 1]
                at -= 1
            kept[at] = moved
        return
    memset(counts, 0, sizeof(counts))
    for i in range(count):
        rank = kept[i].rank
        for byte in range(8):
            counts[byte][rank >> 8 * byte & 255] += 1
    for byte in range(8):
        if counts[byte][source[0].rank >> 8 * byte & 255] == <uint32_t> count:
            continue
        total = 0
        for i in range(256):
            size = counts[byte][i]
            counts[byte][i] = total
            total += size
        for i in range(count):
            rank = source[i].rank >> 8 * byte & 255
            spare[counts[byte][rank]] = source[i]
            counts[byte][rank] += 1
        swap = source
        source = spare
        spare = swap
    if source != kept:
        memcpy(kept, source, count * sizeof(Kept))


cdef void merge_sort(const Work* work, Kept* kept, Kept* spare, Py_ssize_t count) noexcept nogil:
    """Sort stably by the whole members."""
    cdef Py_ssize_t half = count // 2, left, right, at
    if count < 2:
        return
    merge_sort(work, kept, spare, half)
    merge_sort(work, kept + half, spare, count - half)
    if compare(work, kept[half - 1].entry, kept[half].entry) <= 0:
        return
    memcpy(spare, kept, half * sizeof(Kept))
    left, right, at = 0, half, 0
    while left < half:
        if right < count and compare(work, spare[left].entry, kept[right].entry) > 0:
            kept[at] = kept[right]
            right += 1
        else:
            kept[at] = spare[left]
            left += 1
        at += 1


cdef void sort_by_member(
    const Work* work, Kept* kept, Kept* spare, Py_ssize_t count, Py_ssize_t common, int depth
) noexcept nogil:
    """Sort members that have `common` bytes in common: by the eight bytes after all that they
    have in common, then those that this left equal."""
    cdef Py_ssize_t i, begin, size, other_size, least = PY_SSIZE_T_MAX
    cdef const char* first
    cdef const char* other
    if count < 8 or depth == 0:
        merge_sort(work, kept, spare, count)
        return
    first = member_of(work, &work.entries[kept[0].entry], &size)
    for i in range(1, count):
        other = member_of(work, &work.entries[kept[i].entry], &other_size)
        size = min(size, other_size)
        if memcmp(first + common, other + common, size - common):
            size = common
            while first[size] == other[size]:
                size += 1
    common = size
    for i in range(count):
        other = member_of(work, &work.entries[kept[i].entry], &size)
        least = min(least, size)
        kept[i].rank = in_order(
            load(other + common) if size - common >= 8
            else load_few(other + common, size - common)
        )
    sort_by_rank(kept, spare, count)
    begin = 0
    for i in range(1, count + 1):
        if i == count or kept[i].rank != kept[begin].rank:
            # Zeros that stood for missing bytes prove nothing.
            sort_by_member(
                work, kept + begin, spare, i - begin, common + 8,
                depth - 1 if least - common >= 8 else 0,
            )
            begin = i


cdef int sort_kept(Work* work) noexcept nogil:
    """Sort by score, then member; -1 without memory."""
    cdef Kept* kept = work.kept
    cdef Py_ssize_t i, begin, count = work.kept_count
    cdef bint sorted_already = True
    if count < 2:
        return 0
    for i in range(count):
        kept[i].rank = rank_of(work.entries[kept[i].entry].score)
        if i and sorted_already and not kept[i - 1].rank < kept[i].rank:
            sorted_already = (
                kept[i - 1].rank == kept[i].rank
                and compare(work, kept[i - 1].entry, kept[i].entry) <= 0
            )
    if sorted_already:
        return 0
    work.spare = <Kept*> fit(&work.spare_room, count, sizeof(Kept))
    if work.spare == NULL:
        return -1
    sort_by_rank(kept, work.spare, count)
    begin = 0
    for i in range(1, count + 1):
        if i == count or kept[i].rank != kept[begin].rank:
            if i - begin > 1:
                sort_by_member(work, kept + begin, work.spare, i - begin, 0, 8)
            # The ranks of a run may have changed; that of its successor has not.
            begin = i
    return 0


# --- The table of known duplicates

# Places hold digests in the order in which they were learned; of a full table the next one goes.
# Slots, twice as many or more, find them: open addressing, linear probing, shifting back what
# stands behind a slot that is given up.
cdef struct Table:
    uint64_t* digests  # Two words each.
    double* until  # NULL as long as all are valid forever.
    uint32_t* slots  # 1 + place; 0 where there is none.
    Py_ssize_t most, room, count, next
    uint64_t mask

cdef enum:
    FIRST_ROOM = 256
    MOST_DIGESTS = 1 << 30
    AHEAD = 16  # Digests that are looked up while the memory of others is on its way.


cdef inline uint64_t slot_of(const Table* table, const uint64_t* digest) noexcept nogil:
    # Who chooses what is digested can choose a part of the digest, by trying.
    return mix(digest[0] ^ SECRET, digest[1] ^ SALT) & table.mask


cdef inline Py_ssize_t place_of(const Table* table, const uint64_t* digest) noexcept nogil:
    """Return the place of a digest, -1 if it has none."""
    cdef uint64_t at
    cdef const uint64_t* other
    if table.count == 0:
        return -1
    at = slot_of(table, digest)
    while table.slots[at]:
        other = table.digests + 2 * (<Py_ssize_t> table.slots[at] - 1)
        if other[0] == digest[0] and other[1] == digest[1]:
            return <Py_ssize_t> table.slots[at] - 1
        at = (at + 1) & table.mask
    return -1


cdef inline bint is_known(const Table* table, const uint64_t* digest, double now) noexcept nogil:
    cdef Py_ssize_t place = place_of(table, digest)
    return place >= 0 and (table.until == NULL or now < table.until[place])


cdef inline void fill_slot(Table* table, Py_ssize_t place) noexcept nogil:
    cdef uint64_t at = slot_of(table, table.digests + 2 * place)
    while table.slots[at]:
        at = (at + 1) & table.mask
    table.slots[at] = <uint32_t> (place + 1)


cdef void empty_slot(Table* table, Py_ssize_t place) noexcept nogil:
    """Free the slot of a place, and move up the entries after it."""
    cdef uint64_t hole = slot_of(table, table.digests + 2 * place), at, home
    while table.slots[hole] != <uint32_t> (place + 1):
        hole = (hole + 1) & table.mask
    at = hole
    while True:
        at = (at + 1) & table.mask
        if table.slots[at] == 0:
            break
        home = slot_of(table, table.digests + 2 * (<Py_ssize_t> table.slots[at] - 1))
        if ((at - home) & table.mask) >= ((at - hole) & table.mask):
            table.slots[hole] = table.slots[at]
            hole = at
    table.slots[hole] = 0


cdef bint enlarge(Table* table) noexcept nogil:
    """Make room; False where there is no memory for it."""
    cdef Py_ssize_t room = min(max(2 * table.room, FIRST_ROOM), table.most), slots = FIRST_ROOM, i
    cdef uint64_t* digests
    cdef double* until
    cdef uint32_t* index
    while slots < 2 * room:
        slots *= 2
    index = <uint32_t*> PyMem_RawCalloc(slots, sizeof(uint32_t))
    if index == NULL:
        return False
    digests = <uint64_t*> PyMem_RawRealloc(table.digests, room * 16)
    if digests != NULL:
        table.digests = digests
        if table.until != NULL:
            until = <double*> PyMem_RawRealloc(table.until, room * sizeof(double))
            if until == NULL:
                digests = NULL
            else:
                table.until = until
    if digests == NULL:
        PyMem_RawFree(index)
        return False
    PyMem_RawFree(table.slots)
    table.slots = index
    table.mask = slots - 1
    table.room = room
    for i in range(table.count):
        fill_slot(table, i)
    return True


cdef bint drop_ended(Table* table, double now) noexcept nogil:
    """Drop what is not valid any more, if that is at least half; whether it was."""
    cdef Py_ssize_t valid = 0, kept = 0, i
    if table.until == NULL or table.count == 0:
        return False
    for i in range(table.count):
        valid += now < table.until[i]
    if 2 * valid > table.count:
        return False
    memset(table.slots, 0, <size_t> (table.mask + 1) * sizeof(uint32_t))
    for i in range(table.count):
        if now < table.until[i]:
            table.digests[2 * kept] = table.digests[2 * i]
            table.digests[2 * kept + 1] = table.digests[2 * i + 1]
            table.until[kept] = table.until[i]
            fill_slot(table, kept)
            kept += 1
    table.count = kept
    return True


cdef bint limit_times(Table* table) noexcept nogil:
    """Keep times from now on; False where there is no memory for them."""
    cdef Py_ssize_t i
    table.until = <double*> PyMem_RawMalloc(table.room * sizeof(double))
    if table.until == NULL:
        return False
    for i in range(table.count):
        table.until[i] = INFINITY
    return True


cdef void learn_one(
    Table* table, const uint64_t* digest, double until, double now
) noexcept nogil:
    """Take a digest in. Without memory to grow the table stays as large as it is."""
    cdef Py_ssize_t place = place_of(table, digest)
    if place < 0 and table.count == table.room < table.most and table.next == 0:
        if not drop_ended(table, now):
            enlarge(table)
    if table.room == 0:
        return
    if table.until == NULL and until != INFINITY and not limit_times(table):
        # What has no time now may have one: rather nothing is known.
        memset(table.slots, 0, <size_t> (table.mask + 1) * sizeof(uint32_t))
        table.count = table.next = 0
        return
    if place < 0:
        if table.count < table.room:
            place = table.count
            table.count += 1
        else:
            place = table.next
            table.next = (place + 1) % table.room
            empty_slot(table, place)
        table.digests[2 * place] = digest[0]
        table.digests[2 * place + 1] = digest[1]
        fill_slot(table, place)
    if table.until != NULL:
        table.until[place] = until


cdef void drop_known(Work* work, const Table* table, double now) noexcept nogil:
    """Keep of the entries that folding left, and digested, those that are not known."""
    cdef const uint64_t* digest
    cdef uint32_t slot
    cdef Py_ssize_t start = 0, stop, i, kept = 0
    if table.count == 0:
        return
    while start < work.kept_count:
        stop = min(start + AHEAD, work.kept_count)
        for i in range(start, stop):
            digest = work.entries[work.kept[i].entry].tag
            prefetch(table.slots + slot_of(table, digest))
        for i in range(start, stop):
            digest = work.entries[work.kept[i].entry].tag
            slot = table.slots[slot_of(table, digest)]
            if slot:
                prefetch(table.digests + 2 * (<Py_ssize_t> slot - 1))
        for i in range(start, stop):
            if not is_known(table, work.entries[work.kept[i].entry].tag, now):
                work.kept[kept] = work.kept[i]
                kept += 1
        start = stop
    work.dropped = work.kept_count - kept
    work.kept_count = kept


cdef inline void hold(PyThread_type_lock lock) noexcept:
    """Lock, without keeping others from running who may have to before it is unlocked."""
    if not PyThread_acquire_lock(lock, NOWAIT_LOCK):
        with nogil:
            PyThread_acquire_lock(lock, WAIT_LOCK)


@cython.final
cdef class Known:
    """A table of digests that a server is known to know: the last ``most`` that were learned.

    See the fallback's. It takes 24 bytes a digest, and up to twice that while it grows; 8 more
    where times are limited.
    """

    cdef Table table
    cdef PyThread_type_lock lock
    cdef Py_ssize_t emptied
    cdef object __weakref__

    def __cinit__(self, most):
        if most < 0:
            raise ValueError(f"most must not be negative, not {most}")
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError
        self.table.most = min(most, MOST_DIGESTS)

    def __dealloc__(self):
        self.free_table()
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    cdef void free_table(self) noexcept:
        PyMem_RawFree(self.table.digests)
        PyMem_RawFree(self.table.until)
        PyMem_RawFree(self.table.slots)
        self.table.digests = NULL
        self.table.until = NULL
        self.table.slots = NULL
        self.table.room = self.table.count = self.table.next = 0

    @property
    def generation(self):
        """How often it was emptied."""
        return self.emptied

    @property
    def nbytes(self):
        """The memory that it takes."""
        cdef Py_ssize_t size
        hold(self.lock)
        size = sizeof(Table)
        if self.table.room:
            size += self.table.room * (24 if self.table.until != NULL else 16)
            size += <Py_ssize_t> (self.table.mask + 1) * 4
        PyThread_release_lock(self.lock)
        return size

    def __len__(self):
        """How many digests it holds, valid or not."""
        return self.table.count

    def clear(self):
        """Empty it: what is still to be learned by an earlier generation is not learned."""
        hold(self.lock)
        self.free_table()
        self.emptied += 1
        PyThread_release_lock(self.lock)

    def learn(self, bytes digests not None, until, Py_ssize_t generation, double now=0.0):
        """Take in digests, 16 bytes each, that are valid before ``until``: one time, or one each.

        See the fallback's.
        """
        cdef const char* data = PyBytes_AS_STRING(digests)
        cdef Py_ssize_t count = PyBytes_GET_SIZE(digests) // 16, i
        cdef bint same = isinstance(until, float)
        cdef double one = 0.0
        cdef double* times = NULL
        cdef uint64_t digest[2]
        if PyBytes_GET_SIZE(digests) != 16 * count:
            raise ValueError("digests must have 16 bytes each")
        if same:
            one = until
        try:
            if not same:
                limits = tuple(until)
                if len(limits) == count and count:
                    times = <double*> PyMem_RawMalloc(count * sizeof(double))
                    if times == NULL:
                        raise MemoryError
                i = 0
                for each in limits:
                    one = float(each)
                    if times != NULL:
                        times[i] = one
                    i += 1
                if i != count:
                    raise ValueError("until must be a float, or one for each digest")
            with nogil:
                PyThread_acquire_lock(self.lock, WAIT_LOCK)
                if generation == self.emptied and self.table.most:
                    for i in range(count):
                        if times != NULL:
                            one = times[i]
                        if one > 0.0:
                            memcpy(digest, data + 16 * i, 16)
                            learn_one(&self.table, digest, one, now)
                PyThread_release_lock(self.lock)
        finally:
            PyMem_RawFree(times)

    def knows(self, bytes digest not None, double now):
        """Whether it holds a digest that is still valid."""
        cdef uint64_t words[2]
        cdef bint known
        if PyBytes_GET_SIZE(digest) != 16:
            raise ValueError("a digest must have 16 bytes")
        memcpy(words, PyBytes_AS_STRING(digest), 16)
        hold(self.lock)
        known = is_known(&self.table, words, now)
        PyThread_release_lock(self.lock)
        return known

    def unknown(self, digests, double now):
        """Return the places of the digests that it does not hold."""
        cdef list places = []
        cdef Py_ssize_t at = 0
        for digest in digests:
            if not self.knows(digest, now):
                places.append(at)
            at += 1
        return places


@cython.final
cdef class Encoder:
    """Makes requests of chunks of items: ``prefix`` arguments, then an entry for each item.

    See the fallback's for the parameters.
    """

    cdef bytes prefix
    cdef const char* prefix_data
    cdef Py_ssize_t prefix_size, prefix_count
    cdef object dumps, write_json, warn
    # The type of the item before, of which there is nothing more to warn. Only to be compared: the
    # type may be gone.
    cdef void* usual
    cdef object key
    cdef object scorer
    cdef object epoch
    cdef bint keyed, constant, limited, sort, positions, unfit, whole, timed
    cdef double constant_score
    cdef Py_ssize_t limit
    cdef int fold, memory
    cdef Keyed mac

    def __cinit__(
        self, prefix, dumps, key, scorer, limit, int fold, bint sort, int memory, epoch,
        bint positions, bint whole=False, bint timed=False, warn=None,
    ):
        self.prefix = bulk(prefix)
        self.prefix_data = PyBytes_AS_STRING(self.prefix)
        self.prefix_size = PyBytes_GET_SIZE(self.prefix)
        self.prefix_count = len(prefix)
        self.dumps = dumps
        self.write_json = direct(dumps, "dumps")
        self.key = key
        self.keyed = key is not None
        self.scorer = scorer
        self.constant = isinstance(scorer, float)
        if self.constant:
            self.constant_score = PyFloat_AS_DOUBLE(scorer)
        self.limited = bool(limit)
        if self.limited:
            self.limit = limit_of(limit)
        self.fold = fold
        self.sort = sort
        self.memory = memory
        self.epoch = epoch
        self.positions = positions
        self.whole = whole
        self.timed = timed
        self.warn = warn
        self.usual = NULL
        if memory == INTEGER:
            if isinstance(epoch, (bytes, bytearray, memoryview)):
                self.epoch = memoryview(epoch).tobytes()
            self.unfit = not PyBytes_CheckExact(self.epoch) or PyBytes_GET_SIZE(self.epoch) > 64
            if not self.unfit:
                begin_keyed(
                    &self.mac, PyBytes_AS_STRING(self.epoch), PyBytes_GET_SIZE(self.epoch)
                )

    def encode(self, items, scores, bint skip):
        """Encode items as one request; the first bad one ends it, unless they are to be skipped."""
        return self.encode_all(items, scores, skip, 0, 0)[0]

    def encode_all(
        self, items, scores, bint skip, Py_ssize_t most, Py_ssize_t most_bytes,
        Known known=None, double now=0.0,
    ):
        """Encode items as requests of at most ``most`` entries (0: any number) each.

        See the fallback's for what folding, ``most_bytes``, what is bad and ``known`` come to.
        """
        cdef list bad = [], chunks = [], positions
        cdef Py_ssize_t start = 0, stop, good, i
        cdef Work* work = take_work()
        try:
            if not self.read_by_key(work, items, scores, known, now):
                forget_items(work)
                self.read_all(work, items, scores, skip, bad, known, now)
            if self.unfit and work.count:
                _python.memory_integer(b"", self.epoch)
                raise TypeError(f"epoch must be bytes, not {type(self.epoch).__name__}")
            self.finish(work)
            good = work.count
            while True:
                stop = self.end_of_chunk(work, start, most, most_bytes)
                data = self.write(work, start, stop)
                names = b"" if known is None else self.names(work, start, stop)
                positions = None
                if self.positions:
                    positions = []
                    for i in range(start, stop):
                        positions.append(work.entries[work.kept[i].entry].index)
                if stop == work.kept_count:
                    chunks.append(
                        chunk_of(data, stop - start, good, positions, bad, work.dropped, names)
                    )
                    return chunks
                chunks.append(
                    chunk_of(data, stop - start, stop - start, positions, [], 0, names)
                )
                good -= stop - start
                start = stop
        finally:
            give_back(work)

    cdef bint read_by_key(
        self, Work* work, object items, object scores, Known known, double now
    ) except -1:
        """Fold by the bytes of the keys: only what stays is digested, what is new serialised.

        False where an item is bad: item by item it comes out which one it is.
        """
        cdef Entry* entry
        cdef Py_ssize_t i
        if not self.keyed or not self.fold:
            return False
        if type(items) is not list and type(items) is not tuple or len(items) < 2:
            return False
        work.keyed = True
        reserve(work, min(len(items), 65536))
        try:
            for item in items:
                entry = self.next_entry(work)
                view(&entry.payload, item, NULL, 0)
                self.read_key_and_score(entry, item, scores)
                work.count += 1
            self.settle(work, known, now)
            for i in range(work.kept_count):
                entry = &work.entries[work.kept[i].entry]
                item = <object> entry.payload.owner
                leave(&entry.payload)
                # In its place at once: what is too long is an error that comes with a view.
                view_payload(
                    &entry.payload, item, self.dumps, self.write_json, self.limited, self.limit,
                    &work.arena, self.warn,
                )
        except MemoryError:
            raise
        except Exception:
            pass
        else:
            return True
        return False

    cdef Entry* next_entry(self, Work* work) except NULL:
        cdef Entry* entry
        if work.count == work.capacity:
            if work.capacity > PY_SSIZE_T_MAX // 2:
                raise MemoryError
            reserve(work, max(2 * work.capacity, 64))
        entry = &work.entries[work.count]
        entry.payload.owner = NULL
        entry.key.owner = NULL
        entry.index = work.count
        work.used = work.count + 1
        return entry

    cdef int read_all(
        self, Work* work, object items, object scores, bint skip, list bad, Known known,
        double now,
    ) except -1:
        cdef Entry* entry
        cdef Py_ssize_t index = 0
        work.keyed = self.keyed
        if type(items) is list or type(items) is tuple:
            reserve(work, min(max(len(items), 1), 65536))
        # What reading calls may change `items`: this loop looks at its length each time.
        for item in items:
            entry = self.next_entry(work)
            entry.index = index
            try:
                view_payload(
                    &entry.payload, item, self.dumps, self.write_json, self.limited, self.limit,
                    &work.arena, None if <void*> Py_TYPE(item) == self.usual else self.warn,
                )
                self.usual = <void*> Py_TYPE(item)
                self.read_key_and_score(entry, item, scores)
            except Exception as error:
                leave(&entry.payload)
                leave(&entry.key)
                bad.append(bad_of(index, item, error))
                if not skip:
                    break
            else:
                work.count += 1
            index += 1
        self.settle(work, known, now)
        return 0

    cdef int read_key_and_score(self, Entry* entry, object item, object scores) except -1:
        if self.keyed:
            self.read_key(entry, key_of(item, self.key))
        if scores is not None:
            entry.score = to_double(scores[entry.index], self.timed)
        elif self.constant:
            entry.score = self.constant_score
        else:
            entry.score = scored(item, self.scorer, self.timed)
        if self.whole and not (
            -4096.0 <= entry.score <= 4095.0 and entry.score == <double> <int> entry.score
        ):
            _python.whole_score(entry.score)
        return 0

    cdef int read_key(self, Entry* entry, object key) except -1:
        cdef char digits[NUMBER]
        cdef long long number
        cdef int overflow
        if PyLong_CheckExact(key):
            number = PyLong_AsLongLongAndOverflow(key, &overflow)
            if not overflow:
                return view_bytes(
                    &entry.key,
                    PyBytes_FromStringAndSize(digits, put_signed(digits, number) - digits),
                )
        return view_key(&entry.key, key)

    cdef int settle(self, Work* work, Known known, double now) except -1:
        """Fold what was read, digest the keys of what stays, and drop what is known."""
        cdef bint look = known is not None
        cdef int done
        if work.count >= MANY:
            with nogil:
                done = self.fold_and_digest(work, look)
                if look and done == 0:
                    PyThread_acquire_lock(known.lock, WAIT_LOCK)
                    drop_known(work, &known.table, now)
                    PyThread_release_lock(known.lock)
        else:
            done = self.fold_and_digest(work, look)
            if look and done == 0:
                hold(known.lock)
                drop_known(work, &known.table, now)
                PyThread_release_lock(known.lock)
        if done < 0:
            raise MemoryError
        return 0

    cdef int fold_and_digest(self, Work* work, bint look) noexcept nogil:
        if work.count > UINT32_MAX // 4:
            return -1
        work.kept = <Kept*> fit(&work.kept_room, work.count, sizeof(Kept))
        if work.kept == NULL:
            return -1
        if self.fold and work.count > 1:
            if fold_equals(work, self.fold == LAST) < 0:
                return -1
        else:
            keep_all(work)
        if work.keyed or look:
            digest_kept(work)
        return 0

    cdef int finish(self, Work* work) except -1:
        """Sort what stays, and measure it."""
        cdef Line* line
        cdef Py_ssize_t i
        cdef int done
        work.lines = <Line*> fit(&work.lines_room, work.kept_count, sizeof(Line))
        if work.lines == NULL:
            raise MemoryError
        if work.kept_count >= MANY:
            with nogil:
                done = self.sort_and_measure(work)
        else:
            done = self.sort_and_measure(work)
        if done < 0:
            raise MemoryError
        for i in range(work.kept_count):
            line = &work.lines[i]
            if line.text_size == 0:
                line.text_size = put_any_score(
                    line.text, work.entries[work.kept[i].entry].score
                )
                line.size += bulk_size(line.text_size)
        return 0

    cdef int sort_and_measure(self, Work* work) noexcept nogil:
        cdef Entry* entry
        cdef Line* line
        cdef Py_ssize_t i
        if self.sort and sort_kept(work) < 0:
            return -1
        if self.memory:
            self.remember(work)
        for i in range(work.kept_count):
            entry = &work.entries[work.kept[i].entry]
            line = &work.lines[i]
            line.text_size = put_score(line.text, entry.score)
            line.size = bulk_size(entry.payload.size)
            if line.text_size:
                line.size += bulk_size(line.text_size)
            if work.keyed:
                line.size += bulk_size(16)
            if self.memory:
                line.size += bulk_size(line.known_size)
        return 0

    cdef Py_ssize_t end_of_chunk(
        self, const Work* work, Py_ssize_t start, Py_ssize_t most, Py_ssize_t most_bytes
    ) noexcept:
        cdef Py_ssize_t stop = start
        cdef uint64_t size = 0
        if not most:
            return work.kept_count
        while stop < work.kept_count and stop - start < most:
            size += work.lines[stop].size
            if stop > start and size > <uint64_t> most_bytes:
                break
            stop += 1
        return stop

    cdef bytes names(self, const Work* work, Py_ssize_t start, Py_ssize_t stop):
        """Return the digests of entries."""
        cdef bytes data = PyBytes_FromStringAndSize(NULL, 16 * (stop - start))
        cdef char* out = PyBytes_AS_STRING(data)
        cdef Py_ssize_t i
        for i in range(start, stop):
            memcpy(out, work.entries[work.kept[i].entry].tag, 16)
            out += 16
        return data

    cdef bytes write(self, const Work* work, Py_ssize_t start, Py_ssize_t stop):
        cdef Py_ssize_t i, columns = 2 + self.keyed + (self.memory != 0)
        cdef uint64_t total = self.prefix_count + <uint64_t> columns * (stop - start), size = 0
        cdef char* out
        cdef bytes data
        if start == stop:
            return b""
        for i in range(start, stop):
            size += work.lines[i].size
            if size > <uint64_t> (PY_SSIZE_T_MAX // 2):
                raise MemoryError
        data = PyBytes_FromStringAndSize(
            NULL, head_size(total) + self.prefix_size + <Py_ssize_t> size
        )
        out = PyBytes_AS_STRING(data)
        if stop - start >= MANY:
            with nogil:
                self.fill(work, out, total, start, stop)
        else:
            self.fill(work, out, total, start, stop)
        return data

    cdef void remember(self, Work* work) noexcept nogil:
        """Set in each line how its entry is remembered."""
        cdef Lanes lanes
        cdef uint64_t h[8]
        cdef const Entry* entry
        cdef Line* line
        cdef Py_ssize_t i = 0, j, some
        if not work.digested:
            digest_kept(work)
        while i < work.kept_count:
            some = min(LANES, work.kept_count - i)
            for j in range(some):
                entry = &work.entries[work.kept[i + j].entry]
                line = &work.lines[i + j]
                if self.memory == INTEGER:
                    memcpy(h, self.mac.state, 64)
                    put_lane(&lanes, j, h, self.mac.done, <const char*> entry.tag, 16)
                else:
                    memcpy(line.known, entry.tag, 16)
                    line.known_size = 16
            if self.memory == INTEGER:
                end_lanes(&lanes, some)
                for j in range(some):
                    line = &work.lines[i + j]
                    line.known_size = <int> (
                        put_signed(line.known, <int64_t> lanes.h[0][j]) - line.known
                    )
            i += LANES

    cdef void fill(
        self, const Work* work, char* out, Py_ssize_t arguments, Py_ssize_t start, Py_ssize_t stop
    ) noexcept nogil:
        cdef const Entry* entry
        cdef const Line* line
        cdef Py_ssize_t i
        out = put_head(out, c"*", arguments)
        memcpy(out, self.prefix_data, self.prefix_size)
        out += self.prefix_size
        for i in range(start, stop):
            entry = &work.entries[work.kept[i].entry]
            line = &work.lines[i]
            out = put_bulk(out, line.text, line.text_size)
            if self.keyed:
                out = put_bulk(out, entry.tag, 16)
            out = put_bulk(out, entry.payload.data, entry.payload.size)
            if self.memory:
                out = put_bulk(out, line.known, line.known_size)


cdef object chunk_of(
    bytes data, Py_ssize_t entries, Py_ssize_t good, object positions, list bad,
    Py_ssize_t dropped, bytes digests
):
    return _new_tuple(Chunk, (data, entries, good, positions, bad, dropped, digests))


cdef object bad_of(Py_ssize_t index, object item, object error):
    return _new_tuple(Bad, (index, item, error))


# --- Members

cdef object text_of(object raw):
    if PyBytes_CheckExact(raw):
        return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), NULL)
    return raw.decode()


cdef object load_either(object raw, object loads):
    text = None
    try:
        text = text_of(raw)
    except UnicodeDecodeError:
        pass
    if text is None:
        return loads(raw)
    try:
        return loads(text)
    except Exception as error:
        try:
            return loads(raw)
        except Exception:
            raise error from None


def decode(raws, loads, binary):
    """Deserialise members; those that cannot be are told apart."""
    cdef list items = [], bad = []
    cdef Py_ssize_t index = 0
    cdef bint plain = loads is None, either = binary is None, as_bytes = bool(binary)
    read = direct(loads, "loads")
    if read is not None:
        loads = read
    for raw in raws:
        try:
            if plain:
                items.append(text_of(raw))
            elif as_bytes:
                items.append(loads(raw))
            elif either:
                items.append(load_either(raw, loads))
            else:
                items.append(loads(text_of(raw)))
        except Exception as error:
            bad.append(bad_of(index, raw, error))
        index += 1
    return items, bad
