// Averaging and linear interpolation of a tile, in the roundings of OpenCV's INTER_AREA and INTER_LINEAR on uint8.
#pragma once
#include "picture_device.cuh"

namespace edgekd {

// What a thread makes: kPixels grey levels per channel, RGB, whole numbers 0..255; valid where `inside`.
struct Greys {
  float v[kPixels][kChannels];
  bool inside[kPixels];
};

// What a block and a thread of it work on, in output pixels counted from the corner of the resized window.
struct Tile {
  Span columns, rows;  // of the block
  int column, row;     // the first of the thread's pixels; they may lie outside of the resized window
};

EDGEKD_DEVICE Tile tile_of(const Job& job) {
  const int rows = static_cast<int>(blockDim.x) / job.tile_groups, wide = job.tile_groups * kPixels;
  const int x = static_cast<int>(blockIdx.x) * wide, y = static_cast<int>(blockIdx.y) * rows;
  const int group = static_cast<int>(threadIdx.x) % job.tile_groups, line = static_cast<int>(threadIdx.x) / job.tile_groups;
  const Span columns = {clamped(x - job.left, job.width), clamped(x + wide - job.left, job.width)};
  const Span lines = {clamped(y - job.top, job.height), clamped(y + rows - job.top, job.height)};
  return {columns, lines, x + group * kPixels - job.left, line < rows ? y + line - job.top : job.height};
}

// Lets every thread visit the staged rows of the tile, chunk after chunk as they fit; rows in picture pixels.
template <typename Visit>
EDGEKD_DEVICE void for_each_chunk(const unsigned char* picture, const Job& job, Span columns, Span rows, Visit visit) {
  EDGEKD_DYNAMIC_SHARED(staged);
  const long long n_bytes = static_cast<long long>(job.picture_width) * job.picture_height * kChannels;
  const int stride = ((columns.end - columns.begin) * kChannels + 2 * kVector - 2) / kVector * kVector;
  const int most = columns.begin < columns.end ? job.staged_bytes / stride : rows.end - rows.begin;
  for (int row = rows.begin; row < rows.end; row += most) {
    const Stage stage = {staged, columns, {row, smaller(row + most, rows.end)}, stride, job.picture_width * kChannels};
    if (columns.begin < columns.end) fill(stage, staged, picture, n_bytes);
    __syncthreads();
    visit(stage);
    __syncthreads();
  }
}

// A pixel of a window: of the picture, or with kPads the padding beyond it. Channels are turned from BGR to RGB.
template <bool kPads>
EDGEKD_DEVICE float level(const unsigned char* row, int column, int channel, const Job& job) {
  if (kPads && (row == nullptr || column < 0 || column >= job.picture_width)) return job.pad[channel];
  return row[column * kChannels + kChannels - 1 - channel];
}

// Source rows and columns of the tile, in window pixels, that lie in the picture, in picture pixels.
EDGEKD_DEVICE Span within(Span sources, int first, int most) {
  return {clamped(sources.begin + first, most), clamped(sources.end + first, most)};
}

// The row of a stage, a null pointer for one above or below the picture.
template <bool kPads>
EDGEKD_DEVICE const unsigned char* row_of(const Stage& stage, int row, const Job& job) {
  return kPads && (row < 0 || row >= job.picture_height) ? nullptr : staged_row(stage, row);
}

// How a mean is made: a part of a source pixel, in units of 1 / n_to, counts at most `most`; their sum is worth `unit`.
// A mean of whole pixels counts each of them as 1: its sum is exact, so that its ties are those of OpenCV.
struct Mean {
  int most;
  float unit, half;  // half: added before the fraction is cut off, as OpenCV does for 2 x 2; 0: ties go to even
};

EDGEKD_DEVICE Mean mean_of(Axis across, Axis down) {
  const int columns = across.n_from / across.n_to, rows = down.n_from / down.n_to;
  if (columns * across.n_to == across.n_from && rows * down.n_to == down.n_from)
    return {1, reciprocal(static_cast<float>(columns * rows)), columns == 2 && rows == 2 ? 0.5f : 0.0f};
  const float n_from = static_cast<float>(across.n_from) * static_cast<float>(down.n_from);
  return {larger(across.n_to, down.n_to), reciprocal(n_from), 0.0f};
}

// A row of the picture into the sums of the thread's pixels, each of which has its own share of the columns.
template <bool kPads>
EDGEKD_DEVICE void add_areas(float (&sums)[kPixels][kChannels], const unsigned char* row, const Window& window,
                             const Job& job, const Share (&shares)[kPixels], float weight, int most) {
#pragma unroll
  for (int p = 0; p < kPixels; ++p) {
    float line[kChannels] = {};
    for (int x = shares[p].low; x <= shares[p].high; ++x) {
      const float part = static_cast<float>(smaller(part_of(shares[p], x, job.width), most));
#pragma unroll
      for (int c = 0; c < kChannels; ++c) line[c] += part * level<kPads>(row, x + window.left, c, job);
    }
#pragma unroll
    for (int c = 0; c < kChannels; ++c) sums[p][c] += weight * line[c];
  }
}

// The share of an output pixel, without a source pixel of which it has nothing; none outside of the window.
EDGEKD_DEVICE Share whole_share(Axis axis, int i) {
  if (i < 0 || i >= axis.n_to) return {0, -1, 0, 0};
  Share share = share_of(axis, i);
  if (share.tail == 0) share.high -= 1, share.tail = share.high == share.low ? share.head : axis.n_to;
  return share;
}

template <bool kPads>
EDGEKD_DEVICE void average(const unsigned char* picture, const Job& job, const Window& window, const Tile& tile,
                           Greys& greys) {
  const Axis across = {window.right - window.left, job.width}, down = {window.bottom - window.top, job.height};
  const Span columns = within(sources_of(across, tile.columns, true), window.left, job.picture_width);
  const Span sources = sources_of(down, tile.rows, true);
  const Share share = whole_share(down, tile.row);
  Share shares[kPixels];
#pragma unroll
  for (int p = 0; p < kPixels; ++p) shares[p] = whole_share(across, tile.column + p);
  const Mean mean = mean_of(across, down);
  float sums[kPixels][kChannels] = {};
  const auto add = [&](const unsigned char* row, int y) {
    const float weight = static_cast<float>(smaller(part_of(share, y, down.n_to), mean.most));
    add_areas<kPads>(sums, row, window, job, shares, weight, mean.most);
  };
  for_each_chunk(picture, job, columns, within(sources, window.top, job.picture_height), [&](const Stage& stage) {
    const int begin = larger(share.low, stage.rows.begin - window.top);
    const int end = smaller(share.high + 1, stage.rows.end - window.top);
    for (int y = begin; y < end; ++y) add(staged_row(stage, y + window.top), y);
  });
  if (kPads) {  // rows above and below the picture
    for (int y = share.low; y <= share.high; ++y)
      if (y + window.top < 0 || y + window.top >= job.picture_height) add(nullptr, y);
  }
#pragma unroll
  for (int p = 0; p < kPixels; ++p) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const float value = sums[p][c] * mean.unit;
      greys.v[p][c] = mean.half > 0 ? floorf(value + mean.half) : rintf(value);
    }
  }
}

