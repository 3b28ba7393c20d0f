/* Differences between versions of Python, and between compilers. */

#ifndef REDSET_PORTABLE_H
#define REDSET_PORTABLE_H

#include <Python.h>

#define REDSET_IS_ASCII(text) PyUnicode_IS_COMPACT_ASCII(text)

/* Return 1 and a new reference, 0 if the key is missing, -1 with an exception. */
static int redset_lookup(PyObject *dict, PyObject *key, PyObject **value)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyDict_GetItemRef(dict, key, value);
#else
    *value = PyDict_GetItemWithError(dict, key);
    if (*value == NULL)
        return PyErr_Occurred() ? -1 : 0;
    Py_INCREF(*value);
    return 1;
#endif
}

/* Exchange a pointer with one that other threads exchange, too. */
#ifdef _MSC_VER
#include <intrin.h>
#define REDSET_EXCHANGE(kept, with) _InterlockedExchangePointer((kept), (with))
#else
#define REDSET_EXCHANGE(kept, with) __atomic_exchange_n((kept), (with), __ATOMIC_ACQ_REL)
#endif

#ifdef __GNUC__
#define REDSET_PREFETCH(address) __builtin_prefetch(address)
#else
#define REDSET_PREFETCH(address) ((void)(address))
#endif

#endif
