/* Checks of the C test programs: the first one that fails prints its place and ends the program. */
#ifndef EDGEKD_TEST_CHECK_H
#define EDGEKD_TEST_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s does not hold; last error: %s\n", __FILE__, __LINE__, #condition, \
                    edgekd_last_error()); \
            exit(1); \
        } \
    } while (0)

#endif
