#include "turned_crops.h"

#include <algorithm>
#include <cmath>

namespace edgekd {
namespace {

constexpr double kUnit = 1 << 30;  // cosines are counted in this part of 1, and positions in half of it

struct Point {
    double x, y;
};

// The shift of frame = R^T picture + shift.
Point to_frame(const Turn& turn) {
    return {turn.x - (turn.cosine * turn.x + turn.sine * turn.y), turn.y - (turn.cosine * turn.y - turn.sine * turn.x)};
}

// The shift of picture = R frame + shift.
Point to_picture(const Turn& turn) {
    return {turn.x - (turn.cosine * turn.x - turn.sine * turn.y), turn.y - (turn.sine * turn.x + turn.cosine * turn.y)};
}

// The part of a convex polygon on one side of a vertical or horizontal line (Sutherland and Hodgman).
std::vector<Point> beyond(const std::vector<Point>& polygon, double Point::*axis, double limit, double sign) {
    double Point::*const other = axis == &Point::x ? &Point::y : &Point::x;
    std::vector<Point> kept;
    for (size_t i = 0; i < polygon.size(); i++) {
        const Point &before = polygon[(i + polygon.size() - 1) % polygon.size()], &point = polygon[i];
        const double a = (before.*axis - limit) * sign, b = (point.*axis - limit) * sign;
        if ((a < 0) != (b < 0)) {
            Point crossing{};
            crossing.*axis = limit;
            crossing.*other = before.*other + (point.*other - before.*other) * (a / (a - b));
            kept.push_back(crossing);
        }
        if (b >= 0) kept.push_back(point);
    }
    return kept;
}

// Make a box no larger than the one around the part of its corners within the picture.
void clip(const std::vector<Point>& corners, double width, double height, Framed& box) {
    const auto outside = [&](const Point& p) { return p.x < 0 || p.y < 0 || p.x > width || p.y > height; };
    if (std::none_of(corners.begin(), corners.end(), outside)) return;
    std::vector<Point> part = beyond(beyond(corners, &Point::x, 0, 1), &Point::x, width, -1);
    part = beyond(beyond(part, &Point::y, 0, 1), &Point::y, height, -1);
    const Turn& turn = box.turn;
    const Point shift = to_frame(turn);
    for (Point& p : part) {
        p = {turn.cosine * p.x + turn.sine * p.y + shift.x, turn.cosine * p.y - turn.sine * p.x + shift.y};
    }
    if (part.empty()) part.push_back({turn.x, turn.y});
    const auto by_x = std::minmax_element(part.begin(), part.end(), [](Point a, Point b) { return a.x < b.x; });
    const auto by_y = std::minmax_element(part.begin(), part.end(), [](Point a, Point b) { return a.y < b.y; });
    box.left = std::max(box.left, by_x.first->x), box.right = std::min(box.right, by_x.second->x);
    box.top = std::max(box.top, by_y.first->y), box.bottom = std::min(box.bottom, by_y.second->y);
}

int64_t counted(double value) {
    return int64_t(std::nearbyint(value));
}

// Where the pixels of a frame lie in the picture, in 1/32 px, pixel centres at whole numbers.
struct Positions {
    int64_t cosine, sine, shift_x, shift_y;

