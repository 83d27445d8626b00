// A functional libnvinfer for machines without one, compiled from TensorRT's public headers: fake plans run on the host.
//
// The plan is that of tests/runtime/fake_plan.py; ONNX Runtime computes, host_cudart.c is the GPU below. The real Python
// bindings and the C library load it as libnvinfer.so.N. It enforces what TensorRT enforces: a context owns the profile
// unless the plan shares it, the first run of a shape cannot be captured, a context made without memory must be given
// some, addresses are those of live device memory. Breaking a rule is an error in the logger, as in the library.
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "fake_ort.h"
#include "stubs.h"

extern "C" {
int host_enqueue(cudaStream_t stream, void (*function)(void*), void* argument);
int host_is_capturing(cudaStream_t stream);
int host_is_device(const void* address, size_t n_bytes);
void host_break(void);
}

using namespace nvinfer1;

namespace {

using Shape = std::vector<int64_t>;

struct TypeRow { const char* name; DataType type; int onnx; size_t n_bytes; };
constexpr TypeRow kTypes[] = {
    {"FLOAT", DataType::kFLOAT, 1, 4}, {"HALF", DataType::kHALF, 10, 2}, {"INT8", DataType::kINT8, 3, 1},
    {"INT32", DataType::kINT32, 6, 4}, {"BOOL", DataType::kBOOL, 9, 1}, {"UINT8", DataType::kUINT8, 2, 1}};

struct Tensor {
    std::string name;
    bool is_input;
    const TypeRow* type;
    Shape shape, profile[3];
};

Shape shape_of(const std::string& text) {
    Shape shape;
    std::stringstream stream(text == "scalar" ? "" : text);
    for (std::string size; std::getline(stream, size, ',');) shape.push_back(std::stoll(size));
    return shape;
}

Dims dims_of(const Shape& shape) {
    Dims dims{};
    dims.nbDims = int32_t(shape.size());
    for (size_t i = 0; i < shape.size(); i++) dims.d[i] = static_cast<std::remove_reference_t<decltype(dims.d[0])>>(shape[i]);
    return dims;
}

size_t bytes_of(const Shape& shape, const TypeRow& type) {
    size_t n = type.n_bytes;
    for (int64_t size : shape) n *= size_t(size);
    return n;
}

struct Plan {
    std::vector<Tensor> tensors;
    size_t scratch_bytes = 0;
    bool shares_profiles = true;
    std::string model;
    ILogger* logger = nullptr;

    const Tensor* find(const char* name) const {
        for (const Tensor& tensor : tensors) {
            if (tensor.name == name) return &tensor;
        }
        return nullptr;
    }
    bool complain(const std::string& message) const {
        logger->log(ILogger::Severity::kERROR, message.c_str());
        return false;
    }
};

std::unique_ptr<Plan> parse(const std::string& content) {
    const std::string magic = "FAKE TENSORRT PLAN\n", mark = "\nonnx\n";
    const size_t end = content.find(mark);
    if (content.compare(0, magic.size(), magic) != 0 || end == std::string::npos) return nullptr;
    auto plan = std::make_unique<Plan>();
    plan->model = content.substr(end + mark.size());
    std::stringstream head(content.substr(magic.size(), end - magic.size()));
    size_t fixed = 0, each = 0;
    int64_t open_number = 1;
    for (std::string line; std::getline(head, line);) {
        std::stringstream words(line);
        std::string kind, name, type, shapes[4];
        words >> kind;
        if (kind == "profiles") {
            words >> name;
            plan->shares_profiles = name == "shared";
        } else if (kind == "scratch") {
            words >> fixed >> each;
        } else if (kind == "bytes") {
            size_t n_bytes = 0;
            words >> n_bytes;
            if (n_bytes != plan->model.size()) return nullptr;
        } else {
            words >> name >> type >> shapes[0] >> shapes[1] >> shapes[2] >> shapes[3];
            const auto row = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const TypeRow& r) { return type == r.name; });
            if (row == std::end(kTypes)) return nullptr;
            Tensor tensor{name, kind == "input", &*row, shape_of(shapes[0]), {shape_of(shapes[1]), shape_of(shapes[2]), shape_of(shapes[3])}};
            if (tensor.is_input && !tensor.profile[2].empty()) open_number = std::max(open_number, tensor.profile[2][0]);
            plan->tensors.push_back(tensor);
        }
    }
    plan->scratch_bytes = fixed + each * size_t(open_number);
    return plan;
}

class Context : public IExecutionContext {
public:
    Context(std::shared_ptr<const Plan> plan, std::shared_ptr<const fake::Session> session, bool owns_memory, bool has_profile)
        : impl_(std::move(plan), std::move(session), owns_memory, has_profile) {
        mImpl = &impl_;
    }

private:
    struct Job {
        std::shared_ptr<const Plan> plan;
        std::shared_ptr<const fake::Session> session;
        std::vector<fake::Value> inputs, outputs;
        void* scratch;
    };

