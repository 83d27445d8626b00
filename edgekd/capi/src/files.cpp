#include "files.h"

#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "error.h"
#include "sha256.h"

namespace edgekd {
namespace {

std::string read_file(const std::string& folder, const EngineFile& file) {
    const std::string path = folder + "/" + file.name;
    struct stat facts {};
    if (stat(path.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode)) {
        fail(EDGEKD_ERROR_BUNDLE, folder + " lacks the engine file " + file.name + "; build the bundle again");
    }
    std::string content;
    const bool read = read_whole(path, file.n_bytes, content);
    if (!read || content.size() != file.n_bytes || sha256_of(content) != file.sha256) {
        fail(EDGEKD_ERROR_BUNDLE, path + " was changed after the build (its sha256 differs); build the bundle again");
    }
    return content;
}

}  // namespace

bool read_whole(const std::string& path, uint64_t most_bytes, std::string& content) {
    const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
    struct stat facts {};
    if (!file || fstat(fileno(file.get()), &facts) != 0 || !S_ISREG(facts.st_mode)) return false;
    if (uint64_t(facts.st_size) > most_bytes) return false;
    content.resize(size_t(facts.st_size));
    const size_t n = std::fread(&content[0], 1, content.size(), file.get());
    return n == content.size() && std::fgetc(file.get()) == EOF;
}

std::string settled(const std::string& folder) {
    struct stat facts {};
    if (lstat(folder.c_str(), &facts) != 0 || !S_ISLNK(facts.st_mode)) return folder;
    const std::unique_ptr<char, void (*)(void*)> real(realpath(folder.c_str(), nullptr), &std::free);
    return real ? real.get() : folder;
}

std::vector<std::string> read_files(const std::string& folder, const EngineStage& stage) {
    std::vector<std::string> contents;
    for (const EngineFile& file : stage.files) contents.push_back(read_file(folder, file));
    return contents;
}

}  // namespace edgekd
