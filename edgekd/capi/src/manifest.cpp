#include "manifest.h"

#include <sys/stat.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "error.h"
#include "sha256.h"

namespace edgekd {
namespace {

using Json = nlohmann::json;

constexpr int kFormatVersion = 2;  // format 2 added `kind`; a manifest without it is of the kind sam
constexpr uint64_t kMaxManifestBytes = 4u << 20;
constexpr size_t kMaxClasses = 65536;
constexpr size_t kMaxStrides = 8;
constexpr size_t kMaxSizes = 64;

// A value of the manifest and where it stands, so that every complaint names the place.
class Node {
public:
    Node(const Json& value, std::string path, const std::string& folder)
        : value_(value), path_(std::move(path)), folder_(folder) {}

    Node at(const char* key) const {
        const auto found = value_.is_object() ? value_.find(key) : value_.end();
        const std::string path = path_.empty() ? key : path_ + "." + key;
        if (!value_.is_object() || found == value_.end()) complain(path + " is missing");
        return Node(*found, path, folder_);
    }

    Node at(size_t index) const { return Node(value_.at(index), path_ + "." + std::to_string(index), folder_); }

    size_t length(size_t low, size_t high) const {
        if (!value_.is_array() || value_.size() < low || value_.size() > high) {
            complain(path_ + " is not a list of " + std::to_string(low) + " to " + std::to_string(high) + " entries");
        }
        return value_.size();
    }

    int64_t integer(int64_t low, int64_t high) const {
        const bool fits = value_.is_number_unsigned() ? value_.get<uint64_t>() <= uint64_t(high)
                                                      : value_.is_number_integer() && value_.get<int64_t>() <= high;
        if (!fits || value_.get<int64_t>() < low) {
            complain(path_ + " is not a whole number from " + std::to_string(low) + " to " + std::to_string(high));
        }
        return value_.get<int64_t>();
    }

    double number() const {
        if (!value_.is_number() || !std::isfinite(value_.get<double>())) complain(path_ + " is not a number");
        return value_.get<double>();
    }

    std::string text() const {
        if (!value_.is_string()) complain(path_ + " is not text");
        std::string words = value_.get<std::string>();
        for (size_t i = 0; i < words.size(); i++) {
            const auto byte = static_cast<unsigned char>(words[i]);
            // C0, DEL, and C1, which UTF-8 writes as C2 80 to C2 9F.
            const bool c1 = byte == 0xC2 && i + 1 < words.size() && static_cast<unsigned char>(words[i + 1]) < 0xA0;
            if (byte < 0x20 || byte == 0x7F || c1) complain(path_ + " has a control character");
        }
        return words;
    }

    std::string choice(std::initializer_list<const char*> words) const {
        const std::string word = text();
        std::string expected;
        for (const char* one : words) {
            if (word == one) return word;
            expected += expected.empty() ? one : std::string(", ") + one;
        }
        complain(path_ + " is none of " + expected);
    }

    bool boolean() const {
        if (!value_.is_boolean()) complain(path_ + " is neither true nor false");
        return value_.get<bool>();
    }

    bool is_null() const { return value_.is_null(); }
    bool has(const char* key) const { return value_.is_object() && value_.contains(key); }

