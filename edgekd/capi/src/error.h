// How failures travel inside: an exception with a status and a sentence; nothing of it crosses the C boundary.
#pragma once

#include <exception>
#include <new>
#include <string>
#include <utility>

#include "edgekd.h"

namespace edgekd {

class Error : public std::exception {
public:
    Error(edgekd_status status, std::string sentence) : status_(status), sentence_(std::move(sentence)) {}
    edgekd_status status() const { return status_; }
    const char* what() const noexcept override { return sentence_.c_str(); }

private:
    edgekd_status status_;
    std::string sentence_;
};

[[noreturn]] inline void fail(edgekd_status status, std::string sentence) {
    throw Error(status, std::move(sentence));
}

// Run `body`, turn whatever it throws into a status, and hand the sentence to `say(const char*)`.
template <typename Body, typename Say>
int32_t guarded(Body&& body, Say&& say) noexcept {
    try {
        body();
        return EDGEKD_OK;
    } catch (const Error& error) {
        say(error.what());
        return error.status();
    } catch (const std::bad_alloc&) {
        say("out of memory; use smaller pictures or fewer chains");
        return EDGEKD_ERROR_MEMORY;
    } catch (const std::exception& error) {
        say(error.what());
        return EDGEKD_ERROR_INTERNAL;
    } catch (...) {
        say("an unknown exception reached the C boundary");
        return EDGEKD_ERROR_INTERNAL;
    }
}

}  // namespace edgekd
