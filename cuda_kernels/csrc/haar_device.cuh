// What the kernels share: the grid of cells, vector loads and stores, the guarded path for odd sizes.
// A thread handles kCells neighbouring cells of one cell row: two rows of 2 * kCells pixels, kCells numbers per band.
// With kCells * sizeof(T) = 16 every load and store moves 16 bytes. kCells = 1 takes any size and checks every bound.
// Written without any header, so that NVRTC compiles it on machines that have no CUDA toolkit.
#pragma once
#include "haar_core.h"

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define EDGEKD_SHARED(T, name, count) __shared__ T name[count]
#define EDGEKD_DEVICE __device__ __forceinline__
#endif

namespace edgekd {

// All sizes in elements. Maps are contiguous (planes, height, width), bands (planes, cells_high, cells_wide).
struct Grid {
  int planes, height, width, cells_high, cells_wide;
};

struct Cell {
  int plane, row, column;  // column of the first of kCells neighbours
};

template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T v[kCount];
};

EDGEKD_DEVICE Grid make_grid(int planes, int height, int width) {
  return {planes, height, width, (height + 1) / 2, (width + 1) / 2};
}

template <int kCells>
EDGEKD_DEVICE unsigned count_groups(const Grid& grid) {
  return static_cast<unsigned>(grid.planes) * grid.cells_high * (grid.cells_wide / kCells);
}

// 32-bit division only: a 64-bit one is a function call on the device.
template <int kCells>
EDGEKD_DEVICE Cell cell_of(const Grid& grid, unsigned group) {
  const unsigned groups_wide = grid.cells_wide / kCells, row = group / groups_wide, plane = row / grid.cells_high;
  return {static_cast<int>(plane), static_cast<int>(row - plane * grid.cells_high),
          static_cast<int>((group - row * groups_wide) * kCells)};
}

EDGEKD_DEVICE long long pixel_offset(const Grid& grid, Cell cell) {
  return (static_cast<long long>(cell.plane) * grid.height + 2 * cell.row) * grid.width + 2 * cell.column;
}

EDGEKD_DEVICE long long band_offset(const Grid& grid, int plane, Cell cell) {
  return (static_cast<long long>(plane) * grid.cells_high + cell.row) * grid.cells_wide + cell.column;
}

template <typename T, int kCount>
EDGEKD_DEVICE Pack<T, kCount> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, kCount>*>(from);
}

template <typename T, int kCount>
EDGEKD_DEVICE void store_pack(T* to, const Pack<T, kCount>& pack) {
#if defined(__CUDA_ARCH__)
  // Spelled out, because compilers split some structure stores into words.
  if constexpr (sizeof(pack) == 16) {
    const unsigned* w = reinterpret_cast<const unsigned*>(&pack);
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3])
                 : "memory");
    return;
  }
  if constexpr (sizeof(pack) == 8) {
    const unsigned* w = reinterpret_cast<const unsigned*>(&pack);
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(w[0]), "r"(w[1]) : "memory");
    return;
  }
#endif
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}

// The pixels of kCells cells. Beyond an odd edge stands zero, or with `replicate` the last row or column again.
template <typename T, int kCells>
EDGEKD_DEVICE void load_cells(Quad (&cells)[kCells], const T* x, const Grid& grid, Cell cell, bool replicate) {
  const T* top = x + pixel_offset(grid, cell);
  if constexpr (kCells == 1) {
    const bool right = 2 * cell.column + 1 < grid.width, below = 2 * cell.row + 1 < grid.height;
    const float a = to_float(top[0]);
    const float b = right ? to_float(top[1]) : replicate ? a : 0.0f;
    const float c = below ? to_float(top[grid.width]) : replicate ? a : 0.0f;
    const float d = right && below ? to_float(top[grid.width + 1]) : !replicate ? 0.0f : right ? b : c;
    cells[0] = {a, b, c, d};
  } else {
    const T* bottom = top + grid.width;
    const Pack<T, kCells> rows[4] = {load_pack<T, kCells>(top), load_pack<T, kCells>(top + kCells),
                                     load_pack<T, kCells>(bottom), load_pack<T, kCells>(bottom + kCells)};
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int half = 2 * i / kCells, at = 2 * i % kCells;
      cells[i] = {to_float(rows[half].v[at]), to_float(rows[half].v[at + 1]), to_float(rows[2 + half].v[at]),
                  to_float(rows[2 + half].v[at + 1])};
    }
  }
}

// The adjoint of load_cells: with `replicate`, what lies beyond the edge is added to the last row or column.
template <typename T, int kCells>
EDGEKD_DEVICE void store_cells(T* x, const Quad (&cells)[kCells], const Grid& grid, Cell cell, bool replicate) {
  T* top = x + pixel_offset(grid, cell);
  if constexpr (kCells == 1) {
    const bool right = 2 * cell.column + 1 < grid.width, below = 2 * cell.row + 1 < grid.height;
    Quad q = cells[0];
    if (replicate && !below) q.a += q.c, q.b += q.d;
    if (replicate && !right) q.a += q.b, q.c += q.d;
    top[0] = from_float<T>(q.a);
    if (right) top[1] = from_float<T>(q.b);
    if (below) top[grid.width] = from_float<T>(q.c);
    if (right && below) top[grid.width + 1] = from_float<T>(q.d);
  } else {
    Pack<T, kCells> rows[4];
#pragma unroll
    for (int i = 0; i < kCells; ++i) {
      const int half = 2 * i / kCells, at = 2 * i % kCells;
      rows[half].v[at] = from_float<T>(cells[i].a);
      rows[half].v[at + 1] = from_float<T>(cells[i].b);
      rows[2 + half].v[at] = from_float<T>(cells[i].c);
      rows[2 + half].v[at + 1] = from_float<T>(cells[i].d);
    }
    T* bottom = top + grid.width;
    store_pack<T, kCells>(top, rows[0]);
    store_pack<T, kCells>(top + kCells, rows[1]);
    store_pack<T, kCells>(bottom, rows[2]);
    store_pack<T, kCells>(bottom + kCells, rows[3]);
  }
}

}  // namespace edgekd
