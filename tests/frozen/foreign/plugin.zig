//! A plugin in Zig, as it was written on the day that effe.h was frozen. It declares what it needs of the contract
//! itself, and uses libc alone, so that it depends on nothing that changes from one Zig to the next but the language.
//! It is what plugin.c is. It must load and run for ever.

const Status = u32;
const ok: Status = 0;
const failed: Status = 1;
const end: Status = 4;

const Str = extern struct { ptr: ?[*]const u8, len: usize };
const Chunk = extern struct {
    ptr: ?[*]const u8,
    len: usize,
    owner: ?*anyopaque,
    release: ?*const fn (?*anyopaque, ?[*]const u8, usize) callconv(.c) void,
};
const Header = extern struct { name: Str, value: Str };
const Headers = extern struct { ptr: [*]const Header, len: usize };
const Failure = opaque {};

const Host = extern struct {
    data: ?*const anyopaque,
    level: *const fn (?*const anyopaque) callconv(.c) u32,
    log: *const fn (?*const anyopaque, u32, Str, Str) callconv(.c) void,
    parameter: *const fn (?*const anyopaque, Str, *Str) callconv(.c) Status,
    attribute: *const fn (?*const anyopaque, u32, *Str) callconv(.c) Status,
    extension: *const fn (?*const anyopaque, Str) callconv(.c) ?*const anyopaque,
};

const Ops = extern struct {
    header: *const fn (?*anyopaque, Str, usize, *Str) callconv(.c) Status,
    headers: *const fn (?*anyopaque, usize, [*]Header, usize) callconv(.c) usize,
    attribute: *const fn (?*anyopaque, u32, *Str) callconv(.c) Status,
    state: *const fn (?*anyopaque, *u64) callconv(.c) Status,
    read: *const fn (?*anyopaque, *Chunk) callconv(.c) Status,
    respond: *const fn (?*anyopaque, u32, Headers, Chunk, u32) callconv(.c) Status,
    write: *const fn (?*anyopaque, Chunk, u32) callconv(.c) Status,
};

const Exchange = extern struct {
    method: Str,
    target: Str,
    path_len: usize,
    body: Str,
    flags: u32,
    version: u32,
    host: ?*anyopaque,
    ops: *const Ops,
};

const Lambda = extern struct {
    size: u32,
    version: u32,
    flags: u64,
    info: Str,
    build: Str,
    init: *const fn (*const Host, *Failure) callconv(.c) Status,
    start: *const fn (*const Host, *?*anyopaque, *Failure) callconv(.c) Status,
    run: *const fn (?*anyopaque, *const Exchange, *Failure) callconv(.c) Status,
    stop: *const fn (?*anyopaque, *Failure) callconv(.c) Status,
    retire: *const fn (*const Host, *Failure) callconv(.c) Status,
    extension: *const fn (Str) callconv(.c) ?*const anyopaque,
};

const FailHost = extern struct {
    size: u32,
    version: u32,
    fail: *const fn (*Failure, u32, Str) callconv(.c) void,
};

extern fn malloc(len: usize) ?*anyopaque;
extern fn free(memory: ?*anyopaque) void;
extern fn snprintf(to: [*]u8, len: usize, format: [*:0]const u8, ...) c_int;

/// A Context: its number, and the host that it came from.
const Context = extern struct { number: u32, host: *const Host };

var started: u32 = 0;
var stopped: u32 = 0;
var failing: *const FailHost = undefined;

fn str(text: []const u8) Str {
    return .{ .ptr = text.ptr, .len = text.len };
}

fn say(host: *const Host, text: []const u8) void {
    host.log(host.data, 6, str("frozen"), str(text));
}

fn fail(failure: *Failure, level: u32, text: []const u8) Status {
    failing.fail(failure, level, str(text));
    return failed;
}

fn init(host: *const Host, failure: *Failure) callconv(.c) Status {
    failing = @ptrCast(@alignCast(host.extension(host.data, str("effe.fail/1")).?));
    var found: Str = str("");
    if (host.parameter(host.data, str("fail"), &found) == ok) return fail(failure, 3, "told to fail");
    const known = host.attribute(host.data, 3, &found);
    var text: [256]u8 = undefined;
    const precision: c_int = @intCast(found.len);
    const len = snprintf(&text, text.len, "init: %u %.*s", known, precision, found.ptr);
    say(host, text[0..@intCast(len)]);
    return ok;
}

