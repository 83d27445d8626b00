// The kind yolo-seg: the detector brings prototypes for the picture and coefficients for every box.
#include <algorithm>
#include <cmath>

#include "../error.h"
#include "../segmenter.h"
#include "../tensors.h"

namespace edgekd {
namespace {

// Cells [first, last) along one axis.
struct Cells {
    int first, last;
};

// The cells that bilinear samples at the pixels from `first` to `last` (exclusive) read; one at least.
Cells cells_of(int first, int last, double scale, int offset, int n_cells) {
    const int low = int(std::floor(((first + 0.5) * scale + offset) / kCellPx - 0.5));
    const int high = int(std::floor(((last - 0.5) * scale + offset) / kCellPx - 0.5)) + 2;
    const int start = std::min(std::max(low, 0), n_cells - 1);
    return {start, std::min(std::max(high, start + 1), n_cells)};
}

int ceiled(float value) {
    return int(std::ceil(value));
}

class YoloSegSegmenter : public Segmenter {
public:
    explicit YoloSegSegmenter(std::shared_ptr<const Manifest> manifest) : manifest_(std::move(manifest)) {}

    std::unique_ptr<Segmenter> clone() const override { return std::make_unique<YoloSegSegmenter>(manifest_); }

    bool takes_boxes() const override { return false; }

    void run(const Picture&, const Found& found, const MaskOptions& options, const Masked& result) override {
        const Lap lap(result.times_ms.mask_postprocess);
        const int64_t n = manifest_->head.n_coefficients, n_anchors = found.outputs.at(0).dims[2];
        const edgekd_tensor &coefficients = found.outputs.at(2), &prototypes = found.outputs.at(3);
        check_output(coefficients, {1, n, n_anchors});
        check_output(prototypes, {1, n, -1, -1});
        for (size_t i = 0; i < found.boxes.size(); i++) {
            const Detection& one = found.boxes[i];
            weights_.clear();
            for (int64_t k = 0; k < n; k++) weights_.push_back(coefficients.data[size_t(k * n_anchors) + one.anchor]);
            segment(one.box, found.placement, prototypes, options, result.masks[i]);
            result.predicted_iou[i] = one.confidence;  // the network does not rate its masks
        }
    }

private:
    void segment(const Box& box, const Placement& placement, const edgekd_tensor& prototypes,
                 const MaskOptions& options, Mask& mask) {
        const Window limits = {ceiled(box.left), ceiled(box.top), ceiled(box.right), ceiled(box.bottom)};
        const int grid_width = int(prototypes.dims[3]), grid_height = int(prototypes.dims[2]);
        const Cells x = cells_of(limits.left, limits.right, placement.scale_x, placement.left_px, grid_width);
        const Cells y = cells_of(limits.top, limits.bottom, placement.scale_y, placement.top_px, grid_height);
        const size_t width = size_t(x.last - x.first), height = size_t(y.last - y.first);
        logits_.assign(width * height, 0);
        const float* plane = prototypes.data;
        for (float weight : weights_) {
            for (size_t row = 0; row < height; row++) {
                const float* from = plane + (size_t(y.first) + row) * size_t(grid_width) + size_t(x.first);
                float* to = logits_.data() + row * width;
                for (size_t column = 0; column < width; column++) to[column] += weight * from[column];
            }
            plane += size_t(grid_width) * size_t(grid_height);
        }
        const LogitGrid grid = {logits_.data(), int(width), int(height)};
        upsample_mask(grid, input_lattice(placement, limits, x.first, y.first), options, mask_scratch_, mask);
    }

    std::shared_ptr<const Manifest> manifest_;
    MaskScratch mask_scratch_;
    std::vector<float> weights_, logits_;
};

}  // namespace

std::unique_ptr<Segmenter> open_yolo_seg(std::shared_ptr<const Manifest> manifest) {
    return std::make_unique<YoloSegSegmenter>(std::move(manifest));
}

}  // namespace edgekd
