/* What the fixtures share that stream. */
#include "fixture.h"

/* The body, piece by piece: its beginning is in the exchange. */
typedef struct {
    const effe_exchange *exchange;
    bool has_begun;
    effe_chunk piece;
} reader;

static effe_status next(reader *reader, effe_bytes *out) {
    if (reader->piece.release) {
        reader->piece.release(reader->piece.owner, reader->piece.ptr, reader->piece.len);
    }
    memset(&reader->piece, 0, sizeof reader->piece);
    if (!reader->has_begun) {
        reader->has_begun = true;
        if (reader->exchange->body.len > 0) {
            *out = reader->exchange->body;
            return EFFE_OK;
        }
    }
    if (!(reader->exchange->flags & EFFE_MORE_BODY)) {
        return EFFE_END;
    }
    effe_status status = reader->exchange->ops->read(reader->exchange->host, &reader->piece);
    out->ptr = reader->piece.ptr;
    out->len = reader->piece.len;
    return status;
}

/* Sends the body back as it comes, with a content type or, if that is null, without. */
static effe_status echo(const effe_exchange *exchange, const char *type) {
    const char *name = type ? "content-type" : NULL;
    reader reader = {exchange, false, {NULL, 0, NULL, NULL}};
    effe_bytes piece = {NULL, 0};
    effe_status read, sent = EFFE_OK;
    bool has_begun = false;
    while (sent == EFFE_OK && (read = next(&reader, &piece)) == EFFE_OK) {
        sent = has_begun ? send(exchange, piece) : respond(exchange, 200, name, type, piece, EFFE_MORE);
        has_begun = true;
    }
    if (sent != EFFE_OK) {
        next(&reader, &piece);
        return sent;
    }
    if (read != EFFE_END) {
        return read;
    }
    return has_begun ? EFFE_OK : respond(exchange, 200, name, type, bytes(""), 0);
}