fn start(host: *const Host, context: *?*anyopaque, failure: *Failure) callconv(.c) Status {
    const memory = malloc(@sizeOf(Context)) orelse return fail(failure, 3, "no memory");
    const made: *Context = @ptrCast(@alignCast(memory));
    made.* = .{ .number = @atomicRmw(u32, &started, .Add, 1, .seq_cst) + 1, .host = host };
    context.* = made;
    return ok;
}

fn release(owner: ?*anyopaque, _: ?[*]const u8, _: usize) callconv(.c) void {
    free(owner);
}

fn is_fail(target: Str) bool {
    const expected = "/fail";
    if (target.len != expected.len) return false;
    for (expected, target.ptr.?[0..expected.len]) |one, other| {
        if (one != other) return false;
    }
    return true;
}

fn run(context: ?*anyopaque, exchange: *const Exchange, failure: *Failure) callconv(.c) Status {
    const own: *Context = @ptrCast(@alignCast(context.?));
    const ops = exchange.ops;
    if (is_fail(exchange.target)) return fail(failure, 4, "run fails");
    var value: Str = str("");
    const header = ops.header(exchange.host, str("X-Ask"), 0, &value);
    var id: Str = str("");
    _ = ops.attribute(exchange.host, 1, &id);
    var page: [4]Header = undefined;
    const n_headers = ops.headers(exchange.host, 0, &page, page.len);
    var left: u64 = 0;
    const state = ops.state(exchange.host, &left);
    var rest: Chunk = .{ .ptr = null, .len = 0, .owner = null, .release = null };
    if (ops.read(exchange.host, &rest) != end) return fail(failure, 3, "there is more");
    var text: [512]u8 = undefined;
    const lens = [_]c_int{ @intCast(exchange.method.len), @intCast(exchange.target.len), @intCast(value.len) };
    const has_id: [*:0]const u8 = if (id.len > 0) "true" else "false";
    const said: usize = @intCast(snprintf(
        &text,
        text.len,
        "%u %.*s %.*s %zu %u:%.*s %zu %u %s ",
        own.number,
        lens[0],
        exchange.method.ptr,
        lens[1],
        exchange.target.ptr,
        exchange.path_len,
        header,
        lens[2],
        value.ptr,
        n_headers,
        state,
        has_id,
    ));
    const len = said + exchange.body.len;
    if (len > text.len) return fail(failure, 3, "too long");
    if (exchange.body.ptr) |bytes| @memcpy(text[said..len], bytes[0..exchange.body.len]);
    const field = [1]Header{.{ .name = str("x-frozen"), .value = str("1") }};
    const body: Chunk = .{ .ptr = &text, .len = len, .owner = null, .release = null };
    const begun = ops.respond(exchange.host, 202, .{ .ptr = &field, .len = 1 }, body, 1);
    if (begun != ok) return begun;
    const owner = malloc(1) orelse return fail(failure, 3, "no memory");
    const last: [*]u8 = @ptrCast(owner);
    last[0] = '!';
    return ops.write(exchange.host, .{ .ptr = last, .len = 1, .owner = owner, .release = release }, 0);
}

fn stop(context: ?*anyopaque, _: *Failure) callconv(.c) Status {
    const own: *Context = @ptrCast(@alignCast(context.?));
    _ = @atomicRmw(u32, &stopped, .Add, 1, .seq_cst);
    var text: [64]u8 = undefined;
    const len = snprintf(&text, text.len, "stop: %u", own.number);
    say(own.host, text[0..@intCast(len)]);
    free(own);
    return ok;
}

fn retire(host: *const Host, _: *Failure) callconv(.c) Status {
    var text: [64]u8 = undefined;
    const len = snprintf(&text, text.len, "retire: %u started, %u stopped", started, stopped);
    say(host, text[0..@intCast(len)]);
    return ok;
}

fn extension(_: Str) callconv(.c) ?*const anyopaque {
    return null;
}

/// It has no note, so a loader asks the library itself for its Info.
export const effe_lambda_v1: Lambda = .{
    .size = 96,
    .version = 1,
    .flags = 0,
    .info = str("{\"name\":\"frozen\",\"version\":\"1.0.0\"}"),
    .build = str("effe-abi=1.0.0; panic=none"),
    .init = init,
    .start = start,
    .run = run,
    .stop = stop,
    .retire = retire,
    .extension = extension,
};
