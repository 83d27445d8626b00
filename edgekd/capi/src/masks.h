// Low-resolution logits become a mask at the picture's resolution, within its window; mirrors runtime/segment.py.
#pragma once

#include <cstdint>
#include <vector>

#include "cleanup.h"
#include "preprocess.h"

namespace edgekd {

struct MaskOptions {
    float threshold = 0;
    uint32_t min_region_px = 0;
};

// A grid of logits, one cell is 4 x 4 pixels of the segmenter's input.
struct LogitGrid {
    const float* values;
    int width, height;
};

struct Window {
    int left = 0, top = 0, right = 0, bottom = 0;  // picture pixels, right and bottom exclusive
};

struct Mask {
    Window window;
    std::vector<uint8_t> crop;  // rows of the window, 1 inside and 0 outside
};

struct MaskScratch {
    std::vector<float> row;
    CleanupScratch cleanup;
};

// The region of the picture that bilinear upsampling can make positive.
Window positive_window(const LogitGrid& grid, const Placement& placement, float threshold);

// Fill `mask`, reusing its memory.
void upsample_mask(const LogitGrid& grid, const Placement& placement, const MaskOptions& options, MaskScratch& scratch,
                   Mask& mask);

}  // namespace edgekd
