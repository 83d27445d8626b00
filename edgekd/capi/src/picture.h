// The caller's pixels, checked, and a resized copy of them: uint8 rows of 1, 3 or 4 interleaved channels.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "edgekd.h"

namespace edgekd {

// A view; row y starts at data + y * stride_bytes.
struct Picture {
    const uint8_t* data = nullptr;
    int width_px = 0;
    int height_px = 0;
    size_t stride_bytes = 0;
    int n_channels = 0;
    std::array<int, 3> rgb{};  // channel of red, green, blue

    const uint8_t* row(int y) const { return data + size_t(y) * stride_bytes; }
};

// Check an image view; fails with EDGEKD_ERROR_ARGUMENT.
Picture picture_from(const edgekd_image& image);

// Working memory of a resize, kept so that steady runs allocate nothing.
struct ResizeScratch {
    std::vector<int> fixed_rows;
    std::vector<float> float_rows;
    std::vector<uint8_t> pixels;
};

// Bilinear resize in OpenCV's 11-bit fixed point (INTER_LINEAR). The result lives in `scratch.pixels`.
Picture resize_linear(const Picture& picture, int width_px, int height_px, ResizeScratch& scratch);

// Average the source area of each pixel (INTER_AREA); both sides must shrink or stay.
Picture resize_area(const Picture& picture, int width_px, int height_px, ResizeScratch& scratch);

}  // namespace edgekd
