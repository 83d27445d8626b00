// The C functions of edgekd.h: arguments are checked, exceptions become a status and a sentence.
#include "edgekd.h"

#include <cmath>

#include "chain.h"
#include "error.h"
#include "options.h"

struct edgekd_chain {
    std::unique_ptr<edgekd::Chain> chain;
};

namespace edgekd {
namespace {

constexpr size_t kMaxCallerBoxes = 4096;

// A fixed buffer: saying why memory ran out must not need memory.
thread_local char last_error[2048] = "";

void remember(const char* sentence) {
    const size_t n = std::min(std::strlen(sentence), sizeof last_error - 1);
    std::memcpy(last_error, sentence, n);
    last_error[n] = '\0';
}

template <typename Body>
int32_t answered(Body&& body) noexcept {
    return guarded(body, remember);
}

void check_pointer(const void* pointer, const char* name) {
    if (pointer == nullptr) fail(EDGEKD_ERROR_ARGUMENT, std::string(name) + " is NULL, expected a valid pointer");
}

template <typename Options>
void init_options(Options* options, size_t struct_size, const Options& defaults) {
    check_pointer(options, "options");
    if (struct_size < sizeof(uint32_t) || struct_size > 1 << 16) {
        fail(EDGEKD_ERROR_ARGUMENT,
             "struct_size is " + std::to_string(struct_size) + ", expected the sizeof of the struct");
    }
    copy_out(defaults, options, struct_size);
}

edgekd_open_options open_defaults() {
    return {sizeof(edgekd_open_options), 0, nullptr, nullptr};
}

edgekd_run_options run_defaults() {
    const DetectOptions detect;
    const MaskOptions mask;
    edgekd_run_options options{};
    options.struct_size = sizeof options;
    options.confidence = detect.confidence;
    options.iou = detect.iou;
    options.max_boxes = uint32_t(detect.max_boxes);
    options.mask_threshold = mask.threshold;
    options.min_region_px = mask.min_region_px;
    return options;
}

bool flag(uint32_t value, const char* name) {
    if (value > 1) fail(EDGEKD_ERROR_ARGUMENT, std::string(name) + " is " + std::to_string(value) + ", expected 0 or 1");
    return value == 1;
}

void check_boxes(const edgekd_run_options& given) {
    if (given.boxes_xyxy == nullptr) {
        if (given.n_boxes > 0) fail(EDGEKD_ERROR_ARGUMENT, "n_boxes is set and boxes_xyxy is NULL, expected both or none");
        return;
    }
    if (given.n_boxes > kMaxCallerBoxes) {
        fail(EDGEKD_ERROR_ARGUMENT, "n_boxes is " + std::to_string(given.n_boxes) + ", expected at most " +
                                        std::to_string(kMaxCallerBoxes) + " a run");
    }
    for (size_t i = 0; i < 4 * given.n_boxes; i++) {
        if (!std::isfinite(given.boxes_xyxy[i])) fail(EDGEKD_ERROR_ARGUMENT, "boxes_xyxy has a value that is not finite");
    }
}

RunOptions run_options(const edgekd_run_options& given) {
    if (!(given.confidence > 0 && given.confidence < 1)) {
        fail(EDGEKD_ERROR_ARGUMENT,
             "confidence is " + std::to_string(given.confidence) + ", expected a number between 0 and 1");
    }
    if (!(given.iou >= 0 && given.iou <= 1)) {
        fail(EDGEKD_ERROR_ARGUMENT, "iou is " + std::to_string(given.iou) + ", expected a number from 0 to 1");
    }
    if (given.max_boxes < 1) fail(EDGEKD_ERROR_ARGUMENT, "max_boxes is 0, expected at least 1");
    if (!std::isfinite(given.mask_threshold)) fail(EDGEKD_ERROR_ARGUMENT, "mask_threshold is not finite, expected a logit");
    check_boxes(given);
    RunOptions options;
    options.detect = {given.confidence, given.iou, given.max_boxes, flag(given.multi_label, "multi_label")};
    options.mask = {given.mask_threshold, given.min_region_px};
    options.boxes_only = flag(given.boxes_only, "boxes_only");
    options.boxes = reinterpret_cast<const Box*>(given.boxes_xyxy);
    options.n_boxes = given.n_boxes;
    return options;
}

// The chain after a run that succeeded.
const Chain& ran(const edgekd_chain* chain) {
    check_pointer(chain, "chain");
    if (!chain->chain->has_result()) {
        fail(EDGEKD_ERROR_ARGUMENT, "the chain has no result, expected a successful edgekd_chain_run before this call");
    }
    return *chain->chain;
}

const Chain& with_object(const edgekd_chain* chain, size_t index) {
    const Chain& result = ran(chain);
    if (index >= result.found().size()) {
        fail(EDGEKD_ERROR_ARGUMENT, "there is no object " + std::to_string(index) + ", the last run found " +
                                        std::to_string(result.found().size()));
    }
    return result;
}

// Tell the needed size; say whether the buffer is to be filled. A question for the size alone is not a failure.
bool fits(const void* buffer, size_t capacity, size_t needed, size_t* told) {
    if (told != nullptr) *told = needed;
    if (buffer == nullptr && capacity == 0) return false;
    check_pointer(buffer, "the buffer");
    if (capacity < needed) {
        fail(EDGEKD_ERROR_CAPACITY, "the buffer has room for " + std::to_string(capacity) + ", expected at least " +
                                        std::to_string(needed));
    }
    return true;
}

edgekd_object object_from(const Chain& chain, size_t index) {
    const Detection& one = chain.found()[index];
    const Window& window = chain.mask(index).window;
    return {one.box.left,  one.box.top,  one.box.right, one.box.bottom, one.confidence, chain.predicted_iou(index),
            one.class_id, window.left, window.top,    window.right,   window.bottom};
}

void copy_full_mask(const Chain& chain, const Mask& mask, uint8_t* to, size_t stride_bytes) {
    const size_t width = size_t(mask.window.right - mask.window.left);
    for (int y = 0; y < chain.picture_height_px(); y++) {
        uint8_t* row = to + size_t(y) * stride_bytes;
        std::memset(row, 0, size_t(chain.picture_width_px()));
        if (y < mask.window.top || y >= mask.window.bottom || width == 0) continue;
        std::memcpy(row + mask.window.left, mask.crop.data() + size_t(y - mask.window.top) * width, width);
    }
}

edgekd_times times_from(const Times& ms) {
    return {sizeof(edgekd_times),          float(ms.total),
            float(ms.detector_preprocess), float(ms.detector),
            float(ms.detector_postprocess), float(ms.encoder_preprocess),
            float(ms.encoder),             float(ms.decoder),
            float(ms.mask_postprocess),    float(ms.segmenter_preprocess),
            float(ms.segmenter)};
}

}  // namespace
}  // namespace edgekd