    explicit Positions(const Turn& turn) : cosine(counted(turn.cosine * kUnit)), sine(counted(turn.sine * kUnit)) {
        const Point shift = to_picture(turn);
        shift_x = counted((shift.x - 0.5) * 2 * kUnit) + int64_t(kUnit) / 32;
        shift_y = counted((shift.y - 0.5) * 2 * kUnit) + int64_t(kUnit) / 32;
    }
    int64_t x(int column, int row) const {
        return (cosine * (2 * int64_t(column) + 1) - sine * (2 * int64_t(row) + 1) + shift_x) >> 26;
    }
    int64_t y(int column, int row) const {
        return (sine * (2 * int64_t(column) + 1) + cosine * (2 * int64_t(row) + 1) + shift_y) >> 26;
    }
};

// One pixel in RGB between four of the picture, as OpenCV's remap weighs them; beyond the picture lies the padding.
void sample(const Picture& picture, const std::array<uint8_t, kRgb>& pad, int64_t x, int64_t y, uint8_t* to) {
    const int64_t left = x >> 5, top = y >> 5;
    const int fx = int(x & 31), fy = int(y & 31);
    const int weights[4] = {(32 - fx) * (32 - fy), fx * (32 - fy), (32 - fx) * fy, fx * fy};
    int sums[kRgb] = {0, 0, 0};
    for (int k = 0; k < 4; k++) {
        const int64_t column = left + (k & 1), row = top + (k >> 1);
        const bool inside = column >= 0 && row >= 0 && column < picture.width_px && row < picture.height_px;
        const uint8_t* from = inside ? picture.row(int(row)) + size_t(column) * size_t(picture.n_channels) : nullptr;
        for (size_t c = 0; c < kRgb; c++) sums[c] += weights[k] * (inside ? from[picture.rgb[c]] : pad[c]);
    }
    for (size_t c = 0; c < kRgb; c++) to[c] = uint8_t((sums[c] * 32 + (1 << 14)) >> 15);
}

// The upright window of the picture around a window of a frame; nothing for one without a pixel.
Window in_picture(const Window& window, const Turn& turn, const Picture& picture) {
    if (window.right <= window.left || window.bottom <= window.top) return {};
    const Point shift = to_picture(turn);
    double low_x = 0, low_y = 0, high_x = 0, high_y = 0;
    for (int k = 0; k < 4; k++) {
        const double u = k & 1 ? window.right : window.left, v = k & 2 ? window.bottom : window.top;
        const double x = turn.cosine * u - turn.sine * v + shift.x, y = turn.sine * u + turn.cosine * v + shift.y;
        low_x = k == 0 ? x : std::min(low_x, x), high_x = k == 0 ? x : std::max(high_x, x);
        low_y = k == 0 ? y : std::min(low_y, y), high_y = k == 0 ? y : std::max(high_y, y);
    }
    return {int(std::max(std::floor(low_x), 0.0)), int(std::max(std::floor(low_y), 0.0)),
            int(std::min(std::ceil(high_x), double(picture.width_px))),
            int(std::min(std::ceil(high_y), double(picture.height_px)))};
}

// Lower cell and the weight of the next one; positions beyond the rim take the rim.
struct GridPoint {
    int low;
    float weight;

