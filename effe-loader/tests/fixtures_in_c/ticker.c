/* What `examples/ticker/src/lib.rs` is, in C: a stream of events, one each `every` milliseconds. */
#include "fixture.h"

static long every = 1000;

static effe_status init(const effe_host *given, effe_failure *failure) {
    (void)failure;
    set_host(given);
    char *text = parameter("every");
    every = text ? strtol(text, NULL, 10) : every;
    free(text);
    return EFFE_OK;
}

static effe_status run(void *context, const effe_exchange *exchange, effe_failure *failure) {
    (void)context;
    char text[64] = "0";
    effe_bytes last = effe_find_header(exchange, "last-event-id");
    if (last.len < sizeof text) {
        memcpy(text, last.len > 0 ? last.ptr : "0", last.len > 0 ? last.len : 1);
    }
    unsigned long n = strtoul(text, NULL, 10);
    effe_status status = respond(exchange, 200, "content-type", "text/event-stream", bytes(""), EFFE_MORE);
    uint64_t remaining;
    while (status == EFFE_OK && exchange->ops->state(exchange->host, &remaining) == EFFE_OK) {
        n++;
        snprintf(text, sizeof text, "id: %lu\ndata: %lu\n\n", n, n);
        status = send(exchange, bytes(text));
        sleep_ms(every);
    }
    return status == EFFE_OK ? EFFE_OK : fail(failure, EFFE_LEVEL_DEBUG, "the client has gone");
}

EFFE_LAMBDA(EFFE_WAITS | EFFE_STREAM_RESPONSE, "{\"name\":\"ticker\"}", init, start_nothing, run, stop_nothing,
            retire_nothing, no_extension);
