/* effe.h: a lambda in C, C++, Zig, or any other language that can speak C.
 *
 * This header is the contract between a plugin and the loader that serves it. A plugin is a shared library that exports
 * one data symbol, `effe_lambda_v1`; `EFFE_LAMBDA` at the end of this file defines it.
 *
 * STABILITY: a plugin that was built with any 1.x of this header is loaded by every later loader of 1.y. Nothing here
 * ever changes, no field, name or number. What is new gets an id of its own, and one side asks the other for it through
 * `extension`. All of this file is there since 1.0, unless it says otherwise.
 *
 * TRUST: a plugin runs in the loader's process, and neither side checks the other's pointers. The loader's flag
 * `--strict-plugin` has it look for the breaches that can be seen; see BREACHES at the end.
 *
 * RULES that hold for every function below, on both sides:
 *   - Nothing unwinds out of it: no C++ exception, no longjmp.
 *   - Whoever allocates frees.
 *   - Unknown numbers are no errors: an unknown status is a failure, an unknown flag or level is ignored (but see
 *     `effe_lambda.flags`), an unknown key is EFFE_UNSUPPORTED.
 *   - No pointer to a function is null, unless it says so.
 *
 * OWNERSHIP of views (`effe_str`, `effe_bytes`, an `effe_chunk` without `release`): one that is passed *in* as an
 * argument is valid for the length of the call, and so is memory that a pointer among the arguments points to. One that
 * comes *out* of an exchange is valid as long as the exchange; one out of a host, for ever.
 *
 * THREADS: the loader calls the entries of a plugin on any of its threads, and those of different Contexts at the same
 * time.
 *
 * Compile with -fPIC -fvisibility=hidden and link with -shared. C99, C++17, or later.
 */
