// TensorRT on an NVIDIA GPU: a plan goes in; 8.6 to 11.x, by tensor names only.
//
// Buffers are allocated once, for the largest shapes of the plan's profile, so addresses never change; each combination
// of input shapes gets its own execution context and, from its second run on, its own CUDA graph; all contexts of a
// thread use the scratch memory of one lane. An output that another engine reads stays where it is. Mirrors
// runtime/engines/tensorrt.py.
//
// No GPU has run this file yet. In the tests it is compiled against the public headers of 8.6, 10.3 and 11.x and runs
// on a functional stand-in for TensorRT.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend.h"
#include "backends/cuda_memory.h"
#include "error.h"

namespace {

using edgekd::check_cuda;
using edgekd::DeviceMemory;
using edgekd::fail;
using edgekd::Lane;
using edgekd::PinnedMemory;
using Shape = std::vector<int64_t>;

// A context without scratch memory is small; the limit is for callers with ever new shapes.
constexpr size_t kMaxShapes = 8;

// TensorRT's last complaint of this thread; it reports through a logger, not through return values.
thread_local std::string last_complaint;

class Logger : public nvinfer1::ILogger {
public:
    void log(Severity severity, const char* message) noexcept override {
        if (severity <= Severity::kERROR) last_complaint = message;
    }
};

Logger& logger() {
    static Logger instance;
    return instance;
}

nvinfer1::Dims dims_from(const Shape& shape) {
    nvinfer1::Dims dims{};
    dims.nbDims = int32_t(shape.size());
    for (size_t i = 0; i < shape.size(); i++) dims.d[i] = static_cast<std::remove_reference_t<decltype(dims.d[0])>>(shape[i]);
    return dims;
}

Shape shape_from(const nvinfer1::Dims& dims) {
    return Shape(dims.d, dims.d + std::max<int64_t>(dims.nbDims, 0));
}

size_t count_bytes(const Shape& shape, size_t element_bytes) {
    size_t n = element_bytes;
    for (int64_t size : shape) n *= size_t(size);
    return n;
}

#define EDGEKD_TENSORRT_SINCE(major, minor) (NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= (major) * 100 + (minor))

// A context that must be given scratch memory, in the words of each version.
nvinfer1::IExecutionContext* context_without_memory(nvinfer1::ICudaEngine& engine) {
#if EDGEKD_TENSORRT_SINCE(10, 0)
    return engine.createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED);
#else
    return engine.createExecutionContextWithoutDeviceMemory();
#endif
}

size_t scratch_bytes(const nvinfer1::ICudaEngine& engine) {
#if EDGEKD_TENSORRT_SINCE(10, 1)
    return size_t(engine.getDeviceMemorySizeV2());
#else
    return engine.getDeviceMemorySize();
#endif
}

void give_memory(nvinfer1::IExecutionContext& context, void* memory, [[maybe_unused]] size_t n_bytes) {
#if EDGEKD_TENSORRT_SINCE(10, 1)
    context.setDeviceMemoryV2(memory, int64_t(n_bytes));
#else
    context.setDeviceMemory(memory);
#endif
}

// What clones share: the plan, and the runtime that must outlive it.
struct Plan {
    std::unique_ptr<nvinfer1::IRuntime> runtime;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
    std::string path;
};

// One input or output: its memory on the GPU and, once the host wants it, its page-locked twin, for the largest shape.
struct Tensor {
    std::string name;
    bool is_input = false;
    size_t element_bytes = sizeof(float);  // 1: uint8, of an input alone
    size_t capacity_bytes = 0;
    DeviceMemory device;
    PinnedMemory pinned;
};

// A context that was set up for one combination of input shapes.
struct Bound {
    std::unique_ptr<nvinfer1::IExecutionContext> context;
    bool has_run = false;
    edgekd::Graph graph;
    uint64_t last_use = 0;
};

class TensorRtEngine {
public:
    // `beside` is an engine of the same thread, whose lane this one shares, or null.
    TensorRtEngine(std::shared_ptr<Plan> plan, const TensorRtEngine* beside)
        : plan_(std::move(plan)), lane_(beside != nullptr ? beside->lane_ : std::make_shared<Lane>()) {
        allocate();
        lane_->join(scratch_bytes(*plan_->engine));
    }
    TensorRtEngine(const TensorRtEngine&) = delete;
    TensorRtEngine& operator=(const TensorRtEngine&) = delete;

