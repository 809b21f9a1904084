/* An async lambda: its runs wait without a thread of the loader's. */
#include <pthread.h>

#include "fixture.h"

static const effe_async_host *async_host;

typedef struct {
    const effe_exchange *exchange;
    effe_failure *failure;
    bool is_begun;
    bool is_done;
    char body[256];
    size_t len;
} running;

static effe_status at_once(void *data, const effe_waker *waker) {
    (void)waker;
    count(data);
    return EFFE_OK;
}

static void drop_nothing(void *data) {
    (void)data;
}

/* A future that is ready at its first poll; it counts what it is. */
static effe_future ready_at_once(const char *what) {
    effe_future future = {(void *)what, at_once, drop_nothing};
    return future;
}

static void *wake_later(void *waker) {
    sleep_ms(10);
    ((const effe_waker *)waker)->table->wake(waker);
    return NULL;
}

static effe_status poll(void *data, const effe_waker *waker) {
    running *run = data;
    const effe_exchange *exchange = run->exchange;
    bool is_first = !run->is_begun;
    run->is_begun = true;
    if (path_is(exchange, "/never")) {
        return EFFE_PENDING;
    }
    if (path_is(exchange, "/later") && is_first) {
        pthread_t thread;
        pthread_create(&thread, NULL, wake_later, (void *)waker->table->clone(waker));
        pthread_detach(thread);
        return EFFE_PENDING;
    }
    while (path_is(exchange, "/echo")) {
        effe_chunk piece = {NULL, 0, NULL, NULL};
        effe_status status = async_host->poll_read(exchange->host, waker, &piece);
        if (status != EFFE_OK) {
            if (status == EFFE_END) {
                break;
            }
            return status == EFFE_PENDING ? status : fail(run->failure, EFFE_LEVEL_DEBUG, "the body breaks off");
        }
        size_t len = piece.len < sizeof run->body - run->len ? piece.len : sizeof run->body - run->len;
        memcpy(run->body + run->len, piece.ptr, len);
        run->len += len;
        if (piece.release) {
            piece.release(piece.owner, piece.ptr, piece.len);
        }
    }
    run->is_done = true;
    count("done");
    effe_bytes body = {run->body, run->len};
    return respond(exchange, 200, NULL, NULL, run->len > 0 ? body : bytes(is_first ? "at once" : "later"), 0);
}

static void drop(void *data) {
    running *run = data;
    if (!run->is_done) {
        count("cancelled");
    }
    free(run);
}

static void start(const effe_host *given, void **context, effe_failure *failure, effe_future *out) {
    (void)given;
    (void)failure;
    *context = &the_context;
    count("start");
    *out = ready_at_once("context");
}

static void run(void *context, const effe_exchange *exchange, effe_failure *failure, effe_future *out) {
    (void)context;
    running *run = calloc(1, sizeof *run);
    run->exchange = exchange;
    run->failure = failure;
    /* The body's beginning is here already. */
    run->len = exchange->body.len < sizeof run->body ? exchange->body.len : sizeof run->body;
    if (run->len > 0) {
        memcpy(run->body, exchange->body.ptr, run->len);
    }
    count("run");
    effe_future future = {run, poll, drop};
    *out = future;
}

static void stop(void *context, effe_failure *failure, effe_future *out) {
    (void)context;
    (void)failure;
    *out = ready_at_once("stop");
}

static effe_status is_ready(const effe_host *given, effe_failure *failure) {
    (void)given;
    char *path = parameter("ready-if");
    bool is_ready = !path || exists(path);
    free(path);
    return is_ready ? EFFE_OK : fail(failure, EFFE_LEVEL_ERROR, "its file is not there");
}

static const void *extension(effe_str id) {
    static const effe_async_plugin polled = {sizeof(effe_async_plugin), 1, start, run, stop};
    static const effe_ready readiness = {sizeof(effe_ready), 1, is_ready};
    if (is_id(id, EFFE_ASYNC)) {
        return &polled;
    }
    return is_id(id, EFFE_READY) ? &readiness : NULL;
}

static effe_status init(const effe_host *given, effe_failure *failure) {
    (void)failure;
    set_host(given);
    async_host = host->extension(host->data, effe_text(EFFE_ASYNC));
    count("init");
    return async_host ? EFFE_OK : EFFE_ERROR;
}

/* The first Context is made before there is anything to poll. */
static effe_status start_waiting(const effe_host *given, void **context, effe_failure *failure) {
    (void)given;
    (void)failure;
    *context = &the_context;
    count("start");
    count("context");
    return EFFE_OK;
}

static effe_status run_waiting(void *context, const effe_exchange *exchange, effe_failure *failure) {
    (void)context;
    (void)exchange;
    return fail(failure, EFFE_LEVEL_ERROR, "it is not polled");
}

EFFE_LAMBDA(EFFE_STREAM_REQUEST, "{\"name\":\"patient\"}", init, start_waiting, run_waiting, stop_counted,
            retire_counted, extension);
