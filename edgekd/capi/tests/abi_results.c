/* What a run gives: objects, masks, times, of every format and for given boxes. */
#include <math.h>

#include "abi.h"

static void test_run(void)
{
    edgekd_chain *chain = opened();
    edgekd_image image = whole_image();
    edgekd_object object;
    edgekd_times times;
    uint8_t crop[WIDTH * HEIGHT], full[HEIGHT * (WIDTH + 3)];
    size_t n, n_bytes, inside = 0, at;

    CHECK(edgekd_chain_class_count(chain) == 2);
    CHECK(strcmp(edgekd_chain_class_name(chain, 1), "bright") == 0);
    CHECK(edgekd_chain_class_name(chain, 2) == NULL && edgekd_chain_class_name(chain, -1) == NULL);
    draw(5);
    CHECK(edgekd_chain_run(chain, &image, NULL) == EDGEKD_OK);
    CHECK(edgekd_chain_get_objects(chain, &object, 1, &n) == EDGEKD_OK && n == 1);
    CHECK(object.class_id == 1 && fabsf(object.confidence - 0.8808f) < 1e-3f);
    /* Anchor (0, 2) of the 8 px grid: -4..12 by 12..28 in the input, 4 px of padding above, 0.8 input px a pixel. */
    CHECK(object.left_px == 0 && fabsf(object.right_px - 15) < 1e-3f);
    CHECK(fabsf(object.top_px - 10) < 1e-3f && fabsf(object.bottom_px - 30) < 1e-3f);
    CHECK(fabsf(object.predicted_iou - 20.0f / 255 * 0.75f) < 1e-3f);
    CHECK(edgekd_chain_get_mask(chain, 0, crop, sizeof crop, &n_bytes) == EDGEKD_OK);
    CHECK(n_bytes > 0 && n_bytes == edgekd_mask_bytes(&object));
    for (at = 0; at < n_bytes; at++)
        inside += crop[at];
    memset(full, 7, sizeof full);
    CHECK(edgekd_chain_get_full_mask(chain, 0, full, WIDTH + 3, sizeof full, &n_bytes) == EDGEKD_OK);
    CHECK(n_bytes == sizeof full - 3 && full[WIDTH] == 7);
    for (at = 0; at < sizeof full; at++)
        inside -= full[at] == 1;
    CHECK(inside == 0);
    times.struct_size = sizeof times;
    CHECK(edgekd_chain_get_times(chain, &times) == EDGEKD_OK);
    CHECK(times.total_ms > 0 && times.encoder_ms >= 0 && times.total_ms >= times.detector_ms);
    edgekd_chain_close(chain);
}

/* The four formats and a padded stride show the chain the same picture. */
static void test_formats(void)
{
    static const int32_t formats[] = {EDGEKD_FORMAT_RGB, EDGEKD_FORMAT_BGR, EDGEKD_FORMAT_RGBA, EDGEKD_FORMAT_GRAY};
    static const uint8_t order[][3] = {{0, 1, 2}, {2, 1, 0}, {0, 1, 2}, {0, 0, 0}};
    static const size_t pixel_bytes[] = {3, 3, 4, 1};
    static uint8_t copy[HEIGHT][WIDTH * 4 + 9];
    edgekd_chain *chain = opened();
    edgekd_image image = whole_image();
    edgekd_object first, object;
    size_t format, n;
    int x, y, c;

    draw(30);
    CHECK(edgekd_chain_run(chain, &image, NULL) == EDGEKD_OK);
    CHECK(edgekd_chain_get_objects(chain, &first, 1, &n) == EDGEKD_OK && n == 1);
    for (format = 0; format < 4; format++) {
        memset(copy, 200, sizeof copy);
        for (y = 0; y < HEIGHT; y++)
            for (x = 0; x < WIDTH; x++)
                for (c = 0; c < (pixel_bytes[format] == 1 ? 1 : 3); c++)
                    copy[y][x * pixel_bytes[format] + order[format][c]] = pixels[y][x][c];
        image.data = &copy[0][0];
        image.stride_bytes = sizeof copy[0];
        image.format = formats[format];
        CHECK(edgekd_chain_run(chain, &image, NULL) == EDGEKD_OK);
        CHECK(edgekd_chain_get_objects(chain, &object, 1, &n) == EDGEKD_OK && n == 1);
        CHECK(object.left_px == first.left_px && object.window_right == first.window_right);
        CHECK(format == 3 || object.predicted_iou == first.predicted_iou);
    }
    edgekd_chain_close(chain);
}

