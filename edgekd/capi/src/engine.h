// One network of a bundle behind its backend module, which is loaded when the first bundle needs it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "manifest.h"

namespace edgekd {

// Load libedgekd_BACKEND.so from `folder`, or from the folder of this library when it is empty.
// Fails with EDGEKD_ERROR_BACKEND_UNAVAILABLE.
const edgekd_backend& load_backend(const std::string& backend, const std::string& folder);

// The GPU's compute capability as the backend sees it, such as "8.7"; empty without a GPU.
std::string compute_capability(const edgekd_backend& backend);

// A loaded network; one thread at a time.
class Engine {
public:
    // Where `beside` is not null, both engines serve one thread and share a stream and scratch memory on a GPU.
    Engine(const edgekd_backend& backend, const std::string& folder, const EngineStage& stage, uint32_t n_threads,
           const Engine* beside);

    // An engine that shares the weights, for another thread: that of `beside` where it is not null.
    Engine clone(const Engine* beside) const;

    // Run once; the outputs' data belongs to this engine until its next run.
    void infer(const std::vector<edgekd_tensor>& inputs, std::vector<edgekd_tensor>& outputs);

private:
    using Handle = std::unique_ptr<void, void (*)(void*)>;
    Engine(const edgekd_backend& backend, Handle handle) : backend_(&backend), handle_(std::move(handle)) {}

    const edgekd_backend* backend_;
    Handle handle_;
};

}  // namespace edgekd
