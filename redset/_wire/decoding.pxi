# Members back into items.

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
    """Deserialise members. Return the items, and the bad members."""
    cdef list items = [], bad = []
    cdef Py_ssize_t place = 0
    cdef bint plain = loads is None, either = binary is None, as_bytes = bool(binary)
    read = orjson_function(loads, "loads")
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
            bad.append(bad_of(place, raw, error))
        place += 1
    return items, bad
