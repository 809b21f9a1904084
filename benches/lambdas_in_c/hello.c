/* What `examples/hello` does, in C: the same Context, the same formatting, the same answer. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "effe.h"

typedef struct {
    unsigned n;
} hello;

static effe_status nothing(const effe_host *host, effe_failure *failure) {
    (void)host;
    (void)failure;
    return EFFE_OK;
}

static effe_status start(const effe_host *host, void **context, effe_failure *failure) {
    unsigned char byte = 0;
    hello *made = malloc(sizeof *made);
    if (made == NULL) {
        return EFFE_PANIC;
    }
    (void)!getrandom(&byte, 1, 0);
    made->n = 1 + byte % 2;
    *context = made;
    return nothing(host, failure);
}

static effe_status run(void *context, const effe_exchange *exchange, effe_failure *failure) {
    char text[64];
    int len = snprintf(text, sizeof text, "Hello from Effe:  %u\n", ((const hello *)context)->n);
    const effe_header type = {{"content-type", 12}, {"text/plain", 10}};
    const effe_headers headers = {&type, 1};
    const effe_chunk body = {text, (size_t)len, NULL, NULL};
    (void)failure;
    return exchange->ops->respond(exchange->host, 200, headers, body, 0);
}

static effe_status stop(void *context, effe_failure *failure) {
    free(context);
    (void)failure;
    return EFFE_OK;
}

static const void *extension(effe_str id) {
    (void)id;
    return NULL;
}

EFFE_LAMBDA(0, "{\"name\":\"hello\",\"version\":\"0.1.0\"}", nothing, start, run, stop, nothing, extension);