static void test_given_boxes(void)
{
    static const float boxes[2][4] = {{4, 4, 20, 20}, {-50, -50, 900, 900}};
    static float many[33][4];
    edgekd_chain *chain = opened();
    edgekd_image image = whole_image();
    edgekd_run_options options;
    edgekd_object objects[33];
    size_t n;

    CHECK(edgekd_run_options_init(&options, sizeof options) == EDGEKD_OK);
    options.boxes_xyxy = &boxes[0][0];
    options.n_boxes = 2;
    CHECK(edgekd_chain_run(chain, &image, &options) == EDGEKD_OK);
    CHECK(edgekd_chain_get_objects(chain, objects, 33, &n) == EDGEKD_OK && n == 2);
    CHECK(objects[0].confidence == 1 && objects[0].left_px == 4 && objects[0].window_right < WIDTH);
    CHECK(objects[1].window_left == 0 && objects[1].window_right == WIDTH && objects[1].window_bottom == HEIGHT);
    options.n_boxes = 0; /* no boxes is an answer, not a question to the detector */
    draw(5);
    CHECK(edgekd_chain_run(chain, &image, &options) == EDGEKD_OK);
    CHECK(edgekd_chain_get_objects(chain, NULL, 0, &n) == EDGEKD_OK && n == 0);
    options.boxes_xyxy = &many[0][0]; /* more than the largest bucket, and boxes without area */
    options.n_boxes = 33;
    CHECK(edgekd_chain_run(chain, &image, &options) == EDGEKD_OK);
    CHECK(edgekd_chain_get_objects(chain, objects, 33, &n) == EDGEKD_OK && n == 33);
    CHECK(edgekd_mask_bytes(&objects[32]) == 0);
    options.boxes_xyxy = NULL;
    options.n_boxes = 0;
    options.boxes_only = 1;
    CHECK(edgekd_chain_run(chain, &image, &options) == EDGEKD_OK);
    CHECK(edgekd_chain_get_objects(chain, objects, 33, &n) == EDGEKD_OK && n == 1);
    CHECK(edgekd_mask_bytes(&objects[0]) == 0 && objects[0].predicted_iou == 0);
    edgekd_chain_close(chain);
}

static void test_capacity(void)
{
    edgekd_chain *chain = opened();
    edgekd_image image = whole_image();
    edgekd_object object;
    uint8_t mask[WIDTH * HEIGHT];
    size_t n = 99;

    draw(5);
    CHECK(edgekd_chain_get_objects(chain, NULL, 0, &n) == EDGEKD_ERROR_ARGUMENT && says("no result"));
    CHECK(edgekd_chain_run(chain, &image, NULL) == EDGEKD_OK);
    CHECK(edgekd_chain_get_objects(chain, &object, 0, &n) == EDGEKD_ERROR_CAPACITY && n == 1);
    CHECK(edgekd_chain_get_objects(chain, NULL, 5, &n) == EDGEKD_ERROR_ARGUMENT);
    CHECK(edgekd_chain_get_objects(chain, &object, 1, NULL) == EDGEKD_OK);
    CHECK(edgekd_chain_get_mask(chain, 0, NULL, 0, &n) == EDGEKD_OK && n == edgekd_mask_bytes(&object));
    CHECK(edgekd_chain_get_mask(chain, 0, mask, n - 1, &n) == EDGEKD_ERROR_CAPACITY && says("expected at least"));
    CHECK(edgekd_chain_get_mask(chain, 1, mask, sizeof mask, &n) == EDGEKD_ERROR_ARGUMENT && says("no object 1"));
    CHECK(edgekd_chain_get_full_mask(chain, 0, NULL, WIDTH, 0, &n) == EDGEKD_OK && n == sizeof mask);
    CHECK(edgekd_chain_get_full_mask(chain, 0, mask, WIDTH, n - 1, &n) == EDGEKD_ERROR_CAPACITY);
    CHECK(edgekd_chain_get_full_mask(chain, 0, mask, WIDTH - 1, n, &n) == EDGEKD_ERROR_ARGUMENT);
    CHECK(edgekd_chain_get_full_mask(chain, 0, mask, SIZE_MAX, n, &n) == EDGEKD_ERROR_ARGUMENT);
    edgekd_chain_close(chain);
}

void test_results(void)
{
    test_run();
    test_formats();
    test_given_boxes();
    test_capacity();
}
