// Weighted band loss and its gradient. Sums have a fixed order (no atomics): the same bits from run to run.
//   loss      2 maps read                      partial sums per block, then `finish` in float64: two launches
//   gradient  2 maps read, 1 written           multiplied by grad_output in float32 before it is rounded, so a loss
//                                              scale lifts float16 gradients over their smallest number
#pragma once
#include "haar_device.cuh"

namespace edgekd {

constexpr int kBlock = 256;
constexpr int kWarp = 32;

// What multiplies cA^2 and the squares of the details of one cell.
struct Factors {
  float low, high;
};

// cell_weight (planes / channels, cells_high, cells_wide), or null for 1.
template <int kCells>
EDGEKD_DEVICE void load_weights(float (&weights)[kCells], const float* cell_weight, int channels, const Grid& grid,
                                Cell cell) {
  const float* from = cell_weight ? cell_weight + band_offset(grid, cell.plane / channels, cell) : nullptr;
#pragma unroll
  for (int i = 0; i < kCells; ++i) weights[i] = from ? from[i] : 1.0f;
}

template <typename T, int kCells>
EDGEKD_DEVICE void load_error_bands(Quad (&bands)[kCells], const T* student, const T* teacher, const Grid& grid,
                                    Cell cell) {
  Quad other[kCells];
  load_cells<T, kCells>(bands, student, grid, cell, false);
  load_cells<T, kCells>(other, teacher, grid, cell, false);
#pragma unroll
  for (int i = 0; i < kCells; ++i) bands[i] = butterfly(subtract(bands[i], other[i]));
}

// The sum over a block of kBlock threads, valid in thread 0.
EDGEKD_DEVICE float block_sum(float value) {
  EDGEKD_SHARED(float, warp_sums, kBlock / kWarp);
  for (int step = kWarp / 2; step; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  if (threadIdx.x % kWarp == 0) warp_sums[threadIdx.x / kWarp] = value;
  __syncthreads();
  if (threadIdx.x >= kWarp) return 0.0f;
  value = threadIdx.x < kBlock / kWarp ? warp_sums[threadIdx.x] : 0.0f;
  for (int step = kBlock / kWarp / 2; step; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

// partial_sums[blockIdx.x] = the energy of the groups this block walks over, in steps of the whole launch.
template <typename T, int kCells>
EDGEKD_DEVICE void loss(const T* student, const T* teacher, const float* cell_weight, float* partial_sums,
                        int channels, Factors factors, const Grid& grid) {
  float energy = 0.0f;
  for (unsigned group = blockIdx.x * kBlock + threadIdx.x; group < count_groups<kCells>(grid);
       group += gridDim.x * kBlock) {
    const Cell cell = cell_of<kCells>(grid, group);
    Quad bands[kCells];
    float weights[kCells];
    load_error_bands<T, kCells>(bands, student, teacher, grid, cell);
    load_weights<kCells>(weights, cell_weight, channels, grid, cell);
#pragma unroll
    for (int i = 0; i < kCells; ++i) energy += weights[i] * weighted_energy(bands[i], factors.low, factors.high);
  }
  energy = block_sum(energy);
  if (threadIdx.x == 0) partial_sums[blockIdx.x] = energy;
}

// out[0] = the sum of the partial sums, by one block, in float64.
EDGEKD_DEVICE void finish(const float* partial_sums, int count, float* out) {
  EDGEKD_SHARED(double, sums, kBlock);
  double sum = 0.0;
  for (int i = threadIdx.x; i < count; i += kBlock) sum += partial_sums[i];
  sums[threadIdx.x] = sum;
  for (unsigned half = kBlock / 2; half; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  if (threadIdx.x == 0) out[0] = static_cast<float>(sums[0]);
}

// gradient = grad_output[0] * the derivative of the energy with respect to student.
template <typename T, int kCells>
EDGEKD_DEVICE void loss_gradient(const float* grad_output, const T* student, const T* teacher,
                                 const float* cell_weight, T* gradient, int channels, Factors factors,
                                 const Grid& grid) {
  const unsigned group = blockIdx.x * blockDim.x + threadIdx.x;
  if (group >= count_groups<kCells>(grid)) return;
  const Cell cell = cell_of<kCells>(grid, group);
  Quad bands[kCells];
  float weights[kCells];
  load_error_bands<T, kCells>(bands, student, teacher, grid, cell);
  load_weights<kCells>(weights, cell_weight, channels, grid, cell);
  const float scale = 2.0f * grad_output[0];
#pragma unroll
  for (int i = 0; i < kCells; ++i) {
    const float factor = scale * weights[i];
    bands[i] = weighted_synthesis(bands[i], factor * factors.low, factor * factors.high);
  }
  store_cells<T, kCells>(gradient, bands, grid, cell, false);
}

}  // namespace edgekd
