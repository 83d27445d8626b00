// Forward transform and its adjoint: one thread for kCells cells, one pass over memory.
#pragma once
#include "haar_device.cuh"

namespace edgekd {

// x (planes, height, width) -> four bands (planes, cells_high, cells_wide).
template <typename T, int kCells>
EDGEKD_DEVICE void analysis(const T* x, T* approx, T* horizontal, T* vertical, T* diagonal, const Grid& grid,
                            bool replicate) {
  const unsigned group = blockIdx.x * blockDim.x + threadIdx.x;
  if (group >= count_groups<kCells>(grid)) return;
  const Cell cell = cell_of<kCells>(grid, group);
  Quad cells[kCells];
  load_cells<T, kCells>(cells, x, grid, cell, replicate);
  Pack<T, kCells> bands[4];
#pragma unroll
  for (int i = 0; i < kCells; ++i) {
    const Quad k = butterfly(cells[i]);
    bands[0].v[i] = from_float<T>(k.a);
    bands[1].v[i] = from_float<T>(k.b);
    bands[2].v[i] = from_float<T>(k.c);
    bands[3].v[i] = from_float<T>(k.d);
  }
  const long long at = band_offset(grid, cell.plane, cell);
  store_pack<T, kCells>(approx + at, bands[0]);
  store_pack<T, kCells>(horizontal + at, bands[1]);
  store_pack<T, kCells>(vertical + at, bands[2]);
  store_pack<T, kCells>(diagonal + at, bands[3]);
}

// Four bands -> x, cropped to height x width; with `replicate` the adjoint of the replicating transform.
template <typename T, int kCells>
EDGEKD_DEVICE void synthesis(const T* approx, const T* horizontal, const T* vertical, const T* diagonal, T* x,
                             const Grid& grid, bool replicate) {
  const unsigned group = blockIdx.x * blockDim.x + threadIdx.x;
  if (group >= count_groups<kCells>(grid)) return;
  const Cell cell = cell_of<kCells>(grid, group);
  const long long at = band_offset(grid, cell.plane, cell);
  const Pack<T, kCells> bands[4] = {load_pack<T, kCells>(approx + at), load_pack<T, kCells>(horizontal + at),
                                    load_pack<T, kCells>(vertical + at), load_pack<T, kCells>(diagonal + at)};
  Quad cells[kCells];
#pragma unroll
  for (int i = 0; i < kCells; ++i)
    cells[i] = butterfly({to_float(bands[0].v[i]), to_float(bands[1].v[i]), to_float(bands[2].v[i]),
                          to_float(bands[3].v[i])});
  store_cells<T, kCells>(x, cells, grid, cell, replicate);
}

}  // namespace edgekd
