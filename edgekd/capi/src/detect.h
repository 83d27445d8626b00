// Raw head maps become boxes: threshold, DFL decoding, non-maximum suppression; mirrors runtime/detect.py.
#pragma once

#include <vector>

#include "manifest.h"
#include "oriented.h"
#include "preprocess.h"

namespace edgekd {

struct DetectOptions {
    float confidence = 0.25f;
    float iou = 0.7f;
    size_t max_boxes = 300;
    bool multi_label = false;
};

struct Detection {
    Box box;
    float confidence;
    int class_id;
    size_t anchor = 0;  // that gave it
    bool is_turned = false;
    TurnedBox turned{};  // of an oriented detector; `box` is then the upright one around it
};

// The detector's outputs for one picture: (4 * reg_max, n_anchors) and (n_classes, n_anchors), float32 in C order; an
// oriented head adds (n_anchors).
struct HeadMaps {
    const float* box_logits;
    const float* class_logits;
    size_t n_classes;
    size_t n_anchors;
    const float* angle_logits = nullptr;
};

// Cells of all strides in an input of this size.
size_t count_anchors(const DetectorHead& head, int width_px, int height_px);

// Boxes in input pixels before suppression, most confident first.
std::vector<Detection> decode(const HeadMaps& maps, const DetectorHead& head, int width_px, int height_px,
                              const DetectOptions& options);

// Keep the most confident of the boxes of one class that overlap, and at most max_boxes. Turned boxes are compared by
// ProbIoU, and fall to any better one, also to one that falls itself (Fast NMS, as Ultralytics runs it).
std::vector<Detection> suppress(const std::vector<Detection>& found, const DetectOptions& options, bool end2end);

// Bring a box from input to picture pixels; an upright one, and the one around a turned one, is clipped to the picture.
void to_picture(Detection& one, const Placement& placement);

}  // namespace edgekd
