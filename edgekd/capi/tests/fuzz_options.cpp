// libFuzzer: any options and any image view give a result or a sentence, never a crash.
#include <cstring>
#include <vector>

#include "edgekd.h"

namespace {

edgekd_chain* open_chain() {
    edgekd_open_options options;
    edgekd_open_options_init(&options, sizeof options);
    options.backend_path = EDGEKD_TEST_BACKENDS;
    edgekd_chain* chain = nullptr;
    if (edgekd_chain_open(EDGEKD_TEST_BUNDLE, &options, &chain) != EDGEKD_OK) __builtin_trap();
    return chain;
}

// Takes values off the front of the fuzzer's bytes, zeros when they are used up.
struct Bytes {
    const uint8_t* data;
    size_t size;

    template <typename T>
    T take() {
        T value{};
        const size_t n = size < sizeof value ? size : sizeof value;
        std::memcpy(&value, data, n);
        data += n, size -= n;
        return value;
    }
};

// A picture that may be refused; when its size is plausible it gets memory of exactly that size.
edgekd_image image_from(Bytes& bytes, std::vector<uint8_t>& pixels) {
    edgekd_image image{};
    image.width_px = bytes.take<uint16_t>();
    image.height_px = bytes.take<uint16_t>();
    image.stride_bytes = bytes.take<uint16_t>();
    image.format = bytes.take<uint8_t>() % 6;
    const size_t row_bytes = size_t(image.width_px) * (image.format == 4 ? 4 : image.format == 3 ? 1 : 3);
    if (image.stride_bytes * image.height_px > 1 << 20 || row_bytes > image.stride_bytes || image.height_px == 0) {
        image.data = &bytes.data[0];  // refused before it is read, or small enough below
        if (row_bytes <= image.stride_bytes) image.data = nullptr;
        return image;
    }
    pixels.assign(image.stride_bytes * (image.height_px - 1) + row_bytes, bytes.take<uint8_t>());
    image.data = pixels.data();
    return image;
}

edgekd_run_options options_from(Bytes& bytes, std::vector<float>& boxes) {
    edgekd_run_options options = bytes.take<edgekd_run_options>();
    if (options.struct_size > sizeof options) options.struct_size = sizeof options;  // its memory ends there
    options.boxes_xyxy = nullptr;
    if (options.n_boxes % 2 == 1) {
        options.n_boxes = options.n_boxes % 40;
        boxes.resize(4 * options.n_boxes + 1);
        for (float& value : boxes) value = bytes.take<float>();
        options.boxes_xyxy = boxes.data();
    }
    return options;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static edgekd_chain* chain = open_chain();
    Bytes bytes{data, size};
    std::vector<uint8_t> pixels, mask;
    std::vector<float> boxes;
    const edgekd_image image = image_from(bytes, pixels);
    const edgekd_run_options options = options_from(bytes, boxes);
    if (edgekd_chain_run(chain, &image, &options) != EDGEKD_OK) return 0;
    size_t n_objects = 0;
    edgekd_chain_get_objects(chain, nullptr, 0, &n_objects);
    std::vector<edgekd_object> objects(n_objects);
    if (edgekd_chain_get_objects(chain, objects.data(), n_objects, nullptr) != EDGEKD_OK) __builtin_trap();
    for (size_t index = 0; index < n_objects; index++) {
        mask.resize(edgekd_mask_bytes(&objects[index]) + 1);
        if (edgekd_chain_get_mask(chain, index, mask.data(), mask.size(), nullptr) != EDGEKD_OK) __builtin_trap();
    }
    return 0;
}
