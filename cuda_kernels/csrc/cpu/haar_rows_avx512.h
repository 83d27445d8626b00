// float32 rows in AVX-512, included by haar_rows.cpp where the compiler has it: masked blocks of 16 cells, so that the
// 10 to 40 cells of a detector's rows leave no remainder, and one shuffle a register to part or join columns.
#pragma once
#include <immintrin.h>

#include <algorithm>

#include "haar_rows.h"

namespace edgekd {
namespace EDGEKD_ISA {
namespace {

// 16 cells: their pixels [[a, b], [c, d]], or their bands approx, horizontal, vertical, diagonal.
struct QuadBlock {
  __m512 a, b, c, d;
};

// Which of 16 cells, and of their 32 pixels a row, belong to the row.
struct BlockMask {
  __mmask16 cells, pixels_low, pixels_high;
  explicit BlockMask(int64_t n_cells) {
    const int n = static_cast<int>(std::min<int64_t>(n_cells, 16));
    const uint32_t pixels = n == 16 ? 0xffffffffu : (1u << 2 * n) - 1;
    cells = static_cast<__mmask16>((1u << n) - 1);
    pixels_low = static_cast<__mmask16>(pixels);
    pixels_high = static_cast<__mmask16>(pixels >> 16);
  }
};

inline void load_columns(const float* row, const BlockMask& mask, __m512& even, __m512& odd) {
  const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odds = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  const __m512 low = _mm512_maskz_loadu_ps(mask.pixels_low, row);
  const __m512 high = _mm512_maskz_loadu_ps(mask.pixels_high, row + 16);
  even = _mm512_permutex2var_ps(low, evens, high);
  odd = _mm512_permutex2var_ps(low, odds, high);
}

inline void store_columns(float* row, const BlockMask& mask, __m512 even, __m512 odd) {
  const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const __m512i second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  _mm512_mask_storeu_ps(row, mask.pixels_low, _mm512_permutex2var_ps(even, first, odd));
  _mm512_mask_storeu_ps(row + 16, mask.pixels_high, _mm512_permutex2var_ps(even, second, odd));
}

inline QuadBlock load_pixels(const float* top, const float* bottom, const BlockMask& mask) {
  QuadBlock q;
  load_columns(top, mask, q.a, q.b);
  load_columns(bottom, mask, q.c, q.d);
  return q;
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

void analysis_rows_f32(const float* pixels, int64_t n_rows, BandRow<float> bands, int64_t cells) {
  for (int64_t i = 0; i < n_rows; ++i, pixels += 4 * cells, bands = bands.after(cells)) {
    for (int64_t j = 0; j < cells; j += 16) {
      const BlockMask mask(cells - j);
      const QuadBlock k = butterfly_of(load_pixels(pixels + 2 * j, pixels + 2 * cells + 2 * j, mask));
      _mm512_mask_storeu_ps(bands.approx + j, mask.cells, k.a);
      _mm512_mask_storeu_ps(bands.horizontal + j, mask.cells, k.b);
      _mm512_mask_storeu_ps(bands.vertical + j, mask.cells, k.c);
      _mm512_mask_storeu_ps(bands.diagonal + j, mask.cells, k.d);
    }
  }
}

void synthesis_rows_f32(BandRow<const float> bands, int64_t n_rows, float* pixels, int64_t cells) {
  for (int64_t i = 0; i < n_rows; ++i, pixels += 4 * cells, bands = bands.after(cells)) {
    for (int64_t j = 0; j < cells; j += 16) {
      const BlockMask mask(cells - j);
      const QuadBlock q = butterfly_of({_mm512_maskz_loadu_ps(mask.cells, bands.approx + j),
                                        _mm512_maskz_loadu_ps(mask.cells, bands.horizontal + j),
                                        _mm512_maskz_loadu_ps(mask.cells, bands.vertical + j),
                                        _mm512_maskz_loadu_ps(mask.cells, bands.diagonal + j)});
      store_columns(pixels + 2 * j, mask, q.a, q.b);
      store_columns(pixels + 2 * cells + 2 * j, mask, q.c, q.d);
    }
  }
}

template <bool kWeighted, bool kGradient>
inline __m512 loss_block_f32(const LossRows<float>& rows, int64_t cells, int64_t j, const LossFactors& factors) {
  const BlockMask mask(cells - j);
  const int64_t top = 2 * j, bottom = top + 2 * cells;
  const __m512 low = _mm512_set1_ps(factors.low), high = _mm512_set1_ps(factors.high);
  const QuadBlock s = load_pixels(rows.student + top, rows.student + bottom, mask);
  const QuadBlock t = load_pixels(rows.teacher + top, rows.teacher + bottom, mask);
  const QuadBlock k = butterfly_of(
      {_mm512_sub_ps(s.a, t.a), _mm512_sub_ps(s.b, t.b), _mm512_sub_ps(s.c, t.c), _mm512_sub_ps(s.d, t.d)});
  const __m512 m = kWeighted ? _mm512_maskz_loadu_ps(mask.cells, rows.weight + j) : _mm512_set1_ps(1.0f);
  if (kGradient) {
    const __m512 factor = _mm512_mul_ps(m, _mm512_set1_ps(factors.gradient_scale));
    const __m512 scale_low = _mm512_mul_ps(factor, low), scale_high = _mm512_mul_ps(factor, high);
    const QuadBlock g = butterfly_of({_mm512_mul_ps(scale_low, k.a), _mm512_mul_ps(scale_high, k.b),
                                      _mm512_mul_ps(scale_high, k.c), _mm512_mul_ps(scale_high, k.d)});
    store_columns(rows.gradient + top, mask, g.a, g.b);
    store_columns(rows.gradient + bottom, mask, g.c, g.d);
  }
  const __m512 squares = _mm512_add_ps(_mm512_mul_ps(k.b, k.b), _mm512_mul_ps(k.c, k.c));
  const __m512 details = _mm512_mul_ps(high, _mm512_add_ps(squares, _mm512_mul_ps(k.d, k.d)));
  const __m512 approx = _mm512_mul_ps(_mm512_mul_ps(low, k.a), k.a);
  return _mm512_mul_ps(m, _mm512_add_ps(approx, details));  // masked cells were loaded as 0 and stay 0
}

template <bool kWeighted, bool kGradient>
void loss_rows_f32(LossRows<float> rows, int64_t n_rows, int64_t cells, const LossFactors& factors, double* totals) {
  __m512d first = _mm512_loadu_pd(totals), second = _mm512_loadu_pd(totals + 8);
  for (int64_t i = 0; i < n_rows; ++i, rows = rows.after(cells)) {
    __m512 energy = _mm512_setzero_ps();
    for (int64_t j = 0; j < cells; j += 16)
      energy = _mm512_add_ps(energy, loss_block_f32<kWeighted, kGradient>(rows, cells, j, factors));
    first = _mm512_add_pd(first, _mm512_cvtps_pd(_mm512_castps512_ps256(energy)));
    second = _mm512_add_pd(second, _mm512_cvtps_pd(_mm512_extractf32x8_ps(energy, 1)));
  }
  _mm512_storeu_pd(totals, first);
  _mm512_storeu_pd(totals + 8, second);
}

}  // namespace
}  // namespace EDGEKD_ISA
}  // namespace edgekd
