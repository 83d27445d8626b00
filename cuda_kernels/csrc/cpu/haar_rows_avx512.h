// float32 rows in AVX-512, included by haar_rows.cpp where the compiler has it. The rows of a plane are taken as one long
// row, 16 pixels at a time, so that the 10 to 40 cells of a detector's rows leave no remainder but the plane's own.
#pragma once
#include <immintrin.h>

#include <algorithm>

#include "haar_rows.h"

namespace edgekd {
namespace EDGEKD_ISA {
namespace {

// The first n of 16 lanes.
inline __mmask16 lanes_below(int64_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xffffu : n > 0 ? (1u << n) - 1 : 0u);
}

// The place of 16 pixels of the top rows, laid end to end; those below are one width further on.
class Lanes {
 public:
  Lanes(const RowPattern& rows, int64_t n_rows)
      : width(2 * rows.cells), left(width * n_rows), rows_(rows), step_(rows.steps.data()) {}

  int64_t width, left;  // pixels of a row, and of the rows that are not done

  void advance() {
    left -= 16;
    if (++step_ == rows_.steps.data() + rows_.steps.size()) {
      step_ = rows_.steps.data();
      start_ += rows_.n_pixels;
    }
  }

  template <bool kAll>
  __m512 load(const float* pixels) const {
    const __mmask16 wanted = kAll ? 0xffffu : lanes_below(left);  // the last row ends the first part, if it is there
    __m512 loaded = _mm512_maskz_loadu_ps(step_->parts[0].lanes, pixels + start_ + step_->parts[0].at);
    for (int k = 1; k < step_->n_parts; ++k)
      loaded = _mm512_mask_loadu_ps(loaded, step_->parts[k].lanes & wanted, pixels + start_ + step_->parts[k].at);
    return loaded;
  }

  template <bool kAll>
  void store(float* pixels, __m512 values) const {
    if (kAll && step_->n_parts == 1) return _mm512_storeu_ps(pixels + start_ + step_->parts[0].at, values);
    const __mmask16 wanted = kAll ? 0xffffu : lanes_below(left);
    for (int k = 0; k < step_->n_parts; ++k)
      _mm512_mask_storeu_ps(pixels + start_ + step_->parts[k].at, step_->parts[k].lanes & wanted, values);
  }

 private:
  const RowPattern& rows_;
  const RowPattern::Step* step_;
  int64_t start_ = 0;  // of the rows that the pattern is at
};

// 16 cells: their pixels [[a, b], [c, d]], or their bands approx, horizontal, vertical, diagonal.
struct QuadBlock {
  __m512 a, b, c, d;
};

inline void part_columns(__m512 low, __m512 high, __m512& even, __m512& odd) {
  const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odds = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  even = _mm512_permutex2var_ps(low, evens, high);
  odd = _mm512_permutex2var_ps(low, odds, high);
}

inline void join_columns(__m512 even, __m512 odd, __m512& low, __m512& high) {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  low = _mm512_permutex2var_ps(even, first, odd);
  high = _mm512_permutex2var_ps(even, second, odd);
}

// The same operations in the same order as `butterfly` of haar_core.h.
inline QuadBlock butterfly_of(const QuadBlock& q) {
  const __m512 half = _mm512_set1_ps(0.5f);
  const __m512 top = _mm512_add_ps(q.a, q.b), top_step = _mm512_sub_ps(q.a, q.b);
  const __m512 bottom = _mm512_add_ps(q.c, q.d), bottom_step = _mm512_sub_ps(q.c, q.d);
  return {_mm512_mul_ps(half, _mm512_add_ps(top, bottom)), _mm512_mul_ps(half, _mm512_sub_ps(top, bottom)),
          _mm512_mul_ps(half, _mm512_add_ps(top_step, bottom_step)),
          _mm512_mul_ps(half, _mm512_sub_ps(top_step, bottom_step))};
}

template <bool kAll>
inline void store_cells(float* band, __mmask16 cells, __m512 values) {
  if (kAll) _mm512_storeu_ps(band, values);
  else _mm512_mask_storeu_ps(band, cells, values);
}

template <bool kAll>
void analysis_step(const float* pixels, Lanes& lanes, const BandRow<float>& bands, __mmask16 cells) {
  const float* below = pixels + lanes.width;
  const __m512 top = lanes.load<kAll>(pixels), bottom = lanes.load<kAll>(below);
  lanes.advance();
  QuadBlock q;
  part_columns(top, lanes.load<kAll>(pixels), q.a, q.b);
  part_columns(bottom, lanes.load<kAll>(below), q.c, q.d);
  lanes.advance();
  const QuadBlock k = butterfly_of(q);
  store_cells<kAll>(bands.approx, cells, k.a);
  store_cells<kAll>(bands.horizontal, cells, k.b);
  store_cells<kAll>(bands.vertical, cells, k.c);
  store_cells<kAll>(bands.diagonal, cells, k.d);
}

void analysis_rows_f32(const float* pixels, int64_t n_rows, BandRow<float> bands, const RowPattern& rows) {
  Lanes lanes(rows, n_rows);
  for (; lanes.left >= 32; bands = bands.after(16)) analysis_step<true>(pixels, lanes, bands, 0xffffu);
  if (lanes.left > 0) analysis_step<false>(pixels, lanes, bands, lanes_below(lanes.left / 2));
}

template <bool kAll>
void synthesis_step(const BandRow<const float>& bands, float* pixels, Lanes& lanes, __mmask16 cells) {
  const QuadBlock q = butterfly_of(
      {_mm512_maskz_loadu_ps(cells, bands.approx), _mm512_maskz_loadu_ps(cells, bands.horizontal),
       _mm512_maskz_loadu_ps(cells, bands.vertical), _mm512_maskz_loadu_ps(cells, bands.diagonal)});
  __m512 top, next_top, bottom, next_bottom;
  join_columns(q.a, q.b, top, next_top);
  join_columns(q.c, q.d, bottom, next_bottom);
  lanes.store<kAll>(pixels, top);
  lanes.store<kAll>(pixels + lanes.width, bottom);
  lanes.advance();
  lanes.store<kAll>(pixels, next_top);
  lanes.store<kAll>(pixels + lanes.width, next_bottom);
  lanes.advance();
}

void synthesis_rows_f32(BandRow<const float> bands, int64_t n_rows, float* pixels, const RowPattern& rows) {
  Lanes lanes(rows, n_rows);
  for (; lanes.left >= 32; bands = bands.after(16)) synthesis_step<true>(bands, pixels, lanes, 0xffffu);
  if (lanes.left > 0) synthesis_step<false>(bands, pixels, lanes, lanes_below(lanes.left / 2));
}

// Sums of squares, lane by lane, of 2 cA, of 2 cV and of the vertical steps a - c, b - d, each times the cell's weight.
// Two lanes are a cell: 8 cA^2, 8 cV^2 and 2 (cH^2 + cD^2) are added for each.
struct Squares {
  __m512 approx = _mm512_setzero_ps(), vertical = _mm512_setzero_ps(), steps = _mm512_setzero_ps();

