#include "chain.h"

#include <algorithm>

#include "error.h"
#include "files.h"
#include "tensors.h"

namespace edgekd {
namespace {

// The manifest, after everything that can be refused without a backend has been checked.
std::shared_ptr<const Manifest> checked_manifest(const std::string& folder, const std::string& public_key) {
    auto manifest = std::make_shared<const Manifest>(read_manifest(folder, public_key));
    check_machine(folder, *manifest);
    return manifest;
}

const edgekd_backend& checked_backend(const std::string& folder, const Manifest& manifest, const std::string& path) {
    const edgekd_backend& backend = load_backend(manifest.backend, path);
    if (!manifest.target.compute_capability.empty()) check_gpu(folder, manifest, compute_capability(backend));
    return backend;
}

std::unique_ptr<Segmenter> open_segmenter(const EngineSource& source, SharedManifest manifest, const Engine& beside) {
    switch (manifest->kind) {
        case Kind::crop:
            return open_crop(source, std::move(manifest), beside);
        case Kind::yolo_seg:
            return open_yolo_seg(std::move(manifest));
        case Kind::sam:
            break;
    }
    return open_sam(source, std::move(manifest), beside);
}

Box clipped(const Box& box, const Picture& picture) {
    const float width = float(picture.width_px), height = float(picture.height_px);
    return {std::clamp(box.left, 0.0f, width), std::clamp(box.top, 0.0f, height), std::clamp(box.right, 0.0f, width),
            std::clamp(box.bottom, 0.0f, height)};
}

// A box that the caller gave, clipped to the picture as the detector's are.
Box given_box(const Box& box, size_t index, const Picture& picture) {
    const float width = float(picture.width_px), height = float(picture.height_px);
    const std::string name = "box " + std::to_string(index) + " of boxes_xyxy ";
    if (box.right < box.left || box.bottom < box.top) {
        fail(EDGEKD_ERROR_ARGUMENT, name + "is inverted, expected left <= right and top <= bottom");
    }
    if (box.left > width || box.top > height || box.right < 0 || box.bottom < 0) {
        fail(EDGEKD_ERROR_ARGUMENT, name + "lies outside the picture of " + std::to_string(picture.width_px) + "x" +
                                        std::to_string(picture.height_px) + " px, expected one that touches it");
    }
    return clipped(box, picture);
}

}  // namespace

Chain::Chain(std::shared_ptr<const Manifest> manifest, Engine detector, std::unique_ptr<Segmenter> segmenter)
    : manifest_(std::move(manifest)), detector_(std::move(detector)), segmenter_(std::move(segmenter)) {}

std::unique_ptr<Chain> Chain::open(const std::string& folder, const OpenOptions& options) {
    const std::string version = settled(folder);
    auto manifest = checked_manifest(version, options.public_key);
    const EngineSource source = {checked_backend(version, *manifest, options.backend_path), version, options.n_threads};
    Engine detector = source.open(manifest->detector, nullptr);
    std::unique_ptr<Segmenter> segmenter = open_segmenter(source, manifest, detector);
    return std::unique_ptr<Chain>(new Chain(std::move(manifest), std::move(detector), std::move(segmenter)));
}

std::unique_ptr<Chain> Chain::clone() const {
    Engine detector = detector_.clone(nullptr);
    std::unique_ptr<Segmenter> segmenter = segmenter_->clone(detector);
    return std::unique_ptr<Chain>(new Chain(manifest_, std::move(detector), std::move(segmenter)));
}

void Chain::run(const Picture& picture, const RunOptions& options) {
    has_result_ = false;
    times_ms_ = {};
    found_.boxes.clear();
    found_.outputs.clear();
    picture_width_px_ = picture.width_px;
    picture_height_px_ = picture.height_px;
    {
        const Lap lap(times_ms_.total);
        if (options.boxes == nullptr) {
            detect(picture, options.detect);
        } else {
            take(picture, options);
        }
        const size_t n = found_.boxes.size();
        if (masks_.size() < n) masks_.resize(n);
        for (size_t i = 0; i < n; i++) masks_[i].window = {}, masks_[i].crop.clear();
        predicted_iou_.assign(n, 0);
        if (!options.boxes_only && n > 0) {
            segmenter_->run(picture, found_, options.mask, {masks_, predicted_iou_, times_ms_});
        }
    }
    has_result_ = true;
}

void Chain::take(const Picture& picture, const RunOptions& options) {
    if (!segmenter_->takes_boxes()) {
        fail(EDGEKD_ERROR_ARGUMENT,
             "boxes_xyxy is set and the bundle is of the kind yolo-seg, which masks only its own detector's; expected no "
             "boxes, or a bundle of the kind sam or crop");
    }
    for (size_t i = 0; i < options.n_boxes; i++) {
        found_.boxes.push_back({given_box(options.boxes[i], i, picture), 1, 0});
    }
}

void Chain::detect(const Picture& picture, const DetectOptions& options) {
    const DetectorHead& head = manifest_->head;
    Placement& placement = found_.placement;
    {
        const Lap lap(times_ms_.detector_preprocess);
        placement = preprocess(picture, manifest_->detector_input, resize_scratch_, blob_);
    }
    std::vector<edgekd_tensor>& outputs = found_.outputs;
    outputs = {output("box_logits"), output("class_logits")};
    if (head.n_coefficients > 0) {
        outputs.push_back(output("mask_coefficients"));
        outputs.push_back(output("mask_prototypes"));
    }
    if (head.oriented) outputs.push_back(output("angle_logits"));
    {
        const Lap lap(times_ms_.detector);
        detector_.infer({image_tensor("images", placement, blob_)}, outputs);
    }
    const Lap lap(times_ms_.detector_postprocess);
    const Size& input = placement.input;
    const size_t n_anchors = count_anchors(head, input.width_px, input.height_px);
    check_output(outputs[0], {1, 4 * head.reg_max, int64_t(n_anchors)});
    check_output(outputs[1], {1, -1, int64_t(n_anchors)});
    if (head.oriented) check_output(outputs[2], {1, 1, int64_t(n_anchors)});
    const float* angles = head.oriented ? outputs[2].data : nullptr;
    const HeadMaps maps = {outputs[0].data, outputs[1].data, size_t(outputs[1].dims[1]), n_anchors, angles};
    found_.boxes = suppress(decode(maps, head, input.width_px, input.height_px, options), options, head.end2end);
    if (found_.boxes.size() > size_t(manifest_->max_boxes)) found_.boxes.resize(size_t(manifest_->max_boxes));
    for (Detection& one : found_.boxes) to_picture(one, placement);
}

}  // namespace edgekd