    // A run that failed may have left work behind, which still reads this memory.
    ~TensorRtEngine() { cudaStreamSynchronize(lane_->stream()); }

    std::shared_ptr<Plan> plan() const { return plan_; }

    void infer(const edgekd_tensor* inputs, size_t n_inputs, edgekd_tensor* outputs, size_t n_outputs) {
        Bound& bound = bind(inputs, n_inputs);
        for (size_t i = 0; i < n_inputs; i++) {
            if (inputs[i].device == nullptr) copy_in(inputs[i]);
        }
        enqueue(bound);
        for (size_t i = 0; i < n_outputs; i++) answer(*bound.context, outputs[i]);
        check_cuda(cudaStreamSynchronize(lane_->stream()), "finish a run");
    }

private:
    [[noreturn]] void refuse(const std::string& finding) const {
        fail(EDGEKD_ERROR_BUNDLE, plan_->path + ": " + finding + "; build it here with: edgekd build-engine");
    }

    std::unique_ptr<nvinfer1::IExecutionContext> make_context() const {
        std::unique_ptr<nvinfer1::IExecutionContext> context(context_without_memory(*plan_->engine));
        if (context == nullptr) fail(EDGEKD_ERROR_BACKEND, "TensorRT makes no context (" + last_complaint + ")");
        return context;
    }

    Shape largest_input(const char* name) const {
        const Shape fixed = shape_from(plan_->engine->getTensorShape(name));
        for (int64_t size : fixed) {
            if (size < 0) {
                return shape_from(plan_->engine->getProfileShape(name, 0, nvinfer1::OptProfileSelector::kMAX));
            }
        }
        return fixed;
    }

    void allocate() {
        const auto context = make_context();
        const nvinfer1::ICudaEngine& engine = *plan_->engine;
        for (int32_t i = 0; i < engine.getNbIOTensors(); i++) {
            Tensor tensor;
            tensor.name = engine.getIOTensorName(i);
            const char* name = tensor.name.c_str();
            tensor.is_input = engine.getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
            const nvinfer1::DataType type = engine.getTensorDataType(name);
            if (tensor.is_input && type == nvinfer1::DataType::kUINT8) {
                tensor.element_bytes = 1;
            } else if (type != nvinfer1::DataType::kFLOAT) {
                refuse(tensor.name + " is not float32");
            }
            if (tensor.is_input && !context->setInputShape(name, dims_from(largest_input(name)))) {
                refuse(tensor.name + " has no profile (" + last_complaint + ")");
            }
            tensors_.push_back(std::move(tensor));
        }
        for (Tensor& tensor : tensors_) {
            const Shape shape = shape_from(context->getTensorShape(tensor.name.c_str()));
            for (int64_t size : shape) {
                if (size < 1) refuse(tensor.name + " has no fixed largest size");
            }
            tensor.capacity_bytes = count_bytes(shape, tensor.element_bytes);
            tensor.device = edgekd::allocate_on_device(tensor.capacity_bytes);
        }
    }

    // An input or output that holds so many elements.
    Tensor& find(const char* name, bool is_input, const Shape& shape) {
        for (Tensor& tensor : tensors_) {
            if (tensor.name != name || tensor.is_input != is_input) continue;
            if (count_bytes(shape, tensor.element_bytes) <= tensor.capacity_bytes) return tensor;
            refuse(tensor.name + " is called with more than its profile allows");
        }
        refuse(std::string("there is no ") + (is_input ? "input " : "output ") + name);
    }

    void* twin(Tensor& tensor) {
        if (tensor.pinned == nullptr) tensor.pinned = edgekd::allocate_pinned(tensor.capacity_bytes);
        return tensor.pinned.get();
    }

    // Where a run with these inputs reads or writes a tensor.
    static void* address_of(const Tensor& tensor, const edgekd_tensor* inputs, size_t n_inputs) {
        const auto is_given = [&](const edgekd_tensor& one) { return one.device != nullptr && tensor.name == one.name; };
        const edgekd_tensor* found = std::find_if(inputs, inputs + n_inputs, is_given);
        return found != inputs + n_inputs ? found->device : tensor.device.get();
    }

