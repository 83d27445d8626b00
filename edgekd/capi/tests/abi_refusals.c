/* What is refused with a sentence: pointers, pictures, options, bundles; and that the chain works on. */
#include <math.h>

#include "abi.h"

static void test_nulls(void)
{
    edgekd_chain *chain = opened(), *other = NULL;
    edgekd_image image = whole_image();
    edgekd_times times;
    uint8_t mask[WIDTH * HEIGHT];
    size_t n;

    CHECK(edgekd_open_options_init(NULL, sizeof(edgekd_open_options)) == EDGEKD_ERROR_ARGUMENT);
    CHECK(edgekd_run_options_init(NULL, sizeof(edgekd_run_options)) == EDGEKD_ERROR_ARGUMENT);
    CHECK(edgekd_chain_open(NULL, NULL, &other) == EDGEKD_ERROR_ARGUMENT && other == NULL);
    CHECK(edgekd_chain_open(bundle_path, NULL, NULL) == EDGEKD_ERROR_ARGUMENT);
    CHECK(edgekd_chain_clone(NULL, &other) == EDGEKD_ERROR_ARGUMENT);
    CHECK(edgekd_chain_clone(chain, NULL) == EDGEKD_ERROR_ARGUMENT);
    CHECK(edgekd_chain_run(NULL, &image, NULL) == EDGEKD_ERROR_ARGUMENT);
    CHECK(edgekd_chain_run(chain, NULL, NULL) == EDGEKD_ERROR_ARGUMENT && says("image is NULL"));
    CHECK(edgekd_chain_get_objects(NULL, NULL, 0, &n) == EDGEKD_ERROR_ARGUMENT);
    CHECK(edgekd_chain_get_mask(NULL, 0, mask, sizeof mask, &n) == EDGEKD_ERROR_ARGUMENT);
    CHECK(edgekd_chain_get_full_mask(NULL, 0, mask, WIDTH, sizeof mask, &n) == EDGEKD_ERROR_ARGUMENT);
    CHECK(edgekd_chain_get_times(NULL, &times) == EDGEKD_ERROR_ARGUMENT);
    CHECK(edgekd_chain_get_times(chain, NULL) == EDGEKD_ERROR_ARGUMENT);
    CHECK(edgekd_chain_class_count(NULL) == 0 && edgekd_chain_class_name(NULL, 0) == NULL);
    CHECK(edgekd_mask_bytes(NULL) == 0);
    edgekd_chain_close(NULL);
    edgekd_chain_close(chain);
}

static void expect_image(edgekd_chain *chain, edgekd_image image, const char *words)
{
    CHECK(edgekd_chain_run(chain, &image, NULL) == EDGEKD_ERROR_ARGUMENT && says(words));
    CHECK(edgekd_chain_get_objects(chain, NULL, 0, NULL) == EDGEKD_ERROR_ARGUMENT && says("no result"));
}

static void test_images(void)
{
    edgekd_chain *chain = opened();
    edgekd_image image = whole_image();
    uint8_t *line = (uint8_t *)calloc(EDGEKD_MAX_SIDE_PX, 3);

    CHECK(line != NULL);
    image.width_px = 0;
    expect_image(chain, image, "0x30 px");
    image.width_px = EDGEKD_MAX_SIDE_PX + 1;
    expect_image(chain, image, "expected 1 to 65000");
    image.width_px = UINT32_MAX;
    expect_image(chain, image, "expected 1 to 65000");
    image = whole_image();
    image.stride_bytes = WIDTH * 3 - 1;
    expect_image(chain, image, "stride of 119");
    image.stride_bytes = SIZE_MAX;
    expect_image(chain, image, "stride");
    image = whole_image();
    image.format = 9;
    expect_image(chain, image, "format 9");
    image = whole_image();
    image.data = NULL;
    expect_image(chain, image, "no data");
    image.data = line; /* the longest line there may be, both ways */
    image.width_px = EDGEKD_MAX_SIDE_PX;
    image.height_px = 1;
    image.stride_bytes = (size_t)EDGEKD_MAX_SIDE_PX * 3;
    CHECK(edgekd_chain_run(chain, &image, NULL) == EDGEKD_OK);
    image.width_px = 1;
    image.height_px = EDGEKD_MAX_SIDE_PX;
    image.stride_bytes = 3;
    CHECK(edgekd_chain_run(chain, &image, NULL) == EDGEKD_OK);
    image.height_px = 1;
    CHECK(edgekd_chain_run(chain, &image, NULL) == EDGEKD_OK);
    free(line);
    edgekd_chain_close(chain);
}

