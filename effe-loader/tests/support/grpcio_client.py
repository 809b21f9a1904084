"""grpcio against a loader that serves the example grpc: grpcio_client.py ADDRESS CALLS [CERTIFICATE].

Every kind of call, statuses, a deadline and a cancellation; then so many calls, 64 at once. Its last line says how many.
"""

import asyncio
import sys

import grpc

ADDRESS, CALLS = sys.argv[1], int(sys.argv[2])


def varint(n):
    """As protocol buffers have it."""
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


def text(string):
    data = string.encode()
    return b"\x0a" + varint(len(data)) + data


def words(message):
    """The number in a Counted."""
    n = 0
    for place, byte in enumerate(message[1:]):
        n |= (byte & 127) << (7 * place)
    return n


def channel():
    if len(sys.argv) < 4:
        return grpc.aio.insecure_channel(ADDRESS)
    with open(sys.argv[3], "rb") as certificate:
        credentials = grpc.ssl_channel_credentials(certificate.read())
    return grpc.aio.secure_channel(ADDRESS, credentials)


async def status_of(call):
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


async def main():
    async with channel() as to:
        count = to.unary_unary("/words.v1.Words/Count", text, words)
        split = to.unary_stream("/words.v1.Words/Split", text)
        total = to.stream_unary("/words.v1.Words/Sum", text, words)
        watch = to.stream_stream("/words.v1.Words/Watch", text, words)
        nothing = to.unary_unary("/words.v1.Words/Nothing", text)

        # What grpcurl asks first: all services, and what is known of one of them.
        reflect = to.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        listed, described = [answer async for answer in reflect(iter([b"\x3a\x00", b"\x22\x0ewords.v1.Words"]))]
        assert b"words.v1.Words" in listed and b"Counted" in described, (listed, described)

        call = count("three little words")
        assert await call == 3
        assert await call.code() == grpc.StatusCode.OK
        assert await status_of(count("")) == (grpc.StatusCode.INVALID_ARGUMENT, "the text has no words")
        assert (await status_of(nothing("")))[0] == grpc.StatusCode.UNIMPLEMENTED
        assert await count("word " * 300_000) == 300_000
        assert [message async for message in split("a b c")] == [text(word) for word in "abc"]
        assert len([message async for message in split("word " * 50_000)]) == 50_000
        assert await total(iter(["a b", "c", ""])) == 3

        call = watch()
        for n in range(1, 101):
            await call.write("word")
            assert await call.read() == n, "each is answered before the next is sent"
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK

        call = watch(timeout=0.3)
        await call.write("a deadline passes")
        assert await call.read() == 3
        try:
            await call.read()
            raise AssertionError("nothing more was sent")
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        call = watch()
        await call.write("the client cancels it")
        assert await call.read() == 4
        assert call.cancel()

        limit = asyncio.Semaphore(64)

        async def one(n):
            async with limit:
                if n % 10:
                    assert await count("a word and another") == 4
                else:
                    assert [n async for n in watch(iter(["a", "b c"]))] == [1, 3]

        results = await asyncio.gather(*map(one, range(CALLS)), return_exceptions=True)
        errors = [error for error in results if error is not None]
        for error in errors[:3]:
            print(error, file=sys.stderr)
        print(f"{CALLS} calls of grpcio, 64 at once, {len(errors)} errors")
        sys.exit(bool(errors))


asyncio.run(main())
