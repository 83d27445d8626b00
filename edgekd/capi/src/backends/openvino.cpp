// OpenVINO on a CPU, through its C interface: an .xml (with its .bin) or .onnx file goes in.
#include <openvino/c/openvino.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backend.h"
#include "error.h"

namespace {

using edgekd::fail;

template <typename T, void (*Free)(T*)>
struct Deleter {
    void operator()(T* pointer) const { Free(pointer); }
};
using Core = std::unique_ptr<ov_core_t, Deleter<ov_core_t, ov_core_free>>;
using Model = std::unique_ptr<ov_model_t, Deleter<ov_model_t, ov_model_free>>;
using SharedCompiled = std::shared_ptr<ov_compiled_model_t>;
using Port = std::unique_ptr<ov_output_const_port_t, Deleter<ov_output_const_port_t, ov_output_const_port_free>>;
using Request = std::unique_ptr<ov_infer_request_t, Deleter<ov_infer_request_t, ov_infer_request_free>>;
using Tensor = std::unique_ptr<ov_tensor_t, Deleter<ov_tensor_t, ov_tensor_free>>;

struct Shape {
    ov_shape_t value{};
    Shape() = default;
    Shape(const Shape&) = delete;
    Shape& operator=(const Shape&) = delete;
    ~Shape() { ov_shape_free(&value); }
};

struct PartialShape {
    ov_partial_shape_t value{};
    PartialShape() = default;
    PartialShape(const PartialShape&) = delete;
    PartialShape& operator=(const PartialShape&) = delete;
    ~PartialShape() { ov_partial_shape_free(&value); }
};

// OpenVINO's own words of its last failure, its last line, which holds the reason.
std::string reason(ov_status_e status) {
    const char* text = ov_get_last_err_msg();
    std::string words = text != nullptr && *text != '\0' ? text : ov_get_error_info(status);
    while (!words.empty() && (words.back() == '\n' || words.back() == ' ')) words.pop_back();
    return words.substr(words.rfind('\n') + 1);
}

void check(ov_status_e status, const char* what) {
    if (status != OK) fail(EDGEKD_ERROR_BACKEND, std::string("OpenVINO cannot ") + what + " (" + reason(status) + ")");
}

// INT8 graphs carry their own Q/DQ; what stays float in them runs in fp32 unless the manifest says bf16.
const char* precision_hint(const std::string& precision) {
    if (precision == "bf16") return "bf16";
    return precision == "fp16" ? "f16" : "f32";
}

void check_precision(const ov_core_t* core, const edgekd_engine_options& options) {
    const std::string wanted = options.precision;
    if (wanted != "bf16" && wanted != "fp16") return;
    char* text = nullptr;
    check(ov_core_get_property(core, "CPU", "OPTIMIZATION_CAPABILITIES", &text), "ask the CPU for its precisions");
    const std::string offered = text;
    ov_free(text);
    if (offered.find(wanted == "bf16" ? "BF16" : "FP16") == std::string::npos) {
        fail(EDGEKD_ERROR_BACKEND_UNAVAILABLE, std::string(options.path) + " wants " + wanted + " and this CPU offers " +
                                                   offered +
                                                   "; rebuild the bundle with: edgekd build-engine --precision fp32");
    }
}

Core started() {
    ov_core_t* made = nullptr;
    const ov_status_e status = ov_core_create(&made);
    Core core(made);
    if (status != OK) fail(EDGEKD_ERROR_BACKEND_UNAVAILABLE, "OpenVINO does not start (" + reason(status) + ")");
    return core;
}

// What an input's port says of it; axis 0 counts pictures or boxes and may stay open.
struct Input {
    std::string name;
    ov_dimension_t count{};
    bool has_open_sizes = false;
};

Input input_of(const ov_model_t* model, size_t index) {
    ov_output_const_port_t* found = nullptr;
    check(ov_model_const_input_by_index(model, index, &found), "find an input");
    const Port port(found);
    Input input;
    char* name = nullptr;
    check(ov_port_get_any_name(port.get(), &name), "name an input");
    input.name = name;
    ov_free(name);
    PartialShape shape;
    check(ov_port_get_partial_shape(port.get(), &shape.value), "tell an input's shape");
    const int64_t rank = shape.value.rank.max;
    if (ov_rank_is_dynamic(shape.value.rank) || rank < 1 || rank > EDGEKD_TENSOR_MAX_DIMS) {
        fail(EDGEKD_ERROR_BUNDLE, "the network's input " + input.name +
                                      " has not 1 to 4 dimensions; build the bundle again");
    }
    input.count = shape.value.dims[0];
    for (int64_t axis = 1; axis < rank; axis++) {
        input.has_open_sizes = input.has_open_sizes || ov_dimension_is_dynamic(shape.value.dims[axis]);
    }
    return input;
}

// The shapes of the inputs behind axis 0, in the network's order.
using Sizes = std::vector<std::vector<int64_t>>;

// Input sizes that an engine keeps compiled, the last used, as in edgekd/runtime/engines/openvino.py.
constexpr size_t kKeptSizes = 6;

// A model as read, and what engines hold compiled of it: one compiled model for each size, shared by an engine and its
// clones. A network whose sizes are fixed has empty `Sizes`.
class Network {
public:
    explicit Network(const edgekd_engine_options& options)
        : path_(options.path),
          precision_(precision_hint(options.precision)),
          n_threads_(options.n_threads),
          core_(started()) {
        check_precision(core_.get(), options);
        ov_model_t* made = read(options);
        model_.reset(made);
        size_t n_inputs = 0;
        check(ov_model_inputs_size(made, &n_inputs), "count the inputs");
        for (size_t i = 0; i < n_inputs; i++) {
            inputs_.push_back(input_of(made, i));
            has_open_sizes_ = has_open_sizes_ || inputs_.back().has_open_sizes;
        }
    }

