// Mean of the source area of each pixel: rows first across, then summed down.
#include <algorithm>
#include <cmath>

#include "lanes.h"
#include "resize.h"

namespace edgekd {
namespace {

// The share of one source position in one output position.
struct Share {
    int from, to;
    float weight;
};

std::vector<Share> shares_of(int n_from, int n_to) {
    const double scale = 1.0 / (double(n_to) / n_from);
    constexpr double kSliver = 1e-3;  // OpenCV leaves out smaller shares
    std::vector<Share> shares;
    for (int i = 0; i < n_to; i++) {
        const double start = i * scale, end = start + scale;
        const double width = std::min(scale, n_from - start);
        const int last = std::min(int(std::floor(end)), n_from - 1);
        const int first = std::min(int(std::ceil(start)), last);
        if (first - start > kSliver) shares.push_back({first - 1, i, float((first - start) / width)});
        for (int from = first; from < last; from++) shares.push_back({from, i, float(1.0 / width)});
        if (end - last > kSliver) shares.push_back({last, i, float(std::min(std::min(end - last, 1.0), width) / width)});
    }
    return shares;
}

EDGEKD_WIDE void widen(const uint8_t* from, size_t n, float* to) {
    for (size_t i = 0; i < n; i++) to[i] = from[i];
}

// Shares come in the order of their output, so a sum stays in a register until its output is complete.
template <int N>
inline void shrink(const float* from, const Share* shares, size_t n, float* to) {
    Floats4 sum = {};
    for (size_t i = 0; i < n; i++) {
        sum += load_lanes<Floats4>(from + shares[i].from * N) * shares[i].weight;
        if (i + 1 < n && shares[i + 1].to == shares[i].to) continue;
        store_lanes(sum, to + shares[i].to * N);
        sum = Floats4{};
    }
}

EDGEKD_WIDE void shrink_3(const float* from, const Share* shares, size_t n, float* to) {
    shrink<3>(from, shares, n, to);
}

EDGEKD_WIDE void shrink_4(const float* from, const Share* shares, size_t n, float* to) {
    shrink<4>(from, shares, n, to);
}

void shrink_1(const float* from, const Share* shares, size_t n, float* to) {
    float sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += from[shares[i].from] * shares[i].weight;
        if (i + 1 < n && shares[i + 1].to == shares[i].to) continue;
        to[shares[i].to] = sum;
        sum = 0;
    }
}

void shrink_row(const Picture& picture, int y, const std::vector<Share>& columns, std::vector<float>& wide, float* to) {
    widen(picture.row(y), size_t(picture.width_px) * size_t(picture.n_channels), wide.data());
    const auto shrink_n = picture.n_channels == 3 ? shrink_3 : picture.n_channels == 4 ? shrink_4 : shrink_1;
    shrink_n(wide.data(), columns.data(), columns.size(), to);
}

EDGEKD_WIDE void add_row(const float* row, float weight, size_t n, float* sum) {
    for (size_t x = 0; x < n; x++) sum[x] += weight * row[x];
}

// To the nearest, halves to even: what a float of 2^23 cannot hold of the fraction is rounded away.
inline uint8_t to_byte(float value) {
    constexpr float kNoFraction = 1 << 23;
    const float positive = value > 0 ? value : 0;
    return uint8_t((positive < 255 ? positive : 255) + kNoFraction - kNoFraction);
}

EDGEKD_WIDE void to_bytes(const float* from, size_t n, uint8_t* to) {
    for (size_t x = 0; x < n; x++) to[x] = to_byte(from[x]);
}

EDGEKD_WIDE void add_bytes(const uint8_t* row, size_t n, int* sum) {
    for (size_t x = 0; x < n; x++) sum[x] += row[x];
}

// The 2 x 2 block rounds halves up, larger ones to even, as OpenCV does.
template <int N>
void halve(const int* sums, int n, uint8_t* to) {
    for (int x = 0; x < n; x++, sums += 2 * N) {
        for (int c = 0; c < N; c++) *to++ = uint8_t((sums[c] + sums[N + c] + 2) >> 2);
    }
}

template <int N>
void average(const int* sums, int n, int step, float weight, uint8_t* to) {
    for (int x = 0; x < n; x++, sums += step * N) {
        for (int c = 0; c < N; c++) {
            int sum = 0;
            for (int i = 0; i < step; i++) sum += sums[i * N + c];
            *to++ = to_byte(float(sum) * weight);
        }
    }
}

// Whole ratios: plain means of blocks, summed down first.
template <int N>
void average_blocks(const Picture& picture, int width, int height, ResizeScratch& scratch, const RowSink& sink) {
    const int step_x = picture.width_px / width, step_y = picture.height_px / height;
    const size_t n_columns = size_t(picture.width_px) * N;
    scratch.wide_row.resize(n_columns);
    scratch.row.resize(size_t(width) * N);
    int* sums = scratch.wide_row.data();
    for (int y = 0; y < height; y++) {
        std::fill(sums, sums + n_columns, 0);
        for (int i = 0; i < step_y; i++) add_bytes(picture.row(y * step_y + i), n_columns, sums);
        if (step_x == 2 && step_y == 2) {
            halve<N>(sums, width, scratch.row.data());
        } else {
            average<N>(sums, width, step_x, 1.0f / float(step_x * step_y), scratch.row.data());
        }
        sink(y, scratch.row.data());
    }
}

}  // namespace

void resize_area(const Picture& picture, int width_px, int height_px, ResizeScratch& scratch, const RowSink& sink) {
    if (picture.width_px % width_px == 0 && picture.height_px % height_px == 0) {
        const auto average_n = picture.n_channels == 3   ? average_blocks<3>
                               : picture.n_channels == 4 ? average_blocks<4>
                                                         : average_blocks<1>;
        return average_n(picture, width_px, height_px, scratch, sink);
    }
    const size_t n = size_t(width_px) * size_t(picture.n_channels);
    const std::vector<Share> columns = shares_of(picture.width_px, width_px);
    const std::vector<Share> rows = shares_of(picture.height_px, height_px);
    scratch.wide_float_row.resize(size_t(picture.width_px) * size_t(picture.n_channels) + kSpareLanes);
    scratch.float_rows.resize(2 * n + kSpareLanes);
    scratch.row.resize(n);
    float *sum = scratch.float_rows.data(), *row = sum + n;
    for (size_t i = 0; i < rows.size(); i++) {
        const bool first = i == 0 || rows[i - 1].to != rows[i].to;
        const bool last = i + 1 == rows.size() || rows[i + 1].to != rows[i].to;
        if (i == 0 || rows[i - 1].from != rows[i].from) shrink_row(picture, rows[i].from, columns, scratch.wide_float_row, row);
        if (first) std::fill(sum, sum + n, 0.0f);
        add_row(row, rows[i].weight, n, sum);
        if (!last) continue;
        to_bytes(sum, n, scratch.row.data());
        sink(rows[i].to, scratch.row.data());
    }
}

}  // namespace edgekd
