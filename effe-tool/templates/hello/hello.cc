// A lambda that says hello.
#include <exception>
#include <memory>
#include <string>
#include <string_view>

#include "effe.h"

namespace {

// The Context: what is costly to make and kept from one request to the next.
struct Hello {
    std::string greeting = "Hello";
};

const effe_fail_host *failing;

std::string_view view(effe_str text) { return {text.ptr, text.len}; }

// No exception may leave an entry: what `work` throws goes to the operator's log, and the client gets 500.
template <typename Work> effe_status fenced(effe_failure *failure, Work work) noexcept {
    try {
        return work();
    } catch (const std::exception &err) {
        failing->fail(failure, EFFE_LEVEL_ERROR, effe_text(err.what()));
    } catch (...) {
        failing->fail(failure, EFFE_LEVEL_ERROR, effe_text("an exception of an unknown type"));
    }
    return EFFE_ERROR;
}

effe_status init(const effe_host *host, effe_failure *) {
    failing = static_cast<const effe_fail_host *>(host->extension(host->data, effe_text(EFFE_FAIL)));
    return EFFE_OK;
}

effe_status start(const effe_host *host, void **context, effe_failure *failure) {
    return fenced(failure, [&] {
        auto hello = std::make_unique<Hello>();
        effe_str greeting;
        if (host->parameter(host->data, effe_text("greeting"), &greeting) == EFFE_OK) {
            hello->greeting = view(greeting);
        }
        *context = hello.release();
        return EFFE_OK;
    });
}

effe_status run(void *context, const effe_exchange *exchange, effe_failure *failure) {
    return fenced(failure, [&] {
        const auto &hello = *static_cast<const Hello *>(context);
        std::string text = hello.greeting + " from effe: ";
        text += view({exchange->target.ptr, exchange->path_len});
        text += '\n';
        return effe_respond_text(exchange, 200, {text.data(), text.size()});
    });
}

effe_status stop(void *context, effe_failure *failure) {
    return fenced(failure, [&] {
        delete static_cast<Hello *>(context);
        return EFFE_OK;
    });
}

effe_status retire(const effe_host *, effe_failure *) { return EFFE_OK; }

const void *extension(effe_str) { return nullptr; }

} // namespace

EFFE_LAMBDA(0, "{\"name\":\"hello\",\"version\":\"0.1.0\"}", init, start, run, stop, retire, extension);
