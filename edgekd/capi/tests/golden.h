// What the golden tests share: vectors as JSON, and comparisons that end the program with the name of the vector.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "detect.h"
#include "preprocess.h"

namespace edgekd::golden {

using Json = nlohmann::json;

[[noreturn]] inline void differ(const Json& test, const std::string& what) {
    std::fprintf(stderr, "%s: %s\n", test["name"].get<std::string>().c_str(), what.c_str());
    std::exit(1);
}

inline void expect_near(const Json& test, const char* what, double value, double expected, double tolerance) {
    if (!(std::fabs(value - expected) <= tolerance)) {
        differ(test, std::string(what) + " is " + std::to_string(value) + ", expected " + std::to_string(expected));
    }
}

inline ImageInput spec_from(const Json& json) {
    ImageInput spec;
    spec.full = {json["height_px"], json["width_px"]};
    for (const Json& size : json["smaller_sizes_px"]) spec.smaller.push_back({size[0], size[1]});
    spec.centre = json["place"] == "centre", spec.area = json["interpolation"] == "area";
    spec.mean = json["mean"], spec.std = json["std"], spec.pad = json["pad"];
    return spec;
}

inline Box box_from(const Json& json) {
    return {json[0], json[1], json[2], json[3]};
}

inline void expect_box(const Json& test, const Box& box, const Json& expected, double tolerance) {
    const float values[4] = {box.left, box.top, box.right, box.bottom};
    for (size_t i = 0; i < 4; i++) expect_near(test, "a box", values[i], expected[i], tolerance);
}

inline void expect_detections(const Json& test, const std::vector<Detection>& found, const Json& expected) {
    if (found.size() != expected.size()) differ(test, std::to_string(found.size()) + " boxes");
    for (size_t i = 0; i < found.size(); i++) {
        expect_box(test, found[i].box, expected[i]["xyxy"], 1e-3);
        expect_near(test, "confidence", found[i].confidence, expected[i]["confidence"], 1e-5);
        expect_near(test, "class_id", found[i].class_id, expected[i]["class_id"], 0);
    }
}

inline void expect_rows(const Json& test, const std::vector<uint8_t>& mask, size_t width, const Json& rows) {
    if (mask.size() != width * rows.size()) differ(test, "the mask has another size");
    for (size_t at = 0; at < mask.size(); at++) {
        const std::string row = rows[at / width];
        if (mask[at] != row[at % width] - '0') differ(test, "pixel " + std::to_string(at) + " differs");
    }
}

// The vectors of the kinds beside sam, in golden_kinds.cpp.
void test_crops(const Json& test);
void test_turned(const Json& test);
void test_yolo_seg(const Json& test);

}  // namespace edgekd::golden
