/* Breaks its contract, as the path says, or the parameter `breaks` in Init and Start. */
#include "fixture.h"

static const effe_exchange *kept;
static void *kept_host;
static effe_bytes kept_view;

static const effe_str NOT_TEXT = {"a\xff" "b", 3};

static effe_status init(const effe_host *given, effe_failure *failure) {
    set_host(given);
    if (told("breaks", "init-status")) {
        return 77;
    }
    if (told("breaks", "init-text")) {
        failures->fail(failure, EFFE_LEVEL_ERROR, NOT_TEXT);
        return EFFE_ERROR;
    }
    return EFFE_OK;
}

static effe_status start(const effe_host *given, void **context, effe_failure *failure) {
    (void)given;
    (void)failure;
    *context = told("breaks", "start-null") ? NULL : &the_context;
    return EFFE_OK;
}

static effe_status run(void *context, const effe_exchange *exchange, effe_failure *failure) {
    (void)context;
    const effe_exchange_ops *ops = exchange->ops;
    const effe_chunk none = {NULL, 0, NULL, NULL};
    const effe_headers no_headers = {NULL, 0};
    if (path_is(exchange, "/status")) {
        return 77;
    }
    if (path_is(exchange, "/text")) {
        effe_bytes out;
        effe_str value;
        host->log(host->data, EFFE_LEVEL_ERROR, NOT_TEXT, NOT_TEXT);
        bool found = ops->header(exchange->host, NOT_TEXT, 0, &out) == EFFE_OK ||
                     host->parameter(host->data, NOT_TEXT, &value) == EFFE_OK ||
                     host->extension(host->data, NOT_TEXT) != NULL;
        effe_header header = {NOT_TEXT, {"x", 1}};
        effe_headers headers = {&header, 1};
        bool is_refused = ops->respond(exchange->host, 200, headers, none, 0) == EFFE_INVALID;
        return effe_respond_text(exchange, 200, effe_text(found ? "found" : is_refused ? "refused" : "taken"));
    }
    if (path_is(exchange, "/null")) {
        host->log(host->data, EFFE_LEVEL_ERROR, (effe_str){NULL, 0}, (effe_str){NULL, 0});
        return ops->respond(exchange->host, 204, no_headers, none, 0);
    }
    if (path_is(exchange, "/twice")) {
        effe_respond_text(exchange, 200, effe_text("once"));
        return effe_respond_text(exchange, 200, effe_text("twice")) == EFFE_INVALID ? EFFE_OK : EFFE_ERROR;
    }
    if (path_is(exchange, "/keep")) {
        kept = exchange;
        kept_host = exchange->host;
        kept_view = effe_find_header(exchange, "x-kept");
        return respond(exchange, 200, NULL, NULL, kept_view, 0);
    }
    if (path_is(exchange, "/after")) {
        uint64_t remaining;
        effe_bytes out;
        bool is_refused = kept->ops->header(kept->host, effe_text("host"), 0, &out) == EFFE_END &&
                          kept->ops->state(kept_host, &remaining) == EFFE_GONE &&
                          effe_respond_text(kept, 200, effe_text("late")) == EFFE_INVALID;
        return effe_respond_text(exchange, 200, effe_text(is_refused ? "refused" : "taken"));
    }
    if (path_is(exchange, "/view")) {
        return respond(exchange, 200, NULL, NULL, kept_view, 0);
    }
    if (path_is(exchange, "/other")) {
        uint64_t remaining;
        effe_status status = ops->state(&the_context, &remaining);
        return effe_respond_text(exchange, 200, effe_text(status == EFFE_GONE ? "refused" : "taken"));
    }
    if (path_is(exchange, "/release")) {
        effe_chunk piece = none;
        if (ops->read(exchange->host, &piece) != EFFE_OK || !piece.release) {
            return fail(failure, EFFE_LEVEL_ERROR, "there is no piece");
        }
        for (int n = 0; n < 2; n++) {
            piece.release(piece.owner, piece.ptr, piece.len);
        }
        return effe_respond_text(exchange, 200, effe_text("released"));
    }
    return effe_respond_text(exchange, 200, effe_text("ok"));
}

static const void *extension(effe_str id) {
    static const effe_ready no_ready = {sizeof(effe_ready), 1, NULL};
    bool is_ready = is_id(id, EFFE_READY);
    return is_ready && host && told("breaks", "ready") ? &no_ready : NULL;
}

EFFE_LAMBDA(EFFE_NEVER_WAITS | EFFE_WAITS | EFFE_STREAM_REQUEST | 1ull << 30, "{\"name\":\"breaches\"}", init, start, run,
            stop_nothing, retire_nothing, extension);
