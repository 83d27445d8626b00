#include "detect.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace edgekd {
namespace {

// More candidates than this never survive suppression in a useful way and cost quadratic time.
constexpr size_t kMaxCandidates = 10000;

struct Candidate {
    size_t anchor;
    float logit;
    int class_id;
};

struct Cell {
    float x, y, stride;  // centre in cells; the stride in input pixels
};

Cell cell_of(size_t anchor, const DetectorHead& head, int width_px, int height_px) {
    for (int stride : head.strides_px) {
        const size_t columns = size_t(width_px / stride), cells = columns * size_t(height_px / stride);
        if (anchor < cells) return {float(anchor % columns) + 0.5f, float(anchor / columns) + 0.5f, float(stride)};
        anchor -= cells;
    }
    return {};
}

// Softmax-weighted mean of the bins, in cells (Generalized Focal Loss, Li et al. 2020, eq. 4). Bins lie `step` apart.
float expected_distance(const float* logits, size_t step, int reg_max) {
    if (reg_max == 1) return logits[0];
    float highest = logits[0];
    for (int bin = 1; bin < reg_max; bin++) highest = std::max(highest, logits[size_t(bin) * step]);
    float weighted = 0, sum = 0;
    for (int bin = 0; bin < reg_max; bin++) {
        const float weight = std::exp(logits[size_t(bin) * step] - highest);
        weighted += weight * float(bin);
        sum += weight;
    }
    return weighted / sum;
}

std::vector<Candidate> every_label(const HeadMaps& maps, float threshold) {
    std::vector<Candidate> candidates;
    for (size_t c = 0; c < maps.n_classes; c++) {
        const float* logits = maps.class_logits + c * maps.n_anchors;
        for (size_t anchor = 0; anchor < maps.n_anchors; anchor++) {
            if (logits[anchor] > threshold) candidates.push_back({anchor, logits[anchor], int(c)});
        }
    }
    return candidates;
}

std::vector<Candidate> best_label(const HeadMaps& maps, float threshold) {
    std::vector<float> best(maps.class_logits, maps.class_logits + maps.n_anchors);
    for (size_t c = 1; c < maps.n_classes; c++) {
        const float* logits = maps.class_logits + c * maps.n_anchors;
        for (size_t anchor = 0; anchor < maps.n_anchors; anchor++) {
            best[anchor] = logits[anchor] > best[anchor] ? logits[anchor] : best[anchor];
        }
    }
    std::vector<Candidate> candidates;
    for (size_t anchor = 0; anchor < maps.n_anchors; anchor++) {
        if (!(best[anchor] > threshold)) continue;
        size_t c = 0;
        while (c + 1 < maps.n_classes && maps.class_logits[c * maps.n_anchors + anchor] != best[anchor]) c++;
        candidates.push_back({anchor, best[anchor], int(c)});
    }
    return candidates;
}

using Sides = std::array<float, 4>;  // left, top, right, bottom in cells

Sides sides_of(const HeadMaps& maps, const DetectorHead& head, size_t anchor) {
    Sides sides{};
    for (size_t side = 0; side < 4; side++) {
        const float* logits = maps.box_logits + side * size_t(head.reg_max) * maps.n_anchors + anchor;
        sides[side] = expected_distance(logits, maps.n_anchors, head.reg_max);
    }
    return sides;
}

// The distances from an anchor to the sides count along the turned axes.
TurnedBox turned_box_of(const Sides& sides, const Cell& cell, double angle) {
    const double x = (double(sides[2]) - sides[0]) / 2, y = (double(sides[3]) - sides[1]) / 2;
    const double cosine = std::cos(angle), sine = std::sin(angle), stride = cell.stride;
    return {(cell.x + x * cosine - y * sine) * stride, (cell.y + x * sine + y * cosine) * stride,
            std::max(double(sides[0]) + sides[2], 0.0) * stride, std::max(double(sides[1]) + sides[3], 0.0) * stride,
            angle};
}

// From -pi / 4 to 3 pi / 4 where it is a logit, as Ultralytics defines it.
double angle_of(float logit, const DetectorHead& head) {
    constexpr double pi = 3.14159265358979323846;
    return head.angle_in_radians ? double(logit) : (1 / (1 + std::exp(-double(logit))) - 0.25) * pi;
}

Box box_of(const Sides& sides, const Cell& cell) {
    return {(cell.x - sides[0]) * cell.stride, (cell.y - sides[1]) * cell.stride, (cell.x + sides[2]) * cell.stride,
            (cell.y + sides[3]) * cell.stride};
}

// Intersection over union. Two boxes without area count as the same one, as in OpenCV's suppression.
float overlap(const Box& a, const Box& b) {
    const double a_width = a.right - a.left, a_height = a.bottom - a.top;
    const double b_width = b.right - b.left, b_height = b.bottom - b.top;
    const double areas = a_width * a_height + b_width * b_height;
    if (areas <= 0) return 1;
    const double width = std::min(a.left + a_width, b.left + b_width) - double(std::max(a.left, b.left));
    const double height = std::min(a.top + a_height, b.top + b_height) - double(std::max(a.top, b.top));
    const double shared = width > 0 && height > 0 ? width * height : 0;
    return float(shared / (areas - shared));
}

}  // namespace

