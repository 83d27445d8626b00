/*
 * Boxes and masks of one picture: detect_and_segment BUNDLE PICTURE.ppm|PICTURE.jpg [MASKS.pgm]
 *
 * Prints a line per object (class, confidence, box, mask area) and the milliseconds of every stage; with a third
 * argument it writes a label map, 0 for background and 1 + index of the object elsewhere. A JPEG is turned upright as its
 * EXIF orientation says, as edgekd's Python reader does; boxes and masks are those of the upright picture.
 */
#include <edgekd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef EDGEKD_HAVE_JPEG
#include <jpeglib.h>
#endif

typedef struct picture {
    uint8_t *rgb;
    uint32_t width_px;
    uint32_t height_px;
} picture;

static int allocate(picture *out, unsigned long width_px, unsigned long height_px)
{
    if (width_px < 1 || height_px < 1 || width_px > EDGEKD_MAX_SIDE_PX || height_px > EDGEKD_MAX_SIDE_PX)
        return 0;
    out->width_px = (uint32_t)width_px;
    out->height_px = (uint32_t)height_px;
    out->rgb = (uint8_t *)malloc((size_t)width_px * height_px * 3);
    return out->rgb != NULL;
}

/* A binary PPM of 8 bits per channel. */
static int read_ppm(FILE *file, picture *out)
{
    unsigned long width_px, height_px, highest;
    size_t n_bytes;

    if (fscanf(file, "P6 %lu %lu %lu", &width_px, &height_px, &highest) != 3 || highest != 255 || fgetc(file) == EOF)
        return 0;
    if (!allocate(out, width_px, height_px))
        return 0;
    n_bytes = (size_t)out->width_px * out->height_px * 3;
    return fread(out->rgb, 1, n_bytes, file) == n_bytes;
}

#ifdef EDGEKD_HAVE_JPEG
static unsigned number_at(const uint8_t *bytes, unsigned n_bytes, int little)
{
    unsigned value = 0, i;

    for (i = 0; i < n_bytes; i++)
        value = value << 8 | bytes[little ? n_bytes - 1 - i : i];
    return value;
}

/* The orientation that an APP1 marker holds, 1 (upright) to 8; 1 where it holds none. */
static unsigned orientation_of(const uint8_t *bytes, unsigned n_bytes)
{
    const uint8_t *tiff = bytes + 6, *entry;
    unsigned size, first, n_entries, value, i;
    int little;

    if (n_bytes < 14 || memcmp(bytes, "Exif\0", 6) != 0)
        return 1;
    size = n_bytes - 6;
    little = memcmp(tiff, "II*\0", 4) == 0;
    first = number_at(tiff + 4, 4, little);
    if ((!little && memcmp(tiff, "MM\0*", 4) != 0) || first > size - 2)
        return 1;
    n_entries = number_at(tiff + first, 2, little);
    for (i = 0; i < n_entries && first + 2 + 12 * (i + 1) <= size; i++) {
        entry = tiff + first + 2 + 12 * i;
        value = number_at(entry + 8, 2, little);
        if (number_at(entry, 2, little) == 0x0112)
            return number_at(entry + 2, 2, little) == 3 && value >= 1 && value <= 8 ? value : 1;
    }
    return 1;
}

/* Turn the picture so that it is upright; from 5 on rows become columns. */
static int turn(picture *from, unsigned orientation)
{
    const int swap = orientation >= 5;
    const int flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const int flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    picture to;
    uint32_t x, y, u, v;

    if (orientation == 1)
        return 1;
    if (!allocate(&to, swap ? from->height_px : from->width_px, swap ? from->width_px : from->height_px))
        return 0;
    for (y = 0; y < to.height_px; y++)
        for (x = 0; x < to.width_px; x++) {
            u = swap ? y : x;
            v = swap ? x : y;
            u = flip_x ? from->width_px - 1 - u : u;
            v = flip_y ? from->height_px - 1 - v : v;
            memcpy(to.rgb + ((size_t)y * to.width_px + x) * 3, from->rgb + ((size_t)v * from->width_px + u) * 3, 3);
        }
    free(from->rgb);
    *from = to;
    return 1;
}

/* A damaged JPEG ends the program through libjpeg's own error handler, with its message. */
static int read_jpeg(FILE *file, picture *out)
{
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    const struct jpeg_marker_struct *marker;
    unsigned orientation = 1;
    int ok;

    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&jpeg);
    jpeg_stdio_src(&jpeg, file);
    jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(&jpeg, TRUE);
    for (marker = jpeg.marker_list; marker != NULL && orientation == 1; marker = marker->next)
        orientation = orientation_of(marker->data, marker->data_length);
    jpeg.out_color_space = JCS_RGB;
    jpeg_start_decompress(&jpeg);
    ok = allocate(out, jpeg.output_width, jpeg.output_height);
    while (ok && jpeg.output_scanline < jpeg.output_height) {
        JSAMPROW row = out->rgb + (size_t)jpeg.output_scanline * out->width_px * 3;
        jpeg_read_scanlines(&jpeg, &row, 1);
    }
    if (ok)
        jpeg_finish_decompress(&jpeg);
    jpeg_destroy_decompress(&jpeg);
    return ok && turn(out, orientation);
}
#endif

