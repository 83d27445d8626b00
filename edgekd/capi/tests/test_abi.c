/*
 * The library through its header alone, on the fake backend: test_abi BUNDLE BACKEND_PATH [N_CALLS]
 *
 * The same program runs plain, under AddressSanitizer with UBSan, and under ThreadSanitizer.
 */
#include "abi.h"

const char *bundle_path;
const char *backend_path;
uint8_t pixels[HEIGHT][WIDTH][3];

edgekd_image whole_image(void)
{
    edgekd_image image;

    image.data = &pixels[0][0][0];
    image.width_px = WIDTH;
    image.height_px = HEIGHT;
    image.stride_bytes = sizeof pixels[0];
    image.format = EDGEKD_FORMAT_RGB;
    return image;
}

void draw(uint32_t bright_column)
{
    int y;

    memset(pixels, 20, sizeof pixels);
    for (y = 0; y < HEIGHT; y++)
        pixels[y][bright_column][0] = 255;
}

int32_t open_bundle(const char *folder, edgekd_chain **chain)
{
    edgekd_open_options options;

    CHECK(edgekd_open_options_init(&options, sizeof options) == EDGEKD_OK);
    options.backend_path = backend_path;
    return edgekd_chain_open(folder, &options, chain);
}

edgekd_chain *opened(void)
{
    edgekd_chain *chain = NULL;

    CHECK(open_bundle(bundle_path, &chain) == EDGEKD_OK);
    return chain;
}

int says(const char *words)
{
    return strstr(edgekd_last_error(), words) != NULL;
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
    test_results();
    test_endurance(argc > 3 ? atol(argv[3]) : 10000);
    test_refusals();
    puts("all hold");
    return 0;
}
