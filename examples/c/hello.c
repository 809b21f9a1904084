/* A lambda that says hello. */
#include <stdio.h>

#include "effe.h"

static effe_str greeting = {"Hello", 5};

/* The operator gives parameters: `--set greeting=Ciao`. What comes out of the host is valid for ever. */
static effe_status init(const effe_host *host, effe_failure *failure) {
    effe_str given;
    if (host->parameter(host->data, effe_text("greeting"), &given) == EFFE_OK) greeting = given;
    return EFFE_OK;
}
/* Makes a Context, which may not be null. This lambda keeps nothing from one request to the next. */
static effe_status start(const effe_host *host, void **context, effe_failure *failure) {
    *context = &greeting;
    return EFFE_OK;
}
static effe_status run(void *context, const effe_exchange *exchange, effe_failure *failure) {
    char text[2048];
    int len = snprintf(text, sizeof text, "%.*s from effe: %.*s\n", (int)greeting.len, greeting.ptr,
                       (int)exchange->path_len, exchange->target.ptr);
    if (len >= (int)sizeof text) return effe_respond_text(exchange, 414, effe_text("the path is too long\n"));
    return effe_respond_text(exchange, 200, (effe_str){text, len});
}
static effe_status stop(void *context, effe_failure *failure) { return EFFE_OK; }
static effe_status retire(const effe_host *host, effe_failure *failure) { return EFFE_OK; }
static const void *extension(effe_str id) { return NULL; }

EFFE_LAMBDA(0, "{\"name\":\"hello\",\"version\":\"0.1.0\"}", init, start, run, stop, retire, extension);
