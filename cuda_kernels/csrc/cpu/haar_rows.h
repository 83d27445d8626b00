// Row loops of the CPU library: what haar_cpu.cpp calls, compiled once per instruction set from haar_rows.cpp.
#pragma once
#include <stdint.h>

#include <numeric>
#include <vector>

#include "../haar_core.h"

namespace edgekd {

// A row of each band, and those that follow it.
template <typename T>
struct BandRow {
  T *approx, *horizontal, *vertical, *diagonal;
  bool streamed = false;  // written past the caches, whole lines only
  BandRow after(int64_t cells) const {
    return {approx + cells, horizontal + cells, vertical + cells, diagonal + cells, streamed};
  }
};

// A pair of image rows of each map and a row of cell weights, and those that follow them; null where there is none.
template <typename T>
struct LossRows {
  const T *student, *teacher;
  const float* weight;
  T* gradient;
  bool streamed = false;  // the gradient is written past the caches, whole lines only
  LossRows after(int64_t cells) const {
    return {student + 4 * cells, teacher + 4 * cells, weight ? weight + cells : nullptr,
            gradient ? gradient + 4 * cells : nullptr, streamed};
  }
  LossRows right(int64_t pixels) const {
    return {student + pixels, teacher + pixels, weight ? weight + pixels / 2 : nullptr,
            gradient ? gradient + pixels : nullptr, streamed};
  }
};

// Rows of `cells` blocks, and how 16 pixels at a time of the top rows of row pairs, laid end to end, lie in memory: in one
// row and the next ones. The steps repeat after `n_pixels` of the map. Rows of less than 8 pixels have no steps.
struct RowPattern {
  static constexpr int kLanes = 16, kParts = 3;
  struct Step {
    int64_t at[kParts];      // lane l of a part is pixel at + l
    uint16_t lanes[kParts];  // a bit for each lane
  };

  int64_t cells, n_pixels = 0;
  int n_parts;  // that any step has
  std::vector<Step> steps;

  explicit RowPattern(int64_t n_cells) : cells(n_cells), n_parts(n_cells >= 8 ? 2 : kParts) {
    const int64_t width = 2 * cells;
    if (2 * width < kLanes) return;
    const int64_t lanes = std::lcm<int64_t>(width, kLanes);
    n_pixels = 2 * lanes;
    steps.resize(lanes / kLanes);
    for (int64_t lane = 0; lane < lanes; lane += kLanes) {
      Step& step = steps[lane / kLanes];
      int64_t row = lane / width, begin = -(lane % width);  // the lane in which the row begins
      for (int part = 0; part < kParts; ++part, ++row, begin += width) {
        step.at[part] = 2 * width * row - begin;
        step.lanes[part] = static_cast<uint16_t>(lanes_from(begin) & ~lanes_from(begin + width));
      }
    }
  }

 private:
  static unsigned lanes_from(int64_t lane) { return lane >= kLanes ? 0u : 0xffffu & (~0u << (lane > 0 ? lane : 0)); }
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
  void loss_rows(LossRows<T> maps, int64_t n_rows, int64_t cells, const LossFactors& factors, double* totals); \
  void stream_copy(void* to, const void* from, int64_t n_bytes); /* past the caches, whole lines */           \
  void stream_fence();                                            /* before other threads read them */         \
  }

EDGEKD_DECLARE_ROWS(baseline)
EDGEKD_DECLARE_ROWS(avx2)
EDGEKD_DECLARE_ROWS(avx512)

}  // namespace edgekd
