// The geometry of crop networks: boxes become windows and pixels of one size, logits go back; mirrors runtime/crops.py.
#pragma once

#include <vector>

#include "manifest.h"
#include "masks.h"
#include "picture.h"
#include "preprocess.h"
#include "resize.h"

namespace edgekd {

// The box scaled about its centre and rounded outwards, at least one pixel; it may leave the picture.
Window window_of(const Box& box, double window_factor);
Window window_of(double left, double top, double right, double bottom, double window_factor);

struct CropScratch {
    ResizeScratch resize;
    std::vector<uint8_t> region;
};

// Write the pixels of a window as side x side x 3 bytes RGB: areas are averaged where both sides shrink.
void cut(const Picture& picture, const Window& window, const CropInput& spec, CropScratch& scratch, uint8_t* to);

// Resize the pixels of a window to side x side x 3 bytes RGB.
void resize_region(const Picture& region, int side, CropScratch& scratch, uint8_t* to);

// Where the side x side logits of a window lie in a picture; masks end with the window.
Lattice lattice_of(const Window& window, int side_px, int picture_width_px, int picture_height_px);

}  // namespace edgekd
