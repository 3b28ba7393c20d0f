# Views: bytes inside of held objects, which can be read without the GIL.

cdef struct View:
    const char* data
    Py_ssize_t size
    PyObject* owner  # NULL for a view of an arena, and for an empty view


cdef inline void set_view(View* out, object owner, const char* data, Py_ssize_t size) noexcept:
    Py_INCREF(owner)
    out.owner = <PyObject*> owner
    out.data = data
    out.size = size


cdef inline void drop_view(View* out) noexcept:
    cdef PyObject* owner = out.owner
    out.owner = NULL
    Py_XDECREF(owner)


cdef int view_bytes(View* out, object data) except -1:
    if not PyBytes_CheckExact(data):
        if not isinstance(data, bytes):
            raise TypeError(f"bytes expected, not {type(data).__name__}")
        data = PyBytes_FromStringAndSize(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    set_view(out, data, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return 0


cdef int view_text(View* out, object text) except -1:
    cdef const char* data
    cdef Py_ssize_t size
    if not PyUnicode_CheckExact(text):
        return view_bytes(out, text.encode())
    if is_ascii(text):
        data = PyUnicode_AsUTF8AndSize(text, &size)
        set_view(out, text, data, size)
        return 0
    # Not PyUnicode_AsUTF8AndSize: the text would keep its UTF-8 as long as it lives.
    return view_bytes(out, PyUnicode_AsUTF8String(text))


cdef object bytes_of(View* out):
    """Return the bytes of a view."""
    owner = <object> out.owner
    if PyBytes_CheckExact(owner):
        return owner
    return PyBytes_FromStringAndSize(out.data, out.size)


# Copies of serialised items. An object that is freed at once costs its allocator little. 500 of
# orjson's that are kept to the end of a chunk cost twenty times as much as writing them.
cdef struct Slab:
    Slab* before

cdef struct Arena:
    Slab* last
    char* free
    Py_ssize_t left

cdef enum:
    SLAB_SIZE = 65536
    # A larger item is not copied. Nor is an empty one: there may be no slab yet.
    LARGE = 16384


cdef int copy_into(Arena* arena, View* out) except -1:
    """Release the object of a view, and view a copy."""
    cdef Slab* slab
    if out.size > LARGE or out.size == 0:
        return 0
    if arena.left < out.size:
        slab = <Slab*> PyMem_RawMalloc(sizeof(Slab) + SLAB_SIZE)
        if slab == NULL:
            raise MemoryError
        slab.before = arena.last
        arena.last = slab
        arena.free = <char*> (slab + 1)
        arena.left = SLAB_SIZE
    memcpy(arena.free, out.data, out.size)
    out.data = arena.free
    arena.free += out.size
    arena.left -= out.size
    drop_view(out)
    return 0


cdef void empty_arena(Arena* arena) noexcept:
    """Free all slabs except the first."""
    cdef Slab* slab = arena.last
    cdef Slab* before
    if slab == NULL:
        return
    while slab.before != NULL:
        before = slab.before
        PyMem_RawFree(slab)
        slab = before
    arena.last = slab
    arena.free = <char*> (slab + 1)
    arena.left = SLAB_SIZE
