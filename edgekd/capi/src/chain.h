// The chain: a picture in, boxes and masks out, with the milliseconds of every stage; mirrors runtime/chain.py.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "segmenter.h"

namespace edgekd {

struct RunOptions {
    DetectOptions detect;
    MaskOptions mask;
    bool boxes_only = false;
    const Box* boxes = nullptr;  // the caller's; nullptr: the detector's
    size_t n_boxes = 0;
};

// How a bundle is opened; empty texts are those of edgekd_open_options that are NULL.
struct OpenOptions {
    std::string backend_path, public_key;
    uint32_t n_threads = 0;
};

class Chain {
public:
    // Check the bundle and load its networks.
    static std::unique_ptr<Chain> open(const std::string& folder, const OpenOptions& options);

    // A chain for another thread; it shares manifest and weights, not the result.
    std::unique_ptr<Chain> clone() const;

    void run(const Picture& picture, const RunOptions& options);

    // A run that cannot even start leaves no result behind either.
    void forget_result() { has_result_ = false; }

    const Manifest& manifest() const { return *manifest_; }

    // The result of the last run.
    bool has_result() const { return has_result_; }
    const std::vector<Detection>& found() const { return found_.boxes; }
    const Mask& mask(size_t index) const { return masks_[index]; }  // empty when only boxes were asked for
    float predicted_iou(size_t index) const { return predicted_iou_[index]; }
    int picture_width_px() const { return picture_width_px_; }
    int picture_height_px() const { return picture_height_px_; }
    const Times& times_ms() const { return times_ms_; }

private:
    Chain(std::shared_ptr<const Manifest> manifest, Engine detector, std::unique_ptr<Segmenter> segmenter);

    void take(const Picture& picture, const RunOptions& options);
    void detect(const Picture& picture, const DetectOptions& options);

    std::shared_ptr<const Manifest> manifest_;
    Engine detector_;
    std::unique_ptr<Segmenter> segmenter_;

    bool has_result_ = false;
    Found found_;
    std::vector<Mask> masks_;  // may be longer than the boxes: it keeps its memory from run to run
    std::vector<float> predicted_iou_;
    int picture_width_px_ = 0, picture_height_px_ = 0;
    Times times_ms_;

    ResizeScratch resize_scratch_;
    std::vector<float> blob_;
};

}  // namespace edgekd
