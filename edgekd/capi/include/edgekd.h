/*
 * edgekd.h: boxes and masks from a picture, through a bundle written by `edgekd build-engine`.
 *
 * This header is the manual. It is plain C99 and needs nothing but <stddef.h> and <stdint.h>.
 *
 * What happens
 *   picture -> detector -> boxes -> segmenter -> masks. How masks are made depends on the kind of the bundle, and nothing
 *   else does: `sam` prompts the picture's embedding with every box, `crop` looks at a crop per box, and the detector of
 *   `yolo-seg` brings its masks along, so that it takes no boxes from the caller.
 *   A chain is an open bundle. It runs one picture at a time and keeps the result until the next run.
 *
 * Example (compiled by the tests)
 *
 *     #include <stdio.h>
 *     #include <stdlib.h>
 *     #include <edgekd.h>
 *
 *     int segment(const uint8_t *rgb, uint32_t width_px, uint32_t height_px)
 *     {
 *         edgekd_image image;
 *         edgekd_chain *chain = NULL;
 *         edgekd_object *objects = NULL;
 *         size_t n_objects = 0, i;
 *         int32_t status = edgekd_chain_open("bundle", NULL, &chain);
 *
 *         image.data = rgb;
 *         image.width_px = width_px;
 *         image.height_px = height_px;
 *         image.stride_bytes = (size_t)width_px * 3;
 *         image.format = EDGEKD_FORMAT_RGB;
 *         if (status == EDGEKD_OK)
 *             status = edgekd_chain_run(chain, &image, NULL);
 *         if (status == EDGEKD_OK)
 *             status = edgekd_chain_get_objects(chain, NULL, 0, &n_objects);
 *         if (n_objects > 0) {
 *             objects = (edgekd_object *)calloc(n_objects, sizeof *objects);
 *             status = edgekd_chain_get_objects(chain, objects, n_objects, &n_objects);
 *         }
 *         for (i = 0; objects != NULL && status == EDGEKD_OK && i < n_objects; i++) {
 *             size_t n_bytes = edgekd_mask_bytes(&objects[i]);
 *             uint8_t *mask = (uint8_t *)malloc(n_bytes + 1);
 *             if (mask != NULL)
 *                 status = edgekd_chain_get_mask(chain, i, mask, n_bytes, NULL);
 *             printf("%s %.2f\n", edgekd_chain_class_name(chain, objects[i].class_id), objects[i].confidence);
 *             free(mask);
 *         }
 *         if (status != EDGEKD_OK)
 *             fprintf(stderr, "%s: %s\n", edgekd_status_name(status), edgekd_last_error());
 *         free(objects);
 *         edgekd_chain_close(chain);
 *         return status;
 *     }
 *
 * Threads
 *   A chain serves one thread at a time; every call with it counts, `edgekd_chain_clone` too. Different chains run in
 *   different threads freely. A clone shares the weights, so N threads need N chains and the weights once.
 *
 * Ownership
 *   The caller owns every buffer it passes; nothing is kept after the call returns. Handles come from
 *   `edgekd_chain_open` and `edgekd_chain_clone` and go back through `edgekd_chain_close`, in any order. Strings belong
 *   to the library; each function says how long they live. No memory has to be freed by the other side.
 *
 * Sizes
 *   Functions that fill a buffer take its capacity and tell the size that is needed through the last argument (which may
 *   be NULL). A buffer that is too small gives EDGEKD_ERROR_CAPACITY and is not written. NULL with capacity 0 asks for
 *   the size and gives EDGEKD_OK.
 *
 * Coordinates and units
 *   Pixels of the picture that was given, x to the right, y down, the first pixel's centre at (0.5, 0.5). Boxes are left,
 *   top, right, bottom. Times are milliseconds of wall time. Sizes are bytes where a name ends in _bytes.
 *
 * The first picture of a shape
 *   A bundle for wide and tall pictures has networks for several input sizes. Each is compiled when the first picture
 *   that needs it comes, which takes many times as long as a run, then kept and shared with all clones. A program that
 *   must answer in time runs one picture of every shape after it has opened the bundle. A bundle of one size
 *   (`edgekd build-engine --square`) is compiled as it is opened.
 *
 * Errors
 *   Functions return an edgekd_status. After a failure `edgekd_last_error()` gives one sentence: what came, what was
 *   expected, what cures it. A failed run leaves the chain usable and without a result.
 *
 * Versions
 *   A struct that starts with struct_size may grow at its end; set it through its init function, with the sizeof that
 *   your compiler sees. An older program (smaller struct_size) runs with a newer library, which takes the defaults for
 *   what is not there. A newer program runs with an older library as long as the fields that the library does not know
 *   are 0, which always means the default. Other structs, and the values of enums, never change within one
 *   EDGEKD_ABI_VERSION; the shared library's SONAME carries that number.
 */
