/*
 * The library through its header alone, on the fake backend: test_abi BUNDLE BACKEND_PATH [N_CALLS]
 *
 * The same program runs plain, under AddressSanitizer with UBSan, and under ThreadSanitizer.
 */
#define _POSIX_C_SOURCE 200809L
#include <edgekd.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

enum { WIDTH = 40, HEIGHT = 30, N_THREADS = 4 };

static const char *bundle_path;
static const char *backend_path;
static uint8_t pixels[HEIGHT][WIDTH][3];

static edgekd_image whole_image(void)
{
    edgekd_image image;

    image.data = &pixels[0][0][0];
    image.width_px = WIDTH;
    image.height_px = HEIGHT;
    image.stride_bytes = sizeof pixels[0];
    image.format = EDGEKD_FORMAT_RGB;
    return image;
}

/* Dark, with one bright red column. */
static void draw(uint32_t bright_column)
{
    int y;

    memset(pixels, 20, sizeof pixels);
    for (y = 0; y < HEIGHT; y++)
        pixels[y][bright_column][0] = 255;
}

static int32_t open_bundle(const char *folder, edgekd_chain **chain)
{
    edgekd_open_options options;

    CHECK(edgekd_open_options_init(&options, sizeof options) == EDGEKD_OK);
    options.backend_path = backend_path;
    return edgekd_chain_open(folder, &options, chain);
}

static edgekd_chain *opened(void)
{
    edgekd_chain *chain = NULL;

    CHECK(open_bundle(bundle_path, &chain) == EDGEKD_OK);
    return chain;
}

static int says(const char *words)
{
    return strstr(edgekd_last_error(), words) != NULL;
}

static void test_versions(void)
{
    CHECK(edgekd_abi_version() == EDGEKD_ABI_VERSION);
    CHECK(strlen(edgekd_version()) >= 5);
    CHECK(strcmp(edgekd_status_name(EDGEKD_ERROR_CAPACITY), "EDGEKD_ERROR_CAPACITY") == 0);
    CHECK(strcmp(edgekd_status_name(-1), "unknown status") == 0);
    CHECK(strcmp(edgekd_status_name(99), "unknown status") == 0);
    CHECK(strcmp(edgekd_last_error(), "") == 0);
}

/* Layouts are the ABI: these numbers may not change while EDGEKD_ABI_VERSION is 1. */
static void test_layouts(void)
{
    CHECK(sizeof(edgekd_object) == 44 && offsetof(edgekd_object, class_id) == 24);
    CHECK(sizeof(edgekd_times) == 36);
    CHECK(offsetof(edgekd_run_options, boxes_only) == 28);
    if (sizeof(void *) == 8) {
        CHECK(sizeof(edgekd_image) == 32 && sizeof(edgekd_open_options) == 16 && sizeof(edgekd_run_options) == 48);
    }
}

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

/* How a program of another age sees the options and the times: shorter structs in exactly as much memory. */
typedef struct old_run_options {
    uint32_t struct_size;
    float confidence;
    float iou;
} old_run_options;

typedef struct old_times {
    uint32_t struct_size;
    float total_ms;
} old_times;

static size_t n_found(edgekd_chain *chain, const void *options)
{
    edgekd_image image = whole_image();
    size_t n = 0;

    CHECK(edgekd_chain_run(chain, &image, (const edgekd_run_options *)options) == EDGEKD_OK);
    CHECK(edgekd_chain_get_objects(chain, NULL, 0, &n) == EDGEKD_OK);
    return n;
}

static void test_older_program(void)
{
    old_run_options *options = (old_run_options *)malloc(sizeof *options);
    old_times *times = (old_times *)malloc(sizeof *times);
    edgekd_chain *chain = opened();

    CHECK(options != NULL && times != NULL);
    draw(5);
    CHECK(edgekd_run_options_init((edgekd_run_options *)(void *)options, sizeof *options) == EDGEKD_OK);
    CHECK(options->struct_size == sizeof *options && options->iou == 0.7f);
    CHECK(n_found(chain, options) == 1);
    options->confidence = 0.95f;
    CHECK(n_found(chain, options) == 0);
    times->struct_size = sizeof *times;
    CHECK(edgekd_chain_get_times(chain, (edgekd_times *)(void *)times) == EDGEKD_OK && times->total_ms > 0);
    free(times);
    free(options);
    edgekd_chain_close(chain);
}

