#include "picture.h"

#include <string>

#include "error.h"

namespace edgekd {
namespace {

struct Format {
    int n_channels;
    std::array<int, 3> rgb;
};

Format format_of(int32_t format) {
    switch (format) {
        case EDGEKD_FORMAT_RGB:
            return {3, {0, 1, 2}};
        case EDGEKD_FORMAT_BGR:
            return {3, {2, 1, 0}};
        case EDGEKD_FORMAT_GRAY:
            return {1, {0, 0, 0}};
        case EDGEKD_FORMAT_RGBA:
            return {4, {0, 1, 2}};
        default:
            fail(EDGEKD_ERROR_ARGUMENT,
                 "the image has format " + std::to_string(format) + ", expected a value of edgekd_format");
    }
}

}  // namespace

Picture picture_from(const edgekd_image& image) {
    const Format format = format_of(image.format);
    const uint32_t width = image.width_px, height = image.height_px;
    if (width < 1 || height < 1 || width > EDGEKD_MAX_SIDE_PX || height > EDGEKD_MAX_SIDE_PX) {
        fail(EDGEKD_ERROR_ARGUMENT, "the image has " + std::to_string(width) + "x" + std::to_string(height) +
                                        " px, expected 1 to " + std::to_string(EDGEKD_MAX_SIDE_PX) + " a side");
    }
    if (image.data == nullptr) fail(EDGEKD_ERROR_ARGUMENT, "the image has no data, expected a pointer to its pixels");
    const size_t row_bytes = size_t(width) * size_t(format.n_channels);
    if (image.stride_bytes < row_bytes || image.stride_bytes > PTRDIFF_MAX / height) {
        fail(EDGEKD_ERROR_ARGUMENT, "the image has a stride of " + std::to_string(image.stride_bytes) +
                                        " bytes, expected at least " + std::to_string(row_bytes) + ", one row");
    }
    return {image.data, int(width), int(height), image.stride_bytes, format.n_channels, format.rgb};
}

}  // namespace edgekd
