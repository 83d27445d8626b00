// The picture kernels by name, for nvcc, NVRTC and (through the shim) g++. Blocks have 128 threads:
//   edgekd_letterbox   picture (H, W, 3) BGR -> (3, out_height, out_width) float32 RGB, resized, padded, normalised;
//                      grid: tiles across, tiles down
//   edgekd_crops       picture and n windows -> (n, out_height, out_width, 3) uint8 RGB;
//                      grid: tiles across, tiles down, n
// Pictures lie at multiples of 16 bytes; out_width is a multiple of 4 where 16 bytes are stored at once.
#include "picture_resample.cuh"

namespace edgekd {

struct Place {
  int column, row;
  bool inside;  // of the output
};

EDGEKD_DEVICE Place place_of(const Job& job) {
  const int rows = static_cast<int>(blockDim.x) / job.tile_groups;
  const int group = static_cast<int>(threadIdx.x) % job.tile_groups, line = static_cast<int>(threadIdx.x) / job.tile_groups;
  const int column = (static_cast<int>(blockIdx.x) * job.tile_groups + group) * kPixels;
  const int row = static_cast<int>(blockIdx.y) * rows + line;
  return {column, row, line < rows && column < job.out_width && row < job.out_height};
}

EDGEKD_DEVICE void store(float* to, const float (&values)[kPixels], int n) {
#if defined(__CUDA_ARCH__)
  if (n == kPixels) {  // spelled out, because compilers split some structure stores into words
    asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(values[0]), "f"(values[1]), "f"(values[2]),
                 "f"(values[3])
                 : "memory");
    return;
  }
#endif
  for (int p = 0; p < n; ++p) to[p] = values[p];
}

EDGEKD_DEVICE void write_planes(const Job& job, const Greys& greys, const Place& place, float* out) {
  const long long plane = static_cast<long long>(job.out_width) * job.out_height;
  float* to = out + static_cast<long long>(place.row) * job.out_width + place.column;
  const bool whole = job.out_width % kPixels == 0;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    float values[kPixels];
#pragma unroll
    for (int p = 0; p < kPixels; ++p)
      values[p] = greys.inside[p] ? greys.v[p][c] * job.gain[c] + job.shift[c] : job.pad[c];
    if (whole) {
      store(to + c * plane, values, kPixels);
    } else {
#pragma unroll
      for (int p = 0; p < kPixels; ++p)
        if (place.column + p < job.out_width) to[c * plane + p] = values[p];
    }
  }
}

}  // namespace edgekd

extern "C" __global__ void __launch_bounds__(128, 4)
    edgekd_letterbox(const unsigned char* picture, float* out, edgekd::Job job) {
  using namespace edgekd;
  const Greys greys = resample<false>(picture, job, {0, 0, job.picture_width, job.picture_height}, job.averages != 0);
  const Place place = place_of(job);
  if (place.inside) write_planes(job, greys, place, out);
}

extern "C" __global__ void __launch_bounds__(128, 4)
    edgekd_crops(const unsigned char* picture, const edgekd::Window* windows, unsigned char* out, edgekd::Job job) {
  using namespace edgekd;
  const Window window = windows[blockIdx.z];
  const bool shrinks = job.width < window.right - window.left && job.height < window.bottom - window.top;
  const Greys greys = resample<true>(picture, job, window, shrinks);
  const Place place = place_of(job);
  if (!place.inside) return;
  const long long row = static_cast<long long>(blockIdx.z) * job.out_height + place.row;
  unsigned char* to = out + (row * job.out_width + place.column) * kChannels;
#pragma unroll
  for (int p = 0; p < kPixels; ++p) {
    if (place.column + p >= job.out_width) break;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) to[p * kChannels + c] = static_cast<unsigned char>(greys.v[p][c]);
  }
}
