#include "oriented.h"

#include <algorithm>
#include <cmath>

namespace edgekd {
namespace {

constexpr double kEpsilon = 1e-7;  // keeps quotients and logarithms finite for boxes without area

}  // namespace

Corners corners_of(const TurnedBox& box) {
    static constexpr double signs[4][2] = {{-0.5, -0.5}, {0.5, -0.5}, {0.5, 0.5}, {-0.5, 0.5}};
    const double cosine = std::cos(box.angle), sine = std::sin(box.angle);
    Corners corners{};
    for (size_t i = 0; i < 4; i++) {
        const double along = signs[i][0] * box.width, across = signs[i][1] * box.height;
        corners[2 * i] = float(box.x + along * cosine - across * sine);
        corners[2 * i + 1] = float(box.y + along * sine + across * cosine);
    }
    return corners;
}

Corners corners_of(const Box& box) {
    return {box.left, box.top, box.right, box.top, box.right, box.bottom, box.left, box.bottom};
}

Box enclosing(const Corners& corners) {
    Box box{corners[0], corners[1], corners[0], corners[1]};
    for (size_t i = 2; i < corners.size(); i += 2) {
        box.left = std::min(box.left, corners[i]);
        box.right = std::max(box.right, corners[i]);
        box.top = std::min(box.top, corners[i + 1]);
        box.bottom = std::max(box.bottom, corners[i + 1]);
    }
    return box;
}

TurnedBox to_picture(const TurnedBox& box, const Placement& placement) {
    const double cosine = std::cos(box.angle), sine = std::sin(box.angle);
    const double scale_x = placement.scale_x, scale_y = placement.scale_y;
    TurnedBox found;
    found.x = (box.x - placement.left_px) / scale_x;
    found.y = (box.y - placement.top_px) / scale_y;
    found.width = box.width * std::hypot(cosine / scale_x, sine / scale_y);
    found.height = box.height * std::hypot(sine / scale_x, cosine / scale_y);
    found.angle = std::atan2(sine / scale_y, cosine / scale_x);
    return found;
}

Gaussian gaussian_of(const TurnedBox& box) {
    const double width = box.width * box.width / 12, height = box.height * box.height / 12;
    const double cosine = std::cos(box.angle), sine = std::sin(box.angle);
    return {box.x, box.y, width * cosine * cosine + height * sine * sine, width * sine * sine + height * cosine * cosine,
            (width - height) * cosine * sine};
}

double probiou(const Gaussian& first, const Gaussian& second) {
    const double dx = first.x - second.x, dy = first.y - second.y;
    const double a = first.a + second.a, b = first.b + second.b, c = first.c + second.c;
    const double determinant = a * b - c * c;
    const double shift = ((a * dy * dy + b * dx * dx) / 4 - c * dx * dy / 2) / (determinant + kEpsilon);
    const double product = std::max(first.a * first.b - first.c * first.c, 0.0) *
                           std::max(second.a * second.b - second.c * second.c, 0.0);
    const double form = std::log(std::max(determinant, 0.0) / (4 * std::sqrt(product) + kEpsilon) + kEpsilon) / 2;
    const double distance = std::clamp(shift + form, kEpsilon, 100.0);
    return 1 - std::sqrt(1 - std::exp(-distance) + kEpsilon);
}

}  // namespace edgekd
