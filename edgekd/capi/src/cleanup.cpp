#include "cleanup.h"

#include <algorithm>

namespace edgekd {
namespace {

uint32_t root_of(std::vector<uint32_t>& parents, uint32_t label) {
    while (parents[label] != label) label = parents[label] = parents[parents[label]];
    return label;
}

// The older of two components becomes the parent, so a root is the component's first pixel in reading order.
uint32_t joined(std::vector<uint32_t>& parents, uint32_t a, uint32_t b) {
    a = root_of(parents, a), b = root_of(parents, b);
    return parents[std::max(a, b)] = std::min(a, b);
}

// Give every pixel that equals `value` the label of its 8-connected component, from 1; others get 0.
void label_components(const uint8_t* mask, size_t width, size_t height, uint8_t value, CleanupScratch& scratch) {
    auto& [labels, parents, areas] = scratch;
    labels.assign(width * height, 0);
    parents.assign(1, 0);
    for (size_t y = 0; y < height; y++) {
        for (size_t x = 0; x < width; x++) {
            const size_t at = y * width + x;
            if (mask[at] != value) continue;
            uint32_t label = x > 0 ? labels[at - 1] : 0;
            const size_t first = y == 0 ? 1 : (x > 0 ? x - 1 : 0), last = y == 0 ? 0 : std::min(x + 1, width - 1);
            for (size_t above = first; above <= last; above++) {
                const uint32_t other = labels[at - x - width + above];
                if (other != 0) label = label == 0 ? other : joined(parents, label, other);
            }
            if (label == 0) {
                label = uint32_t(parents.size());
                parents.push_back(label);
            }
            labels[at] = label;
        }
    }
    areas.assign(parents.size(), 0);
    for (uint32_t& label : labels) {
        label = root_of(parents, label);
        areas[label] += label != 0;
    }
}

// Components that touch an open edge are never small.
void keep_open(size_t width, size_t height, const OpenEdges& open, CleanupScratch& scratch) {
    const auto keep = [&](size_t at) { scratch.areas[scratch.labels[at]] = UINT32_MAX; };
    for (size_t y = 0; y < height; y++) {
        if (open.left) keep(y * width);
        if (open.right) keep(y * width + width - 1);
    }
    for (size_t x = 0; x < width; x++) {
        if (open.top) keep(x);
        if (open.bottom) keep((height - 1) * width + x);
    }
}

// Flip the components of `value` that are smaller than the limit.
void flip_small(uint8_t* mask, size_t width, size_t height, uint8_t value, uint32_t min_region_px,
                const OpenEdges& open, CleanupScratch& scratch) {
    label_components(mask, width, height, value, scratch);
    auto& areas = scratch.areas;
    if (value == 1) *std::max_element(areas.begin(), areas.end()) = UINT32_MAX;  // the largest island stays
    if (value == 0) keep_open(width, height, open, scratch);
    areas[0] = UINT32_MAX;  // not of this value
    for (size_t at = 0; at < width * height; at++) {
        if (areas[scratch.labels[at]] < min_region_px) mask[at] = uint8_t(1 - value);
    }
}

}  // namespace

void remove_small_regions(uint8_t* mask, size_t width, size_t height, uint32_t min_region_px, const OpenEdges& open,
                          CleanupScratch& scratch) {
    if (std::find(mask, mask + width * height, 1) == mask + width * height) return;
    flip_small(mask, width, height, 0, min_region_px, open, scratch);
    flip_small(mask, width, height, 1, min_region_px, open, scratch);
}

}  // namespace edgekd
