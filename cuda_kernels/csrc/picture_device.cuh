// What the picture kernels share: a uint8 BGR picture in device memory, a window of it resized to a grid of output pixels.
// A thread makes kPixels neighbouring output pixels. A block first copies the source rows of its tile to shared memory
// with 128-bit loads, whatever their alignment, and averages or interpolates there: every byte of the picture is read
// once per tile. All geometry is in whole numbers, so that no 64-bit float is needed, which is slow on small devices.
// Written without any header, so that NVRTC compiles it on machines that have no CUDA toolkit.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define EDGEKD_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define EDGEKD_DEVICE __device__ __forceinline__
#endif

namespace edgekd {

constexpr int kPixels = 4, kChannels = 3, kWarp = 32, kVector = 16;
constexpr int kFixedOne = 1 << 11;  // weights of linear interpolation, as OpenCV has them

// The same for all windows of one launch; sizes in pixels. The host mirrors this structure.
struct Job {
  int picture_width, picture_height;
  int out_width, out_height;    // of the network's input
  int left, top;                // of the resized window in it
  int width, height;            // of the resized window
  int tile_groups;              // a block is tile_groups x kPixels columns wide
  int staged_bytes;             // shared memory of a block
  int averages;                 // letterbox: 1 averages areas, 0 interpolates; crops: decided per window
  float gain[kChannels], shift[kChannels];  // RGB; letterbox: value = grey * gain + shift
  float pad[kChannels];         // RGB; letterbox: the normalised value, crops: the grey level
};

struct Window {
  int left, top, right, bottom;  // in picture pixels; may leave the picture
};

struct alignas(kVector) Vector {
  unsigned v[4];
};

// One axis of a resize, from n_from to n_to pixels.
struct Axis {
  int n_from, n_to;
};

struct Span {
  int begin, end;
};

EDGEKD_DEVICE int smaller(int a, int b) { return a < b ? a : b; }
EDGEKD_DEVICE int larger(int a, int b) { return a > b ? a : b; }
EDGEKD_DEVICE int clamped(int value, int most) { return smaller(larger(value, 0), most); }

// 1 / value for ordinary positive numbers, without the function call that a division is on the device.
EDGEKD_DEVICE float reciprocal(float value) {
#if defined(__CUDA_ARCH__)
  float guess;
  asm("rcp.approx.f32 %0, %1;" : "=f"(guess) : "f"(value));
  return guess * (2.0f - value * guess);
#else
  return 1.0f / value;
#endif
}

// The area of output pixel i in units of 1 / n_to source pixels: [i * n_from, (i + 1) * n_from).
struct Share {
  int low, high;   // first source pixel, and the one in which the area ends
  int head, tail;  // of the area in these two; the ones between have n_to
};

EDGEKD_DEVICE Share share_of(Axis axis, int i) {
  const unsigned start = static_cast<unsigned>(i) * axis.n_from, end = start + axis.n_from, n_to = axis.n_to;
  const unsigned low = start / n_to, high = end / n_to;
  int head = static_cast<int>((low + 1) * n_to - start), tail = static_cast<int>(end - high * n_to);
  // OpenCV leaves out parts of less than a thousandth of a pixel.
  if (head * 1000 <= axis.n_to) head = 0;
  if (tail * 1000 <= axis.n_to) tail = 0;
  return {static_cast<int>(low), static_cast<int>(high), head, tail};
}

EDGEKD_DEVICE int part_of(const Share& share, int at, int whole) {
  return at == share.low ? share.head : at < share.high ? whole : share.tail;
}

// Two source pixels of output pixel i and the weight of the second, in 1 / kFixedOne; low may be -1.
struct Tap {
  int low, weight;
};

EDGEKD_DEVICE Tap tap_of(Axis axis, int i) {
  const int position = (2 * i + 1) * axis.n_from - axis.n_to, unit = 2 * axis.n_to;  // in 1 / unit source pixels
  const int low = position >= 0 ? position / unit : -1;
  const int fraction = position - low * unit;
  return {low, (2 * kFixedOne * fraction + unit) / (2 * unit)};
}

// The source pixels that the output pixels of `outputs` read.
EDGEKD_DEVICE Span sources_of(Axis axis, Span outputs, bool averages) {
  if (outputs.begin >= outputs.end) return {0, 0};
  if (averages) {
    const Share last = share_of(axis, outputs.end - 1);
    return {share_of(axis, outputs.begin).low, smaller(last.high + 1, axis.n_from)};
  }
  return {larger(tap_of(axis, outputs.begin).low, 0), smaller(tap_of(axis, outputs.end - 1).low + 2, axis.n_from)};
}

// Rows of the picture in shared memory: those of `rows`, each with the columns of `columns`, both in picture pixels.
struct Stage {
  const unsigned char* bytes;
  Span columns, rows;
  int stride, row_bytes;  // of a staged row, and of a row of the picture
};

EDGEKD_DEVICE long long first_byte(const Stage& stage, int row) {
  return static_cast<long long>(row) * stage.row_bytes + stage.columns.begin * kChannels;
}

EDGEKD_DEVICE const unsigned char* staged_row(const Stage& stage, int row) {
  const int offset = static_cast<int>(first_byte(stage, row) & (kVector - 1));
  return stage.bytes + (row - stage.rows.begin) * stage.stride + offset - stage.columns.begin * kChannels;
}

// Each warp copies every fourth row; the first vector begins up to 15 bytes before what is wanted.
EDGEKD_DEVICE void fill(const Stage& stage, unsigned char* to, const unsigned char* picture, long long n_bytes) {
  const int n_wanted = (stage.columns.end - stage.columns.begin) * kChannels;
  for (int row = stage.rows.begin + static_cast<int>(threadIdx.x) / kWarp; row < stage.rows.end;
       row += static_cast<int>(blockDim.x) / kWarp) {
    const long long from = first_byte(stage, row), aligned = from & ~static_cast<long long>(kVector - 1);
    const int n = static_cast<int>(from - aligned) + n_wanted;
    unsigned char* line = to + (row - stage.rows.begin) * stage.stride;
    for (int at = static_cast<int>(threadIdx.x) % kWarp * kVector; at < n; at += kWarp * kVector) {
      if (aligned + at + kVector <= n_bytes) {
        *reinterpret_cast<Vector*>(line + at) = *reinterpret_cast<const Vector*>(picture + aligned + at);
      } else {  // the last bytes of the picture
#pragma unroll 1
        for (int i = 0; aligned + at + i < n_bytes; ++i) line[at + i] = picture[aligned + at + i];
      }
    }
  }
}

}  // namespace edgekd
