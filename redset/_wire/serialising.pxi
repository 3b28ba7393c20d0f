# Items serialised ahead of a bulk add, as a writer does when it accepts them.

def serialise(items, dumps, key, limit, warn=None, Known known=None, double now=0.0):
    """Serialise items, except those that a table knows. Return them and their places.

    See the fallback.
    """
    cdef bint limited = bool(limit), keyed = key is not None
    cdef Py_ssize_t most = limit_of(limit) if limited else 0
    cdef list sent = [], names = []
    # Looked up once: a look-up for each item would cost as much as serialising it.
    cdef object write_json = orjson_function(dumps, "dumps")
    items = list(items)
    if not keyed:
        for item in items:
            sent.append(serialise_one(item, dumps, write_json, limited, most, warn))
        places = places_of_unknown(sent, known, now)
        return [sent[place] for place in places], places
    for item in items:
        names.append(key_bytes(key_of(item, key)))
    places = places_of_unknown(names, known, now)
    for place in places:
        data = serialise_one(items[place], dumps, write_json, limited, most, warn)
        sent.append((data, names[place]))
    return sent, places


cdef list places_of_unknown(list names, Known known, double now):
    """Return the places of bytes whose digests a table does not know. Without a table: all."""
    cdef list places = [], marks
    cdef uint64_t words[2]
    cdef Py_ssize_t place
    if known is None:
        return list(range(len(names)))
    # Many digests at once take a third of the time of single ones.
    marks = digests(names)
    hold(known.lock)
    try:
        for place in range(len(marks)):
            memcpy(words, PyBytes_AS_STRING(marks[place]), 16)
            if not is_known(&known.table, words, now):
                places.append(place)
    finally:
        PyThread_release_lock(known.lock)
    return places


cdef bytes serialise_one(
    object item, object dumps, object write_json, bint limited, Py_ssize_t limit, object warn
):
    cdef View data
    data.owner = NULL
    try:
        view_payload(&data, item, dumps, write_json, limited, limit, NULL, warn)
        return bytes_of(&data)
    finally:
        drop_view(&data)
