# Scores: read from the caller's values, and written with the fewest digits.

cdef extern from "_wire/decimal.h" nogil:
    int decimal "redset_decimal"(double number, uint64_t* digits, uint64_t* power) noexcept

cdef enum:
    SCORE = 24  # -1.7976931348623157e+308


cdef int put_score(char* out, double score) noexcept nogil:
    """Write a score to `SCORE` bytes. Return its size, or 0 if only Python can write it."""
    cdef uint64_t digits, power
    cdef int64_t whole
    cdef int places, i
    cdef char* at
    if not -9007199254740992.0 < score < 9007199254740992.0:
        return 0
    whole = <int64_t> score
    if score == <double> whole:
        return <int> (put_signed(out, whole) - out)
    places = decimal(score, &digits, &power)
    if places == 0:
        return 0
    at = out
    if score < 0:
        at[0] = c"-"
        at += 1
    at = put_number(at, digits // power)
    at[0] = c"."
    digits = digits % power
    for i in range(places, 0, -1):
        at[i] = <char> (48 + digits % 10)
        digits = digits // 10
    return <int> (at + 1 + places - out)


cdef int put_any_score(char* out, double score) except -1:
    cdef int size = put_score(out, score)
    cdef char* text
    if size:
        return size
    text = PyOS_double_to_string(score, c"r", 0, Py_DTSF_ADD_DOT_0, NULL)
    while text[size] and size < SCORE:
        out[size] = text[size]
        size += 1
    PyMem_Free(text)
    return size


cdef double to_double(object value, bint timed) except? -1.0:
    cdef double score
    cdef long long number
    cdef int overflow
    if PyFloat_CheckExact(value):
        score = PyFloat_AS_DOUBLE(value)
        if score == score:
            return score
    elif PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if not overflow:
            return <double> number
    return _wire.fallback.to_score(value, timed)


def to_score(value, bint timed=False):
    """Return a score as a float. A TypeError or ValueError names the fault of another value."""
    return to_double(value, timed)


def whole_score(score):
    """Return a score that a set with ties= can have. Raise ValueError for any other."""
    return _wire.fallback.whole_score(score)


def score_text(score):
    """Write a score with the fewest digits that give it back."""
    cdef char text[SCORE]
    if not PyFloat_CheckExact(score):
        return _wire.fallback.score_text(score)
    return PyBytes_FromStringAndSize(text, put_any_score(text, PyFloat_AS_DOUBLE(score)))


cdef double score_item(object item, object scorer, bint timed) except? -1.0:
    if isinstance(scorer, str):
        return to_double(read_field(item, scorer, "score"), timed)
    return to_double(scorer(item), timed)


def score_of(item, scorer, bint timed=False):
    """Score an item: by a constant, the field of that name, or a callable."""
    if isinstance(scorer, float):
        return scorer
    return score_item(item, scorer, timed)
