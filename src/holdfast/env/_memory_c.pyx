"""Memory that was freed, given back to the system: the compiled twin of `_memory_py`.

Asks the allocator of the GNU C library (malloc_trim); others give memory back by themselves or
cannot be asked.

Thread safety: safe. The call runs without the GIL.
"""

cdef extern from *:
    """
    #include <stdlib.h>
    #if defined(__GLIBC__)
    #include <malloc.h>
    static int holdfast_release_memory(void)
    {
        malloc_trim(0);
        return 1;
    }
    #else
    static int holdfast_release_memory(void)
    {
        return 0;
    }
    #endif
    """
    bint holdfast_release_memory() nogil


def release_memory():
    """Give freed memory back to the system, where the allocator can be asked to.

    Returns whether it was asked. Takes milliseconds; the compiled twin gives the interpreter lock
    away meanwhile.
    """
    cdef bint asked
    with nogil:
        asked = holdfast_release_memory()
    return asked
