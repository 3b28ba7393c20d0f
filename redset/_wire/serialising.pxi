# Items serialised ahead of a bulk add, as a writer does when it accepts them.

def serialise(
    items, dumps, key, limit, warn=None, Known known=None, double now=0.0, Known pending=None
):
    """Serialise items, except those that a table has; return them and their places.

    See the fallback.
    """
    cdef bint limited = bool(limit), keyed = key is not None
    cdef Py_ssize_t most = limit_of(limit) if limited else 0
    cdef list sent = [], names = [], chosen = [], places
    cdef Py_ssize_t at
    # Found once: a look at each item's serializer would cost as much as the serializer.
    cdef object write_json = orjson_function(dumps, "dumps")
    items = list(items)
    if not keyed:
        for item in items:
            names.append(serialise_one(item, dumps, write_json, limited, most, warn))
    else:
        for item in items:
            names.append(key_of(item, key))
    # A page has most of its hyperlinks twice: to compare them costs less than a digest.
    places = list(range(len(names))) if pending is None else firsts_of(names)
    # Not a comprehension: one of Cython 3.3 crashes later if an allocation fails in its middle.
    for at in range(len(places)):
        name = names[places[at]]
        chosen.append(key_bytes(name) if keyed else name)
    names = chosen
    for table in (known, pending):
        if table is not None:
            places, names = without(table, places, names, now)
    if not keyed:
        return names, places
    for at in range(len(places)):
        data = serialise_one(items[places[at]], dumps, write_json, limited, most, warn)
        sent.append((data, names[at]))
    return sent, places


cdef list firsts_of(list names):
    """Return the places of texts that are not there before, and of all that is not a text."""
    cdef list places = []
    cdef set seen = set()
    cdef Py_ssize_t place, count = 0
    for place in range(len(names)):
        name = names[place]
        if type(name) is str or type(name) is bytes:
            seen.add(name)
            if len(seen) == count:
                continue
            count += 1
        places.append(place)
    return places


cdef tuple without(Known table, list places, list names, double now):
    """Return the places and names whose digests a table does not have."""
    cdef list found = [], rest = [], marks
    cdef uint64_t words[2]
    cdef Py_ssize_t at
    # Many digests at once take a third of the time of one by one.
    marks = digests(names)
    hold(table.lock)
    try:
        for at in range(len(marks)):
            memcpy(words, PyBytes_AS_STRING(marks[at]), 16)
            if not is_known(&table.table, words, now):
                found.append(places[at])
                rest.append(names[at])
    finally:
        PyThread_release_lock(table.lock)
    return found, rest


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
