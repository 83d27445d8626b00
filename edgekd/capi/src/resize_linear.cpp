// Bilinear resize: rows first across, in 16 bits, then blended down.
#include <algorithm>
#include <cmath>

#include "lanes.h"
#include "resize.h"

namespace edgekd {
namespace {

constexpr int kFixedOne = 1 << 11;  // weights
constexpr int kRowShift = 4;        // what a row across gives up so that 255 * kFixedOne fits 16 bits

// The two source positions of an output position, and their weights in 1/kFixedOne.
struct PixelTap {
    int low, high, low_weight, high_weight;
};

PixelTap tap_at(double centre, double scale) {
    const float position = float(centre * scale - 0.5);
    const int low = int(std::floor(position));
    const float fraction = position - float(low);
    return {low, low + 1, int(std::lrint((1 - fraction) * kFixedOne)), int(std::lrint(fraction * kFixedOne))};
}

// A position beyond the rim takes the rim alone.
std::vector<PixelTap> column_taps(int n_from, int n_to) {
    const double scale = 1.0 / (double(n_to) / n_from);
    std::vector<PixelTap> taps(static_cast<size_t>(n_to));
    for (int i = 0; i < n_to; i++) {
        PixelTap& tap = taps[size_t(i)] = tap_at(i + 0.5, scale);
        if (tap.low < 0) tap = {0, 0, kFixedOne, 0};
        if (tap.high >= n_from) tap = {n_from - 1, n_from - 1, kFixedOne, 0};
    }
    return taps;
}

// A position beyond the rim weighs the same rim row twice, as OpenCV does; that rounds differently.
std::vector<PixelTap> row_taps(int n_from, int n_to) {
    const double scale = 1.0 / (double(n_to) / n_from);
    std::vector<PixelTap> taps(static_cast<size_t>(n_to));
    for (int i = 0; i < n_to; i++) {
        PixelTap& tap = taps[size_t(i)] = tap_at(i + 0.5, scale);
        tap.low = std::clamp(tap.low, 0, n_from - 1);
        tap.high = std::clamp(tap.high, 0, n_from - 1);
    }
    return taps;
}

EDGEKD_WIDE void widen(const uint8_t* from, size_t n, int* to) {
    for (size_t i = 0; i < n; i++) to[i] = from[i];
}

template <int N>
inline void stretch(const int* from, const PixelTap* taps, size_t n, int16_t* to) {
    for (size_t x = 0; x < n; x++) {
        const Ints4 low = load_lanes<Ints4>(from + taps[x].low * N), high = load_lanes<Ints4>(from + taps[x].high * N);
        const Ints4 sum = low * taps[x].low_weight + high * taps[x].high_weight;
        store_lanes(__builtin_convertvector(sum >> kRowShift, Shorts4), to + x * N);
    }
}

EDGEKD_WIDE void stretch_3(const int* from, const PixelTap* taps, size_t n, int16_t* to) {
    stretch<3>(from, taps, n, to);
}

EDGEKD_WIDE void stretch_4(const int* from, const PixelTap* taps, size_t n, int16_t* to) {
    stretch<4>(from, taps, n, to);
}

void stretch_1(const int* from, const PixelTap* taps, size_t n, int16_t* to) {
    for (size_t x = 0; x < n; x++) {
        to[x] = int16_t((from[taps[x].low] * taps[x].low_weight + from[taps[x].high] * taps[x].high_weight) >> kRowShift);
    }
}

void stretch_row(const Picture& picture, int y, const std::vector<PixelTap>& columns, std::vector<int>& wide, int16_t* to) {
    widen(picture.row(y), size_t(picture.width_px) * size_t(picture.n_channels), wide.data());
    const auto stretch_n = picture.n_channels == 3 ? stretch_3 : picture.n_channels == 4 ? stretch_4 : stretch_1;
    stretch_n(wide.data(), columns.data(), columns.size(), to);
}

// The high half of a 16-bit product is one instruction on every vector unit.
EDGEKD_WIDE void blend_rows(const int16_t* low, const int16_t* high, const PixelTap& tap, size_t n, uint8_t* to) {
    const int16_t low_weight = int16_t(tap.low_weight), high_weight = int16_t(tap.high_weight);
    for (size_t x = 0; x < n; x++) {
        const int16_t above = int16_t((low[x] * low_weight) >> 16), below = int16_t((high[x] * high_weight) >> 16);
        to[x] = uint8_t(int16_t(above + below + 2) >> 2);
    }
}

}  // namespace

void resize_linear(const Picture& picture, int width_px, int height_px, ResizeScratch& scratch, const RowSink& sink) {
    if (picture.width_px == 2 * width_px && picture.height_px == 2 * height_px) {
        return resize_area(picture, width_px, height_px, scratch, sink);  // as OpenCV does
    }
    const size_t n = size_t(width_px) * size_t(picture.n_channels);
    const std::vector<PixelTap> columns = column_taps(picture.width_px, width_px);
    const std::vector<PixelTap> rows = row_taps(picture.height_px, height_px);
    const size_t buffer = n + kSpareLanes;
    scratch.wide_row.resize(size_t(picture.width_px) * size_t(picture.n_channels) + kSpareLanes);
    scratch.fixed_rows.resize(2 * buffer);
    scratch.row.resize(n);
    int16_t* buffers[2] = {scratch.fixed_rows.data(), scratch.fixed_rows.data() + buffer};
    int held[2] = {-1, -1};  // source row in each buffer
    for (int y = 0; y < height_px; y++) {
        const PixelTap& tap = rows[size_t(y)];
        if (held[1] == tap.low) std::swap(buffers[0], buffers[1]), std::swap(held[0], held[1]);
        const int wanted[2] = {tap.low, tap.high};
        for (int i = 0; i < 2; i++) {
            if (held[i] == wanted[i]) continue;
            stretch_row(picture, wanted[i], columns, scratch.wide_row, buffers[i]);
            held[i] = wanted[i];
        }
        blend_rows(buffers[0], buffers[1], tap, n, scratch.row.data());
        sink(y, scratch.row.data());
    }
}

}  // namespace edgekd
