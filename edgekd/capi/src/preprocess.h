// A picture becomes a network's input: (1, 3, height, width) float32 RGB, normalised; mirrors runtime/preprocess.py.
#pragma once

#include <vector>

#include "manifest.h"
#include "picture.h"
#include "resize.h"

namespace edgekd {

// left, top, right, bottom in pixels.
struct Box {
    float left, top, right, bottom;
};

// Where the picture lies in the input: input = picture * scale + offset.
struct Placement {
    double scale_x = 1, scale_y = 1;
    int left_px = 0, top_px = 0;
    int picture_width_px = 0, picture_height_px = 0;
    int resized_width_px = 0, resized_height_px = 0;
    Size input;  // the padding included

    Box to_input(const Box& box) const;
    // Back to the picture, clipped to it.
    Box to_picture(const Box& box) const;
};

Placement place(int width_px, int height_px, const ImageInput& spec);

// Fill the front of `blob`, which grows as needed and never shrinks, and return where the picture lies in it.
Placement preprocess(const Picture& picture, const ImageInput& spec, ResizeScratch& scratch, std::vector<float>& blob);

}  // namespace edgekd
