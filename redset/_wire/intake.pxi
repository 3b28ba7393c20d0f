# The intake of a writer: single items are accepted without the writer's lock.
#
# Theory of operation
#
# `put` decides twice. First it looks whether the intake is open for such an add. Then it serialises
# the item, which may run any code: other adds, or `close`. So it looks again, and appends. From the
# second look to the append no Python code runs. With a GIL no other thread does. Without one the
# critical section keeps other threads out.
#
# A list of three values grows once, so an add without memory changes nothing.

cdef enum:
    # Python's own allocator has blocks of up to 512 bytes, with the object's head.
    SMALL = 400


@cython.final
cdef class Intake:
    """Accepts single items for a writer: serialises them, and appends them to a list.

    See the fallback.
    """

    cdef list adds
    cdef tuple flags
    cdef object key, dumps, write_json, warn
    cdef bint limited
    cdef Py_ssize_t limit, room, total

    def __cinit__(self, key, limit):
        self.key = key
        self.limited = bool(limit)
        if self.limited:
            self.limit = limit_of(limit)

    def open(self, list adds not None, flags, codec, Py_ssize_t room):
        """Accept up to ``room`` items with these flags and this serializer, for a list."""
        cdef tuple chosen = tuple(flags)
        dumps, warn = codec.dumps, codec.warn
        write_json = orjson_function(dumps, "dumps")
        with cython.critical_section(self):
            self.adds = adds
            self.flags = chosen
            self.dumps = dumps
            self.write_json = write_json
            self.warn = warn
            self.room = room

    def close(self):
        """Accept nothing more. Return the number of items that were accepted since the start."""
        cdef Py_ssize_t total
        with cython.critical_section(self):
            self.room = 0
            total = self.total
        return total

    def put(self, item, score, tuple flags not None, codec):
        """Accept an item, or return False if that needs more checks, or if it is not open."""
        cdef object write_json = None, warn = None
        cdef bint taken = False
        dumps = codec.dumps
        with cython.critical_section(self):
            if self.takes(flags, dumps):
                taken = True
                write_json = self.write_json
                warn = self.warn
        if not taken:
            return False
        if score is None:
            score = codec.scorer
        if PyLong_CheckExact(score):
            score = float_of(score)
        if not PyFloat_CheckExact(score) or score != score:
            return False
        sent = serialise_one(item, dumps, write_json, self.limited, self.limit, warn)
        if write_json is not None and PyBytes_GET_SIZE(sent) <= SMALL:
            # orjson's object has a block of malloc's, which is made at 1,024 bytes and then shrunk.
            # To keep it until it is written takes a fifth of the time of an add.
            sent = PyBytes_FromStringAndSize(PyBytes_AS_STRING(sent), PyBytes_GET_SIZE(sent))
        if self.key is not None:
            sent = sent, key_bytes(key_of(item, self.key))
        add = sent, score, item
        with cython.critical_section(self):
            taken = self.takes(flags, dumps)
            if taken:
                self.adds.extend(add)
                self.room -= 1
                self.total += 1
        return taken

    cdef bint takes(self, tuple flags, object dumps) noexcept:
        """Whether it is open for an add with these flags and this serializer."""
        cdef Py_ssize_t at
        if self.room <= 0 or dumps is not self.dumps or len(flags) != len(self.flags):
            return False
        for at in range(len(flags)):
            if flags[at] is not self.flags[at]:
                return False
        return True


cdef object float_of(object number):
    """Return a small int as a float, and None for a large one."""
    cdef int overflow
    cdef long long value = PyLong_AsLongLongAndOverflow(number, &overflow)
    if overflow or not -9007199254740992 < value < 9007199254740992:
        return None
    return <double> value