#ifndef EDGEKD_H
#define EDGEKD_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define EDGEKD_API __attribute__((visibility("default")))
#else
#define EDGEKD_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Version of the binary interface that this header describes. */
#define EDGEKD_ABI_VERSION 1

/* Longest side of a picture. */
#define EDGEKD_MAX_SIDE_PX 65000

/* Returned as int32_t by every function that can fail. */
typedef enum edgekd_status {
    EDGEKD_OK = 0,
    EDGEKD_ERROR_ARGUMENT = 1,            /* a pointer, number, option or picture cannot be used */
    EDGEKD_ERROR_CAPACITY = 2,            /* the caller's buffer is too small */
    EDGEKD_ERROR_BUNDLE = 3,              /* the bundle is missing, damaged, changed or of a newer format */
    EDGEKD_ERROR_BUNDLE_MISMATCH = 4,     /* the bundle is whole, and was built for another machine */
    EDGEKD_ERROR_BACKEND_UNAVAILABLE = 5, /* the library or device that the bundle needs is not here */
    EDGEKD_ERROR_BACKEND = 6,             /* the backend failed while it ran */
    EDGEKD_ERROR_MEMORY = 7,              /* out of memory */
    EDGEKD_ERROR_INTERNAL = 8             /* a bug of this library */
} edgekd_status;

/* Order of the bytes of a pixel, 8 bits per channel. Alpha is ignored. */
typedef enum edgekd_format {
    EDGEKD_FORMAT_RGB = 1,
    EDGEKD_FORMAT_BGR = 2,
    EDGEKD_FORMAT_GRAY = 3,
    EDGEKD_FORMAT_RGBA = 4
} edgekd_format;

/* An open bundle. */
typedef struct edgekd_chain edgekd_chain;

/* A view of the caller's pixels: row y starts at data + y * stride_bytes. */
typedef struct edgekd_image {
    const uint8_t *data;
    uint32_t width_px;   /* 1..EDGEKD_MAX_SIDE_PX */
    uint32_t height_px;  /* 1..EDGEKD_MAX_SIDE_PX */
    size_t stride_bytes; /* at least width_px times the bytes of a pixel */
    int32_t format;      /* an edgekd_format */
} edgekd_image;

/* How to open a bundle. Fill it with edgekd_open_options_init first. */
typedef struct edgekd_open_options {
    uint32_t struct_size;
    uint32_t n_threads;       /* CPU threads that a network may use; 0 leaves the choice to the backend */
    const char *backend_path; /* folder of the backend modules; NULL: the folder of this library */
    const char *public_key;   /* file of a public key, or its letters: the bundle must be signed with it; NULL: no look */
} edgekd_open_options;

/* What a run keeps. Fill it with edgekd_run_options_init first. */
typedef struct edgekd_run_options {
    uint32_t struct_size;
    float confidence;        /* lowest class probability, 0..1 exclusive; default 0.25 */
    float iou;               /* boxes of one class that overlap more are one object, 0..1; default 0.7 */
    uint32_t max_boxes;      /* at most this many, the most confident; at least 1; default 300 */
    uint32_t multi_label;    /* 1: an anchor may give a box for every class above confidence; default 0 */
    float mask_threshold;    /* logit above which a pixel belongs to a mask; default 0, one half */
    uint32_t min_region_px;  /* islands and holes of a smaller area are removed; default 0, none */
    uint32_t boxes_only;     /* 1: run the detector alone, no masks; default 0 */
    const float *boxes_xyxy; /* n_boxes times left, top, right, bottom to segment; NULL: the detector's */
    size_t n_boxes;          /* at most 4096; each touches the picture, to which it is clipped */
} edgekd_run_options;

/* One object. The window is where its mask lies in the picture, right and bottom exclusive; empty without a mask. */
typedef struct edgekd_object {
    float left_px;
    float top_px;
    float right_px;
    float bottom_px;
    float confidence;      /* 0..1; 1 for boxes that the caller gave */
    float predicted_iou;   /* the segmenter's own estimate of its mask; the confidence for the kind yolo-seg; 0 without */
    int32_t class_id;      /* see edgekd_chain_class_name; 0 for boxes that the caller gave */
    int32_t window_left;
    int32_t window_top;
    int32_t window_right;
    int32_t window_bottom;
} edgekd_object;

/* Milliseconds of the last run; 0 for a stage that did not run. Set struct_size before the call. */
typedef struct edgekd_times {
    uint32_t struct_size;
    float total_ms;
    float detector_preprocess_ms;
    float detector_ms;
    float detector_postprocess_ms;
    float encoder_preprocess_ms;
    float encoder_ms;
    float decoder_ms;
    float mask_postprocess_ms;
    float segmenter_preprocess_ms; /* cutting crops, of the kind crop */
    float segmenter_ms;            /* its network */
} edgekd_times;

