#include "preprocess.h"

#include <algorithm>
#include <cmath>

namespace edgekd {
namespace {

// Halves to even, as Python's round.
int rounded(double value) {
    return int(std::nearbyint(value));
}

// The first of the smallest sizes that hold the resized picture.
Size smallest_holding(int width_px, int height_px, const ImageInput& spec) {
    const Size* found = nullptr;
    for (const Size& size : spec.smaller) {
        const bool holds = size.width_px >= width_px && size.height_px >= height_px;
        if (!holds || (found && size.width_px * size.height_px >= found->width_px * found->height_px)) continue;
        found = &size;
    }
    return found ? *found : spec.full;
}

// Hand over the rows of the picture at its size in the input.
void resized_rows(const Picture& picture, const Placement& placement, const ImageInput& spec, ResizeScratch& scratch,
                  const RowSink& sink) {
    const int width = placement.resized_width_px, height = placement.resized_height_px;
    if (picture.width_px == width && picture.height_px == height) {
        for (int y = 0; y < height; y++) sink(y, picture.row(y));
        return;
    }
    // Averaging areas is what an antialiased resize does; it only makes sense when the picture shrinks.
    const bool shrinks = placement.scale_x < 1 && placement.scale_y < 1;
    (spec.area && shrinks ? resize_area : resize_linear)(picture, width, height, scratch, sink);
}

// The planes of the input: their memory, and what every possible byte and the padding become in each.
struct Planes {
    std::array<std::array<float, 256>, 3> values;
    std::array<float, 3> pads;
    std::array<float*, 3> data;

    Planes(const ImageInput& spec, const Size& input, float* memory) {
        for (size_t c = 0; c < 3; c++) {
            const double mean = spec.mean[c], std = spec.std[c];
            for (int value = 0; value < 256; value++) values[c][size_t(value)] = float((value - mean) / std);
            pads[c] = float((spec.pad[c] - mean) / std);
            data[c] = memory + c * size_t(input.width_px) * size_t(input.height_px);
        }
    }

    void fill_padding(const Placement& placement) const {
        const size_t width = size_t(placement.input.width_px), left = size_t(placement.left_px);
        const size_t right = left + size_t(placement.resized_width_px);
        const size_t top = size_t(placement.top_px), bottom = top + size_t(placement.resized_height_px);
        for (size_t c = 0; c < 3; c++) {
            std::fill(data[c], data[c] + top * width, pads[c]);
            for (float *row = data[c] + top * width, *end = data[c] + bottom * width; row < end; row += width) {
                std::fill(row, row + left, pads[c]);
                std::fill(row + right, row + width, pads[c]);
            }
            std::fill(data[c] + bottom * width, data[c] + size_t(placement.input.height_px) * width, pads[c]);
        }
    }

    // `N` channels per pixel, `rgb` of them are taken; `offset` is where the row starts in a plane.
    template <int N>
    void fill_row(const uint8_t* from, const std::array<int, 3>& rgb, int n, size_t offset) const {
        float *red = data[0] + offset, *green = data[1] + offset, *blue = data[2] + offset;
        for (int x = 0; x < n; x++, from += N) {
            red[x] = values[0][from[rgb[0]]];
            green[x] = values[1][from[rgb[1]]];
            blue[x] = values[2][from[rgb[2]]];
        }
    }

    void fill_row(const Picture& picture, const uint8_t* from, int n, size_t offset) const {
        if (picture.n_channels == 3) return fill_row<3>(from, picture.rgb, n, offset);
        if (picture.n_channels == 4) return fill_row<4>(from, picture.rgb, n, offset);
        fill_row<1>(from, picture.rgb, n, offset);
    }
};

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
    const double ratio = std::min(double(spec.full.height_px) / height_px, double(spec.full.width_px) / width_px);
    Placement placement;
    placement.picture_width_px = width_px;
    placement.picture_height_px = height_px;
    placement.resized_width_px = std::max(1, rounded(width_px * ratio));
    placement.resized_height_px = std::max(1, rounded(height_px * ratio));
    placement.scale_x = double(placement.resized_width_px) / width_px;
    placement.scale_y = double(placement.resized_height_px) / height_px;
    placement.input = smallest_holding(placement.resized_width_px, placement.resized_height_px, spec);
    if (spec.centre) {
        // Ultralytics' LetterBox gives the odd pixel of padding to the right and the bottom.
        placement.left_px = rounded((placement.input.width_px - placement.resized_width_px) / 2.0 - 0.1);
        placement.top_px = rounded((placement.input.height_px - placement.resized_height_px) / 2.0 - 0.1);
    }
    return placement;
}

Placement preprocess(const Picture& picture, const ImageInput& spec, ResizeScratch& scratch, std::vector<float>& blob) {
    const Placement placement = place(picture.width_px, picture.height_px, spec);
    const size_t width = size_t(placement.input.width_px), plane = width * size_t(placement.input.height_px);
    if (blob.size() < 3 * plane) blob.resize(3 * plane);
    const Planes planes(spec, placement.input, blob.data());
    planes.fill_padding(placement);
    resized_rows(picture, placement, spec, scratch, [&](int y, const uint8_t* row) {
        const size_t offset = size_t(placement.top_px + y) * width + size_t(placement.left_px);
        planes.fill_row(picture, row, placement.resized_width_px, offset);
    });
    return placement;
}

}  // namespace edgekd
