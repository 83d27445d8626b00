// The part of a chain that makes masks, one class per kind of bundle; mirrors runtime/segmenters.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "detect.h"
#include "engine.h"
#include "manifest.h"
#include "masks.h"
#include "picture.h"
#include "times.h"

namespace edgekd {

// Boxes in picture pixels and, where the detector found them, what it said of the picture.
struct Found {
    std::vector<Detection> boxes;
    std::vector<edgekd_tensor> outputs;  // of the detector, valid until it runs again; empty for given boxes
    Placement placement;                 // of the picture in the detector's input
};

// What a segmenter fills in, for every box.
struct Masked {
    std::vector<Mask>& masks;
    std::vector<float>& predicted_iou;
    Times& times_ms;
};

class Segmenter {
public:
    virtual ~Segmenter() = default;

    // A segmenter for another thread, that of the engine `beside`; it shares the weights.
    virtual std::unique_ptr<Segmenter> clone(const Engine& beside) const = 0;

    // Can it segment boxes that did not come from the bundle's own detector?
    virtual bool takes_boxes() const { return true; }

    // Segment every box; there is at least one.
    virtual void run(const Picture& picture, const Found& found, const MaskOptions& options, const Masked& result) = 0;
};

// What engines are opened with; all of a chain serve one thread.
struct EngineSource {
    const edgekd_backend& backend;
    const std::string& folder;
    uint32_t n_threads;

    Engine open(const EngineStage& stage, const Engine* beside) const {
        return Engine(backend, folder, stage, n_threads, beside);
    }
};

// One maker per kind, each in its own file.
using SharedManifest = std::shared_ptr<const Manifest>;
std::unique_ptr<Segmenter> open_sam(const EngineSource& source, SharedManifest manifest, const Engine& beside);
std::unique_ptr<Segmenter> open_crop(const EngineSource& source, SharedManifest manifest, const Engine& beside);
std::unique_ptr<Segmenter> open_yolo_seg(SharedManifest manifest);

}  // namespace edgekd