/* A program from the future: it may run as long as it leaves alone what this library does not know. */
static void test_newer_program(void)
{
    struct {
        edgekd_run_options known;
        char unknown[8];
    } options;
    edgekd_chain *chain = opened();
    edgekd_image image = whole_image();

    memset(&options, 1, sizeof options);
    CHECK(edgekd_run_options_init(&options.known, sizeof options) == EDGEKD_OK);
    CHECK(options.known.struct_size == sizeof options && options.unknown[0] == 0);
    CHECK(n_found(chain, &options) == 1);
    options.unknown[7] = 1;
    CHECK(edgekd_chain_run(chain, &image, &options.known) == EDGEKD_ERROR_ARGUMENT && says("update libedgekd"));
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

static long resident_kib(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    if (file != NULL && fscanf(file, "%ld %ld", &pages, &resident) != 2)
        resident = 0;
    if (file != NULL)
        fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void run_many(edgekd_chain *chain, long n_calls)
{
    edgekd_image image = whole_image();
    edgekd_object objects[4];
    uint8_t mask[WIDTH * HEIGHT];
    size_t n;
    long call;

    for (call = 0; call < n_calls; call++) {
        image.width_px = (uint32_t)(WIDTH - call % 7);
        image.height_px = (uint32_t)(HEIGHT - call % 5);
        CHECK(edgekd_chain_run(chain, &image, NULL) == EDGEKD_OK);
        CHECK(edgekd_chain_get_objects(chain, objects, 4, &n) == EDGEKD_OK && n == 1);
        CHECK(edgekd_chain_get_mask(chain, 0, mask, sizeof mask, NULL) == EDGEKD_OK);
    }
}

static void test_memory_is_flat(long n_calls)
{
    edgekd_chain *chain = opened(), *copy = NULL;
    long before_kib, i;

    draw(5);
    run_many(chain, n_calls / 10);
    before_kib = resident_kib();
    run_many(chain, n_calls);
    for (i = 0; i < n_calls / 100; i++) {
        CHECK(edgekd_chain_clone(chain, &copy) == EDGEKD_OK);
        run_many(copy, 1);
        edgekd_chain_close(copy);
        edgekd_chain_close(opened());
    }
    printf("%ld calls, %ld clones and bundles: %ld KiB resident before, %ld after\n", n_calls, n_calls / 100, before_kib,
           resident_kib());
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(resident_kib() - before_kib < 1024);
#endif
    edgekd_chain_close(chain);
}

static void *run_in_thread(void *chain)
{
    edgekd_image image = whole_image();

    run_many((edgekd_chain *)chain, 300);
    image.width_px = 0;
    CHECK(edgekd_chain_run((edgekd_chain *)chain, &image, NULL) == EDGEKD_ERROR_ARGUMENT && says("0x30 px"));
    edgekd_chain_close((edgekd_chain *)chain);
    return NULL;
}

/* Clones run at once; each thread keeps its own last error; the first chain may be closed before its clones. */
static void test_threads(void)
{
    edgekd_chain *chain = opened(), *clones[N_THREADS];
    pthread_t threads[N_THREADS];
    int i;

    draw(5);
    CHECK(edgekd_chain_run(chain, NULL, NULL) == EDGEKD_ERROR_ARGUMENT);
    for (i = 0; i < N_THREADS; i++)
        CHECK(edgekd_chain_clone(chain, &clones[i]) == EDGEKD_OK);
    edgekd_chain_close(chain);
    for (i = 0; i < N_THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, run_in_thread, clones[i]) == 0);
    for (i = 0; i < N_THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(says("image is NULL"));
}

static void test_missing_bundle(void)
{
    edgekd_chain *chain = NULL;

    CHECK(open_bundle("no/such/bundle", &chain) == EDGEKD_ERROR_BUNDLE && chain == NULL);
    CHECK(says("is not a bundle") && says("edgekd build-engine"));
    backend_path = "no/such/folder";
    CHECK(open_bundle(bundle_path, &chain) == EDGEKD_ERROR_BACKEND_UNAVAILABLE && says("edgekd capi build"));
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s BUNDLE BACKEND_PATH [N_CALLS]\n", argv[0]);
        return 2;
    }
    bundle_path = argv[1];
    backend_path = argv[2];
    test_versions();
    test_layouts();
    test_run();
    test_formats();
    test_given_boxes();
    test_capacity();
    test_nulls();
    test_images();
    test_options();
    test_older_program();
    test_newer_program();
    test_after_failure();
    test_threads();
    test_memory_is_flat(argc > 3 ? atol(argv[3]) : 10000);
    test_missing_bundle();
    puts("all hold");
    return 0;
}
