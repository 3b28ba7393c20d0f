# Folding: of equal members in one chunk one entry is kept.

# An attacker may choose members, and must not know which of them share a hash.
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


cdef inline const View* identity_of(const Workspace* work, const Entry* entry) noexcept nogil:
    return &entry.key if work.keyed else &entry.payload


cdef void digest_kept(Workspace* work) noexcept nogil:
    """Put the digest of each kept entry's identity in its tag, which folding no longer needs."""
    cdef Lanes lanes
    cdef Entry* entry
    cdef const View* identity
    cdef Py_ssize_t i = 0, j, some
    while i < work.kept_count:
        some = min(LANES, work.kept_count - i)
        for j in range(some):
            identity = identity_of(work, &work.entries[work.kept[i + j].entry])
            put_digest(&lanes, j, identity.data, identity.size)
        end_lanes(&lanes, some)
        for j in range(some):
            entry = &work.entries[work.kept[i + j].entry]
            store_digest(entry.tag, lanes.h[0][j], lanes.h[1][j])
        i += LANES
    work.digested = True


cdef inline bint are_equal(const Workspace* work, const Entry* a, const Entry* b) noexcept nogil:
    cdef const View* one = identity_of(work, a)
    cdef const View* other = identity_of(work, b)
    return a.tag[0] == b.tag[0] and one.size == other.size and (
        one.data == other.data or memcmp(one.data, other.data, one.size) == 0
    )


cdef int keep_all(Workspace* work) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(work.count):
        work.kept[i].entry = <uint32_t> i
    work.kept_count = work.count
    return 0


cdef int fold_equals(Workspace* work, bint last) noexcept nogil:
    """Keep one of equal members, in the place of the first. Return -1 without memory."""
    cdef Entry* entry
    cdef Entry* other
    cdef View payload
    cdef const View* name
    cdef Py_ssize_t i, slots = 4
    cdef uint64_t at, mask
    while slots < 2 * work.count:
        slots *= 2
    mask = slots - 1
    work.table = <uint32_t*> scratch_for(&work.table_scratch, slots, sizeof(uint32_t))
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
