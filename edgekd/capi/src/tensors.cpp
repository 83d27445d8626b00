#include "tensors.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "error.h"

namespace edgekd {
namespace {

std::string shape_text(const std::vector<int64_t>& dims) {
    std::string text;
    for (int64_t size : dims) text += (text.empty() ? "" : ", ") + (size < 0 ? "any" : std::to_string(size));
    return "(" + text + ")";
}

// Number of boxes that a network is called with for n boxes.
size_t bucket_for(size_t n, const std::vector<int>& buckets) {
    const auto fits = [n](int bucket) { return size_t(bucket) >= n; };
    return buckets.empty() ? n : size_t(*std::find_if(buckets.begin(), buckets.end(), fits));
}

}  // namespace

edgekd_tensor image_tensor(const char* name, const Placement& placement, std::vector<float>& blob) {
    return {name, 4, {1, 3, placement.input.height_px, placement.input.width_px}, blob.data(), nullptr, nullptr, 0};
}

edgekd_tensor output(const char* name) {
    return {name, 0, {}, nullptr, nullptr, nullptr, 0};
}

void check_shape(const edgekd_tensor& tensor, const std::vector<int64_t>& expected) {
    const uint32_t n_dims = std::min<uint32_t>(tensor.n_dims, EDGEKD_TENSOR_MAX_DIMS);
    const std::vector<int64_t> dims(tensor.dims, tensor.dims + n_dims);
    const bool is_there = tensor.data != nullptr || (tensor.stays != 0 && tensor.device != nullptr);
    bool fits = dims.size() == expected.size() && tensor.n_dims == n_dims && is_there;
    for (size_t i = 0; fits && i < dims.size(); i++) fits = dims[i] > 0 && (expected[i] < 0 || dims[i] == expected[i]);
    if (!fits) {
        fail(EDGEKD_ERROR_BUNDLE, std::string("the network's output ") + tensor.name + " has the shape " +
                                      shape_text(dims) + ", expected " + shape_text(expected) +
                                      "; build the bundle again");
    }
}

void check_output(const edgekd_tensor& tensor, const std::vector<int64_t>& expected) {
    check_shape(tensor, expected);
    size_t n = 1;
    for (uint32_t i = 0; i < tensor.n_dims; i++) n *= size_t(tensor.dims[i]);
    // A product with 0 is 0 for every number and NaN for what is none; the sum shows whether there was one.
    float sum = 0;
    for (size_t i = 0; i < n; i++) sum += 0 * tensor.data[i];
    if (!(sum == 0)) {
        fail(EDGEKD_ERROR_BUNDLE, std::string("the network's output ") + tensor.name +
                                      " holds a value that is not finite, expected numbers: its weights or its arithmetic "
                                      "are broken; build the bundle again with --precision fp32");
    }
}

std::vector<Chunk> chunks_of(size_t n_boxes, const std::vector<int>& buckets, size_t chunk) {
    const size_t largest = buckets.empty() ? chunk : size_t(buckets.back());
    std::vector<Chunk> chunks;
    for (size_t start = 0; start < n_boxes; start += largest) {
        const size_t n = std::min(largest, n_boxes - start);
        chunks.push_back({start, n, bucket_for(n, buckets)});
    }
    return chunks;
}

}  // namespace edgekd
