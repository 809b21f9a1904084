/* What `examples/pipe/src/lib.rs` is, in C: sends the body back piece by piece as it arrives. */
#include "stream.h"

static effe_status init(const effe_host *given, effe_failure *failure) {
    (void)failure;
    set_host(given);
    return EFFE_OK;
}

static effe_status run(void *context, const effe_exchange *exchange, effe_failure *failure) {
    (void)context;
    char type[256] = "application/octet-stream";
    effe_bytes given = effe_find_header(exchange, "content-type");
    if (given.len > 0 && given.len < sizeof type) {
        memcpy(type, given.ptr, given.len);
        type[given.len] = 0;
    }
    effe_status status = echo(exchange, type);
    return status == EFFE_OK ? EFFE_OK : fail(failure, EFFE_LEVEL_DEBUG, "the body or the answer has broken off");
}

EFFE_LAMBDA(EFFE_STREAM_REQUEST | EFFE_STREAM_RESPONSE, "{\"name\":\"pipe\"}", init, start_nothing, run, stop_nothing,
            retire_nothing, no_extension);