#ifndef EFFE_H
#define EFFE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
#define EFFE_NULL nullptr
extern "C" {
#else
#define EFFE_NULL NULL
#endif

/* The version of this header. */
#define EFFE_H_VERSION "1.0.0"

/* The version of the ABI, for `effe_lambda.version`. */
#define EFFE_ABI_VERSION 1u

/* What a function returns; one of the numbers below. */
typedef uint32_t effe_status;

#define EFFE_OK 0u          /* Done. */
#define EFFE_ERROR 1u       /* Of an entry: it failed, and the failure says why. */
/* Of an entry: it failed so that its Context can't be used any more, only stopped. The lambda has logged why, by
 * `effe_host.log`: the loader doesn't log the failure once more, but tells it where an Init or a `--check` fails. */
#define EFFE_PANIC 2u
#define EFFE_GONE 3u        /* The client has gone. */
#define EFFE_END 4u         /* There is no more, or no such thing: the end of a body, an absent header or parameter. */
#define EFFE_UNSUPPORTED 5u /* This side can't do that, or not now. */
#define EFFE_INVALID 6u     /* A malformed status or header, or a call in the wrong order. */
#define EFFE_TOO_LARGE 7u   /* Larger than a limit that the operator has set. */
#define EFFE_TIMEOUT 8u     /* The deadline has passed. */
#define EFFE_PENDING 9u     /* Not yet: the waker will be woken. Only from functions that take a waker. */
#define EFFE_GOING_AWAY 10u /* The effe stops. Only from functions of an `effe_duplex`. */

/* Levels of a failure and of the log: syslog's, and one more. */
#define EFFE_LEVEL_CRITICAL 2u
#define EFFE_LEVEL_ERROR 3u
#define EFFE_LEVEL_WARNING 4u
#define EFFE_LEVEL_NOTICE 5u
#define EFFE_LEVEL_INFO 6u
#define EFFE_LEVEL_DEBUG 7u
#define EFFE_LEVEL_TRACE 8u

/* Text in UTF-8. It isn't terminated. */
typedef struct effe_str {
    const char *ptr; /* It may be null if `len` is 0. */
    size_t len;      /* Number of bytes. */
} effe_str;

/* Bytes, which need not be text. */
typedef struct effe_bytes {
    const void *ptr; /* It may be null if `len` is 0. */
    size_t len;
} effe_bytes;

/* Bytes that may come with their owner.
 * OWNERSHIP: with `release` they belong to the receiver, who calls it exactly once, on any thread, whatever status
 * the receiver returns. Without, they are a view. */
typedef struct effe_chunk {
    const void *ptr; /* It may be null if `len` is 0. */
    size_t len;      /* At most PTRDIFF_MAX. */
    void *owner;     /* First argument of `release`; only its maker knows what it is. */
    void (*release)(void *owner, const void *ptr, size_t len); /* Frees the bytes. Any thread may call it. Or null. */
} effe_chunk;

/* One header of a request or of an answer. */
typedef struct effe_header {
    effe_str name; /* Of a request, in lower case. */
    effe_bytes value;
} effe_header;

/* Headers. OWNERSHIP: a view, like `effe_str`. */
typedef struct effe_headers {
    const effe_header *ptr; /* It may be null if `len` is 0. */
    size_t len;             /* Number of headers. */
} effe_headers;

/* Why an entry did not return EFFE_OK. Only the host knows what is in it; `effe_fail_host.fail` fills it in.
 * OWNERSHIP: the host's, valid until the entry returns or its future is dropped. */
typedef struct effe_failure effe_failure;

/* Keys of `effe_host.attribute`. */
#define EFFE_HOST_ADDRESS 1u        /* The address that is served, `address:port`. With several, the first. */
#define EFFE_HOST_RESPONSE_LIMIT 2u /* The largest answer that is held whole, in bytes, as decimal digits. */
#define EFFE_HOST_SOFTWARE 3u       /* The host's name and version, `effe-loader/0.1.0`. */
#define EFFE_HOST_PROCESS 64u       /* Which of the processes that serve this is, from 0, and of how many: `1/4`. */

/* What the loader gives to a plugin.
 * OWNERSHIP: it lives for ever. THREADS: any thread may call any of its functions at any time. */
typedef struct effe_host {
    const void *data; /* First argument of every function. */
    /* The least severe level that is wanted now. */
    uint32_t (*level)(const void *data);
    /* Writes one or more lines to the log. `target` says which part of the lambda speaks; it may be empty. */
    void (*log)(const void *data, uint32_t level, effe_str target, effe_str text);
    /* One of the operator's parameters: the text of a JSON string, or anything else as JSON text. The empty key gives
     * the JSON object of all parameters. EFFE_OK or EFFE_END. */
    effe_status (*parameter)(const void *data, effe_str key, effe_str *out);
    /* A fact about the host, by one of the keys above. EFFE_OK, EFFE_END, EFFE_UNSUPPORTED. */
    effe_status (*attribute)(const void *data, uint32_t key, effe_str *out);
    /* The table of this id, which lives for ever, or null. */
    const void *(*extension)(const void *data, effe_str id);
} effe_host;

typedef struct effe_exchange effe_exchange;

/* Bit of `effe_exchange.flags`: `body` is only the beginning of the body, and `read` gives the rest. */
#define EFFE_MORE_BODY 1u
/* Bit of the flags of `respond` and `write`: more of the answer follows. */
#define EFFE_MORE 1u

/* Keys of `effe_exchange_ops.attribute`. */
#define EFFE_REQUEST_ID 1u /* The request's id: the client's, or one that the host made. */
#define EFFE_PEER 2u       /* `address:port` of the client. */
#define EFFE_SCHEME 3u     /* `https` if the connection to the host is over TLS, else `http`. */
#define EFFE_AUTHORITY 4u  /* The host that the client asked for, from `:authority` or `Host`. */
/* Of requests that are invocations of AWS Lambda's; of any other, they are EFFE_UNSUPPORTED. */
#define EFFE_AWS_REQUEST_ID 0x0100u       /* The id of the invocation. It is there for every invocation. */
#define EFFE_AWS_DEADLINE_MS 0x0101u      /* When it times out, in milliseconds since 1970, as decimal digits. */
#define EFFE_AWS_FUNCTION_ARN 0x0102u     /* The ARN under which the function was invoked. */
#define EFFE_AWS_TRACE_ID 0x0103u         /* The tracing header of X-Ray. */
#define EFFE_AWS_CLIENT_CONTEXT 0x0104u   /* What the caller says of itself, as JSON. */
#define EFFE_AWS_COGNITO_IDENTITY 0x0105u /* The Cognito identity of the caller, as JSON. */
#define EFFE_AWS_EVENT 0x0106u            /* The event as it came, as JSON. */

/* The functions of an exchange; `host` is `effe_exchange.host`.
 * THREADS: any thread may call any of them. `header`, `headers`, `attribute` and `state` may be called at the same
 * time. Of `read`, one call at a time. Of `respond` and `write` together, one call at a time, also while a `read`
 * waits. */
typedef struct effe_exchange_ops {
    /* The nth value of a header, from 0; case doesn't matter in the name. EFFE_OK or EFFE_END. */
    effe_status (*header)(void *host, effe_str name, size_t nth, effe_bytes *out);
    /* Writes up to `capacity` headers to `out`, from number `skip` on. Returns how many there are in all. */
    size_t (*headers)(void *host, size_t skip, effe_header *out, size_t capacity);
    /* A fact about the request, by one of the keys above. EFFE_OK, EFFE_END, EFFE_UNSUPPORTED. */
    effe_status (*attribute)(void *host, uint32_t key, effe_str *out);
    /* EFFE_OK, EFFE_GONE or EFFE_TIMEOUT, and the nanoseconds until the deadline (UINT64_MAX: there is none). */
    effe_status (*state)(void *host, uint64_t *remaining);
    /* The next piece of the body. A view is valid until the next `read`. May wait. EFFE_OK, EFFE_END, EFFE_GONE,
     * EFFE_TOO_LARGE, EFFE_TIMEOUT. */
    effe_status (*read)(void *host, effe_chunk *out);
    /* Sends the head and the body: all of the body, or its beginning with EFFE_MORE. Called once; only heads with a
     * 1xx status, sent with EFFE_MORE, may precede it. EFFE_OK, EFFE_GONE, EFFE_INVALID, EFFE_TOO_LARGE,
     * EFFE_TIMEOUT. */
    effe_status (*respond)(void *host, uint32_t status, effe_headers headers, effe_chunk body, uint32_t flags);
    /* Sends the next piece of the body without delay. Without EFFE_MORE, it is the last. May wait while the client is
     * slow. EFFE_OK, EFFE_GONE, EFFE_INVALID, EFFE_TOO_LARGE, EFFE_TIMEOUT. */
    effe_status (*write)(void *host, effe_chunk chunk, uint32_t flags);
} effe_exchange_ops;

/* One request, and the functions to answer it.
 * OWNERSHIP: the host's. It is valid until the call that it was passed to returns; in an async run, until the future
 * is dropped. Functions of the host's extensions name an exchange by its `host`. */
struct effe_exchange {
    effe_str method;    /* As it came, `GET`. */
    effe_str target;    /* Path and query as they came. */
    size_t path_len;    /* The first so many bytes of `target` are the path. After it: nothing, or `?` and the query. */
    effe_bytes body;    /* The whole body, or its beginning if `flags` has EFFE_MORE_BODY. */
    uint32_t flags;     /* EFFE_MORE_BODY or 0. */
    uint32_t version;   /* The version of HTTP: 10, 11, 20, 30. */
    void *host;         /* First argument of every function in `ops`. */
    const effe_exchange_ops *ops;
};

/* Bits of `effe_lambda.flags`. */
#define EFFE_NEVER_WAITS 1ull       /* Run never waits. */
#define EFFE_WAITS 2ull             /* Run always waits. */
#define EFFE_STREAM_REQUEST 4ull    /* Run reads the body as it arrives. Without: the exchange holds the whole body. */
#define EFFE_STREAM_RESPONSE 8ull   /* Run sends its answer piece by piece. Without: the answer is held whole. */
#define EFFE_KEEP_CANCELLED 16ull   /* Of an async lambda: a Context whose run was cancelled may be used again. */
#define EFFE_ANSWERS_EARLY 32ull    /* Run may end its answer before it returns; see `effe_early_host`. */
#define EFFE_UPGRADES 128ull        /* Run may switch its connection to another protocol; see `effe_upgrade_host`. */

/* What a plugin exports as `effe_lambda_v1`. OWNERSHIP: the plugin's; it lives for ever and never changes.
 *
 * A loader refuses a plugin whose `size` is smaller than it is here, whose `version` it doesn't know, that lacks an
 * entry, or whose texts are not UTF-8. */
typedef struct effe_lambda {
    uint32_t size;    /* sizeof(effe_lambda); more, in a later version of this header. */
    uint32_t version; /* EFFE_ABI_VERSION */
    /* The bits above. A loader ignores what it doesn't know of bits 0 to 31; for the others it refuses the plugin. */
    uint64_t flags;
    effe_str info;  /* A JSON object: what the lambda says of itself. `name` and `version` name artifacts and images. */
    effe_str build; /* `key=value; ...`, for people: EFFE_BUILD. */
    /* Called once, before any `start`. EFFE_OK; else the loader says why, and serves nothing. */
    effe_status (*init)(const effe_host *host, effe_failure *failure);
    /* Makes a Context. The caller sets `*context` to null. EFFE_OK: `*context` is a Context, which is not null; a
     * lambda that needs none gives the address of anything. EFFE_ERROR: if `*context` is not null, one `run` follows,
     * which answers for the failed start. EFFE_PANIC: no `run` follows. If `*context` is not null afterwards,
     * whatever the status, exactly one `stop` follows. */
    effe_status (*start)(const effe_host *host, void **context, effe_failure *failure);
    /* Answers one request. THREADS: any, one call at a time for each Context. EFFE_OK ends an answer that was not
     * ended. Otherwise, before `respond` was called: the client gets 500; in the middle of an answer: the connection
     * is broken off. After EFFE_PANIC only `stop` is called with the Context. */
    effe_status (*run)(void *context, const effe_exchange *exchange, effe_failure *failure);
    /* Destroys the Context, whatever it returns. */
    effe_status (*stop)(void *context, effe_failure *failure);
    /* Called once, after the last `stop`, and nothing after it. */
    effe_status (*retire)(const effe_host *host, effe_failure *failure);
    /* The plugin's table of this id, which lives for ever, or null. THREADS: any, at any time. */
    const void *(*extension)(effe_str id);
} effe_lambda;

/* ---------------------------------------------------------------------------------------------------------------------
 * Extensions: tables that one side asks the other for by id, through `extension`. Null means that it isn't supported,
 * and whoever asked does without. Each table begins with its size and its version. A table may get new fields at its
 * end under the same id: its `size` says whether they are there. Its version says what its maker promises beyond that.
 */

/* Id of the host's table `effe_fail_host`: says why an entry fails. */
#define EFFE_FAIL "effe.fail/1"

/* Every host that loads a plugin by `effe_lambda_v1` has this table. */
typedef struct effe_fail_host {
    uint32_t size;
    uint32_t version; /* 1 */
    /* Says why the entry that was given `failure` is about to return EFFE_ERROR or EFFE_PANIC: one or more lines for
     * the operator, never for the client, and a level from EFFE_LEVEL_CRITICAL to EFFE_LEVEL_DEBUG. The text is
     * copied. A second call replaces the first. THREADS: any, one call at a time for each failure. */
    void (*fail)(effe_failure *failure, uint32_t level, effe_str text);
} effe_fail_host;

/* Id of the plugin's table `effe_ready`: whether the lambda can serve. */
#define EFFE_READY "effe.ready/1"

typedef struct effe_ready {
    uint32_t size;
    uint32_t version; /* 1 */
    /* EFFE_OK: it can serve. THREADS: any, one call at a time, after `init` and before `retire`. May wait. */
    effe_status (*ready)(const effe_host *host, effe_failure *failure);
} effe_ready;

typedef struct effe_waker effe_waker;

/* The functions of a waker. THREADS: any, at any time. */
typedef struct effe_waker_table {
    /* A clone that may be kept; never null. OWNERSHIP: the caller's, who ends it by one `wake` or one `drop`. */
    const effe_waker *(*clone)(const effe_waker *waker);
    void (*wake)(const effe_waker *waker);        /* Wakes, and uses up a clone. */
    void (*wake_by_ref)(const effe_waker *waker); /* Wakes, and uses up nothing. Also on a waker that was passed in. */
    void (*drop)(const effe_waker *waker);        /* Uses up a clone. */
} effe_waker_table;

/* The first word of an object whose rest only its maker knows.
 * OWNERSHIP: valid for the length of the call that it is passed to. Whoever wants to keep it makes a clone. */
struct effe_waker {
    const effe_waker_table *table;
};

/* Work that waits without a thread. OWNERSHIP: whoever asked for it polls it, and calls `drop`, which frees it. */
typedef struct effe_future {
    void *data; /* First argument of both functions; only its maker knows what it is. */
    /* THREADS: any, one call at a time, until it returns something other than EFFE_PENDING. The waker is valid for
     * the length of the call. */
    effe_status (*poll)(void *data, const effe_waker *waker);
    /* Called exactly once, on any thread, after the last `poll`. */
    void (*drop)(void *data);
} effe_future;

/* Id of the plugin's table `effe_async_plugin`, and of the host's table `effe_async_host`. */
#define EFFE_ASYNC "effe.async/1"

/* Start, Run and Stop as futures. The entries of `effe_lambda` work too: they wait on their thread.
 * OWNERSHIP: what a pointer among the arguments points to is valid until the future is dropped. */
typedef struct effe_async_plugin {
    uint32_t size;
    /* 2: before each poll of a run the plugin calls `effe_spawn_host.may_spawn` until it says EFFE_OK, and spawns
     * exactly those runs. A plugin that never spawns a run says 1. */
    uint32_t version;
    /* As `effe_lambda.start`; when the future is done, its status and `*context` are what that entry leaves. If the
     * future is dropped before, `*context` is null and there is nothing to stop. */
    void (*start)(const effe_host *host, void **context, effe_failure *failure, effe_future *out);
    /* As `effe_lambda.run`. If the future is dropped before it is done, the run is cancelled. Then the Context may be
     * used again if the plugin's flags have EFFE_KEEP_CANCELLED; if not, only `stop` is called with it. */
    void (*run)(void *context, const effe_exchange *exchange, effe_failure *failure, effe_future *out);
    /* The future is polled to its end. */
    void (*stop)(void *context, effe_failure *failure, effe_future *out);
} effe_async_plugin;

/* `read` and `write` that return EFFE_PENDING instead of waiting, for exchanges of `effe_async_plugin.run`.
 * THREADS: as `effe_exchange_ops`, where `poll_read` counts as `read` and `poll_ready` as `write`. */
typedef struct effe_async_host {
    uint32_t size;
    uint32_t version; /* 1 */
    /* As `read`, or EFFE_PENDING: then the waker will be woken, unless a later call passes another one. */
    effe_status (*poll_read)(void *host, const effe_waker *waker, effe_chunk *out);
    /* EFFE_OK: the next `write` will not wait. EFFE_GONE, EFFE_TIMEOUT, or EFFE_PENDING as above. The first `respond`
     * with EFFE_MORE, and one `write` after it, don't wait even if this was not called. */
    effe_status (*poll_ready)(void *host, const effe_waker *waker);
} effe_async_host;

/* Id of the host's table `effe_spawn_host`: a run may go on as a task of the lambda's own threads. */
#define EFFE_SPAWN "effe.spawn/1"

/* A run that is spawned is polled on the lambda's threads, and the loader's thread is woken once, when the run has
 * ended. The future that `effe_async_plugin.run` made still stands for the run: polling it gives the run's outcome,
 * and dropping it cancels the run. A plugin that doesn't look for this table never spawns a run, which always works. */
typedef struct effe_spawn_host {
    uint32_t size;
    uint32_t version; /* 2: the loader decides. 1 (older loaders): `may_spawn` only permits. */
    /* Whether this run is to be spawned: EFFE_OK, or EFFE_UNSUPPORTED. To be called before each poll of every run, on
     * the thread of that poll, until the answer is EFFE_OK. */
    effe_status (*may_spawn)(void *host);
    /* This thread, one of the lambda's, begins a poll of the run. The result is for `leave`. */
    const void *(*enter)(void *host);
    /* The poll that `enter` began has ended. On the same thread, with what `enter` returned. */
    void (*leave)(void *host, const void *entered);
    /* From now until `release` the host notes down which of its wakers this thread uses, and wakes nobody. Not called
     * twice in a row, nor around anything that takes long. */
    void (*hold)(void);
    /* Wakes, at once, everything that was noted down on this thread. */
    void (*release)(void);
    /* In version 2: whether the next poll of a spawned run may block its thread, EFFE_OK or EFFE_UNSUPPORTED. */
    effe_status (*may_block)(void *host);
} effe_spawn_host;

/* Id of the host's table `effe_early_host`: an answer that goes out while Run goes on. */
#define EFFE_EARLY "effe.early/1"

/* Without this table an answer that is held goes out when `run` has returned, whenever it was ended. */
typedef struct effe_early_host {
    uint32_t size;
    uint32_t version; /* 1 */
    /* To be called just before the `respond` or `write` that ends an answer, which is one without EFFE_MORE. EFFE_OK:
     * that call sends the answer while the run goes on; it returns EFFE_TIMEOUT if the client was told already that
     * the run takes too long. EFFE_UNSUPPORTED: the answer would only go out at the end of the run. An async run, and
     * that of a plugin whose flags have EFFE_ANSWERS_EARLY or EFFE_STREAM_RESPONSE, is never told so.
     * After an answer was sent so, the run is neither cancelled nor told EFFE_GONE when its client leaves, and
     * `state` says how much time the rest of it has. What has not come of a streamed body does not come any more.
     * THREADS: as `respond` and `write`, of which it counts as one. */
    effe_status (*end_early)(void *host);
} effe_early_host;

/* Id of the host's table `effe_trailers_host`: fields behind the body, of a request and of an answer. */
#define EFFE_TRAILERS "effe.trailers/1"

/* Fields that say where a body ends, who it is for, who sends it or how its content is to be read are no trailers:
 * the host leaves them out in both directions. */
typedef struct effe_trailers_host {
    uint32_t size;
    uint32_t version; /* 1 */
    /* Writes up to `capacity` trailers of the request to `out`, from number `skip` on. Returns how many there are in
     * all, which is 0 before the end of the body was read. THREADS: any, while the exchange lasts. */
    size_t (*request)(void *host, size_t skip, effe_header *out, size_t capacity);
    /* Adds trailers to the answer. To be called before the `respond` or `write` that ends the answer, of which it
     * counts as one. EFFE_OK; EFFE_UNSUPPORTED: they are left out, because this client takes none; EFFE_INVALID: one
     * of them has a bad name or value, or the answer has ended; EFFE_TOO_LARGE. */
    effe_status (*respond)(void *host, effe_headers trailers);
} effe_trailers_host;

/* The functions of a stream of bytes in both directions; `data` is `effe_duplex.data`.
 * THREADS: any thread may call any of them. Of `read` and `poll_read` together, one call at a time; likewise of
 * `write` and `poll_ready`. */
typedef struct effe_duplex_table {
    uint32_t size;
    uint32_t version; /* 1 */
    /* The next bytes, which belong to the caller. May wait. EFFE_OK; EFFE_END: the client has closed its end;
     * EFFE_GONE: the connection is broken or closed; EFFE_TIMEOUT: nothing came or went for as long as the operator
     * allows; EFFE_GOING_AWAY: told once, behind what has come, and the next call goes on. */
    effe_status (*read)(const void *data, effe_chunk *out);
    /* As `read`, or EFFE_PENDING: then the waker will be woken, unless a later call passes another one. */
    effe_status (*poll_read)(const void *data, const effe_waker *waker, effe_chunk *out);
    /* Sends bytes. May wait while the client is slow. EFFE_OK, EFFE_GONE. */
    effe_status (*write)(const void *data, effe_chunk chunk);
    /* EFFE_OK: the next `write` will not wait. EFFE_GONE, or EFFE_PENDING as above. */
    effe_status (*poll_ready)(const void *data, const effe_waker *waker);
    /* Closes this end, behind what was written: nothing more is written. Reading goes on. */
    void (*shutdown)(const void *data);
    /* EFFE_OK, EFFE_GOING_AWAY, or EFFE_GONE once the connection is closed. */
    effe_status (*state)(const void *data);
    /* As `state`, with EFFE_PENDING instead of EFFE_OK: then the waker will be woken. Any number of callers. */
    effe_status (*poll_away)(const void *data, const effe_waker *waker);
    /* Another handle of the same stream. Each handle is dropped once. */
    const void *(*clone)(const void *data);
    /* Gives a handle back. With the last one, the connection is closed behind what was written. */
    void (*drop)(const void *data);
} effe_duplex_table;

/* A stream of bytes in both directions. It may outlive its run, and keeps its plugin from retiring.
 * OWNERSHIP: whoever gets it calls `drop` of its table once, after all other calls. */
typedef struct effe_duplex {
    const void *data; /* First argument of every function; only its maker knows what it is. */
    const effe_duplex_table *table; /* It lives for ever. */
} effe_duplex;

/* Id of the host's table `effe_upgrade_host`: connections that a lambda takes over. */
#define EFFE_UPGRADE "effe.upgrade/1"

/* For a request whose client offers to go on with another protocol on the same connection, of a plugin whose flags
 * have EFFE_UPGRADES. The body of such a request is whole when `run` is called, also where the plugin streams bodies.
 */
typedef struct effe_upgrade_host {
    uint32_t size;
    uint32_t version; /* 1 */
    /* EFFE_OK: the protocols that the client offers, separated by commas, as they came. EFFE_END: it offers none that
     * the connection can be switched to. */
    effe_status (*offered)(void *host, effe_str *out);
    /* Answers with 101 and these headers, of which `upgrade` names one of the protocols that are offered. EFFE_OK:
     * `out` is the connection from there on. EFFE_INVALID: another answer has begun, or the headers are not fit.
     * EFFE_END: no protocol is offered. EFFE_GONE, EFFE_TIMEOUT: nobody waits for the answer any more. After EFFE_OK
     * the run is as one that has answered early, but without a limit of time; and it may end before the stream does.
     * THREADS: as `respond` and `write`, of which it counts as one. */
    effe_status (*upgrade)(void *host, effe_headers headers, effe_duplex *out);
} effe_upgrade_host;

/* ---------------------------------------------------------------------------------------------------------------------
 * Three helpers.
 */

/* A view of a text that ends with a NUL. */
static inline effe_str effe_text(const char *text) {
    effe_str view;
    view.ptr = text;
    view.len = 0;
    while (text[view.len] != 0) {
        view.len++;
    }
    return view;
}

/* The first value of a header of the request; `ptr` is null if there is none. */
static inline effe_bytes effe_find_header(const effe_exchange *exchange, const char *name) {
    effe_bytes value = {EFFE_NULL, 0};
    if (exchange->ops->header(exchange->host, effe_text(name), 0, &value) != EFFE_OK) {
        value.ptr = EFFE_NULL;
    }
    return value;
}

/* Answers with a text as `text/plain; charset=utf-8`. The text is copied. */
static inline effe_status effe_respond_text(const effe_exchange *exchange, uint32_t status, effe_str text) {
    const effe_header type = {{"content-type", 12}, {"text/plain; charset=utf-8", 25}};
    const effe_headers headers = {&type, 1};
    const effe_chunk body = {text.ptr, text.len, EFFE_NULL, EFFE_NULL};
    return exchange->ops->respond(exchange->host, status, headers, body, 0);
}

/* ---------------------------------------------------------------------------------------------------------------------
 * What a plugin exports.
 */

#define EFFE_QUOTED(text) #text
#define EFFE_NUMBERS(a, b, c) EFFE_QUOTED(a) "." EFFE_QUOTED(b) "." EFFE_QUOTED(c)
#if defined(__clang__)
#define EFFE_COMPILER "clang " EFFE_NUMBERS(__clang_major__, __clang_minor__, __clang_patchlevel__)
#elif defined(__GNUC__)
#define EFFE_COMPILER "gcc " EFFE_NUMBERS(__GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__)
#else
#define EFFE_COMPILER "unknown"
#endif

#if defined(__x86_64__)
#define EFFE_MACHINE "x86_64-linux"
#elif defined(__aarch64__)
#define EFFE_MACHINE "aarch64-linux"
#elif defined(__riscv) && __riscv_xlen == 64
#define EFFE_MACHINE "riscv64-linux"
#else
#define EFFE_MACHINE "unknown"
#endif

/* The build record of this file: `effe_lambda.build`. `panic=none`: nothing unwinds in it. */
#define EFFE_BUILD "effe-abi=" EFFE_H_VERSION "; cc=" EFFE_COMPILER "; target=" EFFE_MACHINE "; panic=none"

/* Types of the ELF notes of the name `effe`, in the section `.note.effe`. Their descriptions are texts that end with
 * a NUL, which is counted. Tools read them from the file, and run nothing of it. */
#define EFFE_NOTE_INFO 1u
#define EFFE_NOTE_BUILD 2u

#define EFFE_PADDED(text) ((sizeof(text) + 3) / 4 * 4)

/* Where the notes are. Other formats than ELF have none. */
#ifdef __ELF__
#define EFFE_NOTES __attribute__((used, aligned(4), section(".note.effe")))
#else
#define EFFE_NOTES __attribute__((used))
#endif

/* Writes Info and the build record, two string literals, to `.note.effe`. `EFFE_LAMBDA` does so. */
#define EFFE_NOTE(info_text, build_text)                                                                               \
    EFFE_NOTES static const struct {                                                                                   \
        uint32_t info_head[3];                                                                                         \
        char info_name[8];                                                                                             \
        char info[EFFE_PADDED(info_text)];                                                                             \
        uint32_t build_head[3];                                                                                        \
        char build_name[8];                                                                                            \
        char build[EFFE_PADDED(build_text)];                                                                           \
    } effe_note = {                                                                                                    \
        {5, sizeof(info_text), EFFE_NOTE_INFO}, "effe", info_text,                                                     \
        {5, sizeof(build_text), EFFE_NOTE_BUILD}, "effe", build_text,                                                  \
    }

/* Before the definition of a symbol that the library exports. */
#ifdef __cplusplus
#define EFFE_EXPORT extern "C" __attribute__((used, visibility("default")))
#else
#define EFFE_EXPORT __attribute__((used, visibility("default")))
#endif

/* Makes these functions the lambda of this library. `flags`: EFFE_NEVER_WAITS and so on, or 0; `info`: a string
 * literal that holds a JSON object; then the entries, in the order of `effe_lambda`. To be used once, outside of any
 * function and namespace, with a semicolon behind it. */
#define EFFE_LAMBDA(flags, info, init, start, run, stop, retire, extension)                                            \
    EFFE_NOTE(info, EFFE_BUILD);                                                                                       \
    EFFE_EXPORT const effe_lambda effe_lambda_v1 = {                                                                   \
        sizeof(effe_lambda), EFFE_ABI_VERSION, flags, {info, sizeof(info) - 1}, {EFFE_BUILD, sizeof(EFFE_BUILD) - 1},  \
        init, start, run, stop, retire, extension,                                                                     \
    }

extern const effe_lambda effe_lambda_v1;

#ifdef __cplusplus
}
#endif