using namespace edgekd;

uint32_t edgekd_abi_version(void) {
    return EDGEKD_ABI_VERSION;
}

const char* edgekd_version(void) {
    return EDGEKD_VERSION;
}

const char* edgekd_status_name(int32_t status) {
    static const char* const names[] = {"EDGEKD_OK",
                                        "EDGEKD_ERROR_ARGUMENT",
                                        "EDGEKD_ERROR_CAPACITY",
                                        "EDGEKD_ERROR_BUNDLE",
                                        "EDGEKD_ERROR_BUNDLE_MISMATCH",
                                        "EDGEKD_ERROR_BACKEND_UNAVAILABLE",
                                        "EDGEKD_ERROR_BACKEND",
                                        "EDGEKD_ERROR_MEMORY",
                                        "EDGEKD_ERROR_INTERNAL"};
    const bool known = status >= 0 && size_t(status) < sizeof names / sizeof *names;
    return known ? names[status] : "unknown status";
}

const char* edgekd_last_error(void) {
    return last_error;
}

int32_t edgekd_open_options_init(edgekd_open_options* options, size_t struct_size) {
    return answered([&] { init_options(options, struct_size, open_defaults()); });
}

int32_t edgekd_run_options_init(edgekd_run_options* options, size_t struct_size) {
    return answered([&] { init_options(options, struct_size, run_defaults()); });
}

int32_t edgekd_chain_open(const char* folder, const edgekd_open_options* options, edgekd_chain** chain) {
    if (chain != nullptr) *chain = nullptr;
    return answered([&] {
        check_pointer(folder, "folder");
        check_pointer(chain, "chain");
        const edgekd_open_options given = options_from(options, open_defaults(), "edgekd_open_options");
        const auto text = [](const char* words) { return std::string(words != nullptr ? words : ""); };
        auto handle = std::make_unique<edgekd_chain>();
        handle->chain = Chain::open(folder, {text(given.backend_path), text(given.public_key), given.n_threads});
        *chain = handle.release();
    });
}