    // The context for these shapes and addresses; the one unused for longest makes room for a new one.
    Bound& bind(const edgekd_tensor* inputs, size_t n_inputs) {
        Shape key;
        for (size_t i = 0; i < n_inputs; i++) {
            key.insert(key.end(), inputs[i].dims, inputs[i].dims + inputs[i].n_dims);
            key.push_back(int64_t(reinterpret_cast<intptr_t>(inputs[i].device)));
        }
        auto found = bounds_.find(key);
        if (found == bounds_.end()) {
            if (bounds_.size() >= kMaxShapes) drop_oldest();
            found = bounds_.emplace(std::move(key), made(inputs, n_inputs)).first;
        }
        found->second.last_use = ++n_runs_;
        return found->second;
    }

    void drop_oldest() {
        const auto is_older = [](const auto& a, const auto& b) { return a.second.last_use < b.second.last_use; };
        bounds_.erase(std::min_element(bounds_.begin(), bounds_.end(), is_older));
    }

    Bound made(const edgekd_tensor* inputs, size_t n_inputs) {
        Bound bound;
        bound.context = make_context();
        for (size_t i = 0; i < n_inputs; i++) {
            const Shape shape(inputs[i].dims, inputs[i].dims + inputs[i].n_dims);
            if (!bound.context->setInputShape(inputs[i].name, dims_from(shape))) {
                refuse(std::string(inputs[i].name) + " is called with a shape outside of its profile");
            }
        }
        const Lane::Scratch& scratch = lane_->scratch();
        give_memory(*bound.context, scratch.memory.get(), scratch.n_bytes);
        for (const Tensor& tensor : tensors_) {
            if (bound.context->setTensorAddress(tensor.name.c_str(), address_of(tensor, inputs, n_inputs))) continue;
            fail(EDGEKD_ERROR_BACKEND, "TensorRT refuses the memory of " + tensor.name + " (" + last_complaint + ")");
        }
        return bound;
    }

    void copy_in(const edgekd_tensor& input) {
        const bool is_bytes = input.bytes != nullptr;
        const Shape shape(input.dims, input.dims + input.n_dims);
        Tensor& tensor = find(input.name, true, shape);
        if (is_bytes != (tensor.element_bytes == 1)) refuse(tensor.name + " is called with another type than it has");
        const size_t n_bytes = count_bytes(shape, tensor.element_bytes);
        void* to = twin(tensor);
        std::memcpy(to, is_bytes ? static_cast<const void*>(input.bytes) : input.data, n_bytes);
        check_cuda(cudaMemcpyAsync(tensor.device.get(), to, n_bytes, cudaMemcpyHostToDevice, lane_->stream()),
                   "copy an input");
    }

    // Name an output's address, or copy it to the host.
    void answer(const nvinfer1::IExecutionContext& context, edgekd_tensor& output) {
        const Shape shape = shape_from(context.getTensorShape(output.name));
        if (shape.size() > EDGEKD_TENSOR_MAX_DIMS) refuse(std::string(output.name) + " has more than 4 dimensions");
        Tensor& tensor = find(output.name, false, shape);
        output.n_dims = uint32_t(shape.size());
        std::copy(shape.begin(), shape.end(), output.dims);
        output.data = nullptr;
        output.device = tensor.device.get();
        if (output.stays) return;
        output.data = static_cast<float*>(twin(tensor));
        check_cuda(cudaMemcpyAsync(output.data, tensor.device.get(), count_bytes(shape, sizeof(float)),
                                   cudaMemcpyDeviceToHost, lane_->stream()),
                   "copy an output");
    }

    // The first run of a shape loads and allocates what may not happen during a recording; the second one is recorded.
    void enqueue(Bound& bound) {
        if (bound.graph == nullptr && bound.has_run && use_graphs_) record(bound);
        if (bound.graph != nullptr) {
            check_cuda(cudaGraphLaunch(bound.graph.get(), lane_->stream()), "launch a graph");
            return;
        }
        if (!bound.context->enqueueV3(lane_->stream())) {
            fail(EDGEKD_ERROR_BACKEND, "TensorRT cannot run the plan (" + last_complaint + ")");
        }
        bound.has_run = true;
    }