    // Runs when the stream is waited for; memory that was freed since it was queued breaks the device.
    static void compute(void* argument) {
        const Job& job = *static_cast<const Job*>(argument);
        bool alive = host_is_device(job.scratch, job.plan->scratch_bytes);
        for (const auto* values : {&job.inputs, &job.outputs}) {
            for (const fake::Value& value : *values) alive = alive && host_is_device(value.data, value.n_bytes);
        }
        if (!alive) return host_break();
        std::memset(job.scratch, 0x5A, std::min<size_t>(job.plan->scratch_bytes, 64));
        try {
            job.session->run(job.inputs, job.outputs);
        } catch (const std::exception& error) {
            job.plan->complain(error.what());
            host_break();
        }
    }

    struct Impl : stubs::ExecutionContextStub {
        Impl(std::shared_ptr<const Plan> given, std::shared_ptr<const fake::Session> runner, bool owns_memory, bool profile)
            : plan(std::move(given)), session(std::move(runner)), has_profile(profile) {
            for (const Tensor& tensor : plan->tensors) {
                if (tensor.is_input) shapes[tensor.name] = tensor.shape;
            }
            if (owns_memory && cudaMalloc(&owned, plan->scratch_bytes) == 0) give(owned, plan->scratch_bytes);
        }
        ~Impl() override {
            if (owned) cudaFree(owned);
        }

        bool setInputShape(char const* name, Dims const& dims) noexcept override {
            const Tensor* tensor = plan->find(name);
            const Shape shape(dims.d, dims.d + std::max<int64_t>(dims.nbDims, 0));
            bool fits = has_profile && tensor && tensor->is_input && shape.size() == tensor->shape.size();
            for (size_t i = 0; fits && i < shape.size(); i++) {
                fits = tensor->profile[0][i] <= shape[i] && shape[i] <= tensor->profile[2][i];
            }
            if (!fits) return plan->complain(std::string("setInputShape: no profile of this context fits ") + name);
            shapes[name] = shape;
            n_runs_of_shapes = 0;
            return true;
        }
        Shape shape_now(const Tensor& tensor) const {
            if (tensor.is_input) return shapes.at(tensor.name);
            int64_t number = -1;
            for (const Tensor& input : plan->tensors) {
                if (!input.is_input) continue;
                for (size_t i = 0; i < input.shape.size(); i++) {
                    if (input.shape[i] == -1) number = shapes.at(input.name)[i];
                }
            }
            Shape shape = tensor.shape;
            for (int64_t& size : shape) size = size == -1 ? number : size;
            return shape;
        }
        Dims getTensorShape(char const* name) const noexcept override {
            const Tensor* tensor = plan->find(name);
            return tensor ? dims_of(shape_now(*tensor)) : Dims{-1, {}};
        }
        bool set_address(char const* name, const void* data) noexcept {
            const Tensor* tensor = plan->find(name);
            if (!tensor || !host_is_device(data, bytes_of(shape_now(*tensor), *tensor->type))) {
                return plan->complain(std::string("setTensorAddress: not device memory of its size: ") + name);
            }
            addresses[name] = const_cast<void*>(data);
            return true;
        }
        bool setTensorAddress(char const* name, void* data) noexcept override { return set_address(name, data); }
        bool setInputTensorAddress(char const* name, void const* data) noexcept override { return set_address(name, data); }
        void give(void* memory, size_t n_bytes) { scratch = n_bytes >= plan->scratch_bytes ? memory : nullptr; }
        void setDeviceMemory(void* memory) noexcept override { give(memory, plan->scratch_bytes); }
#if NV_TENSORRT_MAJOR >= 10
        void setDeviceMemoryV2(void* memory, int64_t size) noexcept override { give(memory, size_t(size)); }
#endif
        bool setOptimizationProfileAsync(int32_t, cudaStream_t) noexcept override { return has_profile; }
        int32_t getOptimizationProfile() const noexcept override { return has_profile ? 0 : -1; }

        bool enqueueV3(cudaStream_t stream) noexcept override {
            if (addresses.size() != plan->tensors.size()) return plan->complain("enqueueV3: an address is missing");
            if (!host_is_device(scratch, plan->scratch_bytes)) return plan->complain("enqueueV3: the context has no device memory");
            if (host_is_capturing(stream) && n_runs_of_shapes == 0) {
                return plan->complain("enqueueV3: the first run of a shape allocates and cannot be captured");
            }
            n_runs_of_shapes++;
            auto job = std::make_unique<Job>(Job{plan, session, {}, {}, scratch});
            for (const Tensor& tensor : plan->tensors) {
                const Shape shape = shape_now(tensor);
                fake::Value value{tensor.name, addresses[tensor.name], bytes_of(shape, *tensor.type), shape, tensor.type->onnx};
                (tensor.is_input ? job->inputs : job->outputs).push_back(value);
            }
            jobs.push_back(std::move(job));
            return host_enqueue(stream, compute, jobs.back().get()) == 0;
        }

