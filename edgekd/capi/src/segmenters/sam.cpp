// The kind sam: the picture is embedded once, then every box prompts the decoder.
#include <algorithm>

#include "../segmenter.h"
#include "../tensors.h"

namespace edgekd {
namespace {

class SamSegmenter : public Segmenter {
public:
    SamSegmenter(std::shared_ptr<const Manifest> manifest, Engine encoder, Engine decoder)
        : manifest_(std::move(manifest)), encoder_(std::move(encoder)), decoder_(std::move(decoder)) {
        const std::vector<std::string>& names = manifest_->decoder.outputs;
        // Graphs that were exported before have the former name.
        if (std::find(names.begin(), names.end(), "predicted_iou") == names.end()) iou_name_ = "iou_predictions";
    }

    std::unique_ptr<Segmenter> clone(const Engine& beside) const override {
        return std::make_unique<SamSegmenter>(manifest_, encoder_.clone(&beside), decoder_.clone(&beside));
    }

    void run(const Picture& picture, const Found& found, const MaskOptions& options, const Masked& result) override {
        Placement placement;
        {
            const Lap lap(result.times_ms.encoder_preprocess);
            placement = preprocess(picture, manifest_->encoder_input, resize_scratch_, blob_);
        }
        std::vector<edgekd_tensor> embeddings = {output("image_embeddings")};
        embeddings[0].stays = 1;  // on a GPU, for the decoder
        {
            const Lap lap(result.times_ms.encoder);
            encoder_.infer({image_tensor("image", placement, blob_)}, embeddings);
        }
        check_shape(embeddings[0], {1, -1, -1, -1});  // a value that is no number shows in the decoder's outputs
        embeddings[0].name = "image_embeddings";
        for (const Chunk& chunk : chunks_of(found.boxes.size(), manifest_->box_buckets, kChunkBoxes)) {
            decode(embeddings[0], placement, found, chunk, options, result);
        }
    }

private:
    void decode(const edgekd_tensor& embeddings, const Placement& placement, const Found& found, const Chunk& chunk,
                const MaskOptions& options, const Masked& result) {
        std::vector<edgekd_tensor> outputs = {output("low_res_masks"), output(iou_name_)};
        {
            const Lap lap(result.times_ms.decoder);
            prompts_.clear();
            for (size_t i = 0; i < chunk.size; i++) {
                // A bucket is filled up with its last box.
                prompts_.push_back(placement.to_input(found.boxes[chunk.start + std::min(i, chunk.n - 1)].box));
            }
            static_assert(sizeof(Box) == 4 * sizeof(float), "boxes are rows of a float tensor");
            const edgekd_tensor boxes = {"boxes", 2, {int64_t(chunk.size), 4}, &prompts_.front().left, nullptr, nullptr, 0};
            decoder_.infer({embeddings, boxes}, outputs);
        }
        const Lap lap(result.times_ms.mask_postprocess);
        check_output(outputs[0], {int64_t(chunk.size), -1, -1});
        check_output(outputs[1], {int64_t(chunk.size)});
        const Lattice lattice = input_lattice(placement, whole_picture(placement));
        LogitGrid grid = {outputs[0].data, int(outputs[0].dims[2]), int(outputs[0].dims[1])};
        for (size_t i = 0; i < chunk.n; i++, grid.values += size_t(grid.width) * size_t(grid.height)) {
            upsample_mask(grid, lattice, options, mask_scratch_, result.masks[chunk.start + i]);
            result.predicted_iou[chunk.start + i] = outputs[1].data[i];
        }
    }

    std::shared_ptr<const Manifest> manifest_;
    Engine encoder_, decoder_;
    const char* iou_name_ = "predicted_iou";
    ResizeScratch resize_scratch_;
    MaskScratch mask_scratch_;
    std::vector<float> blob_;
    std::vector<Box> prompts_;
};

}  // namespace

std::unique_ptr<Segmenter> open_sam(const EngineSource& source, SharedManifest manifest, const Engine& beside) {
    Engine encoder = source.open(manifest->encoder, &beside);
    Engine decoder = source.open(manifest->decoder, &beside);
    return std::make_unique<SamSegmenter>(std::move(manifest), std::move(encoder), std::move(decoder));
}

}  // namespace edgekd
