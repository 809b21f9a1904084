/* What `probe/src/lib.rs` is, in C: does what a test tells it to. */
#include "fixture.h"

/* Tests make another version of this plugin by writing other bytes here. */
static const volatile char VERSION[17] = "probe, version 1";

static uint64_t starts;

/* What a Context pointer points to. It need not be a Context: a Start that failed may come with none. */
typedef struct {
    uint64_t number;
    bool is_context;
    char failed[64];
    char version[17];
} probe;

static void version(char out[17]) {
    for (size_t n = 0; n < 17; n++) {
        out[n] = VERSION[n];
    }
}

#define TEXT(number) #number
#define PLACE(number) "probe.c:" TEXT(number)

/* Fails, hangs or panics if it was told to. */
static effe_status quietly(const char *name, effe_failure *failure) {
    char text[64];
    if (told("panic", name)) {
        snprintf(text, sizeof text, "told to panic in %s", name);
        return panic(failure, PLACE(__LINE__), text);
    }
    if (told("fail", name)) {
        snprintf(text, sizeof text, "told to fail in %s (%s)", name, PLACE(__LINE__));
        return fail(failure, EFFE_LEVEL_ERROR, text);
    }
    while (told("hang", name)) {
        pause();
    }
    return EFFE_OK;
}

static effe_status step(const char *name, effe_failure *failure) {
    count(name);
    return quietly(name, failure);
}

static effe_status init(const effe_host *given, effe_failure *failure) {
    set_host(given);
    return step("init", failure);
}

static effe_status start(const effe_host *given, void **context, effe_failure *failure) {
    (void)given;
    uint64_t number = __atomic_add_fetch(&starts, 1, __ATOMIC_RELAXED);
    char *times = parameter("fail-times"), *with_context = parameter("fail-with-context");
    effe_status status = step("start", failure);
    if (status == EFFE_ERROR && times && number > strtoull(times, NULL, 10)) {
        status = EFFE_OK;
    }
    if (status != EFFE_PANIC) {
        probe *made = calloc(1, sizeof *made);
        made->number = number;
        made->is_context = status == EFFE_OK || with_context;
        version(made->version);
        if (status == EFFE_ERROR) {
            snprintf(made->failed, sizeof made->failed, "told to fail in start (%s)", PLACE(__LINE__));
        }
        if (made->is_context) {
            count("context");
        }
        *context = made;
    }
    free(times);
    free(with_context);
    return status;
}

static effe_status answer(const probe *probe, const effe_exchange *exchange, effe_failure *failure) {
    char one[512], two[512], text[1024];
    const char *secret = "a secret of the author's (" PLACE(__LINE__) ")";
    effe_status status = EFFE_OK;
    if (path_is(exchange, "/context")) {
        snprintf(text, sizeof text, "%llu", (unsigned long long)probe->number);
        status = effe_respond_text(exchange, 200, effe_text(text));
    } else if (path_is(exchange, "/version")) {
        char now[17];
        version(now);
        snprintf(text, sizeof text, "%s / %s", now, probe->version);
        status = effe_respond_text(exchange, 200, effe_text(text));
    } else if (path_is(exchange, "/parameters")) {
        char *all = parameter("");
        status = effe_respond_text(exchange, 200, effe_text(all));
        free(all);
    } else if (path_is(exchange, "/length")) {
        snprintf(text, sizeof text, "%zu", exchange->body.len);
        status = effe_respond_text(exchange, 200, effe_text(text));
    } else if (path_is(exchange, "/fail")) {
        const char *names[] = {"critical", "error", "warning", "notice", "info", "debug"};
        const char *name = argument(exchange, "level", "error", one);
        uint32_t level = EFFE_LEVEL_CRITICAL;
        while (strcmp(names[level - EFFE_LEVEL_CRITICAL], name) != 0) {
            level++;
        }
        return fail(failure, level, secret);
    } else if (path_is(exchange, "/fail-after")) {
        effe_respond_text(exchange, 201, effe_text("what was written stands"));
        return fail(failure, EFFE_LEVEL_ERROR, secret);
    } else if (path_is(exchange, "/panic") || path_is(exchange, "/panic-after") || path_is(exchange, "/panic-with")) {
        return panic(failure, PLACE(__LINE__), secret);
    } else if (path_is(exchange, "/wait")) {
        while (!exists(argument(exchange, "for", "/", one))) {
            sleep_ms(1);
        }
        status = effe_respond_text(exchange, 200, effe_text("waited"));
    } else if (path_is(exchange, "/never")) {
        for (;;) {
            pause();
        }
    } else if (path_is(exchange, "/cancelled")) {
        uint64_t remaining;
        while (exchange->ops->state(exchange->host, &remaining) == EFFE_OK) {
            sleep_ms(1);
        }
        count("cancelled");
    } else if (path_is(exchange, "/status")) {
        uint32_t code = (uint32_t)strtoul(argument(exchange, "code", "200", one), NULL, 10);
        status = effe_respond_text(exchange, code, effe_text(""));
    } else if (path_is(exchange, "/header")) {
        const char *name = argument(exchange, "name", "x", one), *value = argument(exchange, "value", "", two);
        status = respond(exchange, 200, name, value, bytes(""), 0);
    } else if (path_is(exchange, "/large")) {
        size_t len = strtoul(argument(exchange, "bytes", "0", one), NULL, 10);
        char *body = malloc(len + 1);
        memset(body, 'x', len);
        effe_bytes view = {body, len};
        status = respond(exchange, 200, NULL, NULL, view, 0);
        free(body);
    } else {
        status = effe_respond_text(exchange, 200, effe_text("ok"));
    }
    return status == EFFE_OK ? EFFE_OK : fail(failure, EFFE_LEVEL_ERROR, "the answer was refused");
}

static effe_status run(void *context, const effe_exchange *exchange, effe_failure *failure) {
    const probe *probe = context;
    count("run");
    if (path_is(exchange, "/why")) {
        char text[128] = "started", with[32] = "";
        if (probe->failed[0]) {
            if (probe->is_context) {
                snprintf(with, sizeof with, " with %llu", (unsigned long long)probe->number);
            }
            snprintf(text, sizeof text, "failed%s: %s", with, probe->failed);
        }
        return effe_respond_text(exchange, 200, effe_text(text));
    }
    if (probe->failed[0]) {
        return fail(failure, EFFE_LEVEL_ERROR, probe->failed);
    }
    effe_status status = quietly("run", failure);
    return status == EFFE_OK ? answer(probe, exchange, failure) : status;
}

static effe_status stop(void *context, effe_failure *failure) {
    bool is_context = ((probe *)context)->is_context;
    free(context);
    return is_context ? step("stop", failure) : EFFE_OK;
}

static effe_status retire(const effe_host *given, effe_failure *failure) {
    (void)given;
    return step("retire", failure);
}

EFFE_LAMBDA(0, "{\"name\":\"probe\",\"version\":\"0.0.0\"}", init, start, run, stop, retire, no_extension);
