/* The shortest decimal digits of a number, for those that scores usually are. */

#ifndef REDSET_DECIMAL_H
#define REDSET_DECIMAL_H

#include <stdint.h>
#include <string.h>

/* Split a number that is not whole into digits, and a power of ten that they are divided by.

   Return how many digits follow the point: the fewest that give the number back, as repr() has
   them. Return 0 for numbers that this does not cover.

   number = m * 2**-e; the digits d fit if |d * 2**e - m * 10**places| < 10**places / 2. */
static int redset_decimal(double number, uint64_t *digits, uint64_t *power)
{
#ifdef __SIZEOF_INT128__
    uint64_t bits, m;
    int e, places;
    memcpy(&bits, &number, 8);
    m = bits & 0xfffffffffffffu;
    e = 1075 - (int)(bits >> 52 & 0x7ff);
    /* Below a power of two the neighbours are closer; below 1e-4 repr has an exponent. */
    if (m == 0 || e < 1 || e > 66 || (number < 1e-4 && number > -1e-4))
        return 0;
    m |= (uint64_t)1 << 52;
    *power = 1;
    for (places = 1; places <= 19; places++) {
        unsigned __int128 product, rest, unit = (unsigned __int128)1 << e;
        *power *= 10;
        product = (unsigned __int128)m * *power;
        rest = product & (unit - 1);
        *digits = (uint64_t)(product >> e);
        if (rest == unit >> 1)
            return 0;
        if (rest > unit >> 1) {
            rest = unit - rest;
            ++*digits;
        }
        if (2 * rest == *power)
            return 0;
        if (2 * rest < *power)
            return places;
    }
#endif
    return 0;
}

#endif
