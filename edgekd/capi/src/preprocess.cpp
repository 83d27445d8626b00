#include "preprocess.h"

#include <algorithm>
#include <cmath>

namespace edgekd {
namespace {

// Halves to even, as Python's round.
int rounded(double value) {
    return int(std::nearbyint(value));
}

Picture resized(const Picture& picture, const Placement& placement, const ImageInput& spec, ResizeScratch& scratch) {
    const int width = placement.resized_width_px, height = placement.resized_height_px;
    if (picture.width_px == width && picture.height_px == height) return picture;
    // Averaging areas is what an antialiased resize does; it only makes sense when the picture shrinks.
    const bool shrinks = placement.scale_x < 1 && placement.scale_y < 1;
    return spec.area && shrinks ? resize_area(picture, width, height, scratch)
                                : resize_linear(picture, width, height, scratch);
}

// The normalised value of every possible byte.
std::array<float, 256> value_table(double mean, double std) {
    std::array<float, 256> table;
    for (int value = 0; value < 256; value++) table[size_t(value)] = float((value - mean) / std);
    return table;
}

void fill_row(const uint8_t* from, int n_channels, int n, const std::array<float, 256>& table, float* to) {
    for (int x = 0; x < n; x++) to[x] = table[from[x * n_channels]];
}

}  // namespace

Box Placement::to_input(const Box& box) const {
    const float x = float(scale_x), y = float(scale_y), left = float(left_px), top = float(top_px);
    return {box.left * x + left, box.top * y + top, box.right * x + left, box.bottom * y + top};
}

Box Placement::to_picture(const Box& box) const {
    const float width = float(picture_width_px), height = float(picture_height_px);
    const auto x = [&](float value) { return std::clamp((value - float(left_px)) / float(scale_x), 0.0f, width); };
    const auto y = [&](float value) { return std::clamp((value - float(top_px)) / float(scale_y), 0.0f, height); };
    return {x(box.left), y(box.top), x(box.right), y(box.bottom)};
}

Placement place(int width_px, int height_px, const ImageInput& spec) {
    const double ratio = std::min(double(spec.height_px) / height_px, double(spec.width_px) / width_px);
    Placement placement;
    placement.picture_width_px = width_px;
    placement.picture_height_px = height_px;
    placement.resized_width_px = std::max(1, rounded(width_px * ratio));
    placement.resized_height_px = std::max(1, rounded(height_px * ratio));
    placement.scale_x = double(placement.resized_width_px) / width_px;
    placement.scale_y = double(placement.resized_height_px) / height_px;
    if (spec.centre) {
        // Ultralytics' LetterBox gives the odd pixel of padding to the right and the bottom.
        placement.left_px = rounded((spec.width_px - placement.resized_width_px) / 2.0 - 0.1);
        placement.top_px = rounded((spec.height_px - placement.resized_height_px) / 2.0 - 0.1);
    }
    return placement;
}

Placement preprocess(const Picture& picture, const ImageInput& spec, ResizeScratch& scratch, std::vector<float>& blob) {
    const Placement placement = place(picture.width_px, picture.height_px, spec);
    const Picture source = resized(picture, placement, spec, scratch);
    const size_t width = size_t(spec.width_px), plane = width * size_t(spec.height_px);
    blob.resize(3 * plane);
    for (size_t channel = 0; channel < 3; channel++) {
        const std::array<float, 256> table = value_table(spec.mean[channel], spec.std[channel]);
        const float pad = float((spec.pad[channel] - spec.mean[channel]) / spec.std[channel]);
        float* row = blob.data() + channel * plane;
        for (int y = 0; y < spec.height_px; y++, row += width) {
            const int from = y - placement.top_px;
            if (from < 0 || from >= source.height_px) {
                std::fill(row, row + width, pad);
                continue;
            }
            std::fill(row, row + placement.left_px, pad);
            fill_row(source.row(from) + source.rgb[channel], source.n_channels, source.width_px, table,
                     row + placement.left_px);
            std::fill(row + placement.left_px + source.width_px, row + width, pad);
        }
    }
    return placement;
}

}  // namespace edgekd
