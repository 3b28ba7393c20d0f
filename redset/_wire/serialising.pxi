# Items serialised ahead of a bulk add, as a writer does when it accepts them.

def serialise(
    items, dumps, key, limit, warn=None, Known known=None, double now=0.0, Known pending=None
):
    """Serialise items, except those that a table has; return them and their places.

    See the fallback.
    """
    cdef bint limited = bool(limit), keyed = key is not None
    cdef Py_ssize_t most = limit_of(limit) if limited else 0
    cdef list names = [], chosen = [], places
    cdef Py_ssize_t at
    # Found once: a look at each item's serializer would cost as much as the serializer.
    cdef object write_json = orjson_function(dumps, "dumps")
    items = list(items)
    if keyed:
        return serialise_by_key(
            items, dumps, write_json, key, limited, most, warn, known, now, pending
        )
    for item in items:
        names.append(serialise_one(item, dumps, write_json, limited, most, warn))
    # A page has most of its hyperlinks twice: to compare them costs less than a digest.
    places = list(range(len(names)))
    if pending is not None:
        places = firsts_of(names)
        # Not a comprehension: one of Cython 3.3 crashes later if an allocation fails in its middle.
        for at in range(len(places)):
            chosen.append(names[places[at]])
        names = chosen
    for table in (known, pending):
        if table is not None:
            places, names = without(table, places, names, now)
    return names, places


cdef tuple serialise_by_key(
    list items, object dumps, object write_json, object key, bint limited, Py_ssize_t most,
    object warn, Known known, double now, Known pending
):
    """Serialise items with a key, except those that a table has, as an encoder reads them."""
    cdef Workspace* work = take_work()
    cdef Entry* entry
    cdef Py_ssize_t i
    cdef list sent = [], places = []
    cdef bytes name
    try:
        work.keyed = True
        reserve_entries(work, len(items))
        for item in items:
            entry = &work.entries[work.count]
            entry.payload.owner = NULL
            entry.key.owner = NULL
            entry.place = work.count
            work.used = work.count + 1
            view_key(&entry.key, key_of(item, key))
            work.count += 1
        keep_unknown(work, known, now, pending)
        for i in range(work.kept_count):
            entry = &work.entries[work.kept[i].entry]
            name = bytes_of(&entry.key)
            data = serialise_one(items[entry.place], dumps, write_json, limited, most, warn)
            sent.append((data, name))
            places.append(entry.place)
    finally:
        give_back(work)
    return sent, places


cdef int keep_unknown(Workspace* work, Known known, double now, Known pending) except -1:
    """Keep the entries that no table has; with ``pending``, of equal ones only the first."""
    if work.count > UINT32_MAX // 4:
        raise MemoryError
    work.kept = <Kept*> scratch_for(&work.kept_scratch, work.count, sizeof(Kept))
    if work.kept == NULL:
        raise MemoryError
    if pending is None or work.count < 2:
        keep_all(work)
    # A page has most of its hyperlinks twice: to compare them costs less than a digest.
    elif fold_equals(work, False) < 0:
        raise MemoryError
    if known is not None or pending is not None:
        digest_kept(work)
    for table in (known, pending):
        if table is not None:
            drop_entries(work, table, now)
    return 0


cdef int drop_entries(Workspace* work, Known known, double now) except -1:
    hold(known.lock)
    drop_known(work, &known.table, now)
    PyThread_release_lock(known.lock)
    return 0


cdef list firsts_of(list names):
    """Return the places of names that are not there before."""
    cdef list places = []
    cdef set seen = set()
    cdef Py_ssize_t place
    for place in range(len(names)):
        seen.add(names[place])
        if len(seen) > len(places):
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
