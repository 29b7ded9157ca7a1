"""Memory for the bodies of decoded pages: the compiled twin of `_body_py`, which describes it.

A *slot* holds one body and has whole pages of the system, which is what makes it possible to give
back the memory of any one. A body that would leave more than an eighth of its slot empty is
malloc's. All slots of a class have one size. Those that are free lie on the stack
of their class: the newest of them, WARM_BYTES at most, still have their memory and are used first;
below them are those whose memory was given back (MADV_DONTNEED), which is cleared by the system
when it is used again. Addresses are never unmapped: a process may have some 65,000 mappings, and a
hole in one makes two of it. (The slabs of J. Bonwick, The Slab Allocator, USENIX 1994, in little.)

Sanitizers know the bounds of what malloc gives, and no others, so a build for them has no slots.

Thread safety: safe; one mutex, held for a handful of instructions and at times a system call. A
fork waits for it, so that the child can free what it got.
"""

cdef extern from *:
    """
    #include <stdlib.h>
    #include <stddef.h>
    #define HOLDFAST_CLASSES 32                       /* of 1 to 32 units */
    #define HOLDFAST_UNIT_BYTES ((size_t)4096)
    #define HOLDFAST_SLOT_MIN ((size_t)8192)          /* a smaller body is malloc's */
    #define HOLDFAST_SLOT_MAX (HOLDFAST_CLASSES * HOLDFAST_UNIT_BYTES)
    #define HOLDFAST_WASTE_PARTS ((size_t)8)

    static size_t holdfast_slot_bytes(size_t size)
    {
        return (size + HOLDFAST_UNIT_BYTES - 1) / HOLDFAST_UNIT_BYTES * HOLDFAST_UNIT_BYTES;
    }

    /* Whether a body of this size nearly fills a slot. */
    static int holdfast_fits(size_t size)
    {
        return size >= HOLDFAST_SLOT_MIN && size <= HOLDFAST_SLOT_MAX
            && holdfast_slot_bytes(size) - size
                <= holdfast_slot_bytes(size) / HOLDFAST_WASTE_PARTS;
    }

    static size_t holdfast_body_room(size_t size)
    {
        return holdfast_fits(size) ? holdfast_slot_bytes(size) : size;
    }

    #if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
    #include <pthread.h>
    #include <sys/mman.h>
    #include <unistd.h>

    #define HOLDFAST_REGION_BYTES ((size_t)1024 * 1024)
    #define HOLDFAST_WARM_BYTES ((size_t)512 * 1024)  /* of a class */

    typedef struct {
        void** free;         /* a stack, the newest last; has room for every slot there is */
        size_t count;
        size_t cold;         /* so many of them, the oldest, have no memory */
        size_t made;
        size_t room;
    } holdfast_class;

    static pthread_mutex_t holdfast_bodies = PTHREAD_MUTEX_INITIALIZER;
    static holdfast_class holdfast_classes[HOLDFAST_CLASSES + 1];
    static int holdfast_has_slots;

    static void holdfast_bodies_lock(void) { (void)pthread_mutex_lock(&holdfast_bodies); }
    static void holdfast_bodies_unlock(void) { (void)pthread_mutex_unlock(&holdfast_bodies); }

    static void holdfast_bodies_begin(void)
    {
        /* Slots end where pages of the system do; where those are larger, there are none. */
        holdfast_has_slots = sysconf(_SC_PAGESIZE) == (long)HOLDFAST_UNIT_BYTES
            && pthread_atfork(holdfast_bodies_lock, holdfast_bodies_unlock,
                              holdfast_bodies_unlock) == 0;
    }

    static int holdfast_is_slot(size_t size)
    {
        return holdfast_has_slots && holdfast_fits(size);
    }

    /* Map more slots of a class; return 0 when there is no memory. Requires: the mutex is held. */
    static int holdfast_more_slots(holdfast_class* slots, size_t bytes)
    {
        size_t count = HOLDFAST_REGION_BYTES / bytes;
        void* region;
        if (slots->made + count > slots->room) {
            size_t room = 2 * slots->room + count;
            void** grown = (void**)realloc(slots->free, room * sizeof(void*));
            if (grown == NULL) {
                return 0;
            }
            slots->free = grown;
            slots->room = room;
        }
        region = mmap(NULL, count * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                      -1, 0);
        if (region == MAP_FAILED) {
            /* Where addresses are scarce, one may still be had. */
            count = 1;
            region = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        }
        if (region == MAP_FAILED) {
            return 0;
        }
        /* A huge page would be resident whole, and come back for slots that gave theirs back. */
        (void)madvise(region, count * bytes, MADV_NOHUGEPAGE);
        slots->made += count;
        /* None is free: that is when more are asked for. What was never touched has no memory. */
        while (count > 0) {
            count -= 1;
            slots->free[slots->count] = (char*)region + count * bytes;
            slots->count += 1;
            slots->cold += 1;
        }
        return 1;
    }

    static void* holdfast_body_new(size_t size)
    {
        size_t bytes = holdfast_slot_bytes(size);
        holdfast_class* slots;
        void* body = NULL;
        if (!holdfast_is_slot(size)) {
            return malloc(size > 0 ? size : 1);
        }
        slots = &holdfast_classes[bytes / HOLDFAST_UNIT_BYTES];
        holdfast_bodies_lock();
        if (slots->count > 0 || holdfast_more_slots(slots, bytes)) {
            slots->count -= 1;
            body = slots->free[slots->count];
            if (slots->cold > slots->count) {
                slots->cold = slots->count;
            }
        }
        holdfast_bodies_unlock();
        return body;
    }

    /* Give back the memory of the oldest free slots that have some, until at most `kept` bytes of
       the class are left. Return how many bytes that were. Requires: the mutex is held. */
    static size_t holdfast_cool(holdfast_class* slots, size_t bytes, size_t kept)
    {
        size_t done = 0;
        while ((slots->count - slots->cold) * bytes > kept) {
            /* When the system refuses, the memory stays: no reason to fail. */
            (void)madvise(slots->free[slots->cold], bytes, MADV_DONTNEED);
            slots->cold += 1;
            done += bytes;
        }
        return done;
    }

    static void holdfast_body_free(void* body, size_t size)
    {
        size_t bytes = holdfast_slot_bytes(size);
        holdfast_class* slots;
        if (body == NULL || !holdfast_is_slot(size)) {
            free(body);
            return;
        }
        slots = &holdfast_classes[bytes / HOLDFAST_UNIT_BYTES];
        holdfast_bodies_lock();
        if (slots->count == slots->made) {
            /* More are free than were made: two pages would share one from here on. */
            abort();
        }
        slots->free[slots->count] = body;
        slots->count += 1;
        (void)holdfast_cool(slots, bytes, HOLDFAST_WARM_BYTES);
        holdfast_bodies_unlock();
    }

    static size_t holdfast_release_bodies(void)
    {
        size_t units, done = 0;
        holdfast_bodies_lock();
        for (units = 1; units <= HOLDFAST_CLASSES; units += 1) {
            done += holdfast_cool(&holdfast_classes[units], units * HOLDFAST_UNIT_BYTES, 0);
        }
        holdfast_bodies_unlock();
        return done;
    }
    #else
    static void holdfast_bodies_begin(void) {}
    static void* holdfast_body_new(size_t size) { return malloc(size > 0 ? size : 1); }
    static void holdfast_body_free(void* body, size_t size) { (void)size; free(body); }
    static size_t holdfast_release_bodies(void) { return 0; }
    #endif
    """
    size_t holdfast_body_room(size_t size) nogil
    void holdfast_bodies_begin()
    void* holdfast_body_new(size_t size) nogil
    void holdfast_body_free(void* body, size_t size) nogil
    size_t holdfast_release_bodies() nogil

holdfast_bodies_begin()


cdef void* body_new(size_t size) noexcept nogil:
    return holdfast_body_new(size)


cdef void body_free(void* body, size_t size) noexcept nogil:
    holdfast_body_free(body, size)


cdef size_t body_room_of(size_t size) noexcept nogil:
    return holdfast_body_room(size)


def body_room(size):
    """Return how many bytes a body of `size` bytes takes: a whole slot, if it has one."""
    cdef size_t bytes = size
    return holdfast_body_room(bytes)


def release_bodies():
    """Give the memory of bodies that were freed back to the system; return how many bytes.

    Little is kept at any time: 512 KiB of each size. The interpreter lock is given away meanwhile.
    """
    cdef size_t done
    with nogil:
        done = holdfast_release_bodies()
    return done
