# The encoder: items to requests, chunk by chunk.
#
# Theory of operation
#
# A chunk passes these steps. Steps that touch items hold the GIL. The others work on views of bytes
# whose owners are held. They release the GIL if a chunk has MANY entries or more.
#
#     read_by_key    with a key: read key and score of each item (GIL). Items are serialised after
#                    folding and dropping, so known and folded items are not serialised.
#     read_flat      without a key: write flat dicts as JSON in one call (GIL)
#     read_all       read payload, key and score of each item (GIL). It is used if neither of the
#                    two applies, and if an item was bad: it names the bad item.
#     fold_and_drop  keep one entry of equal members, digest, drop known entries
#     sort_all       sort by score, then member; put the other arguments into lines, count bytes
#     request_of     allocate one request, and fill it
#
# `Workspace.entries` are the entries that were read. `Workspace.kept` are the numbers of the kept
# ones: folding, dropping and sorting move only these. Each kept entry has a line.
#
# No two threads use a workspace: it is taken at the beginning of a chunk, and returned at its end,
# even after an error.

@cython.final
cdef class Encoder:
    """Makes requests of chunks of items: ``prefix`` arguments, then an entry for each item.

    See the fallback for the parameters.
    """

    cdef bytes prefix
    cdef const char* prefix_data
    cdef Py_ssize_t prefix_size, prefix_count
    cdef object dumps, write_json, warn
    # The type of the previous item, which needs no second warning. It may be freed: only compare.
    cdef void* usual
    cdef object key
    cdef object scorer
    cdef object epoch
    cdef bint keyed, constant, limited, sort, places, unfit, whole, timed
    cdef double constant_score
    cdef Py_ssize_t limit
    cdef int fold, memory
    cdef KeyedDigest mac

    def __cinit__(
        self, prefix, dumps, key, scorer, limit, int fold, bint sort, int memory, epoch,
        bint places, bint whole=False, bint timed=False, warn=None,
    ):
        self.prefix = bulk_strings(prefix)
        self.prefix_data = PyBytes_AS_STRING(self.prefix)
        self.prefix_size = PyBytes_GET_SIZE(self.prefix)
        self.prefix_count = len(prefix)
        self.dumps = dumps
        self.write_json = orjson_function(dumps, "dumps")
        self.key = key
        self.keyed = key is not None
        self.scorer = scorer
        self.constant = isinstance(scorer, float)
        if self.constant:
            self.constant_score = PyFloat_AS_DOUBLE(scorer)
        self.limited = bool(limit)
        if self.limited:
            self.limit = limit_of(limit)
        self.fold = fold
        self.sort = sort
        self.memory = memory
        self.epoch = epoch
        self.places = places
        self.whole = whole
        self.timed = timed
        self.warn = warn
        self.usual = NULL
        if memory == INTEGER:
            if isinstance(epoch, (bytes, bytearray, memoryview)):
                self.epoch = memoryview(epoch).tobytes()
            self.unfit = not PyBytes_CheckExact(self.epoch) or PyBytes_GET_SIZE(self.epoch) > 64
            if not self.unfit:
                begin_keyed(
                    &self.mac, PyBytes_AS_STRING(self.epoch), PyBytes_GET_SIZE(self.epoch)
                )

    def encode(self, items, scores, bint skip):
        """Encode items as one request. Unless bad items are skipped, it ends at the first one."""
        return self.encode_all(items, scores, skip, 0, 0)[0]

    def encode_all(
        self, items, scores, bint skip, Py_ssize_t most, Py_ssize_t most_bytes,
        Known known=None, double now=0.0,
    ):
        """Encode items as requests of at most ``most`` entries (0: any number) each.

        See the fallback for ``most_bytes``, ``known``, folding and bad items.
        """
        cdef list bad = [], chunks = []
        cdef Py_ssize_t start = 0, stop, good
        cdef Workspace* work = take_work()
        try:
            if not (
                self.read_by_key(work, items, scores, known, now)
                if self.keyed else self.read_flat(work, items, scores, known, now)
            ):
                forget_items(work)
                self.read_all(work, items, scores, skip, bad, known, now)
            if self.unfit and work.count:
                _wire.fallback.memory_integer(b"", self.epoch)
                raise TypeError(f"epoch must be bytes, not {type(self.epoch).__name__}")
            self.sort_all(work)
            good = work.count
            while True:
                stop = self.end_of_chunk(work, start, most, most_bytes)
                data = self.request_of(work, start, stop)
                digests = b"" if known is None else self.digests_of(work, start, stop)
                places = self.places_of(work, start, stop) if self.places else None
                if stop == work.kept_count:
                    chunks.append(
                        chunk_of(data, stop - start, good, places, bad, work.dropped, digests)
                    )
                    return chunks
                chunks.append(
                    chunk_of(data, stop - start, stop - start, places, [], 0, digests)
                )
                good -= stop - start
                start = stop
        finally:
            give_back(work)

    cdef bint read_by_key(
        self, Workspace* work, object items, object scores, Known known, double now
    ) except -1:
        """Read items by key. Return False if that does not apply, or if an item is bad.

        See the theory of operation.
        """
        cdef Entry* entry
        if not self.fold:
            return False
        if type(items) is not list and type(items) is not tuple or len(items) < 2:
            return False
        work.keyed = True
        reserve_entries(work, min(len(items), 65536))
        try:
            for item in items:
                entry = self.next_entry(work)
                set_view(&entry.payload, item, NULL, 0)
                self.read_key_and_score(entry, item, scores)
                work.count += 1
            self.fold_and_drop(work, known, now)
            self.serialise_kept(work)
        except MemoryError:
            raise
        except Exception:
            pass
        else:
            return True
        return False

    cdef int serialise_kept(self, Workspace* work) except -1:
        """Serialise the items that `read_by_key` kept, in one call if all are flat dicts."""
        cdef Entry* entry
        cdef View text
        cdef Py_ssize_t i
        cdef list items = []
        cdef bint flat = False
        if self.write_json is not None and work.kept_count > 1:
            for i in range(work.kept_count):
                items.append(<object> work.entries[work.kept[i].entry].payload.owner)
            flat = view_flat(&work.text, items, self.write_json)
            text = work.text
        for i in range(work.kept_count):
            entry = &work.entries[work.kept[i].entry]
            item = <object> entry.payload.owner
            drop_view(&entry.payload)
            if flat:
                take_flat(&text, &entry.payload)
                check_size(&entry.payload, self.limited, self.limit)
            else:
                # Into the entry itself: after an error for a long payload, the entry owns the view.
                view_payload(
                    &entry.payload, item, self.dumps, self.write_json, self.limited, self.limit,
                    &work.arena, self.warn,
                )
        return 0

    cdef bint read_flat(
        self, Workspace* work, object items, object scores, Known known, double now
    ) except -1:
        """Read flat dicts that are written in one call. Return False if that does not apply.

        It does not run the caller's code, so items do not change after they were written.
        """
        cdef Entry* entry
        cdef View text
        cdef Py_ssize_t count
        if self.write_json is None or not (type(items) is list or type(items) is tuple):
            return False
        count = len(items)
        if count < 2 or not (
            self.constant or isinstance(self.scorer, str) if scores is None
            else are_numbers(scores)
        ):
            return False
        reserve_entries(work, min(count, 65536))
        try:
            if view_flat(&work.text, items, self.write_json):
                text = work.text
                for item in items:
                    if work.count == count:
                        break
                    entry = self.next_entry(work)
                    take_flat(&text, &entry.payload)
                    check_size(&entry.payload, self.limited, self.limit)
                    self.read_key_and_score(entry, item, scores)
                    work.count += 1
                if work.count == count:
                    self.fold_and_drop(work, known, now)
                else:
                    count = -1
            else:
                count = -1
        except MemoryError:
            raise
        except Exception:
            count = -1
        return count >= 0

    cdef Entry* next_entry(self, Workspace* work) except NULL:
        cdef Entry* entry
        if work.count == work.capacity:
            if work.capacity > PY_SSIZE_T_MAX // 2:
                raise MemoryError
            reserve_entries(work, max(2 * work.capacity, 64))
        entry = &work.entries[work.count]
        entry.payload.owner = NULL
        entry.key.owner = NULL
        entry.place = work.count
        work.used = work.count + 1
        return entry

    cdef int read_all(
        self, Workspace* work, object items, object scores, bint skip, list bad, Known known,
        double now,
    ) except -1:
        cdef Entry* entry
        cdef Py_ssize_t place = 0
        work.keyed = self.keyed
        if type(items) is list or type(items) is tuple:
            reserve_entries(work, min(max(len(items), 1), 65536))
        # The calls may change `items`, so the loop reads its length each time.
        for item in items:
            entry = self.next_entry(work)
            entry.place = place
            try:
                view_payload(
                    &entry.payload, item, self.dumps, self.write_json, self.limited, self.limit,
                    &work.arena, None if <void*> Py_TYPE(item) == self.usual else self.warn,
                )
                self.usual = <void*> Py_TYPE(item)
                self.read_key_and_score(entry, item, scores)
            except Exception as error:
                drop_view(&entry.payload)
                drop_view(&entry.key)
                bad.append(bad_of(place, item, error))
                if not skip:
                    break
            else:
                work.count += 1
            place += 1
        self.fold_and_drop(work, known, now)
        return 0

    cdef int read_key_and_score(self, Entry* entry, object item, object scores) except -1:
        if self.keyed:
            self.read_key(entry, key_of(item, self.key))
        if scores is not None:
            entry.score = to_double(scores[entry.place], self.timed)
        elif self.constant:
            entry.score = self.constant_score
        else:
            entry.score = score_item(item, self.scorer, self.timed)
        if self.whole and not (
            -4096.0 <= entry.score <= 4095.0 and entry.score == <double> <int> entry.score
        ):
            _wire.fallback.whole_score(entry.score)
        return 0

    cdef int read_key(self, Entry* entry, object key) except -1:
        cdef char digits[NUMBER]
        cdef long long number
        cdef int overflow
        if PyLong_CheckExact(key):
            number = PyLong_AsLongLongAndOverflow(key, &overflow)
            if not overflow:
                return view_bytes(
                    &entry.key,
                    PyBytes_FromStringAndSize(digits, put_signed(digits, number) - digits),
                )
        return view_key(&entry.key, key)

    cdef int fold_and_drop(self, Workspace* work, Known known, double now) except -1:
        """Fold entries, digest the identities of the kept ones, and drop the known ones."""
        cdef bint look = known is not None
        cdef int done
        if work.count >= MANY:
            with nogil:
                done = self.fold_and_digest(work, look)
                if look and done == 0:
                    PyThread_acquire_lock(known.lock, WAIT_LOCK)
                    drop_known(work, &known.table, now)
                    PyThread_release_lock(known.lock)
        else:
            done = self.fold_and_digest(work, look)
            if look and done == 0:
                hold(known.lock)
                drop_known(work, &known.table, now)
                PyThread_release_lock(known.lock)
        if done < 0:
            raise MemoryError
        return 0

    cdef int fold_and_digest(self, Workspace* work, bint look) noexcept nogil:
        if work.count > UINT32_MAX // 4:
            return -1
        work.kept = <Kept*> scratch_for(&work.kept_scratch, work.count, sizeof(Kept))
        if work.kept == NULL:
            return -1
        if self.fold and work.count > 1:
            if fold_equals(work, self.fold == LAST) < 0:
                return -1
        else:
            keep_all(work)
        if work.keyed or look:
            digest_kept(work)
        return 0

    cdef int sort_all(self, Workspace* work) except -1:
        """Sort the kept entries, and fill and measure their lines."""
        cdef Line* line
        cdef Py_ssize_t i
        cdef int done
        work.lines = <Line*> scratch_for(&work.lines_scratch, work.kept_count, sizeof(Line))
        if work.lines == NULL:
            raise MemoryError
        if work.kept_count >= MANY:
            with nogil:
                done = self.sort_and_measure(work)
        else:
            done = self.sort_and_measure(work)
        if done < 0:
            raise MemoryError
        for i in range(work.kept_count):
            line = &work.lines[i]
            if line.score_size == 0:
                line.score_size = put_any_score(
                    line.score, work.entries[work.kept[i].entry].score
                )
                line.size += bulk_size(line.score_size)
        return 0

    cdef int sort_and_measure(self, Workspace* work) noexcept nogil:
        cdef Entry* entry
        cdef Line* line
        cdef Py_ssize_t i
        if self.sort and sort_kept(work) < 0:
            return -1
        if self.memory:
            self.put_memory(work)
        for i in range(work.kept_count):
            entry = &work.entries[work.kept[i].entry]
            line = &work.lines[i]
            line.score_size = put_score(line.score, entry.score)
            line.size = bulk_size(entry.payload.size)
            if line.score_size:
                line.size += bulk_size(line.score_size)
            if work.keyed:
                line.size += bulk_size(16)
            if self.memory:
                line.size += bulk_size(line.memory_size)
        return 0

    cdef Py_ssize_t end_of_chunk(
        self, const Workspace* work, Py_ssize_t start, Py_ssize_t most, Py_ssize_t most_bytes
    ) noexcept:
        cdef Py_ssize_t stop = start
        cdef uint64_t size = 0
        if not most:
            return work.kept_count
        while stop < work.kept_count and stop - start < most:
            size += work.lines[stop].size
            if stop > start and size > <uint64_t> most_bytes:
                break
            stop += 1
        return stop

    cdef list places_of(self, const Workspace* work, Py_ssize_t start, Py_ssize_t stop):
        cdef list places = []
        cdef Py_ssize_t i
        for i in range(start, stop):
            places.append(work.entries[work.kept[i].entry].place)
        return places

    cdef bytes digests_of(self, const Workspace* work, Py_ssize_t start, Py_ssize_t stop):
        """Return the digests of entries, 16 bytes each."""
        cdef bytes data = PyBytes_FromStringAndSize(NULL, 16 * (stop - start))
        cdef char* out = PyBytes_AS_STRING(data)
        cdef Py_ssize_t i
        for i in range(start, stop):
            memcpy(out, work.entries[work.kept[i].entry].tag, 16)
            out += 16
        return data

    cdef bytes request_of(self, const Workspace* work, Py_ssize_t start, Py_ssize_t stop):
        cdef Py_ssize_t i, columns = 2 + self.keyed + (self.memory != 0)
        cdef uint64_t total = self.prefix_count + <uint64_t> columns * (stop - start), size = 0
        cdef char* out
        cdef bytes data
        if start == stop:
            return b""
        for i in range(start, stop):
            size += work.lines[i].size
            if size > <uint64_t> (PY_SSIZE_T_MAX // 2):
                raise MemoryError
        data = PyBytes_FromStringAndSize(
            NULL, head_size(total) + self.prefix_size + <Py_ssize_t> size
        )
        out = PyBytes_AS_STRING(data)
        if stop - start >= MANY:
            with nogil:
                self.fill_request(work, out, total, start, stop)
        else:
            self.fill_request(work, out, total, start, stop)
        return data

    cdef void put_memory(self, Workspace* work) noexcept nogil:
        """Put each entry's token, which the memory stores, into its line."""
        cdef Lanes lanes
        cdef const Entry* entry
        cdef Line* line
        cdef Py_ssize_t i = 0, j, some
        if not work.digested:
            digest_kept(work)
        while i < work.kept_count:
            some = min(LANES, work.kept_count - i)
            for j in range(some):
                entry = &work.entries[work.kept[i + j].entry]
                line = &work.lines[i + j]
                if self.memory == INTEGER:
                    put_keyed(&lanes, j, &self.mac, <const char*> entry.tag, 16)
                else:
                    memcpy(line.memory, entry.tag, 16)
                    line.memory_size = 16
            if self.memory == INTEGER:
                end_lanes(&lanes, some)
                for j in range(some):
                    line = &work.lines[i + j]
                    line.memory_size = <int> (
                        put_signed(line.memory, <int64_t> lanes.h[0][j]) - line.memory
                    )
            i += LANES

    cdef void fill_request(
        self, const Workspace* work, char* out, Py_ssize_t arguments, Py_ssize_t start,
        Py_ssize_t stop
    ) noexcept nogil:
        cdef const Entry* entry
        cdef const Line* line
        cdef Py_ssize_t i
        out = put_head(out, c"*", arguments)
        memcpy(out, self.prefix_data, self.prefix_size)
        out += self.prefix_size
        for i in range(start, stop):
            entry = &work.entries[work.kept[i].entry]
            line = &work.lines[i]
            out = put_bulk(out, line.score, line.score_size)
            if self.keyed:
                out = put_bulk(out, entry.tag, 16)
            out = put_bulk(out, entry.payload.data, entry.payload.size)
            if self.memory:
                out = put_bulk(out, line.memory, line.memory_size)


cdef bint are_numbers(object scores) noexcept:
    """Whether scores can be read without running code of the caller's."""
    if type(scores) is list:
        for score in <list> scores:
            if not (PyFloat_CheckExact(score) or PyLong_CheckExact(score)):
                return False
        return True
    if type(scores) is tuple:
        for score in <tuple> scores:
            if not (PyFloat_CheckExact(score) or PyLong_CheckExact(score)):
                return False
        return True
    return False


cdef object chunk_of(
    bytes data, Py_ssize_t entries, Py_ssize_t good, object places, list bad,
    Py_ssize_t dropped, bytes digests
):
    return _new_tuple(Chunk, (data, entries, good, places, bad, dropped, digests))


cdef object bad_of(Py_ssize_t place, object item, object error):
    return _new_tuple(Bad, (place, item, error))
