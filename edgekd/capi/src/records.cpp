#include "records.h"

namespace edgekd {
namespace {

constexpr int64_t kMaxEngineBytes = int64_t(16) << 30;
constexpr size_t kMaskDigits = 320 / 4 * 480 / 4 / 4;  // of a known answer: four cells per digit
constexpr size_t kMaxKnown = 16;

std::string plain_name(const Node& node, const std::string& folder) {
    const std::string name = node.text();
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos) {
        fail(EDGEKD_ERROR_BUNDLE,
             folder + " names the engine file '" + name + "', expected a plain file name; build it again");
    }
    return name;
}

void check_gate(const Node& node) {
    node.only({"passed", "measured", "limits", "n_images", "float_layers"});
    node.at("passed").boolean();
    for (const char* name : {"measured", "limits"}) {
        for (const std::string& key : node.at(name).keys()) node.at(name).at(key.c_str()).number();
    }
    node.at("n_images").integer(0, INT32_MAX);
    if (!node.has("float_layers")) return;
    const Node layers = node.at("float_layers");
    for (size_t i = 0, n = layers.length(0, SIZE_MAX); i < n; i++) layers.at(i).text();
}

void check_known_object(const Node& node) {
    node.only({"xyxy", "class_id", "confidence", "predicted_iou", "mask"});
    node.at("xyxy").length(4, 4);
    for (size_t i = 0; i < 4; i++) node.at("xyxy").at(i).number();
    node.at("class_id").integer(0, INT32_MAX);
    node.at("confidence").number();
    node.at("predicted_iou").number();
    const std::string mask = node.at("mask").text();
    if (mask.size() != kMaskDigits || mask.find_first_not_of("0123456789abcdef") != std::string::npos) {
        node.at("mask").complain("a mask is not " + std::to_string(kMaskDigits) + " hexadecimal digits");
    }
}

void check_known_answer(const Node& node, const std::string& folder) {
    node.only({"picture", "found", "given"});
    engine_file(node.at("picture"), folder);
    for (const char* name : {"found", "given"}) {
        if (!node.has(name) && std::string(name) == "given") continue;
        const Node objects = node.at(name);
        for (size_t i = 0, n = objects.length(0, kMaxKnown); i < n; i++) check_known_object(objects.at(i));
    }
}

}  // namespace

EngineFile engine_file(const Node& node, const std::string& folder) {
    node.only({"name", "sha256", "n_bytes"});
    EngineFile file;
    file.sha256 = node.at("sha256").text();
    file.n_bytes = uint64_t(node.at("n_bytes").integer(0, kMaxEngineBytes));
    file.name = plain_name(node.at("name"), folder);
    return file;
}

void check_tensors(const Node& node, const char* type) {
    for (size_t i = 0, n = node.length(1, 16); i < n; i++) {
        const Node tensor = node.at(i);
        tensor.only({"name", "shape", "dtype", "layout"});
        tensor.at("name").text();
        tensor.at("layout").text();
        tensor.at("dtype").choice({type});
        const Node shape = tensor.at("shape");
        for (size_t axis = 0, rank = shape.length(0, 8); axis < rank; axis++) {
            if (!shape.at(axis).is_text()) shape.at(axis).integer(0, INT32_MAX);
        }
    }
}

void check_source(const Node& node) {
    node.only({"name", "sha256", "licence", "trained"});
    for (const char* name : {"name", "sha256", "licence"}) node.at(name).text();
    if (node.has("trained")) node.at("trained").boolean();
}

void check_records(const Node& root, const std::string& folder) {
    for (const char* name : {"edgekd_version", "created", "backend_version"}) root.at(name).text();
    if (root.has("notes")) {
        const Node notes = root.at("notes");
        for (size_t i = 0, n = notes.length(0, SIZE_MAX); i < n; i++) notes.at(i).text();
    }
    if (root.given("gate")) check_gate(root.at("gate"));
    if (root.given("known_answer")) check_known_answer(root.at("known_answer"), folder);
}

}  // namespace edgekd
