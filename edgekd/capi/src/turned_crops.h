// Crops that are turned with their box, and masks on the way back; mirrors runtime/turned_crops.py.
#pragma once

#include <vector>

#include "crops.h"
#include "oriented.h"

namespace edgekd {

// How the frame of a box, in which it stands upright, lies in the picture: both turn about the centre of the box.
struct Turn {
    double cosine = 1, sine = 0, x = 0, y = 0;
};

// A turned box in its frame, in px. Of a box that leaves the picture it is the one around the part within.
struct Framed {
    double left, top, right, bottom;
    Turn turn;
};

Framed frame_of(const Corners& corners, int picture_width_px, int picture_height_px);

// The box scaled about its centre and rounded outwards, in the frame.
Window window_of(const Framed& box, double window_factor);

// As cut(), of a window in a frame: pixels between those of the picture are interpolated at steps of 1/32 px.
void cut_turned(const Picture& picture, const Window& window, const Turn& turn, const CropInput& spec,
                CropScratch& scratch, uint8_t* to);

// As upsample_mask(), of the side x side logits of a window in a frame; the mask ends with the window.
void turned_mask(const LogitGrid& grid, const Window& window, const Turn& turn, const Picture& picture,
                 const MaskOptions& options, MaskScratch& scratch, Mask& mask);

}  // namespace edgekd
