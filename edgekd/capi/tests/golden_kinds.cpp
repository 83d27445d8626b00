// Golden vectors of turned boxes and of the kind yolo-seg.
#include "golden.h"
#include "oriented.h"
#include "segmenter.h"

namespace edgekd::golden {
namespace {

edgekd_tensor tensor(std::vector<float>& values, std::vector<int64_t> dims) {
    edgekd_tensor made{"", uint32_t(dims.size()), {}, values.data(), nullptr};
    std::copy(dims.begin(), dims.end(), made.dims);
    return made;
}

}  // namespace

void test_turned(const Json& test) {
    const std::vector<float> box_logits = test["box_logits"], class_logits = test["class_logits"];
    const std::vector<float> angle_logits = test["angle_logits"];
    DetectorHead head;
    head.strides_px = test["head"]["strides_px"].get<std::vector<int>>();
    head.reg_max = test["head"]["reg_max"];
    head.oriented = test["head"]["name"] == "obb";
    head.angle_in_radians = test["head"]["angle"] == "radians";
    const Placement placement = place(test["picture_px"][1], test["picture_px"][0], spec_from(test["spec"]));
    const Size input = placement.input;
    const size_t n_anchors = count_anchors(head, input.width_px, input.height_px);
    const HeadMaps maps = {box_logits.data(), class_logits.data(), class_logits.size() / n_anchors, n_anchors,
                           angle_logits.data()};
    const DetectOptions options = {test["confidence"], test["iou"], test["max_boxes"], test["multi_label"]};
    std::vector<Detection> found =
        suppress(decode(maps, head, input.width_px, input.height_px, options), options, false);
    for (Detection& one : found) to_picture(one, placement);
    expect_detections(test, found, test["kept"]);
    for (size_t i = 0; i < found.size(); i++) {
        const Corners corners = corners_of(found[i].turned);
        for (size_t k = 0; k < corners.size(); k++) {
            expect_near(test, "a corner", corners[k], test["kept"][i]["corners"][k], 1e-3);
        }
    }
}

void test_yolo_seg(const Json& test) {
    auto manifest = std::make_shared<Manifest>();
    manifest->kind = Kind::yolo_seg;
    std::vector<float> prototypes = test["prototypes"], coefficients = test["coefficients"];
    Found found;
    found.placement = place(test["picture_px"][1], test["picture_px"][0], spec_from(test["spec"]));
    const int64_t height = found.placement.input.height_px / 4, width = found.placement.input.width_px / 4;
    const int64_t n = int64_t(prototypes.size()) / (height * width);
    const int64_t n_anchors = int64_t(coefficients.size()) / n;
    manifest->head.n_coefficients = int(n);
    found.outputs = {tensor(coefficients, {1, 4, n_anchors}), tensor(coefficients, {1, 1, n_anchors}),
                     tensor(coefficients, {1, n, n_anchors}), tensor(prototypes, {1, n, height, width})};
    for (size_t i = 0; i < test["boxes"].size(); i++) {
        found.boxes.push_back({box_from(test["boxes"][i]), 1, 0, test["anchors"][i]});
    }
    std::vector<Mask> masks(found.boxes.size());
    std::vector<float> predicted_iou(masks.size());
    Times times;
    open_yolo_seg(manifest)->run({}, found, {test["threshold"], 0}, {masks, predicted_iou, times});
    for (size_t i = 0; i < masks.size(); i++) {
        const Window& window = masks[i].window;
        const int edges[4] = {window.left, window.top, window.right, window.bottom};
        for (size_t k = 0; k < 4; k++) expect_near(test, "a window", edges[k], test["windows"][i][k], 0);
        expect_rows(test, masks[i].crop, size_t(window.right - window.left), test["rows"][i]);
    }
}

}  // namespace edgekd::golden
