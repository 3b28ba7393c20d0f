# Digests of members and of what a memory stores (BLAKE2b, see blake2b.h).

cdef extern from "_wire/words.h" nogil:
    uint64_t load "redset_load"(const void*) noexcept
    uint64_t load_few "redset_load_few"(const void*, Py_ssize_t size) noexcept
    uint64_t in_order "redset_in_order"(uint64_t) noexcept
    uint64_t mix "redset_mix"(uint64_t, uint64_t) noexcept

cdef extern from "_wire/blake2b.h" nogil:
    enum:
        LANES "REDSET_LANES"
    ctypedef struct KeyedDigest "redset_keyed":
        pass
    ctypedef struct Lanes "redset_lanes":
        uint64_t h[8][4]
    void digest_of "redset_digest"(void* out, const char* data, Py_ssize_t size) noexcept
    void store_digest "redset_store_digest"(void* out, uint64_t first, uint64_t second) noexcept
    void begin_keyed "redset_begin_keyed"(
        KeyedDigest*, const char* key, Py_ssize_t size) noexcept
    int64_t end_keyed "redset_end_keyed"(
        const KeyedDigest*, const void* data, Py_ssize_t size) noexcept
    void put_digest "redset_put_digest"(
        Lanes*, Py_ssize_t lane, const char* data, Py_ssize_t size) noexcept
    void put_keyed "redset_put_keyed"(
        Lanes*, Py_ssize_t lane, const KeyedDigest*, const char* data, Py_ssize_t size) noexcept
    void end_lanes "redset_end_lanes"(Lanes*, Py_ssize_t count) noexcept


def digest(data):
    """Return the BLAKE2b of data with 16 bytes of output (RFC 7693)."""
    if not PyBytes_CheckExact(data):
        return _wire.fallback.digest(data)
    result = PyBytes_FromStringAndSize(NULL, 16)
    digest_of(PyBytes_AS_STRING(result), PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return result


def digests(values):
    """Return the digest of each value."""
    cdef tuple owners
    cdef list results = []
    cdef View* views
    cdef char** outs
    cdef Py_ssize_t i, count
    if type(values) is not list and type(values) is not tuple or len(values) < MANY:
        return each_digest(values)
    # A copy: it holds the values while the GIL is released.
    owners = tuple(values)
    count = len(owners)
    views = <View*> PyMem_RawMalloc(count * (sizeof(View) + sizeof(char*)))
    if views == NULL:
        raise MemoryError
    outs = <char**> (views + count)
    try:
        for i in range(count):
            value = owners[i]
            if not PyBytes_CheckExact(value):
                return each_digest(owners)
            views[i].data = PyBytes_AS_STRING(value)
            views[i].size = PyBytes_GET_SIZE(value)
            result = PyBytes_FromStringAndSize(NULL, 16)
            outs[i] = PyBytes_AS_STRING(result)
            results.append(result)
        with nogil:
            digest_views(views, outs, count)
        return results
    finally:
        PyMem_RawFree(views)


cdef void digest_views(const View* views, char** outs, Py_ssize_t count) noexcept nogil:
    cdef Lanes lanes
    cdef Py_ssize_t i = 0, j, some
    while i < count:
        some = min(LANES, count - i)
        for j in range(some):
            put_digest(&lanes, j, views[i + j].data, views[i + j].size)
        end_lanes(&lanes, some)
        for j in range(some):
            store_digest(outs[i + j], lanes.h[0][j], lanes.h[1][j])
        i += LANES


cdef list each_digest(object values):
    cdef list results = []
    for value in values:
        results.append(digest(value))
    return results


def memory_integer(identity, epoch):
    """Write the 64 bits by which a digest is remembered: a keyed BLAKE2b, as a signed decimal."""
    cdef KeyedDigest keyed
    cdef char text[NUMBER]
    cdef int64_t number
    if not PyBytes_CheckExact(epoch) or PyBytes_GET_SIZE(epoch) > 64:
        return _wire.fallback.memory_integer(identity, epoch)
    if not PyBytes_CheckExact(identity):
        return _wire.fallback.memory_integer(identity, epoch)
    begin_keyed(&keyed, PyBytes_AS_STRING(epoch), PyBytes_GET_SIZE(epoch))
    number = end_keyed(&keyed, PyBytes_AS_STRING(identity), PyBytes_GET_SIZE(identity))
    return PyBytes_FromStringAndSize(text, put_signed(text, number) - text)
