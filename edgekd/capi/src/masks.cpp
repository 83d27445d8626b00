#include "masks.h"

#include <algorithm>
#include <cmath>

namespace edgekd {
namespace {

constexpr int kCellPx = 4;

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

// Cells around each pixel centre from `start` to `end`; positions beyond the rim take the rim.
std::vector<Tap> taps(int start, int end, double scale, int offset_px, int n_cells) {
    std::vector<Tap> result(size_t(end - start));
    for (int pixel = start; pixel < end; pixel++) {
        const double centre = ((pixel + 0.5) * scale + offset_px) / kCellPx - 0.5;
        const double position = std::clamp(centre, 0.0, double(n_cells - 1));
        const int low = std::min(int(position), std::max(n_cells - 2, 0));
        result[size_t(pixel - start)] = {low, std::min(low + 1, n_cells - 1), float(position - low)};
    }
    return result;
}

// Picture pixels that the cells of a range can reach. Half a cell around a cell's centre is the cell; interpolation
// reaches to the next centre: one cell more. Cells at the rim are replicated outwards to the picture's edge.
Range reach(const Range& cells, int n_cells, double scale, int offset_px, int n_pixels) {
    const double start = ((cells.first - 0.5) * kCellPx - offset_px) / scale;
    const double end = ((cells.last + 1.5) * kCellPx - offset_px) / scale;
    const double low = cells.first == 0 ? 0 : std::floor(start);
    const double high = cells.last == n_cells - 1 ? n_pixels : std::ceil(end);
    const int first = int(std::clamp(low, 0.0, double(n_pixels)));
    return {first, std::max(first, int(std::clamp(high, 0.0, double(n_pixels))))};
}

}  // namespace

Window positive_window(const LogitGrid& grid, const Placement& placement, float threshold) {
    Range rows{grid.height, -1}, columns{grid.width, -1};
    for (int y = 0; y < grid.height; y++) {
        const float* row = grid.values + size_t(y) * size_t(grid.width);
        for (int x = 0; x < grid.width; x++) {
            if (row[x] > threshold) rows.include(y), columns.include(x);
        }
    }
    if (rows.last < 0) return {};
    const Range x = reach(columns, grid.width, placement.scale_x, placement.left_px, placement.picture_width_px);
    const Range y = reach(rows, grid.height, placement.scale_y, placement.top_px, placement.picture_height_px);
    return {x.first, y.first, x.last, y.last};
}

void upsample_mask(const LogitGrid& grid, const Placement& placement, const MaskOptions& options, MaskScratch& scratch,
                   Mask& mask) {
    const Window window = mask.window = positive_window(grid, placement, options.threshold);
    const size_t width = size_t(window.right - window.left), height = size_t(window.bottom - window.top);
    mask.crop.resize(width * height);
    if (mask.crop.empty()) return;
    const std::vector<Tap> columns = taps(window.left, window.right, placement.scale_x, placement.left_px, grid.width);
    const std::vector<Tap> rows = taps(window.top, window.bottom, placement.scale_y, placement.top_px, grid.height);
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
        remove_small_regions(mask.crop.data(), width, height, options.min_region_px, scratch.cleanup);
    }
}

}  // namespace edgekd