    bool has_open_sizes() const { return has_open_sizes_; }

    // What `compiled` wants to know of these inputs.
    Sizes sizes_of(const edgekd_tensor* tensors, size_t n_tensors) const {
        Sizes sizes;
        if (!has_open_sizes_) return sizes;
        for (const Input& input : inputs_) {
            const edgekd_tensor* tensor = std::find_if(
                tensors, tensors + n_tensors, [&](const edgekd_tensor& one) { return input.name == one.name; });
            if (tensor == tensors + n_tensors) {
                fail(EDGEKD_ERROR_BUNDLE, path_ + " has the unknown input " + input.name + "; build the bundle again");
            }
            sizes.emplace_back(tensor->dims + 1, tensor->dims + tensor->n_dims);
        }
        return sizes;
    }

    // For a size that no engine holds this takes as long as a compilation; otherwise it returns at once.
    SharedCompiled compiled(const Sizes& sizes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        std::weak_ptr<ov_compiled_model_t>& held = compiled_[sizes];
        SharedCompiled compiled = held.lock();
        if (compiled == nullptr) {
            if (!sizes.empty()) reshape(sizes);
            compiled = compile();
            held = compiled;
            if (sizes.empty()) model_.reset();  // clones are made of an engine that holds what was compiled
        }
        return compiled;
    }

private:
    // The model of the bytes that were checked: an `.xml` and its `.bin`, or an `.onnx`. Its weights live in a tensor
    // that the model keeps.
    ov_model_t* read(const edgekd_engine_options& options) const {
        std::unique_ptr<ov_tensor_t, void (*)(ov_tensor_t*)> weights(nullptr, ov_tensor_free);
        if (options.n_files > 1) {
            const edgekd_bytes& file = options.files[1];
            int64_t size = int64_t(file.size);
            ov_tensor_t* room = nullptr;
            void* data = nullptr;
            check(ov_tensor_create(U8, {1, &size}, &room), "make room for the weights");
            weights.reset(room);
            check(ov_tensor_data(room, &data), "make room for the weights");
            std::memcpy(data, file.data, file.size);
        }
        ov_model_t* made = nullptr;
        const edgekd_bytes& graph = options.files[0];
        check_load(ov_core_read_model_from_memory_buffer(core_.get(), graph.data, graph.size, weights.get(), &made));
        return made;
    }

    void check_load(ov_status_e status) const {
        if (status == OK) return;
        fail(EDGEKD_ERROR_BUNDLE,
             "OpenVINO cannot load " + path_ + " (" + reason(status) + "); build the bundle again");
    }

    void reshape(const Sizes& sizes) {
        std::vector<const char*> names;
        std::vector<std::vector<ov_dimension_t>> dims;
        std::vector<ov_partial_shape_t> shapes;  // views of `dims`
        for (size_t i = 0; i < inputs_.size(); i++) {
            names.push_back(inputs_[i].name.c_str());
            dims.push_back({inputs_[i].count});
            for (int64_t size : sizes[i]) dims.back().push_back({size, size});
            const int64_t rank = int64_t(dims.back().size());
            shapes.push_back({{rank, rank}, dims.back().data()});
        }
        check_load(ov_model_reshape(model_.get(), names.data(), shapes.data(), names.size()));
    }

    SharedCompiled compile() const {
        const std::string n_threads = std::to_string(n_threads_);
        const size_t n_properties = n_threads_ > 0 ? 8 : 6;  // keys and values; the last pair only with a number
        ov_compiled_model_t* made = nullptr;
        check_load(ov_core_compile_model(core_.get(), model_.get(), "CPU", n_properties, &made,
                                         "INFERENCE_PRECISION_HINT", precision_.c_str(), "PERFORMANCE_HINT", "LATENCY",
                                         "NUM_STREAMS", "1", "INFERENCE_NUM_THREADS", n_threads.c_str()));
        return SharedCompiled(made, ov_compiled_model_free);
    }

