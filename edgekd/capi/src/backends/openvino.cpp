// OpenVINO on a CPU, through its C interface: an .xml (with its .bin) or .onnx file goes in.
#include <openvino/c/openvino.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "backend.h"
#include "error.h"

namespace {

using edgekd::fail;

template <typename T, void (*Free)(T*)>
struct Deleter {
    void operator()(T* pointer) const { Free(pointer); }
};
using Core = std::unique_ptr<ov_core_t, Deleter<ov_core_t, ov_core_free>>;
using Request = std::unique_ptr<ov_infer_request_t, Deleter<ov_infer_request_t, ov_infer_request_free>>;
using Tensor = std::unique_ptr<ov_tensor_t, Deleter<ov_tensor_t, ov_tensor_free>>;

struct Shape {
    ov_shape_t value{};
    Shape() = default;
    Shape(const Shape&) = delete;
    Shape& operator=(const Shape&) = delete;
    ~Shape() { ov_shape_free(&value); }
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

// The compiled model, shared by an engine and its clones.
struct Model {
    ov_compiled_model_t* compiled = nullptr;
    Model() = default;
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;
    ~Model() { ov_compiled_model_free(compiled); }
};

struct OpenVinoEngine {
    std::shared_ptr<Model> model;
    Request request;

    explicit OpenVinoEngine(std::shared_ptr<Model> shared) : model(std::move(shared)) {
        ov_infer_request_t* made = nullptr;
        check(ov_compiled_model_create_infer_request(model->compiled, &made), "make a request");
        request.reset(made);
    }
};

// INT8 graphs carry their own Q/DQ; what stays float in them runs in fp32 so that a gate measures quantization alone.
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

std::shared_ptr<Model> compile(const edgekd_engine_options& options) {
    ov_core_t* made = nullptr;
    const ov_status_e status = ov_core_create(&made);
    const Core core(made);
    if (status != OK) fail(EDGEKD_ERROR_BACKEND_UNAVAILABLE, "OpenVINO does not start (" + reason(status) + ")");
    check_precision(core.get(), options);
    const char* precision = precision_hint(options.precision);
    const std::string n_threads = std::to_string(options.n_threads);
    const size_t n_properties = options.n_threads > 0 ? 8 : 6;  // keys and values; the last pair only with a number
    auto model = std::make_shared<Model>();
    const ov_status_e compiled = ov_core_compile_model_from_file(
        core.get(), options.path, "CPU", n_properties, &model->compiled, "INFERENCE_PRECISION_HINT", precision,
        "PERFORMANCE_HINT", "LATENCY", "NUM_STREAMS", "1", "INFERENCE_NUM_THREADS", n_threads.c_str());
    if (compiled != OK) {
        fail(EDGEKD_ERROR_BUNDLE, std::string("OpenVINO cannot load ") + options.path + " (" + reason(compiled) +
                                      "); build the bundle again");
    }
    return model;
}

// Let the request read the caller's memory in place.
void set_input(ov_infer_request_t* request, const edgekd_tensor& input) {
    Shape shape;
    check(ov_shape_create(input.n_dims, input.dims, &shape.value), "describe an input");
    ov_tensor_t* made = nullptr;
    check(ov_tensor_create_from_host_ptr(F32, shape.value, input.data, &made), "wrap an input");
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
    return answered(error, [&] { *engine = new OpenVinoEngine(compile(*options)); });
}

int32_t clone_engine(void* engine, void** copy, edgekd_backend_error* error) {
    return answered(error, [&] { *copy = new OpenVinoEngine(static_cast<OpenVinoEngine*>(engine)->model); });
}

int32_t infer(void* engine, const edgekd_tensor* inputs, size_t n_inputs, edgekd_tensor* outputs, size_t n_outputs,
              edgekd_backend_error* error) {
    return answered(error, [&] {
        ov_infer_request_t* request = static_cast<OpenVinoEngine*>(engine)->request.get();
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
