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

// One direction: `factor` fine cells per cell of 4 px; the picture takes `n_fine` of them from `start` on.
struct SegAxis {
    int factor, start, n_fine, n_cells;
    double scale;

    // Fine cells that samples at the pixels from `first_px` to `last_px` (exclusive) of the picture read; one at least.
    Cells fine(int first_px, int last_px) const {
        const double per_px = scale * factor / kCellPx;
        const int low = int(std::floor((first_px + 0.5) * per_px - 0.5));
        const int high = int(std::floor((last_px - 0.5) * per_px - 0.5)) + 2;
        const int first = std::min(std::max(low, 0), n_fine - 1);
        return {first, std::min(std::max(high, first + 1), n_fine)};
    }

    // Cells of the prototypes that these fine cells are interpolated from.
    Cells cells(const Cells& fine) const {
        const int low = int(std::floor((start + fine.first + 0.5) / factor - 0.5));
        const int high = int(std::floor((start + fine.last - 1 + 0.5) / factor - 0.5));
        return {std::max(low, 0), std::min(high + 2, n_cells)};
    }
};

// How many fine cells a cell is divided into per side, so that the padding of the input ends with one: 1, 2 or 4.
int finer_cells(const Placement& placement) {
    const int x = placement.input.width_px - placement.resized_width_px;
    const int y = placement.input.height_px - placement.resized_height_px;
    const int padding = x | x / 2 | y | y / 2;
    return padding % 4 == 0 ? 1 : padding % 2 == 0 ? 2 : 4;
}

SegAxis axis_of(int factor, int padding_px, int resized_px, int n_cells, double scale) {
    return {factor, padding_px * factor / kCellPx, resized_px * factor / kCellPx, n_cells, scale};
}

int ceiled(float value) {
    return int(std::ceil(value));
}

class YoloSegSegmenter : public Segmenter {
public:
    explicit YoloSegSegmenter(std::shared_ptr<const Manifest> manifest) : manifest_(std::move(manifest)) {}

    std::unique_ptr<Segmenter> clone(const Engine&) const override { return std::make_unique<YoloSegSegmenter>(manifest_); }

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
        const int factor = finer_cells(placement);
        const SegAxis across =
            axis_of(factor, placement.left_px, placement.resized_width_px, grid_width, placement.scale_x);
        const SegAxis down =
            axis_of(factor, placement.top_px, placement.resized_height_px, grid_height, placement.scale_y);
        const Cells columns = across.fine(limits.left, limits.right), rows = down.fine(limits.top, limits.bottom);
        const Cells x = across.cells(columns), y = down.cells(rows);
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
        LogitGrid grid = {logits_.data(), int(width), int(height)};
        if (factor > 1) {
            const Window window = {across.start + columns.first, down.start + rows.first, across.start + columns.last,
                                   down.start + rows.last};
            const double per_cell = 1.0 / factor;
            upsample(grid, {per_cell, per_cell, -double(x.first), -double(y.first), 1, 1, window, 0, 0}, window, fine_);
            grid = {fine_.data(), columns.last - columns.first, rows.last - rows.first};
        }
        const double size = double(kCellPx) / factor;
        const Lattice lattice = {placement.scale_x, placement.scale_y, -columns.first * size, -rows.first * size, size,
                                 size, limits, placement.picture_width_px, placement.picture_height_px};
        upsample_mask(grid, lattice, options, mask_scratch_, mask);
    }

    std::shared_ptr<const Manifest> manifest_;
    MaskScratch mask_scratch_;
    std::vector<float> weights_, logits_, fine_;
};

}  // namespace

std::unique_ptr<Segmenter> open_yolo_seg(SharedManifest manifest) {
    return std::make_unique<YoloSegSegmenter>(std::move(manifest));
}

}  // namespace edgekd
