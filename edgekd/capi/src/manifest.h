// The bundle's manifest.json: what the C runtime reads of it, checked as edgekd/bundle.py checks it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace edgekd {

struct Size {
    int height_px = 0;
    int width_px = 0;
};

// How a picture becomes a network's input: see ImageInput in edgekd/model_set.py.
struct ImageInput {
    Size full;                  // gives the scale
    std::vector<Size> smaller;  // within the full size; the smallest that holds the resized picture is the input
    bool centre = false;  // placed in the centre, otherwise top left
    bool area = false;    // averages areas when it shrinks, otherwise linear
    std::array<double, 3> mean{}, std{}, pad{};
};

// How raw head maps become boxes.
struct DetectorHead {
    std::vector<int> strides_px;
    int reg_max = 0;
    bool end2end = false;
    int n_coefficients = 0;  // mask coefficients per anchor, of the kind yolo-seg
    bool oriented = false;   // boxes are turned, and the network puts out an angle per anchor
    bool angle_in_radians = false;  // otherwise a logit: the angle is (sigmoid - 1/4) pi
};

// How the surroundings of a box become the input of a crop network: see CropInput in edgekd/model_set.py.
struct CropInput {
    int side_px = 0;
    double window_factor = 1;
    std::array<double, 3> pad{};  // RGB
};

// The ways to a mask.
enum class Kind { sam, crop, yolo_seg };

struct EngineFile {
    std::string name;
    std::string sha256;
    uint64_t n_bytes = 0;
};

struct EngineStage {
    std::vector<EngineFile> files;  // the first one is opened
    std::string precision;
    std::vector<std::string> outputs;
};

struct Target {
    std::string os, machine, compute_capability;  // the last one is empty on a CPU
};

struct Manifest {
    Kind kind = Kind::sam;
    std::string backend;
    Target target;
    std::vector<std::string> class_names;
    DetectorHead head;
    ImageInput detector_input;
    ImageInput encoder_input;  // of the kind sam
    CropInput crop;            // of the kind crop
    int max_boxes = 0;
    std::vector<int> box_buckets;  // numbers of boxes the decoder or the crop network was built for; empty: any
    EngineStage detector;
    EngineStage encoder, decoder;  // of the kind sam
    EngineStage segmenter;         // of the kind crop
};

// Read the text of a manifest; `folder` is for the sentences. Fails with EDGEKD_ERROR_BUNDLE.
Manifest parse_manifest(const std::string& text, const std::string& folder);

// Read folder/manifest.json. Fails with EDGEKD_ERROR_BUNDLE, or as verify_signature() where a public key is given;
// with an empty one no signature is looked at.
Manifest read_manifest(const std::string& folder, const std::string& public_key);

// Refuse a bundle for another operating system or processor. Fails with EDGEKD_ERROR_BUNDLE_MISMATCH.
void check_machine(const std::string& folder, const Manifest& manifest);

// Refuse a bundle for another GPU; `found` is empty without one. Fails with EDGEKD_ERROR_BUNDLE_MISMATCH.
void check_gpu(const std::string& folder, const Manifest& manifest, const std::string& found);

}  // namespace edgekd
