# The table of known duplicates.
#
# Theory of operation
#
# Rows hold digests in the order in which they were learned. The next digest of a full table
# takes the row that was filled first. Slots, twice as many or more, find the row of a digest:
#
#     slot_of(digest)      the first slot of the search
#     slots[slot]          1 + row; 0 ends the search
#     (slot + 1) & mask    the next slot (open addressing, linear probing)
#
# A freed slot must not leave a hole in a search, so entries after it move up.
#
# The table has a lock of its own, and is read and changed without the GIL. The generation is the
# number of times that it was emptied. Replies to requests of an earlier generation are not learned.

cdef struct Table:
    uint64_t* digests  # two words each
    double* until  # NULL as long as all are valid forever
    uint32_t* slots
    Py_ssize_t most, capacity, count, next  # in rows
    uint64_t mask

cdef enum:
    FEWEST_ROWS = 256
    MOST_DIGESTS = 1 << 30
    AHEAD = 16  # digests whose memory is fetched ahead of the search


cdef inline uint64_t slot_of(const Table* table, const uint64_t* digest) noexcept nogil:
    # An attacker who tries many inputs of a digest can choose a part of the digest.
    return mix(digest[0] ^ SECRET, digest[1] ^ SALT) & table.mask


cdef inline Py_ssize_t row_of(const Table* table, const uint64_t* digest) noexcept nogil:
    """Return the row of a digest, -1 if it has none."""
    cdef uint64_t at
    cdef const uint64_t* other
    if table.count == 0:
        return -1
    at = slot_of(table, digest)
    while table.slots[at]:
        other = table.digests + 2 * (<Py_ssize_t> table.slots[at] - 1)
        if other[0] == digest[0] and other[1] == digest[1]:
            return <Py_ssize_t> table.slots[at] - 1
        at = (at + 1) & table.mask
    return -1


cdef inline bint is_known(const Table* table, const uint64_t* digest, double now) noexcept nogil:
    cdef Py_ssize_t row = row_of(table, digest)
    return row >= 0 and (table.until == NULL or now < table.until[row])


cdef inline void fill_slot(Table* table, Py_ssize_t row) noexcept nogil:
    cdef uint64_t at = slot_of(table, table.digests + 2 * row)
    while table.slots[at]:
        at = (at + 1) & table.mask
    table.slots[at] = <uint32_t> (row + 1)


cdef void empty_slot(Table* table, Py_ssize_t row) noexcept nogil:
    """Free the slot of a row, and move up the entries after it."""
    cdef uint64_t hole = slot_of(table, table.digests + 2 * row), at, home
    while table.slots[hole] != <uint32_t> (row + 1):
        hole = (hole + 1) & table.mask
    at = hole
    while True:
        at = (at + 1) & table.mask
        if table.slots[at] == 0:
            break
        home = slot_of(table, table.digests + 2 * (<Py_ssize_t> table.slots[at] - 1))
        if ((at - home) & table.mask) >= ((at - hole) & table.mask):
            table.slots[hole] = table.slots[at]
            hole = at
    table.slots[hole] = 0


cdef bint enlarge(Table* table) noexcept nogil:
    """Make room for more rows. Return False without memory for them."""
    cdef Py_ssize_t capacity = min(max(2 * table.capacity, FEWEST_ROWS), table.most)
    cdef Py_ssize_t slots = FEWEST_ROWS, i
    cdef uint64_t* digests
    cdef double* until
    cdef uint32_t* index
    while slots < 2 * capacity:
        slots *= 2
    index = <uint32_t*> PyMem_RawCalloc(slots, sizeof(uint32_t))
    if index == NULL:
        return False
    digests = <uint64_t*> PyMem_RawRealloc(table.digests, capacity * 16)
    if digests != NULL:
        table.digests = digests
        if table.until != NULL:
            until = <double*> PyMem_RawRealloc(table.until, capacity * sizeof(double))
            if until == NULL:
                digests = NULL
            else:
                table.until = until
    if digests == NULL:
        PyMem_RawFree(index)
        return False
    PyMem_RawFree(table.slots)
    table.slots = index
    table.mask = slots - 1
    table.capacity = capacity
    for i in range(table.count):
        fill_slot(table, i)
    return True


cdef bint drop_ended(Table* table, double now) noexcept nogil:
    """Drop expired digests, if at least half are. Return whether they were dropped."""
    cdef Py_ssize_t valid = 0, kept = 0, i
    if table.until == NULL or table.count == 0:
        return False
    for i in range(table.count):
        valid += now < table.until[i]
    if 2 * valid > table.count:
        return False
    memset(table.slots, 0, <size_t> (table.mask + 1) * sizeof(uint32_t))
    for i in range(table.count):
        if now < table.until[i]:
            table.digests[2 * kept] = table.digests[2 * i]
            table.digests[2 * kept + 1] = table.digests[2 * i + 1]
            table.until[kept] = table.until[i]
            fill_slot(table, kept)
            kept += 1
    table.count = kept
    return True


cdef bint limit_times(Table* table) noexcept nogil:
    """Keep times from now on. Return False without memory for them."""
    cdef Py_ssize_t i
    table.until = <double*> PyMem_RawMalloc(table.capacity * sizeof(double))
    if table.until == NULL:
        return False
    for i in range(table.count):
        table.until[i] = INFINITY
    return True


