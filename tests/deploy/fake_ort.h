// ONNX Runtime behind the stand-in: a graph in memory goes in, a session that computes into given memory comes out.
//
// ONNX Runtime's C interface is a table of functions that only ever grows; the few that are needed are named here by
// their place in it, so that no header of it is wanted.
#pragma once
#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

namespace fake {

// One value: the place of its data, its shape, and ONNX's number for its type.
struct Value {
    std::string name;
    void* data = nullptr;
    size_t n_bytes = 0;
    std::vector<int64_t> shape;
    int type = 1;
};

class Session {
public:
    explicit Session(const std::string& model) {
        void* options = nullptr;
        call<int (*)(void**)>(kCreateSessionOptions, &options);
        call<int (*)(void*, int)>(kSetIntraOpNumThreads, options, 1);
        call<int (*)(void*, const void*, size_t, const void*, void**)>(
            kCreateSessionFromArray, environment(), model.data(), model.size(), options, &session_);
        release(kReleaseSessionOptions, options);
        call<int (*)(int, int, void**)>(kCreateCpuMemoryInfo, 0, 0, &memory_);
    }
    ~Session() {
        release(kReleaseSession, session_);
        release(kReleaseMemoryInfo, memory_);
    }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    void run(const std::vector<Value>& inputs, const std::vector<Value>& outputs) const {
        std::vector<void*> in, out;
        std::vector<const char*> in_names, out_names;
        for (const Value& value : inputs) in.push_back(tensor(value)), in_names.push_back(value.name.c_str());
        for (const Value& value : outputs) out.push_back(tensor(value)), out_names.push_back(value.name.c_str());
        call<int (*)(void*, const void*, const char* const*, void* const*, size_t, const char* const*, size_t, void**)>(
            kRun, session_, nullptr, in_names.data(), in.data(), in.size(), out_names.data(), out.size(), out.data());
        for (void* value : in) release(kReleaseValue, value);
        for (void* value : out) release(kReleaseValue, value);
    }

private:
    // Places of functions in the table OrtApi.
    enum Place {
        kGetErrorMessage = 2, kCreateEnv = 3, kCreateSessionFromArray = 8, kRun = 9, kCreateSessionOptions = 10,
        kSetIntraOpNumThreads = 24, kCreateTensorWithData = 49, kCreateCpuMemoryInfo = 69, kReleaseMemoryInfo = 94,
        kReleaseSession = 95, kReleaseValue = 96, kReleaseSessionOptions = 100
    };

    static void* const* table() {
        static void* const* functions = [] {
            const char* path = std::getenv("EDGEKD_FAKE_ORT");
            void* library = dlopen(path ? path : "libonnxruntime.so", RTLD_NOW | RTLD_LOCAL);
            if (!library) throw std::runtime_error(std::string("ONNX Runtime: ") + dlerror());
            struct Base { void* const* (*get)(uint32_t); };
            return reinterpret_cast<const Base* (*)()>(dlsym(library, "OrtGetApiBase"))()->get(16);
        }();
        return functions;
    }
    static void* environment() {
        static void* made = [] {
            void* environment = nullptr;
            call<int (*)(int, const char*, void**)>(kCreateEnv, 3, "fake", &environment);
            return environment;
        }();
        return made;
    }
    // Call a function of the table; what is declared as int is a pointer to a status, null for success.
    template <typename Function, typename... Arguments>
    static void call(Place place, Arguments... arguments) {
        using Status = void* (*)(Arguments...);
        static_assert(std::is_invocable_v<Function, Arguments...>);
        if (void* status = reinterpret_cast<Status>(table()[place])(arguments...)) {
            throw std::runtime_error(reinterpret_cast<const char* (*)(void*)>(table()[kGetErrorMessage])(status));
        }
    }
    static void release(Place place, void* object) { reinterpret_cast<void (*)(void*)>(table()[place])(object); }

    void* tensor(const Value& value) const {
        void* made = nullptr;
        call<int (*)(void*, void*, size_t, const int64_t*, size_t, int, void**)>(
            kCreateTensorWithData, memory_, value.data, value.n_bytes, value.shape.data(), value.shape.size(), value.type,
            &made);
        return made;
    }

    void* session_ = nullptr;
    void* memory_ = nullptr;
};

}  // namespace fake
