# Sorting: entries by score, then member, the order in which the server keeps them.
#
# Theory of operation
#
# The server inserts a chunk faster if it comes in order. Scores become ranks, numbers of 64 bits in
# the same order, and a radix sort orders these. Entries of one score are then ordered by member:
# the ranks become the eight bytes after the bytes that these members have in common, and the same
# radix sort orders them. Members that are still equal are sorted by the next eight bytes. A few
# members, and those that end within the eight bytes, are compared as a whole.

cdef inline const char* member_of(
    const Workspace* work, const Entry* entry, Py_ssize_t* size
) noexcept nogil:
    if work.keyed:
        size[0] = 16
        return <const char*> entry.tag
    size[0] = entry.payload.size
    return entry.payload.data


cdef int compare(const Workspace* work, uint32_t a, uint32_t b) noexcept nogil:
    cdef Py_ssize_t a_size, b_size
    cdef const char* a_data = member_of(work, &work.entries[a], &a_size)
    cdef const char* b_data = member_of(work, &work.entries[b], &b_size)
    cdef int order = memcmp(a_data, b_data, min(a_size, b_size))
    if order:
        return order
    return (a_size > b_size) - (a_size < b_size)


cdef inline uint64_t rank_of(double score) noexcept nogil:
    """Return a number of 64 bits in the order of scores."""
    cdef uint64_t bits
    if score == 0:
        score = 0.0  # not -0.0
    memcpy(&bits, &score, 8)
    return ~bits if bits >> 63 else bits | <uint64_t> 1 << 63


cdef void sort_by_rank(Kept* kept, Kept* spare, Py_ssize_t count) noexcept nogil:
    """Sort stably: a few by insertion, many by radix. Skip bytes that are all the same."""
    cdef uint32_t counts[8][256]
    cdef uint32_t total, size
    cdef Kept* source = kept
    cdef Kept* swap
    cdef Kept moved
    cdef Py_ssize_t i, at
    cdef uint64_t rank
    cdef int byte
    if count < 48:
        for i in range(1, count):
            moved = kept[i]
            at = i
            while at and kept[at - 1].rank > moved.rank:
                kept[at] = kept[at - 1]
                at -= 1
            kept[at] = moved
        return
    memset(counts, 0, sizeof(counts))
    for i in range(count):
        rank = kept[i].rank
        for byte in range(8):
            counts[byte][rank >> 8 * byte & 255] += 1
    for byte in range(8):
        if counts[byte][source[0].rank >> 8 * byte & 255] == <uint32_t> count:
            continue
        total = 0
        for i in range(256):
            size = counts[byte][i]
            counts[byte][i] = total
            total += size
        for i in range(count):
            rank = source[i].rank >> 8 * byte & 255
            spare[counts[byte][rank]] = source[i]
            counts[byte][rank] += 1
        swap = source
        source = spare
        spare = swap
    if source != kept:
        memcpy(kept, source, count * sizeof(Kept))


cdef void merge_sort(
    const Workspace* work, Kept* kept, Kept* spare, Py_ssize_t count
) noexcept nogil:
    """Sort stably by the whole members."""
    cdef Py_ssize_t half = count // 2, left, right, at
    if count < 2:
        return
    merge_sort(work, kept, spare, half)
    merge_sort(work, kept + half, spare, count - half)
    if compare(work, kept[half - 1].entry, kept[half].entry) <= 0:
        return
    memcpy(spare, kept, half * sizeof(Kept))
    left, right, at = 0, half, 0
    while left < half:
        if right < count and compare(work, spare[left].entry, kept[right].entry) > 0:
            kept[at] = kept[right]
            right += 1
        else:
            kept[at] = spare[left]
            left += 1
        at += 1


cdef void sort_by_member(
    const Workspace* work, Kept* kept, Kept* spare, Py_ssize_t count, Py_ssize_t common, int depth
) noexcept nogil:
    """Sort members of which the first `common` bytes are the same (see above)."""
    cdef Py_ssize_t i, begin, size, other_size, least = PY_SSIZE_T_MAX
    cdef const char* first
    cdef const char* other
    if count < 8 or depth == 0:
        merge_sort(work, kept, spare, count)
        return
    first = member_of(work, &work.entries[kept[0].entry], &size)
    for i in range(1, count):
        other = member_of(work, &work.entries[kept[i].entry], &other_size)
        size = min(size, other_size)
        if memcmp(first + common, other + common, size - common):
            size = common
            while first[size] == other[size]:
                size += 1
    common = size
    for i in range(count):
        other = member_of(work, &work.entries[kept[i].entry], &size)
        least = min(least, size)
        kept[i].rank = in_order(
            load(other + common) if size - common >= 8
            else load_few(other + common, size - common)
        )
    sort_by_rank(kept, spare, count)
    begin = 0
    for i in range(1, count + 1):
        if i == count or kept[i].rank != kept[begin].rank:
            # Zeros that stood for missing bytes do not make members equal.
            sort_by_member(
                work, kept + begin, spare, i - begin, common + 8,
                depth - 1 if least - common >= 8 else 0,
            )
            begin = i


cdef int sort_kept(Workspace* work) noexcept nogil:
    """Sort by score, then member. Return -1 without memory."""
    cdef Kept* kept = work.kept
    cdef Py_ssize_t i, begin, count = work.kept_count
    cdef bint sorted_already = True
    if count < 2:
        return 0
    for i in range(count):
        kept[i].rank = rank_of(work.entries[kept[i].entry].score)
        if i and sorted_already and not kept[i - 1].rank < kept[i].rank:
            sorted_already = (
                kept[i - 1].rank == kept[i].rank
                and compare(work, kept[i - 1].entry, kept[i].entry) <= 0
            )
    if sorted_already:
        return 0
    work.spare = <Kept*> scratch_for(&work.spare_scratch, count, sizeof(Kept))
    if work.spare == NULL:
        return -1
    sort_by_rank(kept, work.spare, count)
    begin = 0
    for i in range(1, count + 1):
        if i == count or kept[i].rank != kept[begin].rank:
            if i - begin > 1:
                sort_by_member(work, kept + begin, work.spare, i - begin, 0, 8)
            # The ranks of this run have changed; the rank of its successor has not.
            begin = i
    return 0
