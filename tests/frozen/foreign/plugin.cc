// A plugin in C++, as it was written on the day that effe.h was frozen, against the header of that day. It is what
// plugin.c is, with a Context that is destroyed and an exception that is fenced. It must load and run for ever.
#include <atomic>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "effe.h"

namespace {

std::atomic<unsigned> started, stopped;
const effe_fail_host *failing;

std::string_view view(effe_str text) { return {text.ptr, text.len}; }
std::string_view view(effe_bytes bytes) { return {static_cast<const char *>(bytes.ptr), bytes.len}; }
effe_str text_of(std::string_view text) { return {text.data(), text.size()}; }

void say(const effe_host *host, const std::string &text) {
    host->log(host->data, EFFE_LEVEL_INFO, effe_text("frozen"), text_of(text));
}

struct Context {
    explicit Context(const effe_host *its_host) : host(its_host) {}
    Context(const Context &) = delete;
    Context &operator=(const Context &) = delete;
    ~Context() {
        stopped++;
        say(host, "stop: " + std::to_string(number));
    }

    const unsigned number = ++started;
    const effe_host *host;
};

template <typename Work> effe_status fenced(effe_failure *failure, Work work) noexcept {
    try {
        return work();
    } catch (const std::out_of_range &err) {
        failing->fail(failure, EFFE_LEVEL_WARNING, effe_text(err.what()));
    } catch (const std::exception &err) {
        failing->fail(failure, EFFE_LEVEL_ERROR, effe_text(err.what()));
    }
    return EFFE_ERROR;
}

effe_status init(const effe_host *host, effe_failure *failure) {
    failing = static_cast<const effe_fail_host *>(host->extension(host->data, effe_text(EFFE_FAIL)));
    return fenced(failure, [&] {
        effe_str found = {nullptr, 0};
        if (host->parameter(host->data, effe_text("fail"), &found) == EFFE_OK) {
            throw std::runtime_error("told to fail");
        }
        const auto known = host->attribute(host->data, EFFE_HOST_SOFTWARE, &found);
        say(host, "init: " + std::to_string(known) + " " + std::string(view(found)));
        return EFFE_OK;
    });
}

effe_status start(const effe_host *host, void **context, effe_failure *failure) {
    return fenced(failure, [&] {
        *context = std::make_unique<Context>(host).release();
        return EFFE_OK;
    });
}

effe_status run(void *context, const effe_exchange *exchange, effe_failure *failure) {
    return fenced(failure, [&] {
        const auto ops = exchange->ops;
        if (view(exchange->target) == "/fail") {
            throw std::out_of_range("run fails");
        }
        effe_bytes value = {nullptr, 0};
        const auto header = ops->header(exchange->host, effe_text("X-Ask"), 0, &value);
        effe_str id = {nullptr, 0};
        ops->attribute(exchange->host, EFFE_REQUEST_ID, &id);
        effe_header page[4];
        const auto n_headers = ops->headers(exchange->host, 0, page, 4);
        std::uint64_t left = 0;
        const auto state = ops->state(exchange->host, &left);
        effe_chunk rest = {nullptr, 0, nullptr, nullptr};
        if (ops->read(exchange->host, &rest) != EFFE_END) {
            throw std::logic_error("there is more");
        }
        std::string text = std::to_string(static_cast<Context *>(context)->number) + " ";
        text.append(view(exchange->method)).append(" ").append(view(exchange->target)).append(" ");
        text += std::to_string(exchange->path_len) + " " + std::to_string(header) + ":";
        text.append(view(value)).append(" " + std::to_string(n_headers) + " " + std::to_string(state));
        text.append(id.len > 0 ? " true " : " false ").append(view(exchange->body));
        const effe_header field = {{"x-frozen", 8}, {"1", 1}};
        const effe_chunk body = {text.data(), text.size(), nullptr, nullptr};
        const auto begun = ops->respond(exchange->host, 202, {&field, 1}, body, EFFE_MORE);
        if (begun != EFFE_OK) {
            return begun;
        }
        auto owned = std::make_unique<std::vector<char>>(1, '!');
        const auto release = [](void *owner, const void *, std::size_t) {
            delete static_cast<std::vector<char> *>(owner);
        };
        const auto ptr = owned->data();
        return ops->write(exchange->host, {ptr, 1, owned.release(), release}, 0);
    });
}

effe_status stop(void *context, effe_failure *failure) {
    return fenced(failure, [&] {
        const std::unique_ptr<Context> own(static_cast<Context *>(context));
        return EFFE_OK;
    });
}

effe_status retire(const effe_host *host, effe_failure *failure) {
    return fenced(failure, [&] {
        say(host, "retire: " + std::to_string(started) + " started, " + std::to_string(stopped) + " stopped");
        return EFFE_OK;
    });
}

const void *extension(effe_str) { return nullptr; }

} // namespace

EFFE_LAMBDA(0, "{\"name\":\"frozen\",\"version\":\"1.0.0\"}", init, start, run, stop, retire, extension);
