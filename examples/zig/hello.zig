//! A lambda that says hello.

const std = @import("std");
/// effe.h, translated.
const effe = @import("effe");

var greeting: effe.effe_str = text("Hello");

/// The operator gives parameters: `--set greeting=Ciao`. What comes out of the host is valid for ever.
fn init(host: [*c]const effe.effe_host, _: ?*effe.effe_failure) callconv(.c) effe.effe_status {
    var given: effe.effe_str = undefined;
    if (host.*.parameter.?(host.*.data, text("greeting"), &given) == effe.EFFE_OK) greeting = given;
    return effe.EFFE_OK;
}

/// Makes a Context, which may not be null. This lambda keeps nothing from one request to the next.
fn start(_: [*c]const effe.effe_host, context: [*c]?*anyopaque, _: ?*effe.effe_failure) callconv(.c) effe.effe_status {
    context.* = &greeting;
    return effe.EFFE_OK;
}

fn run(_: ?*anyopaque, exchange: [*c]const effe.effe_exchange, _: ?*effe.effe_failure) callconv(.c) effe.effe_status {
    const path = exchange.*.target.ptr[0..exchange.*.path_len];
    var buffer: [2048]u8 = undefined;
    const said = std.fmt.bufPrint(&buffer, "{s} from effe: {s}\n", .{ greeting.ptr[0..greeting.len], path }) catch
        return effe.effe_respond_text(exchange, 414, text("the path is too long\n"));
    return effe.effe_respond_text(exchange, 200, text(said));
}

fn stop(_: ?*anyopaque, _: ?*effe.effe_failure) callconv(.c) effe.effe_status {
    return effe.EFFE_OK;
}

fn retire(_: [*c]const effe.effe_host, _: ?*effe.effe_failure) callconv(.c) effe.effe_status {
    return effe.EFFE_OK;
}

fn extension(_: effe.effe_str) callconv(.c) ?*const anyopaque {
    return null;
}

fn text(slice: []const u8) effe.effe_str {
    return .{ .ptr = slice.ptr, .len = slice.len };
}

const info = "{\"name\":\"hello\",\"version\":\"0.1.0\"}";
const build = "effe-abi=" ++ effe.EFFE_H_VERSION ++ "; zig=" ++ @import("builtin").zig_version_string ++ "; panic=none";

export const effe_lambda_v1: effe.effe_lambda = .{
    .size = @sizeOf(effe.effe_lambda),
    .version = effe.EFFE_ABI_VERSION,
    .flags = 0,
    .info = text(info),
    .build = text(build),
    .init = init,
    .start = start,
    .run = run,
    .stop = stop,
    .retire = retire,
    .extension = extension,
};

/// The same texts as an ELF note, from which tools read them without running anything of this library.
export const effe_note: extern struct { info: Note(info), build: Note(build) } align(4) linksection(".note.effe") = .{
    .info = .{ .kind = effe.EFFE_NOTE_INFO },
    .build = .{ .kind = effe.EFFE_NOTE_BUILD },
};

fn Note(comptime content: []const u8) type {
    return extern struct {
        name_len: u32 = 5,
        len: u32 = content.len + 1,
        kind: u32,
        name: [8]u8 = padded("effe", 8),
        content: [content.len / 4 * 4 + 4]u8 = padded(content, content.len / 4 * 4 + 4),
    };
}

fn padded(comptime content: []const u8, comptime len: usize) [len]u8 {
    var bytes: [len]u8 = @splat(0);
    @memcpy(bytes[0..content.len], content);
    return bytes;
}
