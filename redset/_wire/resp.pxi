# RESP: requests written to memory that has room for them, and split into arguments.

cdef const char* PAIRS = (
    b"00010203040506070809101112131415161718192021222324"
    b"25262728293031323334353637383940414243444546474849"
    b"50515253545556575859606162636465666768697071727374"
    b"75767778798081828384858687888990919293949596979899"
)

cdef enum:
    NUMBER = 20  # the digits of 2**64 - 1, and of -2**63 with its sign


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


# A request that grows; short ones never touch the heap.
cdef struct Buffer:
    char* data
    Py_ssize_t size
    Py_ssize_t capacity
    char inside[512]


cdef inline void open_buffer(Buffer* buffer) noexcept:
    buffer.data = buffer.inside
    buffer.size = 0
    buffer.capacity = sizeof(buffer.inside)


cdef inline void close_buffer(Buffer* buffer) noexcept:
    if buffer.data != buffer.inside:
        PyMem_RawFree(buffer.data)


cdef char* make_room(Buffer* buffer, Py_ssize_t size) except NULL:
    """Make room for `size` more bytes. Return their beginning."""
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
    buffer.size = put_bulk(make_room(buffer, size + 64), data, size) - buffer.data
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
    written = _wire.fallback._bulk_strings((argument,))
    size = PyBytes_GET_SIZE(written)
    memcpy(make_room(buffer, size), PyBytes_AS_STRING(written), size)
    buffer.size += size
    return 0


def encode(arguments):
    """Encode one command as a RESP array of bulk strings."""
    cdef Buffer buffer
    cdef Py_ssize_t count = len(arguments)
    open_buffer(&buffer)
    try:
        buffer.size = put_head(buffer.data, c"*", count) - buffer.data
        for argument in arguments:
            write_argument(&buffer, argument)
        return PyBytes_FromStringAndSize(buffer.data, buffer.size)
    finally:
        close_buffer(&buffer)


cdef bytes bulk_strings(object arguments):
    """Encode arguments as RESP bulk strings, without the head of an array."""
    cdef Buffer buffer
    open_buffer(&buffer)
    try:
        for argument in arguments:
            write_argument(&buffer, argument)
        return PyBytes_FromStringAndSize(buffer.data, buffer.size)
    finally:
        close_buffer(&buffer)


cdef Py_ssize_t read_head(const char** at, const char* end) noexcept:
    """Read the number after a byte. Return -1 if that is not a plain number."""
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
    """Split a request of one or more commands into the arguments of each."""
    cdef const char* at
    cdef const char* end
    cdef Py_ssize_t count, size
    cdef list commands = [], arguments
    if not PyBytes_CheckExact(data):
        return _wire.fallback.split(data)
    at = PyBytes_AS_STRING(data)
    end = at + PyBytes_GET_SIZE(data)
    while at < end:
        arguments = []
        count = read_head(&at, end)
        if count < 0:
            return _wire.fallback.split(data)
        while count:
            if at >= end:
                return _wire.fallback.split(data)
            size = read_head(&at, end)
            if size < 0 or size > end - at - 2:
                return _wire.fallback.split(data)
            arguments.append(PyBytes_FromStringAndSize(at, size))
            at += size + 2
            count -= 1
        commands.append(arguments)
    return commands
