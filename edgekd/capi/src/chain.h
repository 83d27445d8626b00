// The chain: a picture in, boxes and masks out, with the milliseconds of every stage; mirrors runtime/chain.py.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "detect.h"
#include "engine.h"
#include "manifest.h"
#include "masks.h"
#include "picture.h"

namespace edgekd {

struct RunOptions {
    DetectOptions detect;
    MaskOptions mask;
    bool boxes_only = false;
    const Box* boxes = nullptr;  // the caller's; nullptr: the detector's
    size_t n_boxes = 0;
};

// Milliseconds; 0 for a stage that did not run.
struct Times {
    double total = 0, detector_preprocess = 0, detector = 0, detector_postprocess = 0;
    double encoder_preprocess = 0, encoder = 0, decoder = 0, mask_postprocess = 0;
};

class Chain {
public:
    // Check the bundle and load its networks; `backend_path` is empty for the folder of this library.
    static std::unique_ptr<Chain> open(const std::string& folder, const std::string& backend_path, uint32_t n_threads);

    // A chain for another thread; it shares manifest and weights, not the result.
    std::unique_ptr<Chain> clone() const;

    void run(const Picture& picture, const RunOptions& options);

    // A run that cannot even start leaves no result behind either.
    void forget_result() { has_result_ = false; }

    const Manifest& manifest() const { return *manifest_; }

    // The result of the last run.
    bool has_result() const { return has_result_; }
    const std::vector<Detection>& found() const { return found_; }
    const Mask& mask(size_t index) const { return masks_[index]; }  // empty when only boxes were asked for
    float predicted_iou(size_t index) const { return predicted_iou_[index]; }
    int picture_width_px() const { return picture_width_px_; }
    int picture_height_px() const { return picture_height_px_; }
    const Times& times_ms() const { return times_ms_; }

private:
    // `n` boxes from `start`, in a call of the decoder with `size` boxes.
    struct Chunk {
        size_t start, n, size;
    };

    Chain(std::shared_ptr<const Manifest> manifest, Engine detector, Engine encoder, Engine decoder);

    void detect(const Picture& picture, const DetectOptions& options);
    void segment(const Picture& picture, const MaskOptions& options);
    void decode_chunk(const edgekd_tensor& embeddings, const Placement& placement, const Chunk& chunk,
                      const MaskOptions& options);

    std::shared_ptr<const Manifest> manifest_;
    Engine detector_, encoder_, decoder_;

    bool has_result_ = false;
    std::vector<Detection> found_;
    std::vector<Mask> masks_;  // may be longer than found_: it keeps its memory from run to run
    std::vector<float> predicted_iou_;
    int picture_width_px_ = 0, picture_height_px_ = 0;
    Times times_ms_;

    ResizeScratch resize_scratch_;
    MaskScratch mask_scratch_;
    std::vector<float> blob_;
    std::vector<Box> prompts_;
};

}  // namespace edgekd
