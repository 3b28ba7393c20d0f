# cython: language_level=3, freethreading_compatible=True, auto_pickle=False, cdivision=True
"""The wire format compiled: names, bytes and errors as in its specification, _wire/fallback.py.

Rare cases (subclasses, foreign types, errors) call the fallback's own functions, so they cannot
differ. The first such call imports the fallback. Frequent cases work on views: pointers into held
objects. Items are read with the GIL. Digests, folding, sorting and copying run without it.

There are no list comprehensions: those of Cython 3.3 free an element twice if there is no memory
for the list to grow. There is no return in an except clause: it assumes that there was memory for
a traceback.
"""

from collections.abc import Mapping
from types import MethodType

cimport cython
from cpython.bytes cimport (
    PyBytes_AS_STRING,
    PyBytes_CheckExact,
    PyBytes_FromStringAndSize,
    PyBytes_GET_SIZE,
)
from cpython.dict cimport PyDict_Next
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.object cimport Py_TYPE, PyObject
from cpython.pythread cimport (
    NOWAIT_LOCK,
    WAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    PyThread_type_lock,
)
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.unicode cimport (
    PyUnicode_AsUTF8AndSize,
    PyUnicode_AsUTF8String,
    PyUnicode_CheckExact,
    PyUnicode_DecodeUTF8,
)
from libc.math cimport INFINITY, isfinite
from libc.stdint cimport UINT32_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from redset import _wire
from redset import serializers as _serializers
from redset._wire.chunks import Bad, Chunk

IMPLEMENTATION = "cython"

FOLD_NONE, FOLD_FIRST, FOLD_LAST = 0, 1, 2
MEMORY_NONE, MEMORY_INTEGER, MEMORY_DIGEST = 0, 1, 2

_new_tuple = tuple.__new__
_JSON_OPTIONS = getattr(_serializers, "_OPTIONS", None)
cdef int JSON_DEPTH = _serializers._DUMPS_DEPTH
_OWN_METHODS = {name: vars(_serializers.JSONSerializer)[name] for name in ("dumps", "loads")}

cdef enum:
    LAST = 2  # FOLD_LAST
    INTEGER = 1  # MEMORY_INTEGER
    # With fewer entries (or digests), releasing the GIL costs more than it saves.
    MANY = 32

cdef extern from "_wire/portable.h":
    bint is_ascii "REDSET_IS_ASCII"(object text)
    int lookup "redset_lookup"(object dict, object key, PyObject** value) except -1
    void* exchange "REDSET_EXCHANGE"(void** kept, void* value) noexcept
    void prefetch "REDSET_PREFETCH"(const void*) noexcept nogil

cdef extern from "Python.h":
    const Py_ssize_t PY_SSIZE_T_MAX
    int Py_DTSF_ADD_DOT_0
    char* PyOS_double_to_string(double, char, int, int, int*) except NULL
    void PyMem_Free(void*)
    int PyLong_CheckExact(object)
    long long PyLong_AsLongLongAndOverflow(object, int* overflow) except? -1

# The pieces are one module, so C inlines across them, and their symbols stay inside.
include "_wire/views.pxi"
include "_wire/resp.pxi"
include "_wire/scores.pxi"
include "_wire/digests.pxi"
include "_wire/items.pxi"
include "_wire/workspace.pxi"
include "_wire/folding.pxi"
include "_wire/sorting.pxi"
include "_wire/known.pxi"
include "_wire/serialising.pxi"
include "_wire/intake.pxi"
include "_wire/encoder.pxi"
include "_wire/decoding.pxi"
