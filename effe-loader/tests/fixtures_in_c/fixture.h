/* What the fixtures in C share: parameters, counts, failures, and the request's parts. A fixture includes it once. */
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "effe.h"

static const effe_host *host;
static const effe_fail_host *failures;

static void set_host(const effe_host *given) {
    host = given;
    failures = host->extension(host->data, effe_text(EFFE_FAIL));
}

/* The text of a parameter; null if there is none. It is kept for good. */
static char *parameter(const char *key) {
    effe_str value = {NULL, 0};
    if (host->parameter(host->data, effe_text(key), &value) != EFFE_OK) {
        return NULL;
    }
    return strndup(value.ptr, value.len);
}

static bool is_in(const char *list, const char *word) {
    for (size_t len = strlen(word); list; list = strchr(list, ',') ? strchr(list, ',') + 1 : NULL) {
        if (strncmp(list, word, len) == 0 && (list[len] == 0 || list[len] == ',')) {
            return true;
        }
    }
    return false;
}

/* Whether the parameter `what` names the step. */
static bool told(const char *what, const char *step) {
    char *steps = parameter(what);
    bool is_told = is_in(steps, step);
    free(steps);
    return is_told;
}

/* One line, in one write, at the end of the file that the parameter `count` names. */
static void count(const char *line) {
    char *path = parameter("count");
    if (path) {
        char text[64];
        int len = snprintf(text, sizeof text, "%s\n", line);
        int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        if (file < 0 || write(file, text, (size_t)len) != len) {
            abort();
        }
        close(file);
    }
    free(path);
}

static effe_status fail(effe_failure *failure, uint32_t level, const char *text) {
    failures->fail(failure, level, effe_text(text));
    return EFFE_ERROR;
}

/* What a panic is in Rust: logged, and the Context is not used again. */
static effe_status panic(effe_failure *failure, const char *place, const char *text) {
    char said[256];
    snprintf(said, sizeof said, "panicked at %s: %s", place, text);
    host->log(host->data, EFFE_LEVEL_CRITICAL, effe_text("probe"), effe_text(said));
    failures->fail(failure, EFFE_LEVEL_CRITICAL, effe_text(said));
    return EFFE_PANIC;
}

static void sleep_ms(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static bool path_is(const effe_exchange *exchange, const char *path) {
    return strlen(path) == exchange->path_len && memcmp(exchange->target.ptr, path, exchange->path_len) == 0;
}

static int hex(char digit) {
    return digit >= '0' && digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10;
}

/* An argument of the query, decoded; `otherwise` if there is none. */
static const char *argument(const effe_exchange *exchange, const char *name, const char *otherwise, char value[512]) {
    size_t len = strlen(name), n = 0;
    const char *end = exchange->target.ptr + exchange->target.len;
    for (const char *at = exchange->target.ptr + exchange->path_len; at < end; at++) {
        bool begins = (*at == '?' || *at == '&') && (size_t)(end - at) > len + 1;
        if (!begins || memcmp(at + 1, name, len) != 0 || at[len + 1] != '=') {
            continue;
        }
        for (at += len + 2; at < end && *at != '&' && n < 511; at++) {
            bool is_coded = *at == '%' && end - at > 2;
            value[n++] = is_coded ? (char)(hex(at[1]) * 16 + hex(at[2])) : *at == '+' ? ' ' : *at;
            at += is_coded ? 2 : 0;
        }
        value[n] = 0;
        return value;
    }
    return otherwise;
}

/* Answers with one header, or none if `name` is null; the rest of the body follows if `flags` has EFFE_MORE. */
static effe_status respond(const effe_exchange *exchange, uint32_t status, const char *name, const char *value,
                           effe_bytes body, uint32_t flags) {
    effe_header header = {{name, name ? strlen(name) : 0}, {value, name ? strlen(value) : 0}};
    effe_headers headers = {&header, name ? 1 : 0};
    effe_chunk chunk = {body.ptr, body.len, NULL, NULL};
    return exchange->ops->respond(exchange->host, status, headers, chunk, flags);
}

static effe_bytes bytes(const char *text) {
    effe_bytes view = {text, strlen(text)};
    return view;
}

static effe_status send(const effe_exchange *exchange, effe_bytes body) {
    effe_chunk chunk = {body.ptr, body.len, NULL, NULL};
    return exchange->ops->write(exchange->host, chunk, EFFE_MORE);
}

static bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

static bool is_id(effe_str id, const char *text) {
    return id.len == strlen(text) && memcmp(id.ptr, text, id.len) == 0;
}

/* The entries of a lambda that keeps nothing from one request to the next. */
static int the_context;

static effe_status start_nothing(const effe_host *given, void **context, effe_failure *failure) {
    (void)given;
    (void)failure;
    *context = &the_context;
    return EFFE_OK;
}

static effe_status stop_nothing(void *context, effe_failure *failure) {
    (void)context;
    (void)failure;
    return EFFE_OK;
}

static effe_status retire_nothing(const effe_host *given, effe_failure *failure) {
    (void)given;
    (void)failure;
    return EFFE_OK;
}

/* The last entries of one whose steps are counted. */
static effe_status stop_counted(void *context, effe_failure *failure) {
    count("stop");
    return stop_nothing(context, failure);
}

static effe_status retire_counted(const effe_host *given, effe_failure *failure) {
    count("retire");
    return retire_nothing(given, failure);
}

static const void *no_extension(effe_str id) {
    (void)id;
    return NULL;
}
