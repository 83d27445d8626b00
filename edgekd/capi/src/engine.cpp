#include "engine.h"

#include <dlfcn.h>

#include "error.h"
#include "files.h"

namespace edgekd {
namespace {

constexpr const char* kBuild = "install it with: edgekd capi build";

// The folder that this very library was loaded from.
std::string own_folder() {
    Dl_info info{};
    if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) return ".";
    const std::string path = info.dli_fname;
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash);
}

[[noreturn]] void fail_unavailable(const std::string& backend, const std::string& reason) {
    fail(EDGEKD_ERROR_BACKEND_UNAVAILABLE,
         "the bundle needs the backend " + backend + " and its module cannot be used (" + reason + "); " + kBuild);
}

void check(int32_t status, const edgekd_backend_error& error) {
    if (status != EDGEKD_OK) fail(static_cast<edgekd_status>(status), error.text);
}

}  // namespace

const edgekd_backend& load_backend(const std::string& backend, const std::string& folder) {
    const std::string path = (folder.empty() ? own_folder() : folder) + "/libedgekd_" + backend + ".so";
    // Never unloaded: the libraries behind a module keep threads and thread-local data.
    void* module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (module == nullptr) {
        const char* reason = dlerror();
        fail_unavailable(backend, reason != nullptr ? reason : path);
    }
    using Entry = const edgekd_backend* (*)();
    const auto entry = reinterpret_cast<Entry>(dlsym(module, EDGEKD_BACKEND_ENTRY));
    const edgekd_backend* table = entry != nullptr ? entry() : nullptr;
    if (table == nullptr || table->abi_version != EDGEKD_BACKEND_ABI_VERSION) {
        fail_unavailable(backend, path + " is no module of this libedgekd");
    }
    return *table;
}

std::string compute_capability(const edgekd_backend& backend) {
    char text[16] = "";
    edgekd_backend_error error{};
    if (backend.compute_capability != nullptr) check(backend.compute_capability(text, sizeof text, &error), error);
    return text;
}

Engine::Engine(const edgekd_backend& backend, const std::string& folder, const EngineStage& stage, uint32_t n_threads,
               const Engine* beside)
    : backend_(&backend), handle_(nullptr, backend.close) {
    const std::string path = folder + "/" + stage.files.front().name;
    const std::vector<std::string> contents = read_files(folder, stage);
    std::vector<edgekd_bytes> views;
    for (const std::string& content : contents) views.push_back({content.data(), content.size()});
    void* neighbour = beside != nullptr ? beside->handle_.get() : nullptr;
    const edgekd_engine_options options = {path.c_str(),  stage.precision.c_str(), n_threads,
                                           views.data(), views.size(),            neighbour};
    edgekd_backend_error error{};
    void* engine = nullptr;
    check(backend.open(&options, &engine, &error), error);
    handle_.reset(engine);
}

Engine Engine::clone(const Engine* beside) const {
    edgekd_backend_error error{};
    void* copy = nullptr;
    void* neighbour = beside != nullptr ? beside->handle_.get() : nullptr;
    check(backend_->clone(handle_.get(), neighbour, &copy, &error), error);
    return Engine(*backend_, Handle(copy, backend_->close));
}

void Engine::infer(const std::vector<edgekd_tensor>& inputs, std::vector<edgekd_tensor>& outputs) {
    edgekd_backend_error error{};
    check(backend_->infer(handle_.get(), inputs.data(), inputs.size(), outputs.data(), outputs.size(), &error), error);
}

}  // namespace edgekd
