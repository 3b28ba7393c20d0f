# The workspace: one chunk's items while they are encoded, in memory that the next chunk reuses.

cdef struct Entry:
    View payload  # Before it is serialised: a view of the item itself.
    View key
    uint64_t tag[2]  # A hash of the identity; of a kept entry, later, its digest.
    double score
    Py_ssize_t place

# An entry that is kept, as sorting moves it.
cdef struct Kept:
    uint64_t rank
    uint32_t entry

# The arguments of an entry besides its member and payload.
cdef struct Line:
    uint64_t size
    int score_size, memory_size
    char score[SCORE]
    char memory[NUMBER]

# Memory that is used again, and the number of elements that fit.
cdef struct Scratch:
    void* data
    Py_ssize_t count

cdef struct Workspace:
    Entry* entries
    Py_ssize_t capacity
    Py_ssize_t count
    Py_ssize_t used  # With the entry that is being read.
    Kept* kept
    Py_ssize_t kept_count
    Kept* spare
    Line* lines
    uint32_t* table
    Scratch kept_scratch, spare_scratch, lines_scratch, table_scratch
    Arena arena
    View text  # The text of all items, if a serializer wrote it at once.
    Py_ssize_t dropped  # Entries that were known.
    bint keyed
    bint digested


cdef int reserve_entries(Workspace* work, Py_ssize_t capacity) except -1:
    cdef Entry* entries
    if capacity <= work.capacity:
        return 0
    if capacity > PY_SSIZE_T_MAX // <Py_ssize_t> sizeof(Entry):
        raise MemoryError
    entries = <Entry*> PyMem_RawRealloc(work.entries, capacity * sizeof(Entry))
    if entries == NULL:
        raise MemoryError
    work.entries = entries
    work.capacity = capacity
    return 0


cdef void* scratch_for(Scratch* scratch, Py_ssize_t count, Py_ssize_t size) noexcept nogil:
    """Return memory for so many elements, or NULL if there is none."""
    if scratch.count < count or scratch.data == NULL:
        PyMem_RawFree(scratch.data)
        scratch.count = count
        scratch.data = PyMem_RawMalloc(max(count, 1) * size)
    return scratch.data


# The one workspace that is kept for the next chunk, of any thread.
cdef void* kept_workspace = NULL

cdef enum:
    # A workspace of more items is not kept.
    KEPT_ITEMS = 4096


cdef Workspace* take_work() except NULL:
    """Return a workspace: the kept one, or a new one.

    An allocator that returns memory to the system after each chunk, and faults it in again, takes
    longer than the encoding.
    """
    cdef Workspace* work = <Workspace*> exchange(&kept_workspace, NULL)
    if work == NULL:
        work = <Workspace*> PyMem_RawCalloc(1, sizeof(Workspace))
        if work == NULL:
            raise MemoryError
    return work


cdef void forget_items(Workspace* work) noexcept:
    """Release all items that were read."""
    cdef Py_ssize_t i
    for i in range(work.used):
        drop_view(&work.entries[i].payload)
        drop_view(&work.entries[i].key)
    drop_view(&work.text)
    work.count = work.used = work.kept_count = work.dropped = 0
    work.keyed = work.digested = False
    empty_arena(&work.arena)


cdef void give_back(Workspace* work) noexcept:
    forget_items(work)
    if work.capacity <= KEPT_ITEMS:
        work = <Workspace*> exchange(&kept_workspace, work)
    if work != NULL:
        PyMem_RawFree(work.entries)
        PyMem_RawFree(work.kept_scratch.data)
        PyMem_RawFree(work.spare_scratch.data)
        PyMem_RawFree(work.lines_scratch.data)
        PyMem_RawFree(work.table_scratch.data)
        PyMem_RawFree(work.arena.last)
        PyMem_RawFree(work)
