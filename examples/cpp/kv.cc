// Keeps values by key, in memory: PUT /key stores its body, GET and DELETE do what they say, and POST adds the number
// in its body to the one that is stored.
#include <charconv>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <string_view>

#include "effe.h"

namespace {

std::string_view view(effe_str text) { return {text.ptr, text.len}; }
std::string_view view(effe_bytes bytes) { return {static_cast<const char *>(bytes.ptr), bytes.len}; }

std::optional<long long> number(std::string_view text) {
    long long value = 0;
    const auto end = text.data() + text.size();
    const auto [rest, err] = std::from_chars(text.data(), end, value);
    return err == std::errc() && rest == end ? std::optional(value) : std::nullopt;
}

// What all Contexts share. Runs of different Contexts come at the same time, on different threads.
class Store {
  public:
    std::optional<std::string> get(std::string_view key) const {
        const std::shared_lock lock(mutex_);
        const auto found = values_.find(key);
        return found == values_.end() ? std::nullopt : std::optional(found->second);
    }

    void put(std::string_view key, std::string_view value) {
        const std::unique_lock lock(mutex_);
        values_.insert_or_assign(std::string(key), std::string(value));
    }

    bool remove(std::string_view key) {
        const std::unique_lock lock(mutex_);
        const auto found = values_.find(key);
        if (found == values_.end()) {
            return false;
        }
        values_.erase(found);
        return true;
    }

    std::string add(std::string_view key, long long more) {
        const std::unique_lock lock(mutex_);
        auto &value = values_.try_emplace(std::string(key), "0").first->second;
        const auto before = number(value);
        if (!before) {
            throw std::invalid_argument("POST to a key whose value is no number");
        }
        value = std::to_string(*before + more);
        return value;
    }

  private:
    mutable std::shared_mutex mutex_;
    std::map<std::string, std::string, std::less<>> values_;
};

// What Start makes, Run uses for one request at a time, and Stop destroys.
struct Context {
    std::shared_ptr<Store> store;
};

const effe_fail_host *failing;
std::shared_ptr<Store> shared_store;

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

effe_status answer(const effe_exchange *exchange, uint32_t status, std::string_view text) {
    return effe_respond_text(exchange, status, {text.data(), text.size()});
}

effe_status init(const effe_host *host, effe_failure *failure) {
    failing = static_cast<const effe_fail_host *>(host->extension(host->data, effe_text(EFFE_FAIL)));
    return fenced(failure, [] {
        shared_store = std::make_shared<Store>();
        return EFFE_OK;
    });
}

effe_status start(const effe_host *, void **context, effe_failure *failure) {
    return fenced(failure, [&] {
        *context = std::make_unique<Context>(Context{shared_store}).release();
        return EFFE_OK;
    });
}

effe_status run(void *context, const effe_exchange *exchange, effe_failure *failure) {
    return fenced(failure, [&] {
        auto &store = *static_cast<Context *>(context)->store;
        const auto method = view(exchange->method);
        const auto key = view(exchange->target).substr(0, exchange->path_len).substr(1);
        const auto body = view(exchange->body);
        if (key.empty()) {
            return answer(exchange, 400, "name a key: /KEY\n");
        }
        if (method == "GET") {
            const auto value = store.get(key);
            return value ? answer(exchange, 200, *value) : answer(exchange, 404, "no such key\n");
        }
        if (method == "PUT") {
            store.put(key, body);
            return answer(exchange, 201, "stored\n");
        }
        if (method == "DELETE") {
            return store.remove(key) ? answer(exchange, 200, "removed\n") : answer(exchange, 404, "no such key\n");
        }
        if (method == "POST") {
            const auto more = number(body);
            return more ? answer(exchange, 200, store.add(key, *more)) : answer(exchange, 400, "not a number\n");
        }
        return answer(exchange, 405, "GET, PUT, DELETE or POST\n");
    });
}

effe_status stop(void *context, effe_failure *) {
    delete static_cast<Context *>(context);
    return EFFE_OK;
}

effe_status retire(const effe_host *, effe_failure *) {
    shared_store.reset();
    return EFFE_OK;
}

const void *extension(effe_str) { return nullptr; }

} // namespace

EFFE_LAMBDA(EFFE_NEVER_WAITS, "{\"name\":\"kv\",\"version\":\"0.1.0\",\"description\":\"keeps values by key\"}", init,
            start, run, stop, retire, extension);
