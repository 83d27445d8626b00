// Golden vectors of crops, of turned boxes and of the kind yolo-seg.
#include <algorithm>

#include "golden.h"
#include "oriented.h"
#include "segmenter.h"
#include "turned_crops.h"

namespace edgekd::golden {
namespace {

edgekd_tensor tensor(std::vector<float>& values, std::vector<int64_t> dims) {
    edgekd_tensor made{"", uint32_t(dims.size()), {}, values.data(), nullptr, nullptr, 0};
    std::copy(dims.begin(), dims.end(), made.dims);
    return made;
}

void expect_window(const Json& test, const Window& window, const Json& expected) {
    const int edges[4] = {window.left, window.top, window.right, window.bottom};
    for (size_t k = 0; k < 4; k++) expect_near(test, "a window", edges[k], expected[k], 0);
}

void expect_cut(const Json& test, const std::vector<uint8_t>& pixels) {
    const std::vector<uint8_t> expected = test["cut"];
    if (pixels != expected) differ(test, "the crop has other pixels");
}

// An upright box is cut and pasted by the functions for upright ones too.
void test_upright_crop(const Json& test, const Picture& picture, const CropInput& spec, const LogitGrid& grid,
                       const MaskOptions& options) {
    const std::vector<float> corners = test["corners"];
    const auto limited = [](float value, int limit) { return std::clamp(value, 0.0f, float(limit)); };
    const Box box = {limited(corners[0], picture.width_px), limited(corners[1], picture.height_px),
                     limited(corners[4], picture.width_px), limited(corners[5], picture.height_px)};
    const Window window = window_of(box, spec.window_factor);
    expect_window(test, window, test["frame"]);
    CropScratch scratch;
    std::vector<uint8_t> pixels(size_t(spec.side_px) * size_t(spec.side_px) * 3);
    cut(picture, window, spec, scratch, pixels.data());
    expect_cut(test, pixels);
    Mask mask;
    MaskScratch mask_scratch;
    const Lattice lattice = lattice_of(window, spec.side_px, picture.width_px, picture.height_px);
    upsample_mask(grid, lattice, options, mask_scratch, mask);
    expect_window(test, mask.window, test["window"]);
    expect_rows(test, mask.crop, size_t(mask.window.right - mask.window.left), test["rows"]);
}

}  // namespace

void test_crops(const Json& test) {
    const std::vector<uint8_t> source = test["pixels"];
    const int height = test["picture_px"][0], width = test["picture_px"][1];
    const Picture picture = {source.data(), width, height, size_t(width) * 3, 3, {2, 1, 0}};
    CropInput spec;
    spec.side_px = test["crop"]["side_px"], spec.window_factor = test["crop"]["window_factor"];
    spec.pad = test["crop"]["pad"];
    const std::vector<float> quad = test["corners"], logits = test["logits"];
    Corners corners{};
    std::copy(quad.begin(), quad.end(), corners.begin());
    const Framed framed = frame_of(corners, width, height);
    const Window window = window_of(framed, spec.window_factor);
    expect_window(test, window, test["frame"]);
    CropScratch scratch;
    std::vector<uint8_t> pixels(size_t(spec.side_px) * size_t(spec.side_px) * 3);
    cut_turned(picture, window, framed.turn, spec, scratch, pixels.data());
    expect_cut(test, pixels);
    const LogitGrid grid = {logits.data(), spec.side_px, spec.side_px};
    const MaskOptions options = {test["threshold"], test["min_region_px"]};
    Mask mask;
    MaskScratch mask_scratch;
    turned_mask(grid, window, framed.turn, picture, options, mask_scratch, mask);
    expect_window(test, mask.window, test["window"]);
    expect_rows(test, mask.crop, size_t(mask.window.right - mask.window.left), test["rows"]);
    if (framed.turn.sine == 0 && framed.turn.cosine == 1) test_upright_crop(test, picture, spec, grid, options);
}

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
        expect_window(test, masks[i].window, test["windows"][i]);
        expect_rows(test, masks[i].crop, size_t(masks[i].window.right - masks[i].window.left), test["rows"][i]);
    }
}

}  // namespace edgekd::golden
