// The two resizes, with OpenCV's arithmetic so that C and Python see the same pixels. Rows come out one by one.
#pragma once

#include <functional>
#include <vector>

#include "picture.h"

namespace edgekd {

// Takes row `y` of a picture, interleaved; it is gone after the call.
using RowSink = std::function<void(int y, const uint8_t* row)>;

// Working memory of a resize, kept so that steady runs allocate little.
struct ResizeScratch {
    std::vector<int> wide_row;  // a source row, a value for each byte
    std::vector<float> wide_float_row;
    std::vector<int16_t> fixed_rows;
    std::vector<float> float_rows;
    std::vector<uint8_t> row;
};

// Bilinear resize in OpenCV's 11-bit fixed point (INTER_LINEAR).
void resize_linear(const Picture& picture, int width_px, int height_px, ResizeScratch& scratch, const RowSink& sink);

// Average the source area of each pixel (INTER_AREA); both sides must shrink or stay.
void resize_area(const Picture& picture, int width_px, int height_px, ResizeScratch& scratch, const RowSink& sink);

}  // namespace edgekd
