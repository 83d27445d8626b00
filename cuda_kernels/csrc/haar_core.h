// The arithmetic of every Haar kernel, once: the 2x2 butterfly, the weighted energy and its gradient, number formats.
// Included by the CUDA kernels (nvcc, NVRTC), by the host shim and by the CPU library. No other header is needed.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define EDGEKD_HD __host__ __device__ __forceinline__
#else
#define EDGEKD_HD inline __attribute__((always_inline))  // a call would keep the row loops from vectorising
#endif

namespace edgekd {

// Four numbers of one cell: the pixels [[a, b], [c, d]], or the bands approx, horizontal, vertical, diagonal.
struct Quad {
  float a, b, c, d;
};

// Pixels to bands and bands to pixels: the 4x4 Haar matrix is symmetric and orthogonal, hence its own inverse.
// All additions come before the exact halving, so every compiler and every backend returns the same bits.
EDGEKD_HD Quad butterfly(Quad q) {
  const float top = q.a + q.b, top_step = q.a - q.b, bottom = q.c + q.d, bottom_step = q.c - q.d;
  return {0.5f * (top + bottom), 0.5f * (top - bottom), 0.5f * (top_step + bottom_step),
          0.5f * (top_step - bottom_step)};
}

EDGEKD_HD Quad subtract(Quad p, Quad q) { return {p.a - q.a, p.b - q.b, p.c - q.c, p.d - q.d}; }

// low * cA^2 + high * (cH^2 + cV^2 + cD^2)
EDGEKD_HD float weighted_energy(Quad bands, float low, float high) {
  return low * bands.a * bands.a + high * (bands.b * bands.b + bands.c * bands.c + bands.d * bands.d);
}

// Pixels of the bands (low * cA, high * cH, high * cV, high * cD): half the gradient of weighted_energy.
EDGEKD_HD Quad weighted_synthesis(Quad bands, float low, float high) {
  return butterfly({low * bands.a, high * bands.b, high * bands.c, high * bands.d});
}

// Storage formats of 16 bits; arithmetic is always float32.
struct Half {
  unsigned short bits;
};
struct BFloat16 {
  unsigned short bits;
};

EDGEKD_HD unsigned bits_of(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  unsigned bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

EDGEKD_HD float float_of_bits(unsigned bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

EDGEKD_HD float to_float(float value) { return value; }

EDGEKD_HD float to_float(BFloat16 value) { return float_of_bits(static_cast<unsigned>(value.bits) << 16); }

EDGEKD_HD float to_float(Half value) {
#if defined(__CUDA_ARCH__)
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
#else
  const unsigned magnitude = value.bits & 0x7fffu;
  // Rebias the exponent (15 to 127) by an exact multiplication with 2^112, which also normalises subnormals.
  unsigned wide = bits_of(float_of_bits(magnitude << 13) * float_of_bits(0x77800000u));
  wide |= magnitude >= 0x7c00u ? 0x7f800000u : 0u;  // infinity and NaN keep the largest exponent
  return float_of_bits(wide | (static_cast<unsigned>(value.bits) & 0x8000u) << 16);
#endif
}

template <typename T>
EDGEKD_HD T from_float(float value);

template <>
EDGEKD_HD float from_float<float>(float value) {
  return value;
}

template <>
EDGEKD_HD BFloat16 from_float<BFloat16>(float value) {
  const unsigned bits = bits_of(value);
  const unsigned rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;  // to nearest, ties to even
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return {static_cast<unsigned short>(is_nan ? 0x7fc0u : rounded)};
}

template <>
EDGEKD_HD Half from_float<Half>(float value) {
#if defined(__CUDA_ARCH__)
  Half narrow;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(value));
  return narrow;
#else
  const unsigned bits = bits_of(value), magnitude = bits & 0x7fffffffu;
  // Adding 0.5 lets the float adder round a half subnormal (below 2^-14) at its last place.
  const unsigned subnormal = bits_of(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
  const unsigned normal = (magnitude + 0xc8000fffu + (magnitude >> 13 & 1u)) >> 13;  // rebias, ties to even
  const unsigned special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const unsigned finite = magnitude < 0x38800000u ? subnormal : normal;
  return {static_cast<unsigned short>((magnitude >= 0x47800000u ? special : finite) | (bits >> 16 & 0x8000u))};
#endif
}

}  // namespace edgekd
