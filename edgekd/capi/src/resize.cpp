// The two resizes, with OpenCV's arithmetic so that C and Python see the same pixels.
#include <algorithm>
#include <cmath>

#include "picture.h"

namespace edgekd {
namespace {

constexpr int kFixedOne = 1 << 11;  // weights of the linear resize

// The two source positions of an output position, and their weights in 1/kFixedOne.
struct LinearTap {
    int low, high, low_weight, high_weight;
};

// With `clamp_weight` a position beyond the rim takes the rim alone; OpenCV does so for columns and, for rows, weighs
// the same rim row twice, which rounds differently.
std::vector<LinearTap> linear_taps(int n_from, int n_to, bool clamp_weight) {
    const double scale = 1.0 / (double(n_to) / n_from);
    std::vector<LinearTap> taps(static_cast<size_t>(n_to));
    for (int i = 0; i < n_to; i++) {
        const float position = float((i + 0.5) * scale - 0.5);
        int low = int(std::floor(position));
        float fraction = position - float(low);
        if (clamp_weight && low < 0) fraction = 0, low = 0;
        if (clamp_weight && low >= n_from - 1) fraction = 0, low = n_from - 1;
        taps[size_t(i)] = {std::clamp(low, 0, n_from - 1), std::clamp(low + 1, 0, n_from - 1),
                           int(std::lrint((1 - fraction) * kFixedOne)), int(std::lrint(fraction * kFixedOne))};
    }
    return taps;
}

template <int N>
void resize_row(const uint8_t* from, const std::vector<LinearTap>& columns, int* to) {
    for (const LinearTap& tap : columns) {
        const uint8_t* low = from + size_t(tap.low) * N;
        const uint8_t* high = from + size_t(tap.high) * N;
        for (int c = 0; c < N; c++) *to++ = low[c] * tap.low_weight + high[c] * tap.high_weight;
    }
}

void resize_row(const uint8_t* from, const std::vector<LinearTap>& columns, int n_channels, int* to) {
    if (n_channels == 3) return resize_row<3>(from, columns, to);
    if (n_channels == 4) return resize_row<4>(from, columns, to);
    resize_row<1>(from, columns, to);
}

// The share of one source position in one output position.
struct AreaShare {
    int from, to;
    float weight;
};

std::vector<AreaShare> area_shares(int n_from, int n_to) {
    const double scale = 1.0 / (double(n_to) / n_from);
    constexpr double kSliver = 1e-3;  // OpenCV leaves out smaller shares
    std::vector<AreaShare> shares;
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

// Shares come in the order of their output, so a sum stays in registers until its output is complete.
template <int N>
void shrink_row(const uint8_t* from, const std::vector<AreaShare>& columns, float* to) {
    float sum[N] = {};
    for (size_t i = 0; i < columns.size(); i++) {
        const AreaShare& share = columns[i];
        for (int c = 0; c < N; c++) sum[c] += float(from[share.from * N + c]) * share.weight;
        if (i + 1 < columns.size() && columns[i + 1].to == share.to) continue;
        for (int c = 0; c < N; c++) to[share.to * N + c] = sum[c], sum[c] = 0;
    }
}

void shrink_row(const uint8_t* from, const std::vector<AreaShare>& columns, int n_channels, float* to) {
    if (n_channels == 3) return shrink_row<3>(from, columns, to);
    if (n_channels == 4) return shrink_row<4>(from, columns, to);
    shrink_row<1>(from, columns, to);
}

uint8_t to_byte(float value) {
    return uint8_t(std::clamp(std::lrint(value), 0L, 255L));
}

// Whole ratios: plain means of blocks. The 2 x 2 block rounds halves up, larger ones to even, as OpenCV does.
void average_blocks(const Picture& picture, int step_x, int step_y, int width, int height, uint8_t* to) {
    const int n = picture.n_channels, area = step_x * step_y;
    const bool quarter = step_x == 2 && step_y == 2;
    const float weight = 1.0f / float(area);
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width * n; x++) {
            const size_t first = size_t(x / n * step_x) * size_t(n) + size_t(x % n);
            int sum = 0;
            for (int dy = 0; dy < step_y; dy++) {
                const uint8_t* row = picture.row(y * step_y + dy) + first;
                for (int dx = 0; dx < step_x; dx++) sum += row[dx * n];
            }
            *to++ = quarter ? uint8_t((sum + 2) >> 2) : to_byte(float(sum) * weight);
        }
    }
}

bool halves(const Picture& picture, int width_px, int height_px) {
    return picture.width_px == 2 * width_px && picture.height_px == 2 * height_px;
}

Picture owned(const Picture& like, int width_px, int height_px, ResizeScratch& scratch) {
    const size_t stride = size_t(width_px) * size_t(like.n_channels);
    scratch.pixels.resize(stride * size_t(height_px));
    return {scratch.pixels.data(), width_px, height_px, stride, like.n_channels, like.rgb};
}

}  // namespace

