#include "node.h"

#include <set>
#include <vector>

namespace edgekd {
namespace {

bool is_printable(const std::string& words) {
    for (size_t i = 0; i < words.size(); i++) {
        const auto byte = static_cast<unsigned char>(words[i]);
        // C0, DEL, and C1, which UTF-8 writes as C2 80 to C2 9F.
        const bool c1 = byte == 0xC2 && i + 1 < words.size() && static_cast<unsigned char>(words[i + 1]) < 0xA0;
        if (byte < 0x20 || byte == 0x7F || c1) return false;
    }
    return true;
}

}  // namespace

Json parse_json(const std::string& text, const std::string& folder) {
    std::vector<std::set<std::string>> open_objects;
    std::string finding;
    const auto look = [&](int, Json::parse_event_t event, Json& value) {
        if (event == Json::parse_event_t::object_start) open_objects.emplace_back();
        if (event == Json::parse_event_t::object_end) open_objects.pop_back();
        if (event == Json::parse_event_t::key && !open_objects.back().insert(value.get<std::string>()).second) {
            finding = "a name stands there twice";
        }
        const bool is_text = event == Json::parse_event_t::key || event == Json::parse_event_t::value;
        if (is_text && value.is_string() && !is_printable(value.get_ref<const std::string&>())) {
            finding = "a text with a control character";
        }
        return true;
    };
    // The library skips the mark, and takes a zero for the end.
    const bool marked = text.compare(0, 3, "\xEF\xBB\xBF") == 0 || text.find('\0') != std::string::npos;
    Json raw = marked ? Json(Json::value_t::discarded) : Json::parse(text, look, /*allow_exceptions=*/false);
    if (raw.is_discarded()) {
        fail(EDGEKD_ERROR_BUNDLE, folder + "/manifest.json is not JSON; build the bundle again");
    }
    if (!finding.empty()) {
        fail(EDGEKD_ERROR_BUNDLE,
             folder + "/manifest.json is not JSON that a bundle can have (" + finding + "); build the bundle again");
    }
    return raw;
}

}  // namespace edgekd
