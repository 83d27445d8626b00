// Low-resolution logits become a mask at the picture's resolution, within its window; mirrors runtime/segment.py.
#pragma once

#include <cstdint>
#include <vector>

#include "cleanup.h"
#include "preprocess.h"

namespace edgekd {

// Input pixels per cell of a decoder's masks and of a detector's prototypes.
constexpr int kCellPx = 4;

struct MaskOptions {
    float threshold = 0;
    uint32_t min_region_px = 0;
};

// A grid of logits; a Lattice says where it lies.
struct LogitGrid {
    const float* values;
    int width, height;
};

struct Window {
    int left = 0, top = 0, right = 0, bottom = 0;  // picture pixels, right and bottom exclusive
};

// Where the cells of a grid lie: cell = ((pixel + 0.5) * scale + offset) / size - 0.5. A mask stays within `limits`,
// which lie within the picture; pixels beyond the outermost cell centres take the outermost cells.
struct Lattice {
    double scale_x, scale_y, offset_x, offset_y, size_x, size_y;
    Window limits;
    int picture_width_px, picture_height_px;
};

// Where the 4 px cells of a network's input lie, for a grid whose first cell is (first_column, first_row).
Lattice input_lattice(const Placement& placement, const Window& limits, int first_column = 0, int first_row = 0);

// The whole picture, as limits.
Window whole_picture(const Placement& placement);

struct Mask {
    Window window;
    std::vector<uint8_t> crop;  // rows of the window, 1 inside and 0 outside
};

struct MaskScratch {
    std::vector<float> row;
    CleanupScratch cleanup;
};

// The region of the picture that bilinear upsampling can make positive.
Window positive_window(const LogitGrid& grid, const Lattice& lattice, float threshold);

// Bilinear samples of the logits at the pixel centres of a window.
void upsample(const LogitGrid& grid, const Lattice& lattice, const Window& window, std::vector<float>& to);

// Fill `mask`, reusing its memory.
void upsample_mask(const LogitGrid& grid, const Lattice& lattice, const MaskOptions& options, MaskScratch& scratch,
                   Mask& mask);

}  // namespace edgekd
