// The caller's pixels, checked: uint8 rows of 1, 3 or 4 interleaved channels.
#pragma once

#include <array>
#include <cstdint>

#include "edgekd.h"

namespace edgekd {

constexpr int kRgb = 3;  // channels that networks read

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

}  // namespace edgekd
