// The parts inside on the golden vectors that the Python suite reads too: test_golden FOLDER
#include <fstream>

#include "cleanup.h"
#include "golden.h"
#include "masks.h"

namespace {

using namespace edgekd;
using namespace edgekd::golden;

void test_preprocess(const Json& test) {
    const std::vector<uint8_t> pixels = test["pixels"];
    const int height = test["picture_px"][0], width = test["picture_px"][1];
    const Picture picture = {pixels.data(), width, height, size_t(width) * 3, 3, {2, 1, 0}};
    ResizeScratch scratch;
    std::vector<float> blob;
    const Placement placement = preprocess(picture, spec_from(test["spec"]), scratch, blob);
    expect_near(test, "scale_x", placement.scale_x, test["scale"][0], 1e-12);
    expect_near(test, "scale_y", placement.scale_y, test["scale"][1], 1e-12);
    expect_near(test, "left_px", placement.left_px, test["offset_px"][0], 0);
    expect_near(test, "top_px", placement.top_px, test["offset_px"][1], 0);
    expect_near(test, "input height", placement.input.height_px, test["input_px"][0], 0);
    expect_near(test, "input width", placement.input.width_px, test["input_px"][1], 0);
    const std::vector<float> expected = test["blob"];
    if (blob.size() != expected.size()) differ(test, "the blob has another size");
    for (size_t i = 0; i < blob.size(); i++) expect_near(test, "a value", blob[i], expected[i], 1e-5);
}

void test_head(const Json& test) {
    const std::vector<float> box_logits = test["box_logits"], class_logits = test["class_logits"];
    DetectorHead head;
    head.strides_px = test["head"]["strides_px"].get<std::vector<int>>();
    head.reg_max = test["head"]["reg_max"];
    head.end2end = test["head"]["end2end"];
    const int height = test["input_px"][0], width = test["input_px"][1];
    const size_t n_anchors = count_anchors(head, width, height);
    const HeadMaps maps = {box_logits.data(), class_logits.data(), class_logits.size() / n_anchors, n_anchors};
    const DetectOptions options = {test["confidence"], test["iou"], test["max_boxes"], test["multi_label"]};
    const std::vector<Detection> found = decode(maps, head, width, height, options);
    expect_detections(test, found, test["decoded"]);
    expect_detections(test, suppress(found, options, head.end2end), test["kept"]);
}

void test_suppression(const Json& test) {
    std::vector<Detection> found;
    for (const Json& one : test["boxes"]) found.push_back({box_from(one["xyxy"]), one["confidence"], one["class_id"]});
    DetectOptions options;
    options.iou = test["iou"];
    options.max_boxes = test["max_boxes"];
    expect_detections(test, suppress(found, options, false), test["kept"]);
}

void test_prompts(const Json& test) {
    const Placement placement = place(test["picture_px"][1], test["picture_px"][0], spec_from(test["spec"]));
    for (size_t i = 0; i < test["boxes"].size(); i++) {
        expect_box(test, placement.to_input(box_from(test["boxes"][i])), test["in_input"][i], 1e-3);
        expect_box(test, placement.to_picture(box_from(test["boxes"][i])), test["in_picture"][i], 1e-3);
    }
}

void test_masks(const Json& test) {
    const std::vector<float> logits = test["logits"];
    const LogitGrid grid = {logits.data(), test["grid"][1], test["grid"][0]};
    const Placement placement = place(test["picture_px"][1], test["picture_px"][0], spec_from(test["spec"]));
    MaskScratch scratch;
    Mask mask;
    upsample_mask(grid, input_lattice(placement, whole_picture(placement)), {test["threshold"], test["min_region_px"]}, scratch, mask);
    const int window[4] = {mask.window.left, mask.window.top, mask.window.right, mask.window.bottom};
    for (size_t i = 0; i < 4; i++) expect_near(test, "the window", window[i], test["window"][i], 0);
    expect_rows(test, mask.crop, size_t(mask.window.right - mask.window.left), test["rows"]);
}

void test_cleanup(const Json& test) {
    std::vector<uint8_t> mask;
    for (const std::string row : test["rows"]) {
        for (char pixel : row) mask.push_back(uint8_t(pixel - '0'));
    }
    const size_t height = test["rows"].size(), width = mask.size() / height;
    CleanupScratch scratch;
    remove_small_regions(mask.data(), width, height, test["min_region_px"], {}, scratch);
    expect_rows(test, mask, width, test["cleaned"]);
}

void run_all(const std::string& folder, const char* name, void (*check)(const Json&)) {
    std::ifstream file(folder + "/" + name + ".json");
    const Json cases = Json::parse(file);
    for (const Json& test : cases) check(test);
    std::printf("%s: %zu vectors hold\n", name, cases.size());
    if (cases.empty()) std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    run_all(argv[1], "preprocess", test_preprocess);
    run_all(argv[1], "head", test_head);
    run_all(argv[1], "suppression", test_suppression);
    run_all(argv[1], "prompts", test_prompts);
    run_all(argv[1], "masks", test_masks);
    run_all(argv[1], "cleanup", test_cleanup);
    run_all(argv[1], "crops", test_crops);
    run_all(argv[1], "turned", test_turned);
    run_all(argv[1], "yolo_seg", test_yolo_seg);
    return 0;
}
