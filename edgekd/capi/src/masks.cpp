#include "masks.h"

#include <algorithm>
#include <cmath>

namespace edgekd {
namespace {

// First and last cell of a row or column that holds something, first > last when nothing does.
struct Range {
    int first, last;
    void include(int index) { first = std::min(first, index), last = std::max(last, index); }
};

// Lower and upper cell, and the weight of the upper one.
struct Tap {
    int low, high;
    float weight;
};

// One direction of a lattice.
struct Axis {
    double scale, offset, size;
    int low, high;  // limits
};

Axis x_axis(const Lattice& at) {
    return {at.scale_x, at.offset_x, at.size_x, at.limits.left, at.limits.right};
}

Axis y_axis(const Lattice& at) {
    return {at.scale_y, at.offset_y, at.size_y, at.limits.top, at.limits.bottom};
}

// Cells around each pixel centre from `start` to `end`; positions beyond the rim take the rim.
std::vector<Tap> taps(int start, int end, const Axis& axis, int n_cells) {
    std::vector<Tap> result(size_t(end - start));
    for (int pixel = start; pixel < end; pixel++) {
        const double centre = ((pixel + 0.5) * axis.scale + axis.offset) / axis.size - 0.5;
        const double position = std::clamp(centre, 0.0, double(n_cells - 1));
        const int low = std::min(int(position), std::max(n_cells - 2, 0));
        result[size_t(pixel - start)] = {low, std::min(low + 1, n_cells - 1), float(position - low)};
    }
    return result;
}

// Picture pixels that the cells of a range can reach. Half a cell around a cell's centre is the cell; interpolation
// reaches to the next centre: one cell more. Cells at the rim are replicated outwards to the limits.
Range reach(const Range& cells, int n_cells, const Axis& axis) {
    const double start = ((cells.first - 0.5) * axis.size - axis.offset) / axis.scale;
    const double end = ((cells.last + 1.5) * axis.size - axis.offset) / axis.scale;
    const double low = axis.low, high = axis.high;
    const int first = int(std::clamp(cells.first == 0 ? low : std::floor(start), low, high));
    const int last = int(std::clamp(cells.last == n_cells - 1 ? high : std::ceil(end), low, high));
    return {first, std::max(first, last)};
}

}  // namespace

Lattice input_lattice(const Placement& placement, const Window& limits, int first_column, int first_row) {
    const int left = placement.left_px - first_column * kCellPx, top = placement.top_px - first_row * kCellPx;
    return {placement.scale_x, placement.scale_y, double(left), double(top), kCellPx, kCellPx, limits,
            placement.picture_width_px, placement.picture_height_px};
}

Window whole_picture(const Placement& placement) {
    return {0, 0, placement.picture_width_px, placement.picture_height_px};
}

Window positive_window(const LogitGrid& grid, const Lattice& lattice, float threshold) {
    Range rows{grid.height, -1}, columns{grid.width, -1};
    for (int y = 0; y < grid.height; y++) {
        const float* row = grid.values + size_t(y) * size_t(grid.width);
        for (int x = 0; x < grid.width; x++) {
            if (row[x] > threshold) rows.include(y), columns.include(x);
        }
    }
    if (rows.last < 0) return {};
    const Range x = reach(columns, grid.width, x_axis(lattice));
    const Range y = reach(rows, grid.height, y_axis(lattice));
    return {x.first, y.first, x.last, y.last};
}

void upsample(const LogitGrid& grid, const Lattice& lattice, const Window& window, std::vector<float>& to) {
    const std::vector<Tap> columns = taps(window.left, window.right, x_axis(lattice), grid.width);
    const std::vector<Tap> rows = taps(window.top, window.bottom, y_axis(lattice), grid.height);
    to.clear();
    for (const Tap& y : rows) {
        const float* low = grid.values + size_t(y.low) * size_t(grid.width);
        const float* high = grid.values + size_t(y.high) * size_t(grid.width);
        for (const Tap& x : columns) {
            const float left = low[x.low] + y.weight * (high[x.low] - low[x.low]);
            const float right = low[x.high] + y.weight * (high[x.high] - low[x.high]);
            to.push_back(left + x.weight * (right - left));
        }
    }
}

void upsample_mask(const LogitGrid& grid, const Lattice& lattice, const MaskOptions& options, MaskScratch& scratch,
                   Mask& mask) {
    const Window window = mask.window = positive_window(grid, lattice, options.threshold);
    const size_t width = size_t(window.right - window.left), height = size_t(window.bottom - window.top);
    mask.crop.resize(width * height);
    if (mask.crop.empty()) return;
    const std::vector<Tap> columns = taps(window.left, window.right, x_axis(lattice), grid.width);
    const std::vector<Tap> rows = taps(window.top, window.bottom, y_axis(lattice), grid.height);
    scratch.row.resize(size_t(grid.width));
    uint8_t* to = mask.crop.data();
    for (const Tap& y : rows) {
        const float* low = grid.values + size_t(y.low) * size_t(grid.width);
        const float* high = grid.values + size_t(y.high) * size_t(grid.width);
        for (int x = columns.front().low; x <= columns.back().high; x++) {
            scratch.row[size_t(x)] = low[x] + y.weight * (high[x] - low[x]);
        }
        for (const Tap& x : columns) {
            const float left = scratch.row[size_t(x.low)], right = scratch.row[size_t(x.high)];
            *to++ = left + x.weight * (right - left) > options.threshold;
        }
    }
    if (options.min_region_px > 0) {
        const OpenEdges open = {window.left > 0, window.top > 0, window.right < lattice.picture_width_px,
                                window.bottom < lattice.picture_height_px};
        remove_small_regions(mask.crop.data(), width, height, options.min_region_px, open, scratch.cleanup);
    }
}

}  // namespace edgekd
