// Small islands and holes are removed from a mask in place; mirrors runtime/cleanup.py.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edgekd {

// Working memory: labels of pixels, parents and areas of components.
struct CleanupScratch {
    std::vector<uint32_t> labels, parents, areas;
};

// Edges behind which the picture goes on: the background there is a part of a larger one and not a hole.
struct OpenEdges {
    bool left = false, top = false, right = false, bottom = false;
};

// Fill holes, then drop islands, of fewer than `min_region_px` pixels. Regions are 8-connected, holes that touch the
// border count unless it is open, and the largest island stays: the rules of Segment Anything's remove_small_regions.
// `mask` holds width * height bytes, 0 or 1.
void remove_small_regions(uint8_t* mask, size_t width, size_t height, uint32_t min_region_px, const OpenEdges& open,
                          CleanupScratch& scratch);

}  // namespace edgekd
