// Row loops of the CPU library: what haar_cpu.cpp calls, compiled once per instruction set from haar_rows.cpp.
#pragma once
#include <stdint.h>

#include "../haar_core.h"

namespace edgekd {

// One row of each band.
template <typename T>
struct BandRow {
  T *approx, *horizontal, *vertical, *diagonal;
};

// Two image rows of each map and one row of cell weights.
template <typename T>
struct LossRow {
  const T *student_top, *student_bottom, *teacher_top, *teacher_bottom;
  const float* weight;
  T *gradient_top, *gradient_bottom;
};

// What multiplies cA^2 and the squares of the details, and the gradient.
struct LossFactors {
  float low, high, gradient_scale;
};

// Partial sums of a plane's energy: a cell's place in its row decides which one it is added to.
constexpr int kLanes = 16;

#define EDGEKD_DECLARE_ROWS(isa)                                                                                  \
  namespace isa {                                                                                                 \
  template <typename T>                                                                                           \
  void analysis_row(const T* top, const T* bottom, const BandRow<T>& bands, int64_t cells);                       \
  template <typename T>                                                                                           \
  void synthesis_row(const BandRow<const T>& bands, T* top, T* bottom, int64_t cells);                            \
  template <typename T, bool kWeighted, bool kGradient>                                                           \
  void loss_row(const LossRow<T>& row, int64_t cells, const LossFactors& factors, double* totals);                \
  }

EDGEKD_DECLARE_ROWS(baseline)
EDGEKD_DECLARE_ROWS(avx2)
EDGEKD_DECLARE_ROWS(avx512)

}  // namespace edgekd