// The two columns of the picture that an output pixel lies between, and the weight of the second.
struct Pair {
  int low, high, weight;
};

EDGEKD_DEVICE Pair pair_of(Axis axis, int i, int first) {
  Tap tap = tap_of(axis, clamped(i, axis.n_to - 1));
  if (tap.low < 0) tap = {0, 0};
  if (tap.low >= axis.n_from - 1) tap = {axis.n_from - 1, 0};
  return {tap.low + first, smaller(tap.low + 1, axis.n_from - 1) + first, tap.weight};
}

template <bool kPads>
EDGEKD_DEVICE void add_row(int (&sums)[kPixels][kChannels], const unsigned char* row, const Job& job,
                           const Pair (&pairs)[kPixels], int weight) {
#pragma unroll
  for (int p = 0; p < kPixels; ++p) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const int line = static_cast<int>(level<kPads>(row, pairs[p].low, c, job)) * (kFixedOne - pairs[p].weight) +
                       static_cast<int>(level<kPads>(row, pairs[p].high, c, job)) * pairs[p].weight;
      sums[p][c] += (weight * (line >> 4)) >> 16;
    }
  }
}

template <bool kPads>
EDGEKD_DEVICE void interpolate(const unsigned char* picture, const Job& job, const Window& window, const Tile& tile,
                               Greys& greys) {
  const Axis across = {window.right - window.left, job.width}, down = {window.bottom - window.top, job.height};
  const Span columns = within(sources_of(across, tile.columns, false), window.left, job.picture_width);
  const Span sources = sources_of(down, tile.rows, false);
  const bool has_row = tile.row >= 0 && tile.row < job.height;
  const Tap tap = tap_of(down, has_row ? tile.row : 0);
  Pair pairs[kPixels];
#pragma unroll
  for (int p = 0; p < kPixels; ++p) {  // a pixel outside of the window reads one that is staged, for nothing
    const int column = clamped(tile.column + p, larger(tile.columns.end - 1, 0));
    pairs[p] = pair_of(across, larger(column, tile.columns.begin), window.left);
  }
  const int rows[2] = {clamped(tap.low, down.n_from - 1), clamped(tap.low + 1, down.n_from - 1)};
  const int weights[2] = {kFixedOne - tap.weight, tap.weight};
  int sums[kPixels][kChannels] = {};
  for_each_chunk(picture, job, columns, within(sources, window.top, job.picture_height), [&](const Stage& stage) {
    for (int k = 0; k < 2; ++k) {
      const int y = rows[k] + window.top;
      if (has_row && y >= stage.rows.begin && y < stage.rows.end)
        add_row<kPads>(sums, staged_row(stage, y), job, pairs, weights[k]);
    }
  });
  if (kPads && has_row) {
    for (int k = 0; k < 2; ++k)
      if (rows[k] + window.top < 0 || rows[k] + window.top >= job.picture_height)
        add_row<kPads>(sums, nullptr, job, pairs, weights[k]);
  }
#pragma unroll
  for (int p = 0; p < kPixels; ++p) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) greys.v[p][c] = static_cast<float>((sums[p][c] + 2) >> 2);
  }
}

// The thread's pixels of a window that is resized to job.width x job.height.
template <bool kPads>
EDGEKD_DEVICE Greys resample(const unsigned char* picture, const Job& job, const Window& window, bool averages) {
  const Tile tile = tile_of(job);
  Greys greys;
  if (averages) average<kPads>(picture, job, window, tile, greys);
  else interpolate<kPads>(picture, job, window, tile, greys);
#pragma unroll
  for (int p = 0; p < kPixels; ++p) {
    const int column = tile.column + p;
    greys.inside[p] = tile.row >= 0 && tile.row < job.height && column >= 0 && column < job.width;
  }
  return greys;
}

}  // namespace edgekd