    [[noreturn]] void complain(const std::string& finding) const {
        fail(EDGEKD_ERROR_BUNDLE, folder_ + "/manifest.json does not describe a bundle (" + finding + "); build it again");
    }

private:
    const Json& value_;
    std::string path_;
    const std::string& folder_;
};

std::array<double, 3> three_numbers(const Node& node) {
    node.length(3, 3);
    return {node.at(size_t{0}).number(), node.at(1).number(), node.at(2).number()};
}

std::vector<Size> smaller_sizes(const Node& node, const Size& full) {
    std::vector<Size> sizes;
    for (size_t i = 0, n = node.length(0, kMaxSizes); i < n; i++) {
        const Node pair = node.at(i);
        pair.length(2, 2);
        sizes.push_back({int(pair.at(size_t{0}).integer(1, full.height_px)), int(pair.at(1).integer(1, full.width_px))});
    }
    return sizes;
}

ImageInput image_input(const Node& node) {
    ImageInput input;
    input.full.height_px = int(node.at("height_px").integer(1, 8192));
    input.full.width_px = int(node.at("width_px").integer(1, 8192));
    if (node.has("smaller_sizes_px")) input.smaller = smaller_sizes(node.at("smaller_sizes_px"), input.full);
    input.centre = node.at("place").choice({"centre", "top_left"}) == "centre";
    input.area = node.at("interpolation").choice({"linear", "area"}) == "area";
    input.mean = three_numbers(node.at("mean"));
    input.std = three_numbers(node.at("std"));
    input.pad = three_numbers(node.at("pad"));
    for (double std : input.std) {
        if (std == 0) node.at("std").complain("a std is 0");
    }
    return input;
}

DetectorHead detector_head(const Node& node) {
    DetectorHead head;
    const Node strides = node.at("strides_px");
    for (size_t i = 0, n = strides.length(1, kMaxStrides); i < n; i++) {
        head.strides_px.push_back(int(strides.at(i).integer(1, 8192)));
    }
    head.reg_max = int(node.at("reg_max").integer(1, 64));
    head.end2end = node.at("end2end").boolean();
    if (node.has("n_coefficients")) head.n_coefficients = int(node.at("n_coefficients").integer(0, 256));
    return head;
}

CropInput crop_input(const Node& node) {
    CropInput crop;
    crop.side_px = int(node.at("side_px").integer(8, 1024));
    crop.window_factor = node.at("window_factor").number();
    if (crop.window_factor < 1 || crop.window_factor > 4) node.at("window_factor").complain("window_factor is not 1 to 4");
    crop.pad = three_numbers(node.at("pad"));
    for (double value : crop.pad) {
        if (value < 0 || value > 255) node.at("pad").complain("a pad is not 0 to 255");
    }
    return crop;
}

// A plain file name cannot lead out of the bundle.
std::string plain_name(const Node& node, const std::string& folder) {
    const std::string name = node.text();
    const bool plain = !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
                       name.find('\0') == std::string::npos;
    if (!plain) {
        fail(EDGEKD_ERROR_BUNDLE,
             folder + " names the engine file '" + name + "', expected a plain file name; build it again");
    }
    return name;
}

EngineFile engine_file(const Node& node, const std::string& folder) {
    EngineFile file;
    file.name = plain_name(node.at("name"), folder);
    file.sha256 = node.at("sha256").text();
    file.n_bytes = uint64_t(node.at("n_bytes").integer(0, INT64_MAX));
    return file;
}

// Tensors cross a backend module as float32, crops as uint8; other types would be read as garbage.
void check_tensors(const Node& node, const char* type) {
    for (size_t i = 0, n = node.length(1, 16); i < n; i++) node.at(i).at("dtype").choice({type});
}

EngineStage engine_stage(const Node& stages, const std::string& name, const std::string& folder) {
    const Node node = stages.at(name.c_str());
    EngineStage stage;
    const Node files = node.at("files");
    for (size_t i = 0, n = files.length(1, 16); i < n; i++) stage.files.push_back(engine_file(files.at(i), folder));
    stage.precision = node.at("precision").choice({"fp32", "bf16", "fp16", "int8"});
    // The backend is told what layers without Q/DQ pairs compute in.
    if (node.has("float_precision") && !node.at("float_precision").is_null()) {
        stage.precision = node.at("float_precision").choice({"fp32", "bf16"});
    }
    check_tensors(node.at("inputs"), name == "segmenter" ? "uint8" : "float32");
    check_tensors(node.at("outputs"), "float32");
    return stage;
}

std::vector<int> box_buckets(const Node& node) {
    std::vector<int> buckets;
    for (size_t i = 0, n = node.length(0, 64); i < n; i++) {
        const int64_t low = buckets.empty() ? 1 : buckets.back() + 1;
        buckets.push_back(int(node.at(i).integer(low, 4096)));
    }
    return buckets;
}

Target target(const Node& node) {
    Target target;
    target.os = node.at("os").text();
    target.machine = node.at("machine").text();
    if (node.has("compute_capability") && !node.at("compute_capability").is_null()) {
        target.compute_capability = node.at("compute_capability").text();
    }
    return target;
}

// What is said of each kind: its name, and its stages in the order in which they run.
struct KindFacts {
    Kind kind;
    const char* name;
    std::vector<const char*> stages;
};

const KindFacts& facts_of(const Json& raw, const std::string& folder) {
    static const KindFacts kinds[] = {{Kind::sam, "sam", {"detector", "encoder", "decoder"}},
                                      {Kind::crop, "crop", {"detector", "segmenter"}},
                                      {Kind::yolo_seg, "yolo-seg", {"detector"}}};
    const Node root(raw, "", folder);
    if (!root.has("kind")) return kinds[0];
    const std::string name = root.at("kind").text();
    for (const KindFacts& facts : kinds) {
        if (name == facts.name) return facts;
    }
    fail(EDGEKD_ERROR_BUNDLE, folder + " has the kind '" + name.substr(0, 40) +
                                  "', and this libedgekd knows sam, crop, yolo-seg; update libedgekd or build the "
                                  "bundle again");
}

// The stages of a manifest are those of its kind, and what describes their inputs is there.
void check_kind(const Node& root, const KindFacts& facts, const std::string& folder) {
    const Node stages = root.at("stages"), pipeline = root.at("pipeline");
    std::string expected;
    for (const char* name : facts.stages) expected += (expected.empty() ? "" : ", ") + std::string(name);
    for (const char* name : {"detector", "encoder", "decoder", "segmenter"}) {
        const bool wanted = std::any_of(facts.stages.begin(), facts.stages.end(),
                                        [&](const char* one) { return std::string(one) == name; });
        if (wanted == stages.has(name)) continue;
        fail(EDGEKD_ERROR_BUNDLE, folder + (wanted ? " has no stage " : " has the stage ") + name + ", expected " +
                                      expected + " for the kind " + facts.name + "; build it again");
    }
    const auto has = [&](const char* key) { return pipeline.has(key) && !pipeline.at(key).is_null(); };
    if (has("encoder_input") != (facts.kind == Kind::sam)) root.complain("pipeline.encoder_input is for the kind sam");
    if (has("crop") != (facts.kind == Kind::crop)) root.complain("pipeline.crop is for the kind crop");
}

void check_format(const Json& raw, const std::string& folder) {
    if (!raw.is_object() || !raw.contains("format_version") || !raw["format_version"].is_number_integer()) return;
    if (raw["format_version"].get<int64_t>() > kFormatVersion) {
        fail(EDGEKD_ERROR_BUNDLE, folder + " has format " + raw["format_version"].dump() +
                                      ", and this libedgekd reads up to " + std::to_string(kFormatVersion) +
                                      "; update libedgekd or build the bundle again");
    }
}

Manifest manifest_from(const Json& raw, const std::string& folder) {
    const Node root(raw, "", folder);
    if (root.has("format_version")) root.at("format_version").integer(1, kFormatVersion);
    const KindFacts& facts = facts_of(raw, folder);
    check_kind(root, facts, folder);
    Manifest manifest;
    manifest.kind = facts.kind;
    manifest.backend = root.at("backend").choice({"openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"});
    manifest.target = target(root.at("target"));
    const Node pipeline = root.at("pipeline");
    const Node names = pipeline.at("class_names");
    for (size_t i = 0, n = names.length(0, kMaxClasses); i < n; i++) {
        manifest.class_names.push_back(names.at(i).text());
    }
    manifest.head = detector_head(pipeline.at("head"));
    manifest.detector_input = image_input(pipeline.at("detector_input"));
    if (facts.kind == Kind::sam) manifest.encoder_input = image_input(pipeline.at("encoder_input"));
    if (facts.kind == Kind::crop) manifest.crop = crop_input(pipeline.at("crop"));
    if ((manifest.head.n_coefficients > 0) != (facts.kind == Kind::yolo_seg)) {
        pipeline.at("head").complain("pipeline.head.n_coefficients is for the kind yolo-seg");
    }
    manifest.max_boxes = int(root.at("max_boxes").integer(1, 4096));
    if (root.has("box_buckets")) manifest.box_buckets = box_buckets(root.at("box_buckets"));
    const Node stages = root.at("stages");
    manifest.detector = engine_stage(stages, "detector", folder);
    if (facts.kind == Kind::sam) manifest.encoder = engine_stage(stages, "encoder", folder);
    if (facts.kind == Kind::sam) manifest.decoder = engine_stage(stages, "decoder", folder);
    if (facts.kind == Kind::crop) manifest.segmenter = engine_stage(stages, "segmenter", folder);
    return manifest;
}

void check_file(const std::string& folder, const EngineFile& file) {
    const std::string path = folder + "/" + file.name;
    struct stat facts {};
    if (stat(path.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode)) {
        fail(EDGEKD_ERROR_BUNDLE, folder + " lacks the engine file " + file.name + "; build the bundle again");
    }
    if (uint64_t(facts.st_size) != file.n_bytes || sha256_of_file(path) != file.sha256) {
        fail(EDGEKD_ERROR_BUNDLE,
             path + " was changed after the build (its sha256 differs); build the bundle again");
    }
}

}  // namespace

Manifest parse_manifest(const std::string& text, const std::string& folder) {
    const Json raw = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (raw.is_discarded()) {
        fail(EDGEKD_ERROR_BUNDLE, folder + "/manifest.json is not JSON; build the bundle again");
    }
    check_format(raw, folder);
    return manifest_from(raw, folder);
}

Manifest read_manifest(const std::string& folder) {
    const std::string path = folder + "/manifest.json";
    struct stat facts {};
    std::ifstream file(path, std::ios::binary);
    if (stat(path.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode) || !file) {
        fail(EDGEKD_ERROR_BUNDLE, folder + " is not a bundle (no readable manifest.json); make one with: "
                                           "edgekd build-engine MODELS -o " + folder);
    }
    if (uint64_t(facts.st_size) > kMaxManifestBytes) {
        fail(EDGEKD_ERROR_BUNDLE, path + " has " + std::to_string(facts.st_size) + " bytes, expected at most " +
                                      std::to_string(kMaxManifestBytes) + "; build it again");
    }
    return parse_manifest(std::string(std::istreambuf_iterator<char>(file), {}), folder);
}

void check_files(const std::string& folder, const Manifest& manifest) {
    for (const EngineStage* stage : {&manifest.detector, &manifest.encoder, &manifest.decoder, &manifest.segmenter}) {
        for (const EngineFile& file : stage->files) check_file(folder, file);
    }
}

void check_machine(const std::string& folder, const Manifest& manifest) {
    utsname here{};
    uname(&here);
    std::string os = here.sysname;
    for (char& letter : os) letter = char(std::tolower(static_cast<unsigned char>(letter)));
    if (manifest.target.os == os && manifest.target.machine == here.machine) return;
    fail(EDGEKD_ERROR_BUNDLE_MISMATCH,
         folder + " was built for " + manifest.target.os + " on " + manifest.target.machine + ", this machine is " + os +
             " on " + here.machine + "; rebuild it here: edgekd build-engine MODELS --backend " + manifest.backend +
             " -o " + folder);
}

void check_gpu(const std::string& folder, const Manifest& manifest, const std::string& found) {
    const std::string& wanted = manifest.target.compute_capability;
    if (wanted.empty() || wanted == found) return;
    const std::string here = found.empty() ? "this machine shows no NVIDIA GPU" : "this GPU has " + found;
    const std::string backend = found.empty() ? "openvino" : manifest.backend;
    fail(EDGEKD_ERROR_BUNDLE_MISMATCH, folder + " was built for compute capability " + wanted + ", " + here +
                                           "; rebuild it: edgekd build-engine MODELS --backend " + backend + " -o " +
                                           folder);
}

}  // namespace edgekd