/* ---------------------------------------------------------------------------------------------------------------------
 * The size of every type and the offset of every field. A compiler that lays them out otherwise doesn't compile this.
 */
#if UINTPTR_MAX == 0xffffffffffffffffu

#if defined(__cplusplus)
#define EFFE_ASSERT(name, condition) static_assert(condition, #name)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define EFFE_ASSERT(name, condition) _Static_assert(condition, #name)
#else
#define EFFE_ASSERT(name, condition) typedef char name[(condition) ? 1 : -1]
#endif
#define EFFE_SIZE(type, bytes) EFFE_ASSERT(type##_has_this_size, sizeof(type) == (bytes))
#define EFFE_AT(type, field, bytes) EFFE_ASSERT(type##_##field##_is_here, offsetof(type, field) == (bytes))

EFFE_SIZE(effe_str, 16);
EFFE_AT(effe_str, ptr, 0);
EFFE_AT(effe_str, len, 8);
EFFE_SIZE(effe_bytes, 16);
EFFE_AT(effe_bytes, ptr, 0);
EFFE_AT(effe_bytes, len, 8);
EFFE_SIZE(effe_chunk, 32);
EFFE_AT(effe_chunk, ptr, 0);
EFFE_AT(effe_chunk, len, 8);
EFFE_AT(effe_chunk, owner, 16);
EFFE_AT(effe_chunk, release, 24);
EFFE_SIZE(effe_header, 32);
EFFE_AT(effe_header, name, 0);
EFFE_AT(effe_header, value, 16);
EFFE_SIZE(effe_headers, 16);
EFFE_AT(effe_headers, ptr, 0);
EFFE_AT(effe_headers, len, 8);
EFFE_SIZE(effe_host, 48);
EFFE_AT(effe_host, data, 0);
EFFE_AT(effe_host, level, 8);
EFFE_AT(effe_host, log, 16);
EFFE_AT(effe_host, parameter, 24);
EFFE_AT(effe_host, attribute, 32);
EFFE_AT(effe_host, extension, 40);
EFFE_SIZE(effe_exchange_ops, 56);
EFFE_AT(effe_exchange_ops, header, 0);
EFFE_AT(effe_exchange_ops, headers, 8);
EFFE_AT(effe_exchange_ops, attribute, 16);
EFFE_AT(effe_exchange_ops, state, 24);
EFFE_AT(effe_exchange_ops, read, 32);
EFFE_AT(effe_exchange_ops, respond, 40);
EFFE_AT(effe_exchange_ops, write, 48);
EFFE_SIZE(effe_exchange, 80);
EFFE_AT(effe_exchange, method, 0);
EFFE_AT(effe_exchange, target, 16);
EFFE_AT(effe_exchange, path_len, 32);
EFFE_AT(effe_exchange, body, 40);
EFFE_AT(effe_exchange, flags, 56);
EFFE_AT(effe_exchange, version, 60);
EFFE_AT(effe_exchange, host, 64);
EFFE_AT(effe_exchange, ops, 72);
EFFE_SIZE(effe_lambda, 96);
EFFE_AT(effe_lambda, size, 0);
EFFE_AT(effe_lambda, version, 4);
EFFE_AT(effe_lambda, flags, 8);
EFFE_AT(effe_lambda, info, 16);
EFFE_AT(effe_lambda, build, 32);
EFFE_AT(effe_lambda, init, 48);
EFFE_AT(effe_lambda, start, 56);
EFFE_AT(effe_lambda, run, 64);
EFFE_AT(effe_lambda, stop, 72);
EFFE_AT(effe_lambda, retire, 80);
EFFE_AT(effe_lambda, extension, 88);
EFFE_SIZE(effe_fail_host, 16);
EFFE_AT(effe_fail_host, size, 0);
EFFE_AT(effe_fail_host, version, 4);
EFFE_AT(effe_fail_host, fail, 8);
EFFE_SIZE(effe_ready, 16);
EFFE_AT(effe_ready, size, 0);
EFFE_AT(effe_ready, version, 4);
EFFE_AT(effe_ready, ready, 8);
EFFE_SIZE(effe_waker_table, 32);
EFFE_AT(effe_waker_table, clone, 0);
EFFE_AT(effe_waker_table, wake, 8);
EFFE_AT(effe_waker_table, wake_by_ref, 16);
EFFE_AT(effe_waker_table, drop, 24);
EFFE_SIZE(effe_waker, 8);
EFFE_AT(effe_waker, table, 0);
EFFE_SIZE(effe_future, 24);
EFFE_AT(effe_future, data, 0);
EFFE_AT(effe_future, poll, 8);
EFFE_AT(effe_future, drop, 16);
EFFE_SIZE(effe_async_plugin, 32);
EFFE_AT(effe_async_plugin, size, 0);
EFFE_AT(effe_async_plugin, version, 4);
EFFE_AT(effe_async_plugin, start, 8);
EFFE_AT(effe_async_plugin, run, 16);
EFFE_AT(effe_async_plugin, stop, 24);
EFFE_SIZE(effe_async_host, 24);
EFFE_AT(effe_async_host, size, 0);
EFFE_AT(effe_async_host, version, 4);
EFFE_AT(effe_async_host, poll_read, 8);
EFFE_AT(effe_async_host, poll_ready, 16);
EFFE_SIZE(effe_spawn_host, 56);
EFFE_AT(effe_spawn_host, size, 0);
EFFE_AT(effe_spawn_host, version, 4);
EFFE_AT(effe_spawn_host, may_spawn, 8);
EFFE_AT(effe_spawn_host, enter, 16);
EFFE_AT(effe_spawn_host, leave, 24);
EFFE_AT(effe_spawn_host, hold, 32);
EFFE_AT(effe_spawn_host, release, 40);
EFFE_AT(effe_spawn_host, may_block, 48);
EFFE_SIZE(effe_early_host, 16);
EFFE_AT(effe_early_host, size, 0);
EFFE_AT(effe_early_host, version, 4);
EFFE_AT(effe_early_host, end_early, 8);
EFFE_SIZE(effe_trailers_host, 24);
EFFE_AT(effe_trailers_host, size, 0);
EFFE_AT(effe_trailers_host, version, 4);
EFFE_AT(effe_trailers_host, request, 8);
EFFE_AT(effe_trailers_host, respond, 16);
EFFE_SIZE(effe_duplex_table, 80);
EFFE_AT(effe_duplex_table, size, 0);
EFFE_AT(effe_duplex_table, version, 4);
EFFE_AT(effe_duplex_table, read, 8);
EFFE_AT(effe_duplex_table, poll_read, 16);
EFFE_AT(effe_duplex_table, write, 24);
EFFE_AT(effe_duplex_table, poll_ready, 32);
EFFE_AT(effe_duplex_table, shutdown, 40);
EFFE_AT(effe_duplex_table, state, 48);
EFFE_AT(effe_duplex_table, poll_away, 56);
EFFE_AT(effe_duplex_table, clone, 64);
EFFE_AT(effe_duplex_table, drop, 72);
EFFE_SIZE(effe_duplex, 16);
EFFE_AT(effe_duplex, data, 0);
EFFE_AT(effe_duplex, table, 8);
EFFE_SIZE(effe_upgrade_host, 24);
EFFE_AT(effe_upgrade_host, size, 0);
EFFE_AT(effe_upgrade_host, version, 4);
EFFE_AT(effe_upgrade_host, offered, 8);
EFFE_AT(effe_upgrade_host, upgrade, 16);

