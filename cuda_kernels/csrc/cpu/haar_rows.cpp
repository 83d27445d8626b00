// Row loops of the CPU library. Compiled once per instruction set, with -DEDGEKD_ISA=baseline, avx2 or avx512 and the
// compiler flags that go with it; haar_cpu.cpp chooses at run time.
// A row is a pair of image rows of `cells` complete 2x2 blocks and the matching rows of the band grid.
// Cells are taken in blocks of a constant size, which compilers turn into straight vector code. Detector rows are
// short (10 to 40 cells), so a scalar remainder would cost more than the row: the last block overlaps the one before.
#include "haar_rows.h"

#include <cstring>
#include <type_traits>

#ifdef __AVX512F__
#include "haar_rows_avx512.h"
#elif defined(__AVX2__)
#include <immintrin.h>
#endif

#define EDGEKD_INLINE inline __attribute__((always_inline))

namespace edgekd {
namespace EDGEKD_ISA {
namespace {

template <typename T>
EDGEKD_INLINE Quad load_quad(const T* top, const T* bottom, int64_t cell) {
  return {to_float(top[2 * cell]), to_float(top[2 * cell + 1]), to_float(bottom[2 * cell]),
          to_float(bottom[2 * cell + 1])};
}

template <typename T>
EDGEKD_INLINE void store_quad(T* top, T* bottom, int64_t cell, Quad q) {
  top[2 * cell] = from_float<T>(q.a);
  top[2 * cell + 1] = from_float<T>(q.b);
  bottom[2 * cell] = from_float<T>(q.c);
  bottom[2 * cell + 1] = from_float<T>(q.d);
}

// A row of at least kBlock cells is walked as: for next in 0, kBlock, ...: the block at min(next, cells - kBlock).
EDGEKD_INLINE int64_t block_start(int64_t next, int64_t cells, int block) {
  return next + block <= cells ? next : cells - block;
}

template <typename T, int kBlock>
void analysis_blocks(const T* __restrict top, const T* __restrict bottom, const BandRow<T>& bands, int64_t cells) {
  T* __restrict approx = bands.approx;
  T* __restrict horizontal = bands.horizontal;
  T* __restrict vertical = bands.vertical;
  T* __restrict diagonal = bands.diagonal;
  for (int64_t next = 0; next < cells; next += kBlock) {
    const int64_t start = block_start(next, cells, kBlock);
#pragma omp simd
    for (int l = 0; l < kBlock; ++l) {
      const int64_t j = start + l;
      const Quad k = butterfly(load_quad(top, bottom, j));
      approx[j] = from_float<T>(k.a);
      horizontal[j] = from_float<T>(k.b);
      vertical[j] = from_float<T>(k.c);
      diagonal[j] = from_float<T>(k.d);
    }
  }
}

template <typename T, int kBlock>
void synthesis_blocks(const BandRow<const T>& bands, T* __restrict top, T* __restrict bottom, int64_t cells) {
  const T* __restrict approx = bands.approx;
  const T* __restrict horizontal = bands.horizontal;
  const T* __restrict vertical = bands.vertical;
  const T* __restrict diagonal = bands.diagonal;
  for (int64_t next = 0; next < cells; next += kBlock) {
    const int64_t start = block_start(next, cells, kBlock);
#pragma omp simd
    for (int l = 0; l < kBlock; ++l) {
      const int64_t j = start + l;
      store_quad(top, bottom, j,
                 butterfly({to_float(approx[j]), to_float(horizontal[j]), to_float(vertical[j]),
                            to_float(diagonal[j])}));
    }
  }
}

// Weighted energy of one cell; when kGradient, also the pixels of `scale` times half its gradient. A function of its
// own, because a struct declared inside an `omp simd` loop becomes an array and the loop is not vectorised.
template <typename T, bool kWeighted, bool kGradient>
EDGEKD_INLINE float loss_cell(const LossRows<T>& rows, int64_t cells, int64_t j, LossFactors factors) {
  const int64_t bottom = 2 * cells;
  const Quad bands = butterfly(subtract(load_quad(rows.student, rows.student + bottom, j),
                                        load_quad(rows.teacher, rows.teacher + bottom, j)));
  const float m = kWeighted ? rows.weight[j] : 1.0f;
  if (kGradient) {
    const float factor = m * factors.gradient_scale;
    store_quad(rows.gradient, rows.gradient + bottom, j,
               weighted_synthesis(bands, factor * factors.low, factor * factors.high));
  }
  return m * weighted_energy(bands, factors.low, factors.high);
}

// Adds the energy of every cell to one of kLanes totals, in an order that depends on the cells and the instruction set.
template <typename T, bool kWeighted, bool kGradient, int kBlock>
void loss_blocks(const LossRows<T>& rows, int64_t cells, const LossFactors& factors, double* __restrict totals) {
  float energy[kBlock] = {};
  for (int64_t next = 0; next < cells; next += kBlock) {
    const int64_t start = block_start(next, cells, kBlock);
    const int counted = static_cast<int>(next - start);  // cells that the block before has added
#pragma omp simd
    for (int l = 0; l < kBlock; ++l) {
      const float cell = loss_cell<T, kWeighted, kGradient>(rows, cells, start + l, factors);
      energy[l] += l < counted ? 0.0f : cell;
    }
  }
  for (int l = 0; l < kBlock; ++l) totals[l] += energy[l];
}

}  // namespace

template <typename T>
void analysis_rows(const T* pixels, int64_t n_rows, BandRow<T> bands, const RowPattern& rows) {
#ifdef __AVX512F__
  if constexpr (std::is_same<T, float>::value)
    if (!rows.steps.empty()) return analysis_rows_f32(pixels, n_rows, bands, rows);
#endif
  const int64_t cells = rows.cells;
  for (int64_t i = 0; i < n_rows; ++i, pixels += 4 * cells, bands = bands.after(cells)) {
    const T* bottom = pixels + 2 * cells;
    if (cells >= 16) analysis_blocks<T, 16>(pixels, bottom, bands, cells);
    else if (cells >= 8) analysis_blocks<T, 8>(pixels, bottom, bands, cells);
    else analysis_blocks<T, 1>(pixels, bottom, bands, cells);
  }
}

template <typename T>
void synthesis_rows(BandRow<const T> bands, int64_t n_rows, T* pixels, const RowPattern& rows) {
#ifdef __AVX512F__
  if constexpr (std::is_same<T, float>::value)
    if (!rows.steps.empty()) return synthesis_rows_f32(bands, n_rows, pixels, rows);
#endif
  const int64_t cells = rows.cells;
  for (int64_t i = 0; i < n_rows; ++i, pixels += 4 * cells, bands = bands.after(cells)) {
    T* bottom = pixels + 2 * cells;
    if (cells >= 16) synthesis_blocks<T, 16>(bands, pixels, bottom, cells);
    else if (cells >= 8) synthesis_blocks<T, 8>(bands, pixels, bottom, cells);
    else synthesis_blocks<T, 1>(bands, pixels, bottom, cells);
  }
}

template <typename T, bool kWeighted, bool kGradient>
void loss_rows(LossRows<T> maps, int64_t n_rows, int64_t cells, const LossFactors& factors, double* totals) {
#ifdef __AVX512F__
  if constexpr (std::is_same<T, float>::value)
    return loss_rows_f32<kWeighted, kGradient>(maps, n_rows, cells, factors, totals);
#endif
  for (int64_t i = 0; i < n_rows; ++i, maps = maps.after(cells)) {
    if (cells >= 16) loss_blocks<T, kWeighted, kGradient, 16>(maps, cells, factors, totals);
    else if (cells >= 8) loss_blocks<T, kWeighted, kGradient, 8>(maps, cells, factors, totals);
    else loss_blocks<T, kWeighted, kGradient, 1>(maps, cells, factors, totals);
  }
}

void stream_copy(void* to, const void* from, int64_t n_bytes) {
  char* target = static_cast<char*>(to);
  const char* source = static_cast<const char*>(from);
#if defined(__AVX512F__) || defined(__AVX2__)
  constexpr int64_t kLineBytes = 64;
  const int64_t misaligned = reinterpret_cast<uintptr_t>(target) % kLineBytes;
  const int64_t head = misaligned ? (kLineBytes - misaligned < n_bytes ? kLineBytes - misaligned : n_bytes) : 0;
  std::memcpy(target, source, head);
  int64_t done = head;
  for (; done + kLineBytes <= n_bytes; done += kLineBytes) {
#ifdef __AVX512F__
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target + done), _mm512_loadu_si512(source + done));
#else
    for (int part = 0; part < kLineBytes; part += 32)
      _mm256_stream_si256(reinterpret_cast<__m256i*>(target + done + part),
                          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + done + part)));
#endif
  }
  std::memcpy(target + done, source + done, n_bytes - done);
#else
  std::memcpy(target, source, n_bytes);
#endif
}

void stream_fence() {
#if defined(__AVX512F__) || defined(__AVX2__)
  _mm_sfence();
#endif
}

#define EDGEKD_INSTANTIATE(T)                                                                                     \
  template void analysis_rows<T>(const T*, int64_t, BandRow<T>, const RowPattern&);                               \
  template void synthesis_rows<T>(BandRow<const T>, int64_t, T*, const RowPattern&);                              \
  template void loss_rows<T, false, false>(LossRows<T>, int64_t, int64_t, const LossFactors&, double*);           \
  template void loss_rows<T, false, true>(LossRows<T>, int64_t, int64_t, const LossFactors&, double*);            \
  template void loss_rows<T, true, false>(LossRows<T>, int64_t, int64_t, const LossFactors&, double*);            \
  template void loss_rows<T, true, true>(LossRows<T>, int64_t, int64_t, const LossFactors&, double*);

EDGEKD_INSTANTIATE(float)
EDGEKD_INSTANTIATE(Half)
EDGEKD_INSTANTIATE(BFloat16)

}  // namespace EDGEKD_ISA
}  // namespace edgekd
