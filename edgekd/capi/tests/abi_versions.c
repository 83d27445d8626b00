/* Numbers, layouts, and programs that were compiled against another header. */
#include <stddef.h>

#include "abi.h"

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

/* Objects of a run with options of any age. */
static size_t n_found(edgekd_chain *chain, const void *options)
{
    edgekd_image image = whole_image();
    size_t n = 0;

    CHECK(edgekd_chain_run(chain, &image, (const edgekd_run_options *)options) == EDGEKD_OK);
    CHECK(edgekd_chain_get_objects(chain, NULL, 0, &n) == EDGEKD_OK);
    return n;
}

static void test_numbers(void)
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
    CHECK(sizeof(edgekd_times) == 44);
    CHECK(offsetof(edgekd_run_options, boxes_only) == 28);
    if (sizeof(void *) == 8) {
        CHECK(sizeof(edgekd_image) == 32 && sizeof(edgekd_open_options) == 24 && sizeof(edgekd_run_options) == 48);
    }
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

void test_versions(void)
{
    test_numbers();
    test_layouts();
    test_older_program();
    test_newer_program();
}
