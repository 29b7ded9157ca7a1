"""Memory for the bodies of decoded pages, see `_body_py`.

Thread safety: as malloc.
"""


# Return memory for a body of `size` bytes, or NULL when there is none. It is never NULL for size 0.
cdef void* body_new(size_t size) noexcept nogil

# How many bytes a body of this size takes: a whole slot, if it has one.
cdef size_t body_room_of(size_t size) noexcept nogil

# Free what `body_new` returned for this size; NULL is harmless.
cdef void body_free(void* body, size_t size) noexcept nogil