static int read_picture(const char *path, picture *out)
{
    FILE *file = fopen(path, "rb");
    int first, ok = 0;

    if (file == NULL)
        return 0;
    first = fgetc(file);
    rewind(file);
    if (first == 'P')
        ok = read_ppm(file, out);
#ifdef EDGEKD_HAVE_JPEG
    if (first == 0xFF)
        ok = read_jpeg(file, out);
#endif
    fclose(file);
    return ok;
}

/* Objects are drawn from the least to the most confident, so that the more confident one wins. */
static int32_t write_labels(edgekd_chain *chain, const picture *from, size_t n_objects, const char *path)
{
    size_t n_pixels = (size_t)from->width_px * from->height_px, index, at;
    uint8_t *mask = (uint8_t *)malloc(n_pixels), *labels = (uint8_t *)calloc(n_pixels, 1);
    int32_t status = mask != NULL && labels != NULL ? EDGEKD_OK : EDGEKD_ERROR_MEMORY;
    FILE *file = fopen(path, "wb");

    for (index = n_objects; status == EDGEKD_OK && index-- > 0;) {
        status = edgekd_chain_get_full_mask(chain, index, mask, from->width_px, n_pixels, NULL);
        for (at = 0; status == EDGEKD_OK && at < n_pixels; at++)
            if (mask[at])
                labels[at] = (uint8_t)(index < 254 ? index + 1 : 255);
    }
    if (status == EDGEKD_OK && file != NULL) {
        fprintf(file, "P5 %lu %lu 255\n", (unsigned long)from->width_px, (unsigned long)from->height_px);
        fwrite(labels, 1, n_pixels, file);
    }
    if (file == NULL)
        fprintf(stderr, "%s cannot be written\n", path);
    else
        fclose(file);
    free(labels);
    free(mask);
    return status;
}

static void print_object(edgekd_chain *chain, const edgekd_object *object, size_t index)
{
    size_t n_bytes = edgekd_mask_bytes(object), area_px = 0, at;
    uint8_t *mask = (uint8_t *)malloc(n_bytes + 1);
    const char *name = edgekd_chain_class_name(chain, object->class_id);

    if (mask != NULL && edgekd_chain_get_mask(chain, index, mask, n_bytes, NULL) == EDGEKD_OK)
        for (at = 0; at < n_bytes; at++)
            area_px += mask[at];
    printf("%-20s %.3f  box %.1f %.1f %.1f %.1f  mask %lu px\n", name != NULL ? name : "?", object->confidence,
           object->left_px, object->top_px, object->right_px, object->bottom_px, (unsigned long)area_px);
    free(mask);
}

static int32_t print_result(edgekd_chain *chain, const picture *from, const char *labels_path)
{
    edgekd_times times;
    edgekd_object *objects;
    size_t n_objects, index;
    int32_t status = edgekd_chain_get_objects(chain, NULL, 0, &n_objects);

    if (status != EDGEKD_OK)
        return status;
    objects = (edgekd_object *)calloc(n_objects + 1, sizeof *objects);
    if (objects == NULL)
        return EDGEKD_ERROR_MEMORY;
    status = edgekd_chain_get_objects(chain, objects, n_objects, &n_objects);
    for (index = 0; status == EDGEKD_OK && index < n_objects; index++)
        print_object(chain, &objects[index], index);
    free(objects);
    times.struct_size = sizeof times;
    if (status == EDGEKD_OK)
        status = edgekd_chain_get_times(chain, &times);
    if (status == EDGEKD_OK)
        printf("total %.1f ms: detector %.1f, encoder %.1f, decoder %.1f\n", times.total_ms, times.detector_ms,
               times.encoder_ms, times.decoder_ms);
    if (status == EDGEKD_OK && labels_path != NULL)
        status = write_labels(chain, from, n_objects, labels_path);
    return status;
}

int main(int argc, char **argv)
{
    edgekd_chain *chain = NULL;
    edgekd_image image;
    picture from = {NULL, 0, 0};
    int32_t status;

    if (argc < 3) {
        fprintf(stderr, "usage: %s BUNDLE PICTURE.ppm|PICTURE.jpg [MASKS.pgm]\n", argv[0]);
        return 2;
    }
    if (edgekd_abi_version() != EDGEKD_ABI_VERSION) {
        fprintf(stderr, "libedgekd has ABI %u, expected %d\n", (unsigned)edgekd_abi_version(), EDGEKD_ABI_VERSION);
        return 1;
    }
    if (!read_picture(argv[2], &from)) {
        fprintf(stderr, "%s cannot be read, expected a binary PPM or a JPEG\n", argv[2]);
        free(from.rgb);
        return 1;
    }
    image.data = from.rgb;
    image.width_px = from.width_px;
    image.height_px = from.height_px;
    image.stride_bytes = (size_t)from.width_px * 3;
    image.format = EDGEKD_FORMAT_RGB;
    status = edgekd_chain_open(argv[1], NULL, &chain);
    if (status == EDGEKD_OK)
        status = edgekd_chain_run(chain, &image, NULL);
    if (status == EDGEKD_OK)
        status = print_result(chain, &from, argc > 3 ? argv[3] : NULL);
    if (status != EDGEKD_OK)
        fprintf(stderr, "%s: %s\n", edgekd_status_name(status), edgekd_last_error());
    edgekd_chain_close(chain);
    free(from.rgb);
    return status != EDGEKD_OK;
}
