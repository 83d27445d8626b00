// Row loops of the CPU library: what haar_cpu.cpp calls, compiled once per instruction set from haar_rows.cpp.
#pragma once
#include <stdint.h>

#include <algorithm>
#include <numeric>
#include <vector>

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

// Rows of `cells` blocks, and how 16 pixels at a time of the top rows of row pairs, laid end to end, lie in memory: in
// one row, or in parts of several. The steps repeat after `n_pixels` of the map. Made once, for many rows.
struct RowPattern {
  static constexpr int kLanes = 16;
  struct Part {
    int64_t at;      // lane l is pixel at + l
    uint16_t lanes;  // a bit for each lane
  };
  struct Step {
    int n_parts = 0;
    Part parts[kLanes / 2];  // a row has at least two pixels
  };

  int64_t cells, n_pixels;
  std::vector<Step> steps;

  explicit RowPattern(int64_t n_cells) : cells(n_cells) {
    const int64_t width = 2 * cells, lanes = std::lcm<int64_t>(width, kLanes);
    n_pixels = 2 * lanes;
    steps.resize(lanes / kLanes);
    for (int64_t lane = 0, n; lane < lanes; lane += n) {
      const int64_t in_row = lane % width, in_step = lane % kLanes;
      n = std::min(width - in_row, kLanes - in_step);
      Step& step = steps[lane / kLanes];
      step.parts[step.n_parts++] = {lane / width * 2 * width + in_row - in_step,
                                    static_cast<uint16_t>(((1u << n) - 1) << in_step)};
    }
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
  void analysis_rows(const T* pixels, int64_t n_rows, BandRow<T> bands, const RowPattern& rows);               \
  template <typename T>                                                                                        \
  void synthesis_rows(BandRow<const T> bands, int64_t n_rows, T* pixels, const RowPattern& rows);              \
  template <typename T, bool kWeighted, bool kGradient>                                                        \
  void loss_rows(LossRows<T> maps, int64_t n_rows, const RowPattern& rows, const LossFactors& factors,         \
                 double* totals);                                                                              \
  void stream_copy(void* to, const void* from, int64_t n_bytes); /* past the caches, whole lines */           \
  void stream_fence();                                            /* before other threads read them */         \
  }

EDGEKD_DECLARE_ROWS(baseline)
EDGEKD_DECLARE_ROWS(avx2)
EDGEKD_DECLARE_ROWS(avx512)

}  // namespace edgekd