size_t count_anchors(const DetectorHead& head, int width_px, int height_px) {
    size_t n = 0;
    for (int stride : head.strides_px) n += size_t(width_px / stride) * size_t(height_px / stride);
    return n;
}

std::vector<Detection> decode(const HeadMaps& maps, const DetectorHead& head, int width_px, int height_px,
                              const DetectOptions& options) {
    const double odds = double(options.confidence) / (1 - double(options.confidence));
    const float threshold = float(std::log(odds));
    std::vector<Candidate> candidates = options.multi_label ? every_label(maps, threshold) : best_label(maps, threshold);
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
    candidates.resize(std::min(candidates.size(), kMaxCandidates));
    std::vector<Detection> found;
    found.reserve(candidates.size());
    for (const Candidate& one : candidates) {
        const Cell cell = cell_of(one.anchor, head, width_px, height_px);
        const Sides sides = sides_of(maps, head, one.anchor);
        found.push_back({box_of(sides, cell), 1 / (1 + std::exp(-one.logit)), one.class_id, one.anchor});
        if (maps.angle_logits == nullptr) continue;
        Detection& last = found.back();
        last.is_turned = true;
        last.turned = turned_box_of(sides, cell, angle_of(maps.angle_logits[one.anchor], head));
        last.box = enclosing(corners_of(last.turned));
    }
    return found;
}

namespace {

std::vector<Detection> suppress_turned(const std::vector<Detection>& found, const DetectOptions& options) {
    std::vector<Gaussian> shapes;
    shapes.reserve(found.size());
    for (const Detection& one : found) shapes.push_back(gaussian_of(one.turned));
    std::vector<Detection> kept;
    for (size_t i = 0; i < found.size() && kept.size() < options.max_boxes; i++) {
        bool repeats = false;
        for (size_t better = 0; better < i && !repeats; better++) {
            repeats = found[better].class_id == found[i].class_id && probiou(shapes[better], shapes[i]) > options.iou;
        }
        if (!repeats) kept.push_back(found[i]);
    }
    return kept;
}

}  // namespace

std::vector<Detection> suppress(const std::vector<Detection>& found, const DetectOptions& options, bool end2end) {
    if (!end2end && !found.empty() && found.front().is_turned) return suppress_turned(found, options);
    std::vector<Detection> kept;
    for (const Detection& one : found) {
        if (kept.size() == options.max_boxes) break;
        const bool repeats = !end2end && std::any_of(kept.begin(), kept.end(), [&](const Detection& better) {
            return better.class_id == one.class_id && overlap(better.box, one.box) > options.iou;
        });
        if (!repeats) kept.push_back(one);
    }
    return kept;
}

void to_picture(Detection& one, const Placement& placement) {
    if (!one.is_turned) {
        one.box = placement.to_picture(one.box);
        return;
    }
    one.turned = to_picture(one.turned, placement);
    const float width = float(placement.picture_width_px), height = float(placement.picture_height_px);
    const Box around = enclosing(corners_of(one.turned));
    one.box = {std::clamp(around.left, 0.0f, width), std::clamp(around.top, 0.0f, height),
               std::clamp(around.right, 0.0f, width), std::clamp(around.bottom, 0.0f, height)};
}

}  // namespace edgekd
