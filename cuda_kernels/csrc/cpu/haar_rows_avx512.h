// float32 rows in AVX-512, included by haar_rows.cpp where the compiler has it. Bands are written in whole registers:
// the rows of a plane are taken as one long row. The loss writes pixels, so it goes row by row with a tail.
#pragma once
#include <immintrin.h>

#include "haar_rows.h"

namespace edgekd {
namespace EDGEKD_ISA {
namespace {

// The first n of 16 lanes.
inline __mmask16 lanes_below(int64_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xffffu : n > 0 ? (1u << n) - 1 : 0u);
}

// The place of 16 pixels of the top rows, laid end to end; those below are one width further on.
template <int kParts>
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

  // A part that a step does not have has no lanes: loading nothing costs less than a loop over the parts that are there.
  template <bool kAll>
  __m512 load(const float* pixels) const {
    if (kAll && step_->lanes[0] == 0xffffu) return _mm512_loadu_ps(pixels + start_ + step_->at[0]);
    const __mmask16 wanted = kAll ? 0xffffu : lanes_below(left);
    __m512 loaded = _mm512_maskz_loadu_ps(step_->lanes[0] & wanted, pixels + start_ + step_->at[0]);
    for (int k = 1; k < kParts; ++k)
      loaded = _mm512_mask_loadu_ps(loaded, step_->lanes[k] & wanted, pixels + start_ + step_->at[k]);
    return loaded;
  }