Picture resize_linear(const Picture& picture, int width_px, int height_px, ResizeScratch& scratch) {
    if (halves(picture, width_px, height_px)) return resize_area(picture, width_px, height_px, scratch);
    const Picture result = owned(picture, width_px, height_px, scratch);
    const size_t n = result.stride_bytes;
    const std::vector<LinearTap> columns = linear_taps(picture.width_px, width_px, true);
    const std::vector<LinearTap> rows = linear_taps(picture.height_px, height_px, false);
    scratch.fixed_rows.resize(2 * n);
    int* buffers[2] = {scratch.fixed_rows.data(), scratch.fixed_rows.data() + n};
    int held[2] = {-1, -1};  // source row in each buffer
    uint8_t* to = scratch.pixels.data();
    for (const LinearTap& tap : rows) {
        if (held[1] == tap.low) std::swap(buffers[0], buffers[1]), std::swap(held[0], held[1]);
        const int wanted[2] = {tap.low, tap.high};
        for (int i = 0; i < 2; i++) {
            if (held[i] == wanted[i]) continue;
            resize_row(picture.row(wanted[i]), columns, picture.n_channels, buffers[i]);
            held[i] = wanted[i];
        }
        for (size_t x = 0; x < n; x++) {
            const int low = (tap.low_weight * (buffers[0][x] >> 4)) >> 16;
            const int high = (tap.high_weight * (buffers[1][x] >> 4)) >> 16;
            to[x] = uint8_t((low + high + 2) >> 2);
        }
        to += n;
    }
    return result;
}

Picture resize_area(const Picture& picture, int width_px, int height_px, ResizeScratch& scratch) {
    const Picture result = owned(picture, width_px, height_px, scratch);
    if (picture.width_px % width_px == 0 && picture.height_px % height_px == 0) {
        average_blocks(picture, picture.width_px / width_px, picture.height_px / height_px, width_px, height_px,
                       scratch.pixels.data());
        return result;
    }
    const size_t n = result.stride_bytes;
    const std::vector<AreaShare> columns = area_shares(picture.width_px, width_px);
    const std::vector<AreaShare> rows = area_shares(picture.height_px, height_px);
    scratch.float_rows.resize(2 * n);
    float *row = scratch.float_rows.data(), *sum = row + n;
    for (size_t i = 0; i < rows.size(); i++) {
        const bool first = i == 0 || rows[i - 1].to != rows[i].to;
        const bool last = i + 1 == rows.size() || rows[i + 1].to != rows[i].to;
        if (i == 0 || rows[i - 1].from != rows[i].from) {
            shrink_row(picture.row(rows[i].from), columns, picture.n_channels, row);
        }
        if (first) std::fill(sum, sum + n, 0.0f);
        for (size_t x = 0; x < n; x++) sum[x] += rows[i].weight * row[x];
        uint8_t* to = scratch.pixels.data() + size_t(rows[i].to) * n;
        for (size_t x = 0; last && x < n; x++) to[x] = to_byte(sum[x]);
    }
    return result;
}

}  // namespace edgekd
