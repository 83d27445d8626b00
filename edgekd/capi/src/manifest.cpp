#include "manifest.h"

#include <sys/stat.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cctype>

#include "error.h"
#include "files.h"
#include "node.h"
#include "records.h"
#include "sha256.h"
#include "signature.h"

namespace edgekd {
namespace {

constexpr int64_t kFormatVersion = 3;  // format 2 added `kind` (without it sam), format 3 turned boxes
constexpr uint64_t kMaxManifestBytes = 4u << 20;
constexpr size_t kMaxClasses = 65536;
constexpr size_t kMaxStrides = 8;
constexpr size_t kMaxSizes = 64;

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
    node.only({"height_px", "width_px", "place", "interpolation", "mean", "std", "pad", "smaller_sizes_px"});
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
    node.only({"strides_px", "reg_max", "end2end", "n_coefficients", "name", "angle"});
    DetectorHead head;
    const Node strides = node.at("strides_px");
    for (size_t i = 0, n = strides.length(1, kMaxStrides); i < n; i++) {
        head.strides_px.push_back(int(strides.at(i).integer(1, 8192)));
    }
    head.reg_max = int(node.at("reg_max").integer(1, 64));
    head.end2end = node.at("end2end").boolean();
    if (node.has("n_coefficients")) head.n_coefficients = int(node.at("n_coefficients").integer(0, 256));
    if (node.has("name")) head.oriented = node.at("name").choice({"detect", "obb"}) == "obb";
    if (node.has("angle")) head.angle_in_radians = node.at("angle").choice({"sigmoid", "radians"}) == "radians";
    return head;
}

CropInput crop_input(const Node& node) {
    node.only({"side_px", "window_factor", "pad"});
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

EngineStage engine_stage(const Node& stages, const std::string& name, const std::string& folder) {
    const Node node = stages.at(name.c_str());
    node.only({"files", "precision", "float_precision", "inputs", "outputs", "onnx_sha256", "source", "calibration"});
    EngineStage stage;
    const Node files = node.at("files");
    for (size_t i = 0, n = files.length(1, 16); i < n; i++) stage.files.push_back(engine_file(files.at(i), folder));
    stage.precision = node.at("precision").choice({"fp32", "bf16", "fp16", "int8"});
    // The backend is told what layers without Q/DQ pairs compute in.
    if (node.given("float_precision")) {
        stage.precision = node.at("float_precision").choice({"fp32", "bf16"});
    }
    check_tensors(node.at("inputs"), name == "segmenter" ? "uint8" : "float32");
    const Node outputs = node.at("outputs");
    check_tensors(outputs, "float32");
    for (size_t i = 0, n = outputs.length(1, 16); i < n; i++) {
        stage.outputs.push_back(outputs.at(i).at("name").text());
    }
    node.at("onnx_sha256").text();
    check_source(node.at("source"));
    if (node.given("calibration")) {
        for (const std::string& key : node.at("calibration").keys()) node.at("calibration").at(key.c_str()).text();
    }
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
    node.only({"os", "machine", "compute_capability", "n_multiprocessors"});
    Target target;
    target.os = node.at("os").text();
    target.machine = node.at("machine").text();
    if (node.given("compute_capability")) target.compute_capability = node.at("compute_capability").text();
    if (node.given("n_multiprocessors")) node.at("n_multiprocessors").integer(1, INT32_MAX);
    return target;
}

// What is said of each kind: its name, and its stages in the order in which they run.
struct KindFacts {
    Kind kind;
    const char* name;
    std::vector<const char*> stages;
};

const KindFacts& facts_of(const Node& root, const std::string& folder) {
    static const KindFacts kinds[] = {{Kind::sam, "sam", {"detector", "encoder", "decoder"}},
                                      {Kind::crop, "crop", {"detector", "segmenter"}},
                                      {Kind::yolo_seg, "yolo-seg", {"detector"}}};
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
    stages.only({"detector", "encoder", "decoder", "segmenter"});
    std::string expected;
    for (const char* name : facts.stages) expected += (expected.empty() ? "" : ", ") + std::string(name);
    for (const char* name : {"detector", "encoder", "decoder", "segmenter"}) {
        const bool wanted = std::any_of(facts.stages.begin(), facts.stages.end(),
                                        [&](const char* one) { return std::string(one) == name; });
        if (wanted == stages.has(name)) continue;
        fail(EDGEKD_ERROR_BUNDLE, folder + (wanted ? " has no stage " : " has the stage ") + name + ", expected " +
                                      expected + " for the kind " + facts.name + "; build it again");
    }
    if (pipeline.given("encoder_input") != (facts.kind == Kind::sam)) root.complain("pipeline.encoder_input is for the kind sam");
    if (pipeline.given("crop") != (facts.kind == Kind::crop)) root.complain("pipeline.crop is for the kind crop");
}

void check_format(const Node& root, const std::string& folder) {
    if (!root.has("format_version") || !root.at("format_version").exceeds(kFormatVersion)) return;
    fail(EDGEKD_ERROR_BUNDLE, folder + " has format " + root.at("format_version").dump() +
                                  ", and this libedgekd reads up to " + std::to_string(kFormatVersion) +
                                  "; update libedgekd or build the bundle again");
}

// The sha256 of the file itself, with zeros in its own place; a bundle of before has none.
void check_digest(const Node& root, const std::string& text, const std::string& folder) {
    if (!root.given("digest")) return;
    const std::string digest = root.at("digest").text();
    if (digest.size() != 64 || digest.find_first_not_of("0123456789abcdef") != std::string::npos) {
        root.complain("digest is not 64 hexadecimal digits");
    }
    std::string blank = text;
    const size_t at = blank.find(digest);
    if (at != std::string::npos) blank.replace(at, digest.size(), digest.size(), '0');
    if (sha256_of(blank) == digest) return;
    fail(EDGEKD_ERROR_BUNDLE,
         folder + "/manifest.json was changed after the build (its sha256 differs); build the bundle again");
}

Manifest manifest_from(const Node& root, const std::string& folder) {
    if (root.has("format_version")) root.at("format_version").integer(1, kFormatVersion);
    const KindFacts& facts = facts_of(root, folder);
    root.only({"format_version", "digest", "kind", "edgekd_version", "created", "backend", "backend_version", "target",
               "pipeline", "max_boxes", "box_buckets", "stages", "gate", "known_answer", "notes"});
    check_kind(root, facts, folder);
    check_records(root, folder);
    Manifest manifest;
    manifest.kind = facts.kind;
    manifest.backend = root.at("backend").choice({"openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"});
    manifest.target = target(root.at("target"));
    const Node pipeline = root.at("pipeline");
    pipeline.only({"class_names", "head", "detector_input", "trained_scale", "encoder_input", "prompt", "crop"});
    if (pipeline.given("trained_scale")) {
        const double scale = pipeline.at("trained_scale").number();
        if (!(scale > 0 && scale <= 64)) pipeline.complain("pipeline.trained_scale is not above 0 and up to 64");
    }
    if (pipeline.given("prompt")) pipeline.at("prompt").choice({"box", "box+centre"});
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
    if (manifest.head.oriented && facts.kind == Kind::yolo_seg) {
        pipeline.at("head").complain("pipeline.head.name is obb, which is for the kinds sam and crop");
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

}  // namespace

Manifest parse_manifest(const std::string& text, const std::string& folder) {
    const auto json = parse_json(text, folder);
    const Node root(json.get(), "", folder);
    check_format(root, folder);
    check_digest(root, text, folder);
    return manifest_from(root, folder);
}

Manifest read_manifest(const std::string& folder, const std::string& public_key) {
    const std::string path = folder + "/manifest.json";
    struct stat facts {};
    if (stat(path.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode)) {
        fail(EDGEKD_ERROR_BUNDLE, folder + " is not a bundle (no readable manifest.json); make one with: "
                                           "edgekd build-engine MODELS -o " + folder);
    }
    std::string text;
    if (!read_whole(path, kMaxManifestBytes, text)) {
        fail(EDGEKD_ERROR_BUNDLE, path + " cannot be read or has more than " + std::to_string(kMaxManifestBytes) +
                                      " bytes; build it again");
    }
    if (!public_key.empty()) verify_signature(path, text, public_key);
    return parse_manifest(text, folder);
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