        std::shared_ptr<const Plan> plan;
        std::shared_ptr<const fake::Session> session;
        bool has_profile;
        void* owned = nullptr;
        void* scratch = nullptr;
        int n_runs_of_shapes = 0;
        std::map<std::string, Shape> shapes;
        std::map<std::string, void*> addresses;
        std::vector<std::unique_ptr<Job>> jobs;
    };
    Impl impl_;
};

class Engine : public ICudaEngine {
public:
    explicit Engine(std::shared_ptr<const Plan> plan) : impl_(std::move(plan)) { mImpl = &impl_; }

private:
    struct Impl : stubs::CudaEngineStub {
        explicit Impl(std::shared_ptr<const Plan> given) : plan(std::move(given)), session(std::make_shared<fake::Session>(plan->model)) {}

        IExecutionContext* make(bool owns_memory) {
            const bool has_profile = plan->shares_profiles || !profile_taken;
            profile_taken = true;
            return new Context(plan, session, owns_memory, has_profile);
        }
        const Tensor& tensor(char const* name) const { return *plan->find(name); }
        int32_t getNbIOTensors() const noexcept override { return int32_t(plan->tensors.size()); }
        char const* getIOTensorName(int32_t index) const noexcept override { return plan->tensors[size_t(index)].name.c_str(); }
        TensorIOMode getTensorIOMode(char const* name) const noexcept override {
            return tensor(name).is_input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
        }
        DataType getTensorDataType(char const* name) const noexcept override { return tensor(name).type->type; }
        Dims getTensorShape(char const* name) const noexcept override { return dims_of(tensor(name).shape); }
        Dims getProfileShape(char const* name, int32_t, OptProfileSelector select) const noexcept override {
            return dims_of(tensor(name).profile[int(select)]);
        }
        int32_t getNbOptimizationProfiles() const noexcept override { return 1; }
#if NV_TENSORRT_MAJOR >= 10
        IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override {
            return make(strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED);
        }
        int64_t getDeviceMemorySizeV2() const noexcept override { return int64_t(plan->scratch_bytes); }
#else
        IExecutionContext* createExecutionContext() noexcept override { return make(true); }
#endif
#if NV_TENSORRT_MAJOR < 11
        IExecutionContext* createExecutionContextWithoutDeviceMemory() noexcept override { return make(false); }
        size_t getDeviceMemorySize() const noexcept override { return plan->scratch_bytes; }
        bool hasImplicitBatchDimension() const noexcept override { return false; }
#endif
        std::shared_ptr<const Plan> plan;
        std::shared_ptr<const fake::Session> session;
        bool profile_taken = false;
    };
    Impl impl_;
};

class Runtime : public IRuntime {
public:
    explicit Runtime(ILogger* logger) : impl_(logger) { mImpl = &impl_; }

private:
    struct Impl : stubs::RuntimeStub {
        explicit Impl(ILogger* given) : logger(given) {}
        ICudaEngine* load(void const* blob, size_t size) noexcept {
            std::unique_ptr<Plan> plan = parse(std::string(static_cast<const char*>(blob), size));
            if (!plan) {
                logger->log(ILogger::Severity::kERROR, "the magic tag does not match\n");
                return nullptr;
            }
            plan->logger = logger;
            return new Engine(std::move(plan));
        }
#if NV_TENSORRT_MAJOR >= 10
        ICudaEngine* deserializeCudaEngine(void const* blob, size_t size) noexcept override { return load(blob, size); }
#else
        ICudaEngine* deserializeCudaEngine(void const* blob, size_t size, IPluginFactory*) noexcept override { return load(blob, size); }
#endif
        ILogger* getLogger() const noexcept override { return logger; }
        ILogger* logger;
    };
    Impl impl_;
};

}  // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))
EXPORTED void* createInferRuntime_INTERNAL(void* logger, int32_t) { return static_cast<IRuntime*>(new Runtime(static_cast<ILogger*>(logger))); }
// What the Python bindings want to find, and nobody calls.
EXPORTED void* createInferBuilder_INTERNAL(void*, int32_t) { return nullptr; }
EXPORTED void* createInferRefitter_INTERNAL(void*, void*, int32_t) { return nullptr; }
EXPORTED void* getBuilderPluginRegistry(int32_t) { return nullptr; }
TENSORRTAPI IPluginRegistry* getPluginRegistry() noexcept { return nullptr; }