    GridPoint(double position, int n_cells) {
        const double clamped = std::clamp(position, 0.0, double(n_cells - 1));
        low = std::min(int(clamped), std::max(n_cells - 2, 0));
        weight = float(clamped - low);
    }
};

float between(const LogitGrid& grid, const GridPoint& x, const GridPoint& y) {
    const float* above = grid.values + size_t(y.low) * size_t(grid.width);
    const float* below = grid.values + size_t(std::min(y.low + 1, grid.height - 1)) * size_t(grid.width);
    const int next = std::min(x.low + 1, grid.width - 1);
    const float first = above[x.low] + y.weight * (below[x.low] - above[x.low]);
    const float second = above[next] + y.weight * (below[next] - above[next]);
    return first + x.weight * (second - first);
}

}  // namespace

Framed frame_of(const Corners& corners, int picture_width_px, int picture_height_px) {
    std::vector<Point> p;
    for (size_t i = 0; i < 4; i++) p.push_back({corners[2 * i], corners[2 * i + 1]});
    Turn turn;
    turn.x = (p[0].x + p[1].x + p[2].x + p[3].x) / 4, turn.y = (p[0].y + p[1].y + p[2].y + p[3].y) / 4;
    const Point along = {(p[1].x + p[2].x - p[0].x - p[3].x) / 2, (p[1].y + p[2].y - p[0].y - p[3].y) / 2};
    const Point down = {(p[2].x + p[3].x - p[0].x - p[1].x) / 2, (p[2].y + p[3].y - p[0].y - p[1].y) / 2};
    const double width = std::sqrt(along.x * along.x + along.y * along.y);
    const double height = std::sqrt(down.x * down.x + down.y * down.y);
    if (width > 0) {
        turn.cosine = along.x / width, turn.sine = along.y / width;
    } else if (height > 0) {  // a box without width still has a direction: that of its height, a quarter turn back
        turn.cosine = down.y / height, turn.sine = -down.x / height;
    }
    Framed box = {turn.x - width / 2, turn.y - height / 2, turn.x + width / 2, turn.y + height / 2, turn};
    clip(p, picture_width_px, picture_height_px, box);
    return box;
}

Window window_of(const Framed& box, double window_factor) {
    return window_of(box.left, box.top, box.right, box.bottom, window_factor);
}

void cut_turned(const Picture& picture, const Window& window, const Turn& turn, const CropInput& spec,
                CropScratch& scratch, uint8_t* to) {
    const int width = window.right - window.left, height = window.bottom - window.top;
    const size_t stride = size_t(width) * kRgb;
    std::array<uint8_t, kRgb> pad{};
    for (size_t c = 0; c < kRgb; c++) pad[c] = uint8_t(std::nearbyint(spec.pad[c]));
    scratch.region.resize(stride * size_t(height));
    const Positions positions(turn);
    uint8_t* pixel = scratch.region.data();
    for (int row = window.top; row < window.bottom; row++) {
        for (int column = window.left; column < window.right; column++, pixel += kRgb) {
            sample(picture, pad, positions.x(column, row), positions.y(column, row), pixel);
        }
    }
    resize_region({scratch.region.data(), width, height, stride, kRgb, {0, 1, 2}}, spec.side_px, scratch, to);
}

void turned_mask(const LogitGrid& grid, const Window& window, const Turn& turn, const Picture& picture,
                 const MaskOptions& options, MaskScratch& scratch, Mask& mask) {
    const double side = grid.width, width = window.right - window.left, height = window.bottom - window.top;
    const Lattice lattice = {side, side, -(window.left * side), -(window.top * side), width, height, window,
                             picture.width_px, picture.height_px};
    mask.window = in_picture(positive_window(grid, lattice, options.threshold), turn, picture);
    if (mask.window.right <= mask.window.left || mask.window.bottom <= mask.window.top) mask.window = {};
    const Window& place = mask.window;
    const size_t columns = size_t(place.right - place.left), rows = size_t(place.bottom - place.top);
    mask.crop.resize(columns * rows);
    const Point shift = to_frame(turn);
    uint8_t* to = mask.crop.data();
    for (int row = place.top; row < place.bottom; row++) {
        for (int column = place.left; column < place.right; column++) {
            const double x = column + 0.5, y = row + 0.5;
            const double across = turn.cosine * x + turn.sine * y + shift.x;
            const double down = turn.cosine * y - turn.sine * x + shift.y;
            const bool inside =
                across >= window.left && across <= window.right && down >= window.top && down <= window.bottom;
            const GridPoint at_x((across * side + lattice.offset_x) / width - 0.5, grid.width);
            const GridPoint at_y((down * side + lattice.offset_y) / height - 0.5, grid.height);
            *to++ = inside && between(grid, at_x, at_y) > options.threshold;
        }
    }
    if (options.min_region_px > 0 && !mask.crop.empty()) {
        const OpenEdges open = {place.left > 0, place.top > 0, place.right < picture.width_px,
                                place.bottom < picture.height_px};
        remove_small_regions(mask.crop.data(), columns, rows, options.min_region_px, open, scratch.cleanup);
    }
}

}  // namespace edgekd
