#include "crops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace edgekd {
namespace {

void to_rgb(const Picture& picture, const uint8_t* from, int n, uint8_t* to) {
    for (int x = 0; x < n; x++, from += picture.n_channels, to += kRgb) {
        for (size_t c = 0; c < kRgb; c++) to[c] = from[picture.rgb[c]];
    }
}

Window clipped(const Window& window, int width_px, int height_px) {
    return {std::max(window.left, 0), std::max(window.top, 0), std::min(window.right, width_px),
            std::min(window.bottom, height_px)};
}

// A window as a picture: a view where it lies within the picture, a padded copy in RGB otherwise.
Picture region_of(const Picture& picture, const Window& window, const CropInput& spec, std::vector<uint8_t>& memory) {
    const int width = window.right - window.left, height = window.bottom - window.top;
    const Window inside = clipped(window, picture.width_px, picture.height_px);
    if (inside.left == window.left && inside.top == window.top && inside.right == window.right &&
        inside.bottom == window.bottom) {
        const uint8_t* first = picture.row(window.top) + size_t(window.left) * size_t(picture.n_channels);
        return {first, width, height, picture.stride_bytes, picture.n_channels, picture.rgb};
    }
    const size_t stride = size_t(width) * kRgb;
    memory.resize(stride * size_t(height));
    for (size_t at = 0; at < memory.size(); at++) memory[at] = uint8_t(std::nearbyint(spec.pad[at % kRgb]));
    for (int y = inside.top; y < inside.bottom && inside.left < inside.right; y++) {
        uint8_t* to = memory.data() + size_t(y - window.top) * stride + size_t(inside.left - window.left) * kRgb;
        const uint8_t* from = picture.row(y) + size_t(inside.left) * size_t(picture.n_channels);
        to_rgb(picture, from, inside.right - inside.left, to);
    }
    return {memory.data(), width, height, stride, kRgb, {0, 1, 2}};
}

}  // namespace

Window window_of(const Box& box, double window_factor) {
    return window_of(box.left, box.top, box.right, box.bottom, window_factor);
}

Window window_of(double left, double top, double right, double bottom, double window_factor) {
    const double x = (left + right) / 2, y = (top + bottom) / 2;
    const double half_width = (right - left) * (window_factor / 2), half_height = (bottom - top) * (window_factor / 2);
    Window window{int(std::floor(x - half_width)), int(std::floor(y - half_height)), int(std::ceil(x + half_width)),
                  int(std::ceil(y + half_height))};
    window.right = std::max(window.right, window.left + 1);
    window.bottom = std::max(window.bottom, window.top + 1);
    return window;
}

void cut(const Picture& picture, const Window& window, const CropInput& spec, CropScratch& scratch, uint8_t* to) {
    resize_region(region_of(picture, window, spec, scratch.region), spec.side_px, scratch, to);
}

void resize_region(const Picture& region, int side, CropScratch& scratch, uint8_t* to) {
    const auto sink = [&](int y, const uint8_t* row) { to_rgb(region, row, side, to + size_t(y) * size_t(side) * kRgb); };
    if (region.width_px == side && region.height_px == side) {
        for (int y = 0; y < side; y++) sink(y, region.row(y));
        return;
    }
    const bool shrinks = side < region.width_px && side < region.height_px;
    (shrinks ? resize_area : resize_linear)(region, side, side, scratch.resize, sink);
}

Lattice lattice_of(const Window& window, int side_px, int picture_width_px, int picture_height_px) {
    const double side = side_px;
    return {side, side, -(window.left * side), -(window.top * side), double(window.right - window.left),
            double(window.bottom - window.top), clipped(window, picture_width_px, picture_height_px),
            picture_width_px, picture_height_px};
}

}  // namespace edgekd