/* EDGEKD_ABI_VERSION of the loaded library; a program refuses to work when it differs from its header's. */
EDGEKD_API uint32_t edgekd_abi_version(void);

/* Release of the loaded library, such as "0.1.0"; lives as long as the library. */
EDGEKD_API const char *edgekd_version(void);

/* Name of a status, such as "EDGEKD_ERROR_BUNDLE"; lives as long as the library. */
EDGEKD_API const char *edgekd_status_name(int32_t status);

/* Sentence of this thread's last failure, "" when there was none; lives until this thread's next failure. */
EDGEKD_API const char *edgekd_last_error(void);

/* Fill *options with defaults; struct_size is sizeof(edgekd_open_options) as the caller's compiler sees it. */
EDGEKD_API int32_t edgekd_open_options_init(edgekd_open_options *options, size_t struct_size);

/* Fill *options with defaults; struct_size is sizeof(edgekd_run_options) as the caller's compiler sees it. */
EDGEKD_API int32_t edgekd_run_options_init(edgekd_run_options *options, size_t struct_size);

/*
 * Open a bundle: check its manifest, its target and the sha256 of its files, then load its networks from those
 * bytes; those of
 * several input sizes are compiled later, see above.
 * folder is UTF-8; options may be NULL. *chain is NULL after a failure.
 * Fails with ARGUMENT, BUNDLE, BUNDLE_MISMATCH, BACKEND_UNAVAILABLE or MEMORY.
 */
EDGEKD_API int32_t edgekd_chain_open(const char *folder, const edgekd_open_options *options, edgekd_chain **chain);

/* Make a chain for another thread that shares the weights with this one. *copy is NULL after a failure. */
EDGEKD_API int32_t edgekd_chain_clone(edgekd_chain *chain, edgekd_chain **copy);

/* Give a chain back; NULL is allowed. The weights go with the last chain that shares them. */
EDGEKD_API void edgekd_chain_close(edgekd_chain *chain);

/* Number of classes that the detector knows; 0 for NULL. */
EDGEKD_API size_t edgekd_chain_class_count(const edgekd_chain *chain);

/* Name of a class in UTF-8, NULL when there is no such class; lives as long as the chain. */
EDGEKD_API const char *edgekd_chain_class_name(const edgekd_chain *chain, int32_t class_id);

/*
 * Find the objects of a picture and their masks. options may be NULL.
 * Fails with ARGUMENT, BACKEND, BUNDLE (a network that does not fit its manifest) or MEMORY.
 */
EDGEKD_API int32_t edgekd_chain_run(edgekd_chain *chain, const edgekd_image *image, const edgekd_run_options *options);

/* Copy the objects of the last run, most confident first, in the caller's order when the caller gave the boxes. */
EDGEKD_API int32_t edgekd_chain_get_objects(const edgekd_chain *chain, edgekd_object *objects, size_t capacity,
                                            size_t *n_objects);

/* 1 when the detector gives turned boxes, 0 when they are upright; 0 for NULL. */
EDGEKD_API uint32_t edgekd_chain_is_oriented(const edgekd_chain *chain);

/*
 * Copy the corners of the objects of the last run, 8 floats per object, in the order of edgekd_chain_get_objects: x and y
 * of left top, right top, right bottom and left bottom of the box before it is turned clockwise about its centre. The
 * box of the object is the upright one around them, clipped to the picture; a corner may lie outside. An upright box
 * gives its own four corners. `capacity` and *n_floats count floats.
 */
EDGEKD_API int32_t edgekd_chain_get_corners(const edgekd_chain *chain, float *corners, size_t capacity,
                                            size_t *n_floats);

/* Bytes of an object's mask: width times height of its window. */
EDGEKD_API size_t edgekd_mask_bytes(const edgekd_object *object);

/* Copy the mask of object `index`, cropped to its window: rows of bytes, 1 inside and 0 outside, no padding. */
EDGEKD_API int32_t edgekd_chain_get_mask(const edgekd_chain *chain, size_t index, uint8_t *mask, size_t capacity_bytes,
                                         size_t *n_bytes);

/*
 * Copy the mask of object `index` at the size of the picture: bytes, 1 inside and 0 outside, row y at
 * mask + y * stride_bytes. Bytes between the end of a row and the next one are left alone. With NULL and capacity 0 it
 * tells the size for this stride.
 */
EDGEKD_API int32_t edgekd_chain_get_full_mask(const edgekd_chain *chain, size_t index, uint8_t *mask,
                                              size_t stride_bytes, size_t capacity_bytes, size_t *n_bytes);

/* Copy the times of the last run; times->struct_size is sizeof(edgekd_times) as the caller's compiler sees it. */
EDGEKD_API int32_t edgekd_chain_get_times(const edgekd_chain *chain, edgekd_times *times);

#ifdef __cplusplus
}
#endif

#endif /* EDGEKD_H */
