"""The compiled face of what user cursors hold."""


# What a user cursor reads from, and holds alive. When it ends before the cursor, `ended` says why,
# and the cursor raises DatabaseClosedError from then on.
cdef class Owner:
    cdef public str ended