    std::string path_, precision_;
    uint32_t n_threads_;
    Core core_;
    Model model_;
    std::vector<Input> inputs_;
    bool has_open_sizes_ = false;
    std::mutex mutex_;  // guards what follows, and the shape of model_
    std::map<Sizes, std::weak_ptr<ov_compiled_model_t>> compiled_;
};

// A network, compiled and with an infer request for each of the last sizes that this engine met.
class OpenVinoEngine {
public:
    explicit OpenVinoEngine(std::shared_ptr<Network> network) : network_(std::move(network)) {
        if (!network_->has_open_sizes()) request(nullptr, 0);
    }

    const std::shared_ptr<Network>& network() const { return network_; }

    ov_infer_request_t* request(const edgekd_tensor* inputs, size_t n_inputs) {
        const Sizes sizes = network_->sizes_of(inputs, n_inputs);
        const auto found = std::find_if(kept_.begin(), kept_.end(), [&](const Kept& one) { return one.sizes == sizes; });
        if (found != kept_.end()) {
            std::rotate(found, found + 1, kept_.end());
        } else {
            // Before the next is compiled, so that memory stays bounded.
            if (kept_.size() == kKeptSizes) kept_.erase(kept_.begin());
            kept_.push_back(made(sizes));
        }
        return kept_.back().request.get();
    }

private:
    struct Kept {
        Sizes sizes;
        SharedCompiled compiled;
        Request request;
    };

    Kept made(const Sizes& sizes) const {
        SharedCompiled compiled = network_->compiled(sizes);
        ov_infer_request_t* made = nullptr;
        check(ov_compiled_model_create_infer_request(compiled.get(), &made), "make a request");
        return {sizes, std::move(compiled), Request(made)};
    }

    std::shared_ptr<Network> network_;
    std::vector<Kept> kept_;  // the last used at the end
};

// Let the request read the caller's memory in place.
void set_input(ov_infer_request_t* request, const edgekd_tensor& input) {
    Shape shape;
    check(ov_shape_create(input.n_dims, input.dims, &shape.value), "describe an input");
    ov_tensor_t* made = nullptr;
    // OpenVINO takes inputs through a pointer that is not const and does not write to them.
    void* memory = input.bytes != nullptr ? const_cast<uint8_t*>(input.bytes) : static_cast<void*>(input.data);
    const ov_element_type_e type = input.bytes != nullptr ? U8 : F32;
    check(ov_tensor_create_from_host_ptr(type, shape.value, memory, &made), "wrap an input");
    const Tensor tensor(made);
    check(ov_infer_request_set_tensor(request, input.name, tensor.get()), "take an input");
}

void get_output(ov_infer_request_t* request, edgekd_tensor& output) {
    ov_tensor_t* found = nullptr;
    check(ov_infer_request_get_tensor(request, output.name, &found), "find an output");
    const Tensor tensor(found);
    ov_element_type_e type = DYNAMIC;
    Shape shape;
    void* data = nullptr;
    check(ov_tensor_get_element_type(tensor.get(), &type), "tell an output's type");
    check(ov_tensor_get_shape(tensor.get(), &shape.value), "tell an output's shape");
    check(ov_tensor_data(tensor.get(), &data), "give an output");
    if (type != F32 || shape.value.rank > EDGEKD_TENSOR_MAX_DIMS) {
        fail(EDGEKD_ERROR_BUNDLE, std::string("the network's output ") + output.name +
                                      " is not float32 with at most 4 dimensions; build the bundle again");
    }
    output.n_dims = uint32_t(shape.value.rank);
    std::copy(shape.value.dims, shape.value.dims + output.n_dims, output.dims);
    output.data = static_cast<float*>(data);
}

// Run `body` and put the sentence of its failure into `error`.
template <typename Body>
int32_t answered(edgekd_backend_error* error, Body&& body) {
    return edgekd::guarded(body, [error](const char* text) { std::snprintf(error->text, sizeof error->text, "%s", text); });
}

int32_t open_engine(const edgekd_engine_options* options, void** engine, edgekd_backend_error* error) {
    return answered(error, [&] { *engine = new OpenVinoEngine(std::make_shared<Network>(*options)); });
}

int32_t clone_engine(void* engine, void*, void** copy, edgekd_backend_error* error) {
    return answered(error, [&] { *copy = new OpenVinoEngine(static_cast<OpenVinoEngine*>(engine)->network()); });
}

int32_t infer(void* engine, const edgekd_tensor* inputs, size_t n_inputs, edgekd_tensor* outputs, size_t n_outputs,
              edgekd_backend_error* error) {
    return answered(error, [&] {
        ov_infer_request_t* request = static_cast<OpenVinoEngine*>(engine)->request(inputs, n_inputs);
        for (size_t i = 0; i < n_inputs; i++) set_input(request, inputs[i]);
        check(ov_infer_request_infer(request), "run the network");
        for (size_t i = 0; i < n_outputs; i++) get_output(request, outputs[i]);
    });
}

void close_engine(void* engine) {
    delete static_cast<OpenVinoEngine*>(engine);
}

}  // namespace

const edgekd_backend* edgekd_backend_entry(void) {
    static const edgekd_backend backend = {
        EDGEKD_BACKEND_ABI_VERSION, nullptr, open_engine, clone_engine, infer, close_engine};
    return &backend;
}