static void expect_options(edgekd_chain *chain, const edgekd_run_options *options, const char *words)
{
    edgekd_image image = whole_image();

    CHECK(edgekd_chain_run(chain, &image, options) == EDGEKD_ERROR_ARGUMENT && says(words));
}

static void test_options(void)
{
    static float boxes[4] = {0, 0, 1, 1};
    edgekd_chain *chain = opened();
    edgekd_run_options good, bad;

    CHECK(edgekd_run_options_init(&good, sizeof good) == EDGEKD_OK);
    CHECK(good.struct_size == sizeof good && good.confidence == 0.25f && good.iou == 0.7f && good.max_boxes == 300);
    bad = good, bad.confidence = 1, expect_options(chain, &bad, "confidence is 1");
    bad = good, bad.confidence = NAN, expect_options(chain, &bad, "confidence is");
    bad = good, bad.iou = -0.1f, expect_options(chain, &bad, "iou is");
    bad = good, bad.max_boxes = 0, expect_options(chain, &bad, "max_boxes is 0");
    bad = good, bad.multi_label = 2, expect_options(chain, &bad, "multi_label is 2");
    bad = good, bad.boxes_only = 5, expect_options(chain, &bad, "boxes_only is 5");
    bad = good, bad.mask_threshold = INFINITY, expect_options(chain, &bad, "mask_threshold");
    bad = good, bad.n_boxes = 1, expect_options(chain, &bad, "boxes_xyxy is NULL");
    bad = good, bad.boxes_xyxy = boxes, bad.n_boxes = SIZE_MAX, expect_options(chain, &bad, "at most 4096");
    boxes[2] = NAN;
    bad = good, bad.boxes_xyxy = boxes, bad.n_boxes = 1, expect_options(chain, &bad, "not finite");
    bad = good, bad.struct_size = 0, expect_options(chain, &bad, "struct_size is 0");
    bad = good, bad.struct_size = UINT32_MAX, expect_options(chain, &bad, "struct_size is");
    edgekd_chain_close(chain);
}

/* After a failure the chain has no result and the next run works. */
static void test_after_failure(void)
{
    edgekd_chain *chain = opened();
    edgekd_image image = whole_image();
    size_t n;

    draw(5);
    CHECK(edgekd_chain_run(chain, &image, NULL) == EDGEKD_OK);
    CHECK(edgekd_chain_get_objects(chain, NULL, 0, &n) == EDGEKD_OK && n == 1);
    image.width_px = 0;
    CHECK(edgekd_chain_run(chain, &image, NULL) == EDGEKD_ERROR_ARGUMENT);
    CHECK(edgekd_chain_get_objects(chain, NULL, 0, &n) == EDGEKD_ERROR_ARGUMENT && says("no result"));
    image = whole_image();
    CHECK(edgekd_chain_run(chain, &image, NULL) == EDGEKD_OK);
    edgekd_chain_close(chain);
}

static void test_missing_bundle(void)
{
    edgekd_chain *chain = NULL;

    CHECK(open_bundle("no/such/bundle", &chain) == EDGEKD_ERROR_BUNDLE && chain == NULL);
    CHECK(says("is not a bundle") && says("edgekd build-engine"));
    backend_path = "no/such/folder";
    CHECK(open_bundle(bundle_path, &chain) == EDGEKD_ERROR_BACKEND_UNAVAILABLE && says("edgekd capi build"));
}

void test_refusals(void)
{
    test_nulls();
    test_images();
    test_options();
    test_after_failure();
    test_missing_bundle();
}
