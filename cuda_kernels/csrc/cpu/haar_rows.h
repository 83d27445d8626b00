// Row loops of the CPU library: what haar_cpu.cpp calls, compiled once per instruction set from haar_rows.cpp.
#pragma once
#include <stdint.h>

#include "../haar_core.h"

namespace edgekd {

// A row of each band, and those that follow it.
template <typename T>
struct BandRow {
  T *approx, *horizontal, *vertical, *diagonal;
  BandRow after(int64_t cells) const {
    return {approx + cells, horizontal + cells, vertical + cells, diagonal + cells};
  }
};

// A pair of image rows of each map and a row of cell weights, and those that follow them; null where there is none.
template <typename T>
struct LossRows {
  const T *student, *teacher;
  const float* weight;
  T* gradient;
  LossRows after(int64_t cells) const {
    return {student + 4 * cells, teacher + 4 * cells, weight ? weight + cells : nullptr,
            gradient ? gradient + 4 * cells : nullptr};
  }
};

// What multiplies cA^2 and the squares of the details, and the gradient.
struct LossFactors {
  float low, high, gradient_scale;
};

// Partial sums of a plane's energy: a cell's place in its row decides which one it is added to.
constexpr int kLanes = 16;

// Pixels are n_rows pairs of image rows of 2 * cells each, without gaps; so are the rows of the bands.
#define EDGEKD_DECLARE_ROWS(isa)                                                                               \
  namespace isa {                                                                                              \
  template <typename T>                                                                                        \
  void analysis_rows(const T* pixels, int64_t n_rows, BandRow<T> bands, int64_t cells);                        \
  template <typename T>                                                                                        \
  void synthesis_rows(BandRow<const T> bands, int64_t n_rows, T* pixels, int64_t cells);                       \
  template <typename T, bool kWeighted, bool kGradient>                                                        \
  void loss_rows(LossRows<T> rows, int64_t n_rows, int64_t cells, const LossFactors& factors, double* totals); \
  void stream_copy(void* to, const void* from, int64_t n_bytes); /* past the caches, whole lines */           \
  void stream_fence();                                            /* before other threads read them */         \
  }

EDGEKD_DECLARE_ROWS(baseline)
EDGEKD_DECLARE_ROWS(avx2)
EDGEKD_DECLARE_ROWS(avx512)

}  // namespace edgekd
