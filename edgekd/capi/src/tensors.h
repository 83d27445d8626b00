// Tensors that go to a network and come back: described, checked.
#pragma once

#include <vector>

#include "backend.h"
#include "preprocess.h"

namespace edgekd {

// Boxes per call of a decoder, and crops per call of a crop network; a chunk bounds memory.
constexpr size_t kChunkBoxes = 16, kChunkCrops = 32;

edgekd_tensor image_tensor(const char* name, const Placement& placement, std::vector<float>& blob);

// An output that the network fills in.
edgekd_tensor output(const char* name);

// Refuse an output of another shape, before its data is read, and one with a value that is not finite; -1 stands for any
// size. Fails with EDGEKD_ERROR_BUNDLE.
void check_output(const edgekd_tensor& tensor, const std::vector<int64_t>& expected);

// As above, without a look at the values.
void check_shape(const edgekd_tensor& tensor, const std::vector<int64_t>& expected);

// `n` boxes from `start`, in a call of a network with `size` boxes.
struct Chunk {
    size_t start, n, size;
};

// The calls for so many boxes, each of at most `chunk`; a network built for certain numbers is called with the next of
// them.
std::vector<Chunk> chunks_of(size_t n_boxes, const std::vector<int>& buckets, size_t chunk);

}  // namespace edgekd
