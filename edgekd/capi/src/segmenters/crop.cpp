// The kind crop: one small network looks at a crop per box, turned with it where the detector is oriented.
#include <algorithm>

#include "../crops.h"
#include "../segmenter.h"
#include "../tensors.h"
#include "../turned_crops.h"

namespace edgekd {
namespace {

class CropSegmenter : public Segmenter {
public:
    CropSegmenter(std::shared_ptr<const Manifest> manifest, Engine network)
        : manifest_(std::move(manifest)), network_(std::move(network)) {}

    std::unique_ptr<Segmenter> clone(const Engine& beside) const override {
        return std::make_unique<CropSegmenter>(manifest_, network_.clone(&beside));
    }

    void run(const Picture& picture, const Found& found, const MaskOptions& options, const Masked& result) override {
        for (const Chunk& chunk : chunks_of(found.boxes.size(), manifest_->box_buckets, kChunkCrops)) {
            segment(picture, found, chunk, options, result);
        }
    }

private:
    void cut_all(const Picture& picture, const Found& found, const Chunk& chunk) {
        const CropInput& spec = manifest_->crop;
        const size_t crop_bytes = size_t(spec.side_px) * size_t(spec.side_px) * 3;
        windows_.clear();
        turns_.clear();
        crops_.resize(chunk.size * crop_bytes);
        for (size_t i = 0; i < chunk.size; i++) {
            uint8_t* to = crops_.data() + i * crop_bytes;
            if (i >= chunk.n) {  // a bucket is filled up with its last box
                std::copy_n(to - crop_bytes, crop_bytes, to);
                continue;
            }
            const Detection& one = found.boxes[chunk.start + i];
            if (one.is_turned) {
                const Framed framed = frame_of(corners_of(one.turned), picture.width_px, picture.height_px);
                windows_.push_back(window_of(framed, spec.window_factor));
                turns_.push_back(framed.turn);
                cut_turned(picture, windows_.back(), turns_.back(), spec, crop_scratch_, to);
            } else {
                windows_.push_back(window_of(one.box, spec.window_factor));
                cut(picture, windows_.back(), spec, crop_scratch_, to);
            }
        }
    }

    void segment(const Picture& picture, const Found& found, const Chunk& chunk, const MaskOptions& options,
                 const Masked& result) {
        {
            const Lap lap(result.times_ms.segmenter_preprocess);
            cut_all(picture, found, chunk);
        }
        const int side = manifest_->crop.side_px;
        std::vector<edgekd_tensor> outputs = {output("mask_logits"), output("predicted_iou")};
        {
            const Lap lap(result.times_ms.segmenter);
            const int64_t n = int64_t(chunk.size);
            network_.infer({{"crops", 4, {n, side, side, 3}, nullptr, crops_.data(), nullptr, 0}}, outputs);
        }
        const Lap lap(result.times_ms.mask_postprocess);
        check_output(outputs[0], {int64_t(chunk.size), side, side});
        check_output(outputs[1], {int64_t(chunk.size)});
        LogitGrid grid = {outputs[0].data, side, side};
        for (size_t i = 0; i < chunk.n; i++, grid.values += size_t(side) * size_t(side)) {
            Mask& mask = result.masks[chunk.start + i];
            if (turns_.empty()) {
                const Lattice lattice = lattice_of(windows_[i], side, picture.width_px, picture.height_px);
                upsample_mask(grid, lattice, options, mask_scratch_, mask);
            } else {
                turned_mask(grid, windows_[i], turns_[i], picture, options, mask_scratch_, mask);
            }
            result.predicted_iou[chunk.start + i] = outputs[1].data[i];
        }
    }

    std::shared_ptr<const Manifest> manifest_;
    Engine network_;
    CropScratch crop_scratch_;
    MaskScratch mask_scratch_;
    std::vector<Window> windows_;
    std::vector<Turn> turns_;  // of the windows where boxes are turned, otherwise empty
    std::vector<uint8_t> crops_;
};

}  // namespace

std::unique_ptr<Segmenter> open_crop(const EngineSource& source, SharedManifest manifest, const Engine& beside) {
    Engine network = source.open(manifest->segmenter, &beside);
    return std::make_unique<CropSegmenter>(std::move(manifest), std::move(network));
}

}  // namespace edgekd