int32_t edgekd_chain_clone(edgekd_chain* chain, edgekd_chain** copy) {
    if (copy != nullptr) *copy = nullptr;
    return answered([&] {
        check_pointer(chain, "chain");
        check_pointer(copy, "copy");
        auto handle = std::make_unique<edgekd_chain>();
        handle->chain = chain->chain->clone();
        *copy = handle.release();
    });
}

void edgekd_chain_close(edgekd_chain* chain) {
    delete chain;
}

size_t edgekd_chain_class_count(const edgekd_chain* chain) {
    return chain != nullptr ? chain->chain->manifest().class_names.size() : 0;
}

const char* edgekd_chain_class_name(const edgekd_chain* chain, int32_t class_id) {
    if (class_id < 0 || size_t(class_id) >= edgekd_chain_class_count(chain)) return nullptr;
    return chain->chain->manifest().class_names[size_t(class_id)].c_str();
}

int32_t edgekd_chain_run(edgekd_chain* chain, const edgekd_image* image, const edgekd_run_options* options) {
    return answered([&] {
        check_pointer(chain, "chain");
        chain->chain->forget_result();
        check_pointer(image, "image");
        const RunOptions given = run_options(options_from(options, run_defaults(), "edgekd_run_options"));
        chain->chain->run(picture_from(*image), given);
    });
}

int32_t edgekd_chain_get_objects(const edgekd_chain* chain, edgekd_object* objects, size_t capacity, size_t* n_objects) {
    return answered([&] {
        const Chain& result = ran(chain);
        if (!fits(objects, capacity, result.found().size(), n_objects)) return;
        for (size_t i = 0; i < result.found().size(); i++) objects[i] = object_from(result, i);
    });
}

uint32_t edgekd_chain_is_oriented(const edgekd_chain* chain) {
    return chain != nullptr && chain->chain->manifest().head.oriented ? 1 : 0;
}

int32_t edgekd_chain_get_corners(const edgekd_chain* chain, float* corners, size_t capacity, size_t* n_floats) {
    return answered([&] {
        const std::vector<Detection>& found = ran(chain).found();
        if (!fits(corners, capacity, 8 * found.size(), n_floats)) return;
        for (const Detection& one : found) {
            const Corners values = one.is_turned ? corners_of(one.turned) : corners_of(one.box);
            corners = std::copy(values.begin(), values.end(), corners);
        }
    });
}

size_t edgekd_mask_bytes(const edgekd_object* object) {
    if (object == nullptr || object->window_right <= object->window_left || object->window_bottom <= object->window_top) {
        return 0;
    }
    return size_t(int64_t(object->window_right) - object->window_left) *
           size_t(int64_t(object->window_bottom) - object->window_top);
}

int32_t edgekd_chain_get_mask(const edgekd_chain* chain, size_t index, uint8_t* mask, size_t capacity_bytes,
                              size_t* n_bytes) {
    return answered([&] {
        const std::vector<uint8_t>& crop = with_object(chain, index).mask(index).crop;
        if (fits(mask, capacity_bytes, crop.size(), n_bytes)) std::copy(crop.begin(), crop.end(), mask);
    });
}

int32_t edgekd_chain_get_full_mask(const edgekd_chain* chain, size_t index, uint8_t* mask, size_t stride_bytes,
                                   size_t capacity_bytes, size_t* n_bytes) {
    return answered([&] {
        const Chain& result = with_object(chain, index);
        const size_t width = size_t(result.picture_width_px()), height = size_t(result.picture_height_px());
        if (stride_bytes < width || stride_bytes > PTRDIFF_MAX / height) {
            fail(EDGEKD_ERROR_ARGUMENT, "stride_bytes is " + std::to_string(stride_bytes) + ", expected at least " +
                                            std::to_string(width) + ", the picture's width");
        }
        const size_t needed = stride_bytes * (height - 1) + width;
        if (fits(mask, capacity_bytes, needed, n_bytes)) {
            copy_full_mask(result, result.mask(index), mask, stride_bytes);
        }
    });
}

int32_t edgekd_chain_get_times(const edgekd_chain* chain, edgekd_times* times) {
    return answered([&] {
        check_pointer(times, "times");
        const Chain& result = ran(chain);
        if (times->struct_size < sizeof(uint32_t) || times->struct_size > 1 << 16) {
            fail(EDGEKD_ERROR_ARGUMENT, "times->struct_size is " + std::to_string(times->struct_size) +
                                            ", expected sizeof(edgekd_times)");
        }
        copy_out(times_from(result.times_ms()), times, times->struct_size);
    });
}