#undef EFFE_AT
#undef EFFE_SIZE
#undef EFFE_ASSERT
#endif

/* BREACHES of this contract, and what becomes of them.
 *
 * Before Init, the loader refuses: a `size` that is too small, a version or an upper flag that it doesn't know, a null
 * entry, Info or a build record that is null, not UTF-8 or longer than 16 MiB, Info that is not a JSON object, a
 * library that kills or hangs the process that opens it.
 *
 * At any time it sees: a status that no version has (the entry has failed), text that is not UTF-8 (it is logged with
 * replacement characters; as a key, an id or a name to look for it is not found, as a name in an answer it is
 * EFFE_INVALID), a start that is EFFE_OK without a Context (it has failed), a null function in a table of the plugin
 * (it counts as no table, and is logged), a second `respond` and a malformed answer (EFFE_INVALID).
 *
 * With `--strict-plugin` it logs these, too: a second `respond`, a malformed answer, an exchange that is used after
 * its run or a `host` that is no exchange's (EFFE_INVALID, EFFE_GONE or EFFE_END), a chunk that is released twice (the
 * second time does nothing), a view that is kept after its run and handed back (what it points to was written over
 * with `#`). Then, and with `--check`, it logs lower flags that it doesn't know, and flags that contradict each other;
 * with `--check` it fails for a null function in a table.
 *
 * Nobody sees: a pointer or a length that is wrong, memory that is freed too early or written to beyond its end, two
 * calls at the same time where one is allowed, a Context that is used after its Stop, an exception or a longjmp that
 * leaves an entry, a chunk that is never released, a view that is kept and only read. A plugin that does so may do
 * anything; memory checkers find most of it.
 */

#endif
