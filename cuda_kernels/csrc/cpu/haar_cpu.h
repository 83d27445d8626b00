// C interface of the CPU library: plain pointers and sizes, no Python, no PyTorch. Called through ctypes.
// Feature maps are contiguous (planes, height, width), bands (planes, cells_high, cells_wide) with
// cells_high = (height + 1) / 2 and cells_wide = (width + 1) / 2. Buffers must not overlap.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

enum edgekd_dtype { EDGEKD_FLOAT32 = 0, EDGEKD_FLOAT16 = 1, EDGEKD_BFLOAT16 = 2 };

typedef struct {
  int64_t planes;     // N * C
  int64_t height;     // rows of a plane, may be odd
  int64_t width;      // columns of a plane, may be odd
  int32_t replicate;  // beyond an odd edge stands 0: zero, 1: the last row or column again
  int32_t threads;
} edgekd_haar_shape;

// Forward transform: x -> bands (approx, horizontal, vertical, diagonal).
void edgekd_haar_analysis(int dtype, const edgekd_haar_shape* shape, const void* x, void* const bands[4]);

// Its adjoint: bands -> x. With replicate = 0 this is the inverse, cropped; with 1 the pad's share is added to the
// last row and column.
void edgekd_haar_synthesis(int dtype, const edgekd_haar_shape* shape, const void* const bands[4], void* x);

// Sum over all cells of m * (low * cA^2 + high * (cH^2 + cV^2 + cD^2)) of student - teacher, with m = cell_weight
// (planes / channels, cells_high, cells_wide) or 1 when it is null, to *loss when loss is not null. When gradient is not
// null it receives gradient_scale times half the derivative of that sum.
void edgekd_haar_loss(int dtype, const edgekd_haar_shape* shape, const void* student, const void* teacher,
                      const float* cell_weight, int64_t channels, float low, float high, void* gradient,
                      float gradient_scale, float* loss);

// The instruction set the row loops run with: "avx512", "avx2" or "baseline".
const char* edgekd_haar_instruction_set(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
