/* Counts its requests in a file, which outlives the process. Each Context has the file open: `--set file=PATH`. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "effe.h"

/* A Context: what Start makes, Run uses for one request at a time, and Stop frees. */
typedef struct {
    int file;
} counter;

static const effe_fail_host *failing;

/* Says why an entry fails. The text goes to the operator's log, and never to the client. */
static effe_status fail(effe_failure *failure, const char *format, ...) {
    char text[512];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    failing->fail(failure, EFFE_LEVEL_ERROR, effe_text(text));
    return EFFE_ERROR;
}

static effe_status init(const effe_host *host, effe_failure *failure) {
    effe_str path;
    failing = host->extension(host->data, effe_text(EFFE_FAIL));
    if (host->parameter(host->data, effe_text("file"), &path) != EFFE_OK) {
        return fail(failure, "the parameter `file` is missing; say where to count: --set file=PATH");
    }
    return EFFE_OK;
}

static effe_status start(const effe_host *host, void **context, effe_failure *failure) {
    effe_str path;
    char name[4096];
    host->parameter(host->data, effe_text("file"), &path);
    if (path.len >= sizeof name) {
        return fail(failure, "the parameter `file` is too long");
    }
    memcpy(name, path.ptr, path.len);
    name[path.len] = 0;
    int file = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0) {
        return fail(failure, "cannot open %s: %s", name, strerror(errno));
    }
    counter *made = malloc(sizeof *made);
    if (made == NULL) {
        close(file);
        return fail(failure, "there is no memory for a Context");
    }
    made->file = file;
    *context = made;
    return EFFE_OK;
}

/* Adds one to the number in a file that nobody else may use meanwhile. Returns it, or 0 with `errno`. */
static unsigned long long count(int file) {
    char digits[32] = {0};
    if (pread(file, digits, sizeof digits - 1, 0) < 0) {
        return 0;
    }
    unsigned long long n = strtoull(digits, NULL, 10) + 1;
    int len = snprintf(digits, sizeof digits, "%llu\n", n);
    return pwrite(file, digits, (size_t)len, 0) == len ? n : 0;
}

static effe_status run(void *context, const effe_exchange *exchange, effe_failure *failure) {
    const counter *counter = context;
    if (flock(counter->file, LOCK_EX) != 0) {
        return fail(failure, "cannot lock the file: %s", strerror(errno));
    }
    unsigned long long n = count(counter->file);
    int err = errno;
    flock(counter->file, LOCK_UN);
    if (n == 0) {
        return fail(failure, "cannot count: %s", strerror(err));
    }
    char text[64];
    int len = snprintf(text, sizeof text, "request %llu\n", n);
    return effe_respond_text(exchange, 200, (effe_str){text, (size_t)len});
}

static effe_status stop(void *context, effe_failure *failure) {
    counter *counter = context;
    int closed = close(counter->file);
    free(counter);
    return closed == 0 ? EFFE_OK : fail(failure, "cannot close the file: %s", strerror(errno));
}

static effe_status retire(const effe_host *host, effe_failure *failure) { return EFFE_OK; }
static const void *extension(effe_str id) { return NULL; }

EFFE_LAMBDA(EFFE_WAITS, "{\"name\":\"counter\",\"version\":\"0.1.0\",\"description\":\"counts its requests\"}", init,
            start, run, stop, retire, extension);