cdef void learn_one(
    Table* table, const uint64_t* digest, double until, double now
) noexcept nogil:
    """Learn a digest. Without memory to grow, the table stays as large as it is."""
    cdef Py_ssize_t row = row_of(table, digest)
    if row < 0 and table.count == table.capacity < table.most and table.next == 0:
        if not drop_ended(table, now):
            enlarge(table)
    if table.capacity == 0:
        return
    if table.until == NULL and until != INFINITY and not limit_times(table):
        # A digest without its time would be valid forever. Forget all digests instead.
        memset(table.slots, 0, <size_t> (table.mask + 1) * sizeof(uint32_t))
        table.count = table.next = 0
        return
    if row < 0:
        if table.count < table.capacity:
            row = table.count
            table.count += 1
        else:
            row = table.next
            table.next = (row + 1) % table.capacity
            empty_slot(table, row)
        table.digests[2 * row] = digest[0]
        table.digests[2 * row + 1] = digest[1]
        fill_slot(table, row)
    if table.until != NULL:
        table.until[row] = until


cdef void drop_known(Workspace* work, const Table* table, double now) noexcept nogil:
    """Drop the entries that are known. All entries are digested already."""
    cdef const uint64_t* digest
    cdef uint32_t slot
    cdef Py_ssize_t start = 0, stop, i, kept = 0
    if table.count == 0:
        return
    while start < work.kept_count:
        stop = min(start + AHEAD, work.kept_count)
        for i in range(start, stop):
            digest = work.entries[work.kept[i].entry].tag
            prefetch(table.slots + slot_of(table, digest))
        for i in range(start, stop):
            digest = work.entries[work.kept[i].entry].tag
            slot = table.slots[slot_of(table, digest)]
            if slot:
                prefetch(table.digests + 2 * (<Py_ssize_t> slot - 1))
        for i in range(start, stop):
            if not is_known(table, work.entries[work.kept[i].entry].tag, now):
                work.kept[kept] = work.kept[i]
                kept += 1
        start = stop
    work.dropped = work.kept_count - kept
    work.kept_count = kept


cdef inline void hold(PyThread_type_lock lock) noexcept:
    """Lock. If another thread has the lock, let it run: it may need the GIL to unlock."""
    if not PyThread_acquire_lock(lock, NOWAIT_LOCK):
        with nogil:
            PyThread_acquire_lock(lock, WAIT_LOCK)


@cython.final
cdef class Known:
    """A table of digests of items that the server knows: the last ``most`` that were learned.

    See the fallback. A table takes 24 bytes per digest, up to twice as many while it grows, and 8
    more if times are limited.
    """

    cdef Table table
    cdef PyThread_type_lock lock
    cdef Py_ssize_t emptyings
    cdef object __weakref__

    def __cinit__(self, most):
        if most < 0:
            raise ValueError(f"most must be 0 or more, got {most} (int)")
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError
        self.table.most = min(most, MOST_DIGESTS)

    def __dealloc__(self):
        self.free_table()
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    cdef void free_table(self) noexcept:
        PyMem_RawFree(self.table.digests)
        PyMem_RawFree(self.table.until)
        PyMem_RawFree(self.table.slots)
        self.table.digests = NULL
        self.table.until = NULL
        self.table.slots = NULL
        self.table.capacity = self.table.count = self.table.next = 0

    @property
    def generation(self):
        """The number of times that the table was emptied."""
        return self.emptyings

    def __len__(self):
        """The number of digests in the table, valid or not."""
        return self.table.count

    def clear(self):
        """Empty the table. It learns nothing more for an earlier generation."""
        hold(self.lock)
        self.free_table()
        self.emptyings += 1
        PyThread_release_lock(self.lock)

    def learn(self, bytes digests not None, until, Py_ssize_t generation, double now=0.0):
        """Learn digests of 16 bytes that are valid before ``until``: one time, or one per digest.

        See the fallback.
        """
        cdef const char* data = PyBytes_AS_STRING(digests)
        cdef Py_ssize_t count = PyBytes_GET_SIZE(digests) // 16, i
        cdef bint same = isinstance(until, float)
        cdef double one = 0.0
        cdef double* times = NULL
        cdef uint64_t digest[2]
        if PyBytes_GET_SIZE(digests) != 16 * count:
            raise ValueError("digests must have 16 bytes each")
        if same:
            one = until
        try:
            if not same:
                limits = tuple(until)
                if len(limits) == count and count:
                    times = <double*> PyMem_RawMalloc(count * sizeof(double))
                    if times == NULL:
                        raise MemoryError
                i = 0
                for each in limits:
                    one = float(each)
                    if times != NULL:
                        times[i] = one
                    i += 1
                if i != count:
                    raise ValueError("until must be a float, or one for each digest")
            with nogil:
                PyThread_acquire_lock(self.lock, WAIT_LOCK)
                if generation == self.emptyings and self.table.most:
                    for i in range(count):
                        if times != NULL:
                            one = times[i]
                        if one > 0.0:
                            memcpy(digest, data + 16 * i, 16)
                            learn_one(&self.table, digest, one, now)
                PyThread_release_lock(self.lock)
        finally:
            PyMem_RawFree(times)

    def knows(self, bytes digest not None, double now):
        """Whether a digest is in the table, and still valid."""
        cdef uint64_t words[2]
        cdef bint known
        if PyBytes_GET_SIZE(digest) != 16:
            raise ValueError("a digest must have 16 bytes")
        memcpy(words, PyBytes_AS_STRING(digest), 16)
        hold(self.lock)
        known = is_known(&self.table, words, now)
        PyThread_release_lock(self.lock)
        return known