  template <bool kAll>
  void store(float* pixels, __m512 values) const {
    if (kAll && step_->lanes[0] == 0xffffu) return _mm512_storeu_ps(pixels + start_ + step_->at[0], values);
    const __mmask16 wanted = kAll ? 0xffffu : lanes_below(left);
    for (int k = 0; k < kParts; ++k)
      _mm512_mask_storeu_ps(pixels + start_ + step_->at[k], step_->lanes[k] & wanted, values);
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

template <bool kAll, bool kStreamed>
inline void store_cells(float* band, __mmask16 cells, __m512 values) {
  if (kStreamed) _mm512_stream_ps(band, values);
  else if (kAll) _mm512_storeu_ps(band, values);
  else _mm512_mask_storeu_ps(band, cells, values);
}

template <bool kAll, bool kStreamed>
inline void analysis_store(const QuadBlock& pixels, const BandRow<float>& bands, __mmask16 cells) {
  const QuadBlock k = butterfly_of(pixels);
  store_cells<kAll, kStreamed>(bands.approx, cells, k.a);
  store_cells<kAll, kStreamed>(bands.horizontal, cells, k.b);
  store_cells<kAll, kStreamed>(bands.vertical, cells, k.c);
  store_cells<kAll, kStreamed>(bands.diagonal, cells, k.d);
}

template <bool kAll, bool kStreamed, int kParts>
void analysis_step(const float* pixels, Lanes<kParts>& lanes, const BandRow<float>& bands, __mmask16 cells) {
  const float* below = pixels + lanes.width;
  const __m512 top = lanes.template load<kAll>(pixels), bottom = lanes.template load<kAll>(below);
  lanes.advance();
  QuadBlock q;
  part_columns(top, lanes.template load<kAll>(pixels), q.a, q.b);
  part_columns(bottom, lanes.template load<kAll>(below), q.c, q.d);
  lanes.advance();
  analysis_store<kAll, kStreamed>(q, bands, cells);
}

template <bool kStreamed, int kParts>
void analysis_lanes(const float* pixels, Lanes<kParts> lanes, BandRow<float> bands) {
  for (; lanes.left >= 32; bands = bands.after(16)) analysis_step<true, kStreamed>(pixels, lanes, bands, 0xffffu);
  if (lanes.left > 0) analysis_step<false, false>(pixels, lanes, bands, lanes_below(lanes.left / 2));
}

// 16 pixels of the top rows, laid end to end, and those below them.
struct PixelPair {
  __m512 top, bottom;
};

// Pixels from lane kLane on in rows of kWidth. Where a row ends, one width further on stand the row below and then the
// next top row, so two loads are both ends of it: three for a pair, and no mask but a constant one.
template <int kWidth, int kLane>
inline PixelPair load_pair(const float* pixels) {
  constexpr int row = kLane / kWidth, column = kLane % kWidth, left = kWidth - column;
  const float* from = pixels + 2 * kWidth * row + column;
  const __m512 here = _mm512_loadu_ps(from), below = _mm512_loadu_ps(from + kWidth);
  if (left >= 16) return {here, below};
  constexpr __mmask16 next = static_cast<__mmask16>(0xffffu << (left & 15));
  const __m512 next_below = _mm512_loadu_ps(from + 2 * kWidth);
  return {_mm512_mask_blend_ps(next, here, below), _mm512_mask_blend_ps(next, below, next_below)};
}

template <int kWidth, bool kStreamed, int kStep>
inline void known_step(const float* pixels, const BandRow<float>& bands) {
  const PixelPair low = load_pair<kWidth, 32 * kStep>(pixels), high = load_pair<kWidth, 32 * kStep + 16>(pixels);
  QuadBlock q;
  part_columns(low.top, high.top, q.a, q.b);
  part_columns(low.bottom, high.bottom, q.c, q.d);
  analysis_store<true, kStreamed>(q, bands.after(16 * kStep), 0xffffu);
}

// Widths of detectors at 640 pixels, whose pattern the compiler knows: five steps, and the rows begin anew.
template <int kWidth, bool kStreamed>
void known_rows(const float* pixels, int64_t n_rows, BandRow<float> bands, const RowPattern& rows) {
  constexpr int kPixels = 160, kRows = kPixels / kWidth;
  for (; n_rows >= kRows; n_rows -= kRows, pixels += 2 * kPixels, bands = bands.after(kPixels / 2)) {
    known_step<kWidth, kStreamed, 0>(pixels, bands);
    known_step<kWidth, kStreamed, 1>(pixels, bands);
    known_step<kWidth, kStreamed, 2>(pixels, bands);
    known_step<kWidth, kStreamed, 3>(pixels, bands);
    known_step<kWidth, kStreamed, 4>(pixels, bands);
  }
  analysis_lanes<kStreamed>(pixels, Lanes<2>(rows, n_rows), bands);
}

template <bool kStreamed>
void analysis_rows_of(const float* pixels, int64_t n_rows, const BandRow<float>& bands, const RowPattern& rows) {
  switch (2 * rows.cells) {
    case 20: return known_rows<20, kStreamed>(pixels, n_rows, bands, rows);
    case 40: return known_rows<40, kStreamed>(pixels, n_rows, bands, rows);
    case 80: return known_rows<80, kStreamed>(pixels, n_rows, bands, rows);
    default: return analysis_lanes<kStreamed>(pixels, Lanes<2>(rows, n_rows), bands);
  }
}

void analysis_rows_f32(const float* pixels, int64_t n_rows, const BandRow<float>& bands, const RowPattern& rows) {
  if (rows.n_parts > 2) analysis_lanes<false>(pixels, Lanes<RowPattern::kParts>(rows, n_rows), bands);
  else if (bands.streamed) analysis_rows_of<true>(pixels, n_rows, bands, rows);
  else analysis_rows_of<false>(pixels, n_rows, bands, rows);
}

template <bool kAll, int kParts>
void synthesis_step(const BandRow<const float>& bands, float* pixels, Lanes<kParts>& lanes, __mmask16 cells) {
  const QuadBlock q = butterfly_of(
      {_mm512_maskz_loadu_ps(cells, bands.approx), _mm512_maskz_loadu_ps(cells, bands.horizontal),
       _mm512_maskz_loadu_ps(cells, bands.vertical), _mm512_maskz_loadu_ps(cells, bands.diagonal)});
  __m512 top, next_top, bottom, next_bottom;
  join_columns(q.a, q.b, top, next_top);
  join_columns(q.c, q.d, bottom, next_bottom);
  lanes.template store<kAll>(pixels, top);
  lanes.template store<kAll>(pixels + lanes.width, bottom);
  lanes.advance();
  lanes.template store<kAll>(pixels, next_top);
  lanes.template store<kAll>(pixels + lanes.width, next_bottom);
  lanes.advance();
}

template <int kParts>
void synthesis_lanes(BandRow<const float> bands, float* pixels, Lanes<kParts> lanes) {
  for (; lanes.left >= 32; bands = bands.after(16)) synthesis_step<true>(bands, pixels, lanes, 0xffffu);
  if (lanes.left > 0) synthesis_step<false>(bands, pixels, lanes, lanes_below(lanes.left / 2));
}

void synthesis_rows_f32(const BandRow<const float>& bands, int64_t n_rows, float* pixels, const RowPattern& rows) {
  if (rows.n_parts > 2) synthesis_lanes(bands, pixels, Lanes<RowPattern::kParts>(rows, n_rows));
  else synthesis_lanes(bands, pixels, Lanes<2>(rows, n_rows));
}

// What follows the last whole 16 lanes of a row: narrow registers where they fit, a masked store costs more.
enum class Tail { none, four, eight, masked };

inline Tail tail_of(int64_t width) {
  const int64_t left = width % 16;
  return left == 0 ? Tail::none : left == 4 ? Tail::four : left == 8 ? Tail::eight : Tail::masked;
}

template <Tail kTail>
inline __m512 load_pixels(const float* from, __mmask16 lanes) {
  if (kTail == Tail::none) return _mm512_loadu_ps(from);
  if (kTail == Tail::eight) return _mm512_zextps256_ps512(_mm256_loadu_ps(from));
  if (kTail == Tail::four) return _mm512_zextps128_ps512(_mm_loadu_ps(from));
  return _mm512_maskz_loadu_ps(lanes, from);
}

template <Tail kTail, bool kStreamed>
inline void store_pixels(float* to, __mmask16 lanes, __m512 pixels) {
  if (kStreamed) _mm512_stream_ps(to, pixels);
  else if (kTail == Tail::none) _mm512_storeu_ps(to, pixels);
  else if (kTail == Tail::eight) _mm256_storeu_ps(to, _mm512_castps512_ps256(pixels));
  else if (kTail == Tail::four) _mm_storeu_ps(to, _mm512_castps512_ps128(pixels));
  else _mm512_mask_storeu_ps(to, lanes, pixels);
}

// The weights of 8 cells, or of as many as there are lanes for, each in the two lanes of its pixels.
template <Tail kTail>
inline __m512 load_weights(const float* weight, __mmask16 lanes) {
  const __m512i pairs = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  const __mmask16 cells = kTail == Tail::none ? 0xffu : lanes_below(__builtin_popcount(lanes) / 2);
  return _mm512_permutexvar_ps(pairs, _mm512_maskz_loadu_ps(cells, weight));
}

inline __m512 alternating(float even, float odd) {
  return _mm512_mask_blend_ps(0xaaaa, _mm512_set1_ps(even), _mm512_set1_ps(odd));
}

inline __m512 swapped(__m512 pairs) { return _mm512_permute_ps(pairs, 0xb1); }

// With x the vertical sum of a lane and y that of its neighbour, an even lane's x + y is 2 cA and an odd lane's y - x is
// 2 cV. What cH and cD add to a pixel is half its vertical step. So columns are never parted: exact differences, half
// the operations.
struct LossLanes {
  const __m512 sign = alternating(1.0f, -1.0f);
  __m512 same, other, step;  // factors of a lane's own 2 cA or 2 cV, of its neighbour's, and of the vertical step
  __m512 bands = _mm512_setzero_ps(), steps = _mm512_setzero_ps();  // sums of squares, times the cells' weights

  explicit LossLanes(const LossFactors& factors) {
    const float quarter = 0.25f * factors.gradient_scale, low = quarter * factors.low, high = quarter * factors.high;
    same = alternating(low, -high);
    other = alternating(high, low);
    step = _mm512_set1_ps(2.0f * high);
  }

  // Two lanes are a cell: 4 cA^2 in one and 4 cV^2 in the other, 2 (cH^2 + cD^2) in both together.
  void add_to(double* totals, const LossFactors& factors) {
    const double low = factors.low / 4.0, high = factors.high / 4.0;
    add(totals, bands, _mm512_setr_pd(low, high, low, high, low, high, low, high));
    add(totals, steps, _mm512_set1_pd(factors.high / 2.0));
    bands = steps = _mm512_setzero_ps();
  }

 private:
  static void add(double* totals, __m512 squares, __m512d factors) {
    const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(squares));
    const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(squares, 1));
    _mm512_storeu_pd(totals, _mm512_fmadd_pd(factors, low, _mm512_loadu_pd(totals)));
    _mm512_storeu_pd(totals + 8, _mm512_fmadd_pd(factors, high, _mm512_loadu_pd(totals + 8)));
  }
};

// Up to 16 pixels of a top row and those below them.
template <Tail kTail, bool kWeighted, bool kGradient, bool kStreamed>
inline void loss_step(const LossRows<float>& at, int64_t below, __mmask16 lanes, LossLanes& loss) {
  const auto difference = [&](int64_t row) {
    return _mm512_sub_ps(load_pixels<kTail>(at.student + row, lanes), load_pixels<kTail>(at.teacher + row, lanes));
  };
  const __m512 top = difference(0), bottom = difference(below);
  const __m512 sum = _mm512_add_ps(top, bottom), step = _mm512_sub_ps(top, bottom);
  const __m512 bands = _mm512_fmadd_ps(loss.sign, sum, swapped(sum));
  const __m512 m = kWeighted ? load_weights<kTail>(at.weight, lanes) : _mm512_set1_ps(1.0f);
  const __m512 m_bands = _mm512_mul_ps(m, bands), m_step = _mm512_mul_ps(m, step);
  if (kGradient) {
    const __m512 both = _mm512_fmadd_ps(loss.same, m_bands, _mm512_mul_ps(loss.other, swapped(m_bands)));
    store_pixels<kTail, kStreamed>(at.gradient, lanes, _mm512_fmadd_ps(loss.step, m_step, both));
    store_pixels<kTail, kStreamed>(at.gradient + below, lanes, _mm512_fnmadd_ps(loss.step, m_step, both));
  }
  loss.bands = _mm512_fmadd_ps(m_bands, bands, loss.bands);
  loss.steps = _mm512_fmadd_ps(m_step, step, loss.steps);
}

template <Tail kTail, bool kWeighted, bool kGradient, bool kStreamed = false>
void loss_rows_with_tail(LossRows<float> maps, int64_t n_rows, int64_t cells, const LossFactors& factors,
                         double* totals) {
  constexpr int64_t kSummed = 32;  // pixels of a lane added in float32, at least, before they go to the double totals
  const int64_t width = 2 * cells, whole = width / 16 * 16;
  const __mmask16 lanes = lanes_below(width - whole);
  LossLanes loss(factors);
  for (int64_t row = 0, summed = 0; row < n_rows; ++row, maps = maps.after(cells)) {
    LossRows<float> at = maps;
    for (int64_t i = 0; i < whole; i += 16, at = at.right(16))
      loss_step<Tail::none, kWeighted, kGradient, kStreamed>(at, width, 0xffffu, loss);
    if (kTail != Tail::none) loss_step<kTail, kWeighted, kGradient, false>(at, width, lanes, loss);
    summed += width / 16 + 1;
    if (summed < kSummed && row + 1 < n_rows) continue;
    loss.add_to(totals, factors);
    summed = 0;
  }
}

template <bool kWeighted, bool kGradient>
void loss_rows_f32(const LossRows<float>& maps, int64_t n_rows, int64_t cells, const LossFactors& factors,
                   double* totals) {
  const auto rows = [&] {
    if (kGradient && maps.streamed) return loss_rows_with_tail<Tail::none, kWeighted, kGradient, kGradient>;
    switch (tail_of(2 * cells)) {
      case Tail::none: return loss_rows_with_tail<Tail::none, kWeighted, kGradient>;
      case Tail::four: return loss_rows_with_tail<Tail::four, kWeighted, kGradient>;
      case Tail::eight: return loss_rows_with_tail<Tail::eight, kWeighted, kGradient>;
      default: return loss_rows_with_tail<Tail::masked, kWeighted, kGradient>;
    }
  }();
  rows(maps, n_rows, cells, factors, totals);
}

}  // namespace
}  // namespace EDGEKD_ISA
}  // namespace edgekd
