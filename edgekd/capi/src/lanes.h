// Four lanes for the channels of one pixel, and code for wider processors than the build's own.
#pragma once

#include <cstdint>
#include <cstdlib>  // defines __GLIBC__
#include <cstring>

// The loader picks the copy that fits the processor. Sanitizers cannot run before it has; other processors than x86
// have their vector unit in the baseline.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(EDGEKD_SANITIZED)
#define EDGEKD_WIDE __attribute__((target_clones("avx2", "default")))
#else
#define EDGEKD_WIDE
#endif

namespace edgekd {

typedef int16_t Shorts4 __attribute__((vector_size(8)));
typedef int32_t Ints4 __attribute__((vector_size(16)));
typedef float Floats4 __attribute__((vector_size(16)));

// Rows of pixels with three channels are read and written four lanes at a time: that many values more lie behind them,
// and a pixel overwrites the lane that the one before it did not need.
constexpr size_t kSpareLanes = 3;

template <typename Lanes, typename Value>
inline Lanes load_lanes(const Value* from) {
    static_assert(sizeof(Lanes) == 4 * sizeof(Value), "four lanes");
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

template <typename Lanes, typename Value>
inline void store_lanes(const Lanes& lanes, Value* to) {
    static_assert(sizeof(Lanes) == 4 * sizeof(Value), "four lanes");
    std::memcpy(to, &lanes, sizeof lanes);
}

}  // namespace edgekd