  void add_to(double* totals, const LossFactors& factors) const {
    add(totals, approx, factors.low / 8.0);
    add(totals, vertical, factors.high / 8.0);
    add(totals, steps, factors.high / 2.0);
  }

 private:
  static void add(double* totals, __m512 squares, double factor) {
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(squares));
    const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(squares, 1));
    _mm512_storeu_pd(totals, _mm512_fmadd_pd(_mm512_set1_pd(factor), low, _mm512_loadu_pd(totals)));
    _mm512_storeu_pd(totals + 8, _mm512_fmadd_pd(_mm512_set1_pd(factor), high, _mm512_loadu_pd(totals + 8)));
  }
};

// The weights of 8 cells, each in the two lanes of its pixels.
inline __m512 load_weights(const float* weight, int64_t n_lanes) {
  const __m512i pairs = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  const __m512 eight = _mm512_maskz_loadu_ps(lanes_below(std::min<int64_t>(n_lanes, 16) / 2), weight);
  return _mm512_permutexvar_ps(pairs, eight);
}

// With x the vertical sum of a lane and y that of its neighbour, x + y is 2 cA and x - y is 2 cV or -2 cV. What cH and
// cD add to a pixel is half its vertical step, so columns are never parted: exact differences, half the operations.
template <bool kAll, bool kWeighted, bool kGradient>
inline void loss_step(const LossRows<float>& rows, Lanes& lanes, const float* weight, const LossFactors& factors,
                      Squares& squares) {
  const int64_t below = lanes.width;
  const __m512 top = _mm512_sub_ps(lanes.load<kAll>(rows.student), lanes.load<kAll>(rows.teacher));
  const __m512 bottom = _mm512_sub_ps(lanes.load<kAll>(rows.student + below), lanes.load<kAll>(rows.teacher + below));
  const __m512 sum = _mm512_add_ps(top, bottom), step = _mm512_sub_ps(top, bottom);
  const __m512 neighbour = _mm512_permute_ps(sum, 0xb1);
  const __m512 approx = _mm512_add_ps(sum, neighbour), vertical = _mm512_sub_ps(sum, neighbour);
  const __m512 m = kWeighted ? load_weights(weight, lanes.left) : _mm512_set1_ps(1.0f);
  if (kGradient) {
    const __m512 quarter = _mm512_mul_ps(m, _mm512_set1_ps(0.25f * factors.gradient_scale));
    const __m512 low = _mm512_mul_ps(quarter, _mm512_set1_ps(factors.low));
    const __m512 high = _mm512_mul_ps(quarter, _mm512_set1_ps(factors.high));
    const __m512 both = _mm512_fmadd_ps(low, approx, _mm512_mul_ps(high, vertical));
    const __m512 half_step = _mm512_mul_ps(_mm512_add_ps(high, high), step);
    lanes.store<kAll>(rows.gradient, _mm512_add_ps(both, half_step));
    lanes.store<kAll>(rows.gradient + below, _mm512_sub_ps(both, half_step));
  }
  squares.approx = _mm512_fmadd_ps(_mm512_mul_ps(m, approx), approx, squares.approx);
  squares.vertical = _mm512_fmadd_ps(_mm512_mul_ps(m, vertical), vertical, squares.vertical);
  squares.steps = _mm512_fmadd_ps(_mm512_mul_ps(m, step), step, squares.steps);
  lanes.advance();
}

template <bool kWeighted, bool kGradient>
void loss_rows_f32(const LossRows<float>& maps, int64_t n_rows, const RowPattern& rows, const LossFactors& factors,
                   double* totals) {
  constexpr int kSummed = 16;  // steps added in float32 before they go to the double totals
  Lanes lanes(rows, n_rows);
  const float* weight = maps.weight;
  while (lanes.left > 0) {
    Squares squares;
    for (int i = 0; i < kSummed && lanes.left >= 16; ++i, weight += 8)
      loss_step<true, kWeighted, kGradient>(maps, lanes, weight, factors, squares);
    if (lanes.left > 0 && lanes.left < 16)
      loss_step<false, kWeighted, kGradient>(maps, lanes, weight, factors, squares);
    squares.add_to(totals, factors);
  }
}

}  // namespace
}  // namespace EDGEKD_ISA
}  // namespace edgekd
