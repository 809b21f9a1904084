/* What `spout/src/lib.rs` is, in C: streams both ways, well and badly. */
#include "stream.h"

static effe_status init(const effe_host *given, effe_failure *failure) {
    (void)failure;
    set_host(given);
    count("init");
    return EFFE_OK;
}

static effe_status start(const effe_host *given, void **context, effe_failure *failure) {
    (void)given;
    (void)failure;
    count("context");
    *context = &the_context;
    return EFFE_OK;
}

/* The body, as far as `limit`; its length, or the first status that is neither EFFE_OK nor EFFE_END. */
static effe_status collect(const effe_exchange *exchange, size_t limit, char *to, size_t *len) {
    reader reader = {exchange, false, {NULL, 0, NULL, NULL}};
    effe_bytes piece = {NULL, 0};
    effe_status read = EFFE_OK;
    *len = 0;
    while (*len < limit && (read = next(&reader, &piece)) == EFFE_OK) {
        size_t n = piece.len < limit - *len ? piece.len : limit - *len;
        if (to) {
            memcpy(to + *len, piece.ptr, n);
        }
        *len += n;
    }
    if (reader.piece.release) {
        reader.piece.release(reader.piece.owner, reader.piece.ptr, reader.piece.len);
    }
    return read == EFFE_END ? EFFE_OK : read;
}

static effe_status text(const effe_exchange *exchange, const char *said) {
    return effe_respond_text(exchange, 200, effe_text(said));
}

static effe_status begun(const effe_exchange *exchange, const char *said) {
    return respond(exchange, 200, NULL, NULL, bytes(said), EFFE_MORE);
}

static effe_status answer(const effe_exchange *exchange, effe_failure *failure) {
    static char piece[256 * 1024];
    const effe_bytes large = {piece, sizeof piece};
    char said[1024];
    size_t len;
    effe_status status = EFFE_OK;
    if (path_is(exchange, "/echo")) {
        return echo(exchange, NULL);
    }
    if (path_is(exchange, "/length")) {
        status = collect(exchange, SIZE_MAX, NULL, &len);
        snprintf(said, sizeof said, "%zu", len);
        return status == EFFE_OK ? text(exchange, said) : status;
    }
    if (path_is(exchange, "/whole") || path_is(exchange, "/first")) {
        status = collect(exchange, path_is(exchange, "/first") ? 4 : sizeof said, said, &len);
        effe_bytes body = {said, len};
        return status == EFFE_OK ? respond(exchange, 200, NULL, NULL, body, 0) : status;
    }
    if (path_is(exchange, "/unread")) {
        return text(exchange, "not read");
    }
    if (path_is(exchange, "/pieces")) {
        for (int n = 0; n < 10 && status == EFFE_OK; n++) {
            snprintf(said, sizeof said, "%d ", n);
            status = n == 0 ? begun(exchange, said) : send(exchange, bytes(said));
        }
        return status;
    }
    if (path_is(exchange, "/endless")) {
        status = begun(exchange, "x");
        count("begun");
        while (status == EFFE_OK) {
            status = send(exchange, large);
        }
        return status;
    }
    if (path_is(exchange, "/silent")) {
        status = begun(exchange, "begun");
        count("begun");
        uint64_t remaining;
        while (exchange->ops->state(exchange->host, &remaining) == EFFE_OK) {
            sleep_ms(1);
        }
        return status;
    }
    if (path_is(exchange, "/panic")) {
        begun(exchange, "begun");
        return panic(failure, "spout.c", "a secret of the author's");
    }
    if (path_is(exchange, "/fail")) {
        begun(exchange, "begun");
        return fail(failure, EFFE_LEVEL_ERROR, "a secret of the author's");
    }
    if (path_is(exchange, "/slow")) {
        status = begun(exchange, "begun");
        sleep_ms(600);
        return status == EFFE_OK ? send(exchange, bytes(" and ended")) : status;
    }
    if (path_is(exchange, "/exact") || path_is(exchange, "/short") || path_is(exchange, "/long")) {
        status = respond(exchange, 200, "content-length", "10", bytes("12345"), EFFE_MORE);
        if (status == EFFE_OK && !path_is(exchange, "/short")) {
            status = send(exchange, bytes(path_is(exchange, "/exact") ? "67890" : "678901"));
        }
        return status;
    }
    if (path_is(exchange, "/held-length")) {
        return respond(exchange, 200, "content-length", "1234", bytes(""), 0);
    }
    if (path_is(exchange, "/no-content")) {
        return respond(exchange, 204, NULL, NULL, bytes("not sent"), EFFE_MORE);
    }
    if (path_is(exchange, "/bad-header")) {
        return respond(exchange, 200, "x", "a\r\nSet-Cookie: b", bytes("not sent"), EFFE_MORE);
    }
    return text(exchange, "ok");
}

static effe_status run(void *context, const effe_exchange *exchange, effe_failure *failure) {
    (void)context;
    count("run");
    effe_status status = answer(exchange, failure);
    count(status == EFFE_OK ? "ended" : "failed");
    if (status == EFFE_OK || status == EFFE_ERROR || status == EFFE_PANIC) {
        return status;
    }
    char said[64];
    snprintf(said, sizeof said, "the exchange says %u", status);
    return fail(failure, EFFE_LEVEL_DEBUG, said);
}

EFFE_LAMBDA(EFFE_STREAM_REQUEST | EFFE_STREAM_RESPONSE, "{\"name\":\"spout\"}", init, start, run, stop_counted,
            retire_counted, no_extension);
