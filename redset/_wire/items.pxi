# Items: their serialised bytes, their fields and their keys.

cdef object orjson_function(object bound, str name):
    """Return the function of orjson that a method of JSONSerializer calls; None for others."""
    if not _serializers._USE_ORJSON or type(bound) is not MethodType:
        return None
    if bound.__func__ is not _OWN_METHODS[name]:
        return None
    return _serializers._orjson_dumps if name == "dumps" else _serializers._orjson_loads


cdef object dumps_directly(object item, object dumps, object write_json):
    """Serialise as JSONSerializer.dumps does. Hand items that need its checks to it."""
    if not is_shallow(item, JSON_DEPTH):
        return dumps(item)
    data = write_json(item, None, _JSON_OPTIONS)
    if not PyBytes_CheckExact(data):
        return data
    if holds_null(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)):
        return dumps(item)
    return data


cdef bint holds_null(const char* text, Py_ssize_t size) noexcept nogil:
    """Whether text contains "null". Of its letters u is the rarest, and memchr finds it fast."""
    cdef const char* at = text + 1
    cdef const char* end = text + size - 2
    while at < end:
        at = <const char*> memchr(at, c"u", end - at)
        if at == NULL:
            return False
        if at[-1] == c"n" and at[1] == c"l" and at[2] == c"l":
            return True
        at += 1
    return False


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
    """Whether these are JSON's own types, not nested deeper: orjson does not count all levels."""
    cdef PyObject* key
    cdef PyObject* inner
    cdef Py_ssize_t at = 0
    if is_plain(value):
        return True
    if depth == 0:
        return False
    if type(value) is dict:
        # Without a GIL another thread may change it at the same time.
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


cdef bint is_flat(object item) noexcept:
    """Whether an item is a dict of plain values that JSON has: NaN would be written as null."""
    cdef PyObject* key
    cdef PyObject* inner
    cdef Py_ssize_t at = 0
    if type(item) is not dict:
        return False
    with cython.critical_section(item):
        while PyDict_Next(item, &at, &key, &inner):
            if PyUnicode_CheckExact(<object> inner) or PyLong_CheckExact(<object> inner):
                continue
            if PyFloat_CheckExact(<object> inner):
                if not isfinite(PyFloat_AS_DOUBLE(<object> inner)):
                    return False
            elif not is_plain(<object> inner):
                return False
    return True


cdef Py_ssize_t count_braces(const char* text, Py_ssize_t size) noexcept nogil:
    cdef const char* end = text + size
    cdef Py_ssize_t count = 0
    text = <const char*> memchr(text, c"{", size)
    while text != NULL:
        count += 1
        text = <const char*> memchr(text + 1, c"{", end - text - 1)
    return count


cdef bint view_flat(View* text, object items, object write_json) except -1:
    """View the JSON of flat dicts, all written in one call. Return False if that does not apply.

    It takes half of the time of one call per item. An item's text begins at a brace. If there are
    as many braces as items, strings have none.
    """
    for item in items:
        if not is_flat(item):
            return False
    data = write_json(items, None, _JSON_OPTIONS)
    if not PyBytes_CheckExact(data):
        return False
    if count_braces(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)) != len(items):
        return False
    # Without the bracket that begins the list.
    set_view(text, data, PyBytes_AS_STRING(data) + 1, PyBytes_GET_SIZE(data) - 1)
    return True


cdef void take_flat(View* text, View* out) noexcept nogil:
    """View the first item of a text, and remove it from the text. Another view holds the text."""
    cdef const char* end = <const char*> memchr(text.data + 1, c"{", text.size - 1)
    out.data = text.data
    # A comma or, after the last item, a bracket follows.
    out.size = (end - text.data if end != NULL else text.size) - 1
    text.data += out.size + 1
    text.size -= out.size + 1


cdef int view_serialised(View* out, object data, Arena* arena) except -1:
    """View the result of a serializer. It has no other owner."""
    if isinstance(data, str):
        view_text(out, data)
    elif PyBytes_CheckExact(data):
        view_bytes(out, data)
    elif isinstance(data, bytes):
        view_bytes(out, bytes(data))
    else:
        raise TypeError(f"serializer.dumps must return str or bytes, {_wire.fallback._got(data)}")
    if arena != NULL:
        copy_into(arena, out)
    return 0


cdef bint is_structure(object item) except -1:
    """Whether an item is of a type whose str() a user rarely means to store."""
    return not (PyLong_CheckExact(item) or PyFloat_CheckExact(item)) and (
        isinstance(item, (dict, list, tuple, set, frozenset))
        or hasattr(type(item), "__dataclass_fields__")
    )


cdef int view_payload(
    View* out, object item, object dumps, object write_json, bint limited, Py_ssize_t limit,
    Arena* arena, object warn,
) except -1:
    if write_json is not None:
        view_serialised(out, dumps_directly(item, dumps, write_json), arena)
    elif dumps is not None:
        view_serialised(out, dumps(item), arena)
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
    return check_size(out, limited, limit)


cdef int check_size(const View* out, bint limited, Py_ssize_t limit) except -1:
    if limited and out.size > limit:
        raise ValueError(
            f"item has {out.size} bytes serialised, more than max_item_bytes={limit}"
        )
    return 0


cdef Py_ssize_t limit_of(object limit) except? -1:
    return max(min(limit, PY_SSIZE_T_MAX), -PY_SSIZE_T_MAX)


def payload(item, dumps, limit, warn=None):
    """Serialise an item. ``limit`` is the most bytes that it may have; 0 for no limit.

    ``warn`` is called with an item, such as a dict, that is stored as text without a serializer.
    """
    cdef View data
    cdef bint limited = bool(limit)
    data.owner = NULL
    try:
        view_payload(
            &data, item, dumps, orjson_function(dumps, "dumps"), limited,
            limit_of(limit) if limited else 0, NULL, warn,
        )
        return bytes_of(&data)
    finally:
        drop_view(&data)


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
        parts = []
        for field in key:
            parts.append(read_field(item, field, "key"))
        return _wire.fallback.joined_key(parts)
    return key(item)


cdef int view_key(View* out, object key) except -1:
    """View the bytes of a key."""
    if isinstance(key, str):
        return view_text(out, key)
    if PyBytes_CheckExact(key):
        return view_bytes(out, key)
    return view_bytes(out, _wire.fallback.key_bytes(key))


def key_bytes(key):
    """Return the bytes of a key: 1, "1" and b"1" are one key."""
    cdef View data
    data.owner = NULL
    try:
        view_key(&data, key)
        return bytes_of(&data)
    finally:
        drop_view(&data)


def joined_key(parts):
    """Return the bytes of a key of several parts. Keys with other parts have other bytes."""
    return _wire.fallback.joined_key(parts)


cdef int digest_key(void* out, object item, object key) except -1:
    cdef View data
    data.owner = NULL
    try:
        view_key(&data, key_of(item, key))
        digest_of(out, data.data, data.size)
    finally:
        drop_view(&data)
    return 0


def identity(item, dumps, key):
    """Return the member that stands for an item: the digest of its key, or its serialised bytes."""
    if key is None:
        return payload(item, dumps, 0)
    result = PyBytes_FromStringAndSize(NULL, 16)
    digest_key(PyBytes_AS_STRING(result), item, key)
    return result
