"""Memory for working buffers that grow, inline: large ones are mapped, and unmapped when freed.

The allocator of the GNU C library maps large blocks only until the first of them is freed; from
then on it cuts them out of what it keeps, one heap for each thread, with holes that stay. Flushes
and compactions left as much as a fifth of the memory budget lying about so (ADR 0052).

Thread safety: as malloc.
"""

cdef extern from *:
    """
    #include <stdlib.h>
    #include <string.h>
    /* Sanitizers know the bounds of what malloc gives, and no others. */
    #if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
    #include <sys/mman.h>
    #define HOLDFAST_LARGE_BYTES ((size_t)128 * 1024)

    static void holdfast_large_free(void* data, size_t size)
    {
        if (size < HOLDFAST_LARGE_BYTES) {
            free(data);
        } else {
            (void)munmap(data, size);
        }
    }
    static void* holdfast_large_resize(void* data, size_t size, size_t wanted)
    {
        void* made;
        if (size < HOLDFAST_LARGE_BYTES && wanted < HOLDFAST_LARGE_BYTES) {
            return realloc(data, wanted);
        }
        if (size >= HOLDFAST_LARGE_BYTES && wanted >= HOLDFAST_LARGE_BYTES) {
            made = mremap(data, size, wanted, MREMAP_MAYMOVE);
            return made == MAP_FAILED ? NULL : made;
        }
        if (wanted < HOLDFAST_LARGE_BYTES) {
            made = malloc(wanted);
        } else {
            made = mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (made == MAP_FAILED) {
                made = NULL;
            }
        }
        if (made != NULL && size > 0) {
            memcpy(made, data, size < wanted ? size : wanted);
        }
        if (made != NULL) {
            holdfast_large_free(data, size);
        }
        return made;
    }
    #else
    static void holdfast_large_free(void* data, size_t size)
    {
        (void)size;
        free(data);
    }
    static void* holdfast_large_resize(void* data, size_t size, size_t wanted)
    {
        (void)size;
        return realloc(data, wanted);
    }
    #endif
    """
    # Frees what `large_resize` returned last, of the size that was wanted then; NULL is of size 0.
    void large_free "holdfast_large_free"(void* data, size_t size) noexcept nogil
    # Returns memory of the `wanted` size, not 0, that begins with the bytes of `data`, or NULL when
    # there is none; then `data` is still there.
    void* large_resize "holdfast_large_resize"(void* data, size_t size,
                                               size_t wanted) noexcept nogil
