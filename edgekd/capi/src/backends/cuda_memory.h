// Memory, streams and graphs of a GPU that give themselves back, and what the engines of one thread share of them.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "error.h"

namespace edgekd {

inline void check_cuda(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    fail(EDGEKD_ERROR_BACKEND, std::string("CUDA cannot ") + what + " (" + cudaGetErrorString(error) + ")");
}

struct FreeDevice {
    void operator()(void* memory) const { cudaFree(memory); }
};
struct FreePinned {
    void operator()(void* memory) const { cudaFreeHost(memory); }
};
struct DestroyStream {
    void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
struct DestroyGraph {
    void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
};
using DeviceMemory = std::unique_ptr<void, FreeDevice>;
using PinnedMemory = std::unique_ptr<void, FreePinned>;
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, DestroyStream>;
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, DestroyGraph>;

inline DeviceMemory allocate_on_device(size_t n_bytes) {
    void* memory = nullptr;
    check_cuda(cudaMalloc(&memory, n_bytes), "allocate memory on the GPU");
    return DeviceMemory(memory);
}

inline PinnedMemory allocate_pinned(size_t n_bytes) {
    void* memory = nullptr;
    check_cuda(cudaMallocHost(&memory, n_bytes), "allocate page-locked memory");
    return PinnedMemory(memory);
}

// One stream and one scratch buffer for all engines of one thread, which run one after another.
class Lane {
public:
    struct Scratch {
        DeviceMemory memory;
        size_t n_bytes;
    };

    Lane() {
        cudaStream_t stream = nullptr;
        check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream");
        stream_.reset(stream);
    }

    cudaStream_t stream() const { return stream_.get(); }

    // What an engine of this lane wants at most.
    void join(size_t scratch_bytes) { wanted_bytes_ = std::max(wanted_bytes_, scratch_bytes); }

    // Memory that is large enough for every engine that joined so far, allocated at the first call. Where a greedier
    // engine joins later, a larger buffer is added and the old one stays, because recorded graphs hold its address.
    const Scratch& scratch() {
        if (buffers_.empty() || buffers_.back().n_bytes < wanted_bytes_) {
            buffers_.push_back({allocate_on_device(wanted_bytes_), wanted_bytes_});
        }
        return buffers_.back();
    }

private:
    Stream stream_;
    size_t wanted_bytes_ = 1;
    std::vector<Scratch> buffers_;
};

}  // namespace edgekd
