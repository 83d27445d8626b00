// Turned boxes: their corners, how alike two of them are, and their way to the picture; mirrors runtime/oriented.py.
#pragma once

#include <array>
#include <vector>

#include "preprocess.h"

namespace edgekd {

// Centre, sides and angle in px and radians; the angle turns the x axis, along which the width lies, towards y.
struct TurnedBox {
    double x = 0, y = 0, width = 0, height = 0, angle = 0;
};

// x and y of left top, right top, right bottom and left bottom of the box before it is turned.
using Corners = std::array<float, 8>;

Corners corners_of(const TurnedBox& box);

// The corners of an upright box, in the same order.
Corners corners_of(const Box& box);

// The upright box around corners.
Box enclosing(const Corners& corners);

// From input to picture pixels, unclipped: every side takes the scale of its own direction.
TurnedBox to_picture(const TurnedBox& box, const Placement& placement);

// The same box as a Gaussian: covariance [[a, c], [c, b]].
struct Gaussian {
    double x, y, a, b, c;
};

Gaussian gaussian_of(const TurnedBox& box);

// ProbIoU, 0 to 1 (Llerena et al. 2021, arXiv:2106.06072, section 3), with the small constants of Ultralytics.
double probiou(const Gaussian& first, const Gaussian& second);

}  // namespace edgekd
