#include "chain.h"

#include <algorithm>
#include <chrono>

#include "error.h"

namespace edgekd {
namespace {

// Cost grows linearly with boxes, so a chunk only bounds memory.
constexpr size_t kChunkBoxes = 16;

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// Adds the time from its creation to `total_ms`.
class Lap {
public:
    explicit Lap(double& total_ms) : total_ms_(total_ms), start_(Clock::now()) {}
    ~Lap() { total_ms_ += ms_since(start_); }

private:
    double& total_ms_;
    Clock::time_point start_;
};

edgekd_tensor image_tensor(const char* name, const Placement& placement, std::vector<float>& blob) {
    return {name, 4, {1, 3, placement.input.height_px, placement.input.width_px}, blob.data()};
}

edgekd_tensor output(const char* name) {
    return {name, 0, {}, nullptr};
}

std::string shape_text(const std::vector<int64_t>& dims) {
    std::string text;
    for (int64_t size : dims) text += (text.empty() ? "" : ", ") + (size < 0 ? "any" : std::to_string(size));
    return "(" + text + ")";
}

// Refuse an output of another shape, before its data is read; -1 stands for any size.
void check_shape(const edgekd_tensor& tensor, const std::vector<int64_t>& expected) {
    const uint32_t n_dims = std::min<uint32_t>(tensor.n_dims, EDGEKD_TENSOR_MAX_DIMS);
    const std::vector<int64_t> dims(tensor.dims, tensor.dims + n_dims);
    bool fits = dims.size() == expected.size() && tensor.n_dims == n_dims && tensor.data != nullptr;
    for (size_t i = 0; fits && i < dims.size(); i++) fits = dims[i] > 0 && (expected[i] < 0 || dims[i] == expected[i]);
    if (!fits) {
        fail(EDGEKD_ERROR_BUNDLE, std::string("the network's output ") + tensor.name + " has the shape " +
                                      shape_text(dims) + ", expected " + shape_text(expected) +
                                      "; build the bundle again");
    }
}

// Number of boxes that the decoder is called with for n boxes.
size_t bucket_for(size_t n, const std::vector<int>& buckets) {
    const auto fits = [n](int bucket) { return size_t(bucket) >= n; };
    return buckets.empty() ? n : size_t(*std::find_if(buckets.begin(), buckets.end(), fits));
}

// The manifest, after everything that can be refused without a backend has been checked.
std::shared_ptr<const Manifest> checked_manifest(const std::string& folder) {
    auto manifest = std::make_shared<const Manifest>(read_manifest(folder));
    check_machine(folder, *manifest);
    return manifest;
}

const edgekd_backend& checked_backend(const std::string& folder, const Manifest& manifest, const std::string& path) {
    const edgekd_backend& backend = load_backend(manifest.backend, path);
    if (!manifest.target.compute_capability.empty()) check_gpu(folder, manifest, compute_capability(backend));
    check_files(folder, manifest);
    return backend;
}

}  // namespace

Chain::Chain(std::shared_ptr<const Manifest> manifest, Engine detector, Engine encoder, Engine decoder)
    : manifest_(std::move(manifest)),
      detector_(std::move(detector)),
      encoder_(std::move(encoder)),
      decoder_(std::move(decoder)) {}

std::unique_ptr<Chain> Chain::open(const std::string& folder, const std::string& backend_path, uint32_t n_threads) {
    auto manifest = checked_manifest(folder);
    const edgekd_backend& backend = checked_backend(folder, *manifest, backend_path);
    Engine detector(backend, folder, manifest->detector, n_threads);
    Engine encoder(backend, folder, manifest->encoder, n_threads);
    Engine decoder(backend, folder, manifest->decoder, n_threads);
    return std::unique_ptr<Chain>(
        new Chain(std::move(manifest), std::move(detector), std::move(encoder), std::move(decoder)));
}

std::unique_ptr<Chain> Chain::clone() const {
    return std::unique_ptr<Chain>(new Chain(manifest_, detector_.clone(), encoder_.clone(), decoder_.clone()));
}

void Chain::run(const Picture& picture, const RunOptions& options) {
    has_result_ = false;
    times_ms_ = {};
    found_.clear();
    picture_width_px_ = picture.width_px;
    picture_height_px_ = picture.height_px;
    const Clock::time_point start = Clock::now();
    if (options.boxes == nullptr) {
        detect(picture, options.detect);
    } else {
        for (size_t i = 0; i < options.n_boxes; i++) found_.push_back({options.boxes[i], 1, 0});
    }
    if (masks_.size() < found_.size()) masks_.resize(found_.size());
    for (size_t i = 0; i < found_.size(); i++) masks_[i].window = {}, masks_[i].crop.clear();
    predicted_iou_.assign(found_.size(), 0);
    if (!options.boxes_only && !found_.empty()) segment(picture, options.mask);
    times_ms_.total = ms_since(start);
    has_result_ = true;
}

void Chain::detect(const Picture& picture, const DetectOptions& options) {
    const DetectorHead& head = manifest_->head;
    Placement placement;
    {
        const Lap lap(times_ms_.detector_preprocess);
        placement = preprocess(picture, manifest_->detector_input, resize_scratch_, blob_);
    }
    std::vector<edgekd_tensor> outputs = {output("box_logits"), output("class_logits")};
    {
        const Lap lap(times_ms_.detector);
        detector_.infer({image_tensor("images", placement, blob_)}, outputs);
    }
    const Lap lap(times_ms_.detector_postprocess);
    const Size& input = placement.input;
    const size_t n_anchors = count_anchors(head, input.width_px, input.height_px);
    check_shape(outputs[0], {1, 4 * head.reg_max, int64_t(n_anchors)});
    check_shape(outputs[1], {1, -1, int64_t(n_anchors)});
    const HeadMaps maps = {outputs[0].data, outputs[1].data, size_t(outputs[1].dims[1]), n_anchors};
    found_ = suppress(decode(maps, head, input.width_px, input.height_px, options), options, head.end2end);
    if (found_.size() > size_t(manifest_->max_boxes)) found_.resize(size_t(manifest_->max_boxes));
    for (Detection& one : found_) one.box = placement.to_picture(one.box);
}

void Chain::segment(const Picture& picture, const MaskOptions& options) {
    Placement placement;
    {
        const Lap lap(times_ms_.encoder_preprocess);
        placement = preprocess(picture, manifest_->encoder_input, resize_scratch_, blob_);
    }
    std::vector<edgekd_tensor> embeddings = {output("image_embeddings")};
    {
        const Lap lap(times_ms_.encoder);
        encoder_.infer({image_tensor("image", placement, blob_)}, embeddings);
    }
    check_shape(embeddings[0], {1, -1, -1, -1});
    const std::vector<int>& buckets = manifest_->box_buckets;
    const size_t largest = buckets.empty() ? kChunkBoxes : size_t(buckets.back());
    embeddings[0].name = "image_embeddings";
    for (size_t start = 0; start < found_.size(); start += largest) {
        const size_t n = std::min(largest, found_.size() - start);
        decode_chunk(embeddings[0], placement, {start, n, bucket_for(n, buckets)}, options);
    }
}

void Chain::decode_chunk(const edgekd_tensor& embeddings, const Placement& placement, const Chunk& chunk,
                         const MaskOptions& options) {
    std::vector<edgekd_tensor> outputs = {output("low_res_masks"), output("iou_predictions")};
    {
        const Lap lap(times_ms_.decoder);
        prompts_.clear();
        for (size_t i = 0; i < chunk.size; i++) {
            // A bucket is filled up with its last box.
            prompts_.push_back(placement.to_input(found_[chunk.start + std::min(i, chunk.n - 1)].box));
        }
        static_assert(sizeof(Box) == 4 * sizeof(float), "boxes are rows of a float tensor");
        const edgekd_tensor boxes = {"boxes", 2, {int64_t(chunk.size), 4}, &prompts_.front().left};
        decoder_.infer({embeddings, boxes}, outputs);
    }
    const Lap lap(times_ms_.mask_postprocess);
    check_shape(outputs[0], {int64_t(chunk.size), -1, -1});
    check_shape(outputs[1], {int64_t(chunk.size)});
    LogitGrid grid = {outputs[0].data, int(outputs[0].dims[2]), int(outputs[0].dims[1])};
    for (size_t i = 0; i < chunk.n; i++, grid.values += size_t(grid.width) * size_t(grid.height)) {
        upsample_mask(grid, placement, options, mask_scratch_, masks_[chunk.start + i]);
        predicted_iou_[chunk.start + i] = outputs[1].data[i];
    }
}

}  // namespace edgekd
