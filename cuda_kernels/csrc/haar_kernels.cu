// The kernels by name: edgekd_<what>_<dtype>_<cells per thread>, for nvcc, NVRTC and (through the shim) g++.
#include "haar_dwt.cuh"
#include "haar_loss.cuh"

#define EDGEKD_KERNELS(T, dtype, kCells)                                                                            \
  extern "C" __global__ void __launch_bounds__(256) edgekd_analysis_##dtype##_##kCells(                            \
      const T* x, T* approx, T* horizontal, T* vertical, T* diagonal, int planes, int height, int width,            \
      int replicate) {                                                                                              \
    edgekd::analysis<T, kCells>(x, approx, horizontal, vertical, diagonal,                                          \
                                edgekd::make_grid(planes, height, width), replicate != 0);                          \
  }                                                                                                                 \
  extern "C" __global__ void __launch_bounds__(256) edgekd_synthesis_##dtype##_##kCells(                           \
      const T* approx, const T* horizontal, const T* vertical, const T* diagonal, T* x, int planes, int height,     \
      int width, int replicate) {                                                                                   \
    edgekd::synthesis<T, kCells>(approx, horizontal, vertical, diagonal, x,                                         \
                                 edgekd::make_grid(planes, height, width), replicate != 0);                         \
  }                                                                                                                 \
  extern "C" __global__ void __launch_bounds__(256) edgekd_loss_##dtype##_##kCells(                                \
      const T* student, const T* teacher, const float* cell_weight, float* partial_sums, int planes, int height,    \
      int width, int channels, float low, float high) {                                                             \
    edgekd::loss<T, kCells>(student, teacher, cell_weight, partial_sums, channels, {low, high},                     \
                            edgekd::make_grid(planes, height, width));                                              \
  }                                                                                                                 \
  extern "C" __global__ void __launch_bounds__(256) edgekd_gradient_##dtype##_##kCells(                            \
      const float* grad_output, const T* student, const T* teacher, const float* cell_weight, T* gradient,          \
      int planes, int height, int width, int channels, float low, float high) {                                     \
    edgekd::loss_gradient<T, kCells>(grad_output, student, teacher, cell_weight, gradient, channels, {low, high},   \
                                     edgekd::make_grid(planes, height, width));                                     \
  }

EDGEKD_KERNELS(float, f32, 1)
EDGEKD_KERNELS(float, f32, 2)
EDGEKD_KERNELS(float, f32, 4)
EDGEKD_KERNELS(edgekd::Half, f16, 1)
EDGEKD_KERNELS(edgekd::Half, f16, 2)
EDGEKD_KERNELS(edgekd::Half, f16, 4)
EDGEKD_KERNELS(edgekd::Half, f16, 8)
EDGEKD_KERNELS(edgekd::BFloat16, bf16, 1)
EDGEKD_KERNELS(edgekd::BFloat16, bf16, 2)
EDGEKD_KERNELS(edgekd::BFloat16, bf16, 4)
EDGEKD_KERNELS(edgekd::BFloat16, bf16, 8)

extern "C" __global__ void __launch_bounds__(256) edgekd_finish(const float* partial_sums, int count, float* out) {
  edgekd::finish(partial_sums, count, out);
}
