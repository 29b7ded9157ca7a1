"""Inline fixed-width integers, little-endian, at any alignment, shared by kernels."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t

# Copies of a constant size compile to one plain load or store; on a big-endian machine the bytes
# are swapped.
cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #ifndef HOLDFAST_FIXED_H
    #define HOLDFAST_FIXED_H
    #if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    #define HOLDFAST_SWAP16(value) __builtin_bswap16(value)
    #define HOLDFAST_SWAP32(value) __builtin_bswap32(value)
    #define HOLDFAST_SWAP64(value) __builtin_bswap64(value)
    #else
    #define HOLDFAST_SWAP16(value) (value)
    #define HOLDFAST_SWAP32(value) (value)
    #define HOLDFAST_SWAP64(value) (value)
    #endif
    static inline uint16_t holdfast_load16(const unsigned char *source) {
        uint16_t value;
        memcpy(&value, source, 2);
        return HOLDFAST_SWAP16(value);
    }
    static inline uint32_t holdfast_load32(const unsigned char *source) {
        uint32_t value;
        memcpy(&value, source, 4);
        return HOLDFAST_SWAP32(value);
    }
    static inline uint64_t holdfast_load64(const unsigned char *source) {
        uint64_t value;
        memcpy(&value, source, 8);
        return HOLDFAST_SWAP64(value);
    }
    static inline void holdfast_store16(unsigned char *target, uint16_t value) {
        value = HOLDFAST_SWAP16(value);
        memcpy(target, &value, 2);
    }
    static inline void holdfast_store32(unsigned char *target, uint32_t value) {
        value = HOLDFAST_SWAP32(value);
        memcpy(target, &value, 4);
    }
    static inline void holdfast_store64(unsigned char *target, uint64_t value) {
        value = HOLDFAST_SWAP64(value);
        memcpy(target, &value, 8);
    }
    #endif
    """
    uint16_t load16 "holdfast_load16"(const unsigned char* source) noexcept nogil
    uint32_t load32 "holdfast_load32"(const unsigned char* source) noexcept nogil
    uint64_t load64 "holdfast_load64"(const unsigned char* source) noexcept nogil
    void store16 "holdfast_store16"(unsigned char* target, uint16_t value) noexcept nogil
    void store32 "holdfast_store32"(unsigned char* target, uint32_t value) noexcept nogil
    void store64 "holdfast_store64"(unsigned char* target, uint64_t value) noexcept nogil