    // A plan that cannot be recorded runs without graphs: the same kernels, launched one by one.
    void record(Bound& bound) {
        cudaGraph_t recorded = nullptr;
        cudaGraphExec_t graph = nullptr;
        check_cuda(cudaStreamBeginCapture(lane_->stream(), cudaStreamCaptureModeThreadLocal), "begin a recording");
        const bool queued = bound.context->enqueueV3(lane_->stream());
        const bool ended = cudaStreamEndCapture(lane_->stream(), &recorded) == cudaSuccess && recorded != nullptr;
        use_graphs_ = queued && ended && cudaGraphInstantiateWithFlags(&graph, recorded, 0) == cudaSuccess;
        if (recorded != nullptr) cudaGraphDestroy(recorded);
        if (use_graphs_) bound.graph.reset(graph);
        cudaGetLastError();  // a failed recording leaves its error behind
    }

    std::shared_ptr<Plan> plan_;
    std::shared_ptr<Lane> lane_;  // goes after the contexts, which are declared later and use its scratch memory
    std::vector<Tensor> tensors_;
    std::map<Shape, Bound> bounds_;
    uint64_t n_runs_ = 0;
    bool use_graphs_ = true;
};

std::shared_ptr<Plan> load(const edgekd_engine_options& options) {
    const char* path = options.path;
    int n_devices = 0;
    const cudaError_t error = cudaGetDeviceCount(&n_devices);
    if (error != cudaSuccess || n_devices == 0) {
        fail(EDGEKD_ERROR_BACKEND_UNAVAILABLE, std::string("TensorRT needs an NVIDIA GPU and finds none (") +
                                                   cudaGetErrorString(error) + "); use a bundle of --backend openvino");
    }
    auto plan = std::make_shared<Plan>();
    plan->path = path;
    plan->runtime.reset(nvinfer1::createInferRuntime(logger()));
    if (plan->runtime == nullptr) fail(EDGEKD_ERROR_BACKEND_UNAVAILABLE, "TensorRT does not start (" + last_complaint + ")");
    plan->engine.reset(plan->runtime->deserializeCudaEngine(options.files[0].data, options.files[0].size));
    if (plan->engine == nullptr) {
        fail(EDGEKD_ERROR_BUNDLE, std::string("TensorRT cannot load ") + path + " (" + last_complaint +
                                      "), it is damaged or of another GPU or version; build it here with: "
                                      "edgekd build-engine --backend tensorrt");
    }
    return plan;
}

// Run `body` and put the sentence of its failure into `error`.
template <typename Body>
int32_t answered(edgekd_backend_error* error, Body&& body) {
    return edgekd::guarded(body, [error](const char* text) { std::snprintf(error->text, sizeof error->text, "%s", text); });
}

int32_t compute_capability(char* text, size_t capacity, edgekd_backend_error* error) {
    return answered(error, [&] {
        int n_devices = 0, major = 0, minor = 0;
        text[0] = '\0';
        if (cudaGetDeviceCount(&n_devices) != cudaSuccess || n_devices == 0) return;
        check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "ask the GPU for its kind");
        check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "ask the GPU for its kind");
        std::snprintf(text, capacity, "%d.%d", major, minor);
    });
}

int32_t open_engine(const edgekd_engine_options* options, void** engine, edgekd_backend_error* error) {
    const auto* beside = static_cast<const TensorRtEngine*>(options->beside);
    return answered(error, [&] { *engine = new TensorRtEngine(load(*options), beside); });
}

int32_t clone_engine(void* engine, void* beside, void** copy, edgekd_backend_error* error) {
    const auto* neighbour = static_cast<const TensorRtEngine*>(beside);
    return answered(error, [&] { *copy = new TensorRtEngine(static_cast<TensorRtEngine*>(engine)->plan(), neighbour); });
}

int32_t infer(void* engine, const edgekd_tensor* inputs, size_t n_inputs, edgekd_tensor* outputs, size_t n_outputs,
              edgekd_backend_error* error) {
    return answered(error, [&] { static_cast<TensorRtEngine*>(engine)->infer(inputs, n_inputs, outputs, n_outputs); });
}

void close_engine(void* engine) {
    delete static_cast<TensorRtEngine*>(engine);
}

}  // namespace

const edgekd_backend* edgekd_backend_entry(void) {
    static const edgekd_backend backend = {
        EDGEKD_BACKEND_ABI_VERSION, compute_capability, open_engine, clone_engine, infer, close_engine};
    return &backend;
}
