/* A plugin in C, as it was written on the day that effe.h was frozen, against the header of that day. Every entry is
 * there and every function of v1 is called. It must load and run for ever. */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "effe.h"

/* A Context: its number, and the host that it came from. */
typedef struct {
    unsigned number;
    const effe_host *host;
} context_of_frozen;

static atomic_uint started, stopped;
static const effe_fail_host *failing;

static void say(const effe_host *host, const char *format, ...) {
    char text[256];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    if (host->level(host->data) >= EFFE_LEVEL_INFO) {
        host->log(host->data, EFFE_LEVEL_INFO, effe_text("frozen"), effe_text(text));
    }
}

static effe_status init(const effe_host *host, effe_failure *failure) {
    effe_str found = {NULL, 0};
    effe_status known;
    failing = host->extension(host->data, effe_text(EFFE_FAIL));
    if (host->parameter(host->data, effe_text("fail"), &found) == EFFE_OK) {
        failing->fail(failure, EFFE_LEVEL_ERROR, effe_text("told to fail"));
        return EFFE_ERROR;
    }
    known = host->attribute(host->data, EFFE_HOST_SOFTWARE, &found);
    say(host, "init: %u %.*s", known, (int)found.len, found.ptr);
    return EFFE_OK;
}

static effe_status start(const effe_host *host, void **context, effe_failure *failure) {
    context_of_frozen *made = malloc(sizeof *made);
    (void)failure;
    if (made == NULL) {
        return EFFE_ERROR;
    }
    made->number = ++started;
    made->host = host;
    *context = made;
    return EFFE_OK;
}

static void release(void *owner, const void *ptr, size_t len) {
    (void)ptr;
    (void)len;
    free(owner);
}

static effe_status run(void *context, const effe_exchange *exchange, effe_failure *failure) {
    const context_of_frozen *own = context;
    const effe_exchange_ops *ops = exchange->ops;
    effe_bytes value = effe_find_header(exchange, "X-Ask");
    effe_bytes same = {NULL, 0};
    effe_str id = {NULL, 0};
    effe_header page[4];
    effe_chunk rest = {NULL, 0, NULL, NULL};
    uint64_t left = 0;
    char text[512];
    size_t n_headers, len;
    effe_status header, state, begun;
    const effe_header field = {{"x-frozen", 8}, {"1", 1}};
    const effe_headers headers = {&field, 1};
    effe_chunk body = {text, 0, NULL, NULL};
    effe_chunk last = {NULL, 1, NULL, release};

    if (exchange->target.len == 5 && memcmp(exchange->target.ptr, "/fail", 5) == 0) {
        failing->fail(failure, EFFE_LEVEL_WARNING, effe_text("run fails"));
        return EFFE_ERROR;
    }
    header = ops->header(exchange->host, effe_text("X-Ask"), 0, &same);
    ops->attribute(exchange->host, EFFE_REQUEST_ID, &id);
    n_headers = ops->headers(exchange->host, 0, page, 4);
    state = ops->state(exchange->host, &left);
    if (ops->read(exchange->host, &rest) != EFFE_END || value.len != same.len) {
        return EFFE_ERROR;
    }
    len = (size_t)snprintf(text, sizeof text, "%u %.*s %.*s %zu %u:%.*s %zu %u %s ", own->number,
                           (int)exchange->method.len, exchange->method.ptr, (int)exchange->target.len,
                           exchange->target.ptr, exchange->path_len, header, (int)value.len,
                           (const char *)value.ptr, n_headers, state, id.len > 0 ? "true" : "false");
    if (len + exchange->body.len >= sizeof text) {
        return EFFE_ERROR;
    }
    if (exchange->body.len > 0) {
        memcpy(text + len, exchange->body.ptr, exchange->body.len);
    }
    body.len = len + exchange->body.len;
    begun = ops->respond(exchange->host, 202, headers, body, EFFE_MORE);
    if (begun != EFFE_OK) {
        return begun;
    }
    last.owner = malloc(1);
    if (last.owner == NULL) {
        return EFFE_ERROR;
    }
    *(char *)last.owner = '!';
    last.ptr = last.owner;
    return ops->write(exchange->host, last, 0);
}

static effe_status stop(void *context, effe_failure *failure) {
    context_of_frozen *own = context;
    (void)failure;
    stopped++;
    say(own->host, "stop: %u", own->number);
    free(own);
    return EFFE_OK;
}

static effe_status retire(const effe_host *host, effe_failure *failure) {
    (void)failure;
    say(host, "retire: %u started, %u stopped", started, stopped);
    return EFFE_OK;
}

static const void *extension(effe_str id) {
    (void)id;
    return NULL;
}

EFFE_LAMBDA(0, "{\"name\":\"frozen\",\"version\":\"1.0.0\"}", init, start, run, stop, retire, extension);
