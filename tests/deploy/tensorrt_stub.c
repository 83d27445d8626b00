/* What the TensorRT Python bindings need at load time, and no more: every entry point returns a null pointer.
 *
 * The test links this file once for each library that a wheel asks for (libnvinfer.so.10 and so on) and imports the real
 * bindings against it, so that their classes, methods and enumerations can be looked at on a machine without TensorRT.
 */
#include <stddef.h>

#define ENTRY_POINT(name) void *name(void) { return NULL; }

ENTRY_POINT(createInferBuilder_INTERNAL)
ENTRY_POINT(createInferRuntime_INTERNAL)
ENTRY_POINT(createInferRefitter_INTERNAL)
ENTRY_POINT(createNvOnnxParser_INTERNAL)
ENTRY_POINT(createNvOnnxParserRefitter_INTERNAL)
ENTRY_POINT(getNvOnnxParserVersion)
ENTRY_POINT(getBuilderPluginRegistry)
ENTRY_POINT(getPluginRegistry)
ENTRY_POINT(initLibNvInferPlugins)

/* C++ names of the UFF and Caffe parsers, which only TensorRT 8 has. */
ENTRY_POINT(_ZN11nvuffparser15createUffParserEv)
ENTRY_POINT(_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi)
ENTRY_POINT(_ZN14nvcaffeparser117createCaffeParserEv)
ENTRY_POINT(_ZN14nvcaffeparser123shutdownProtobufLibraryEv)
