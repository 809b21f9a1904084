//! The answers of two runs can't be swapped, even if one run is inside the other.

use effe_abi::Response;

fn answer_the_other(outer: &mut Response<'_>, inner: &mut Response<'_>) {
    std::mem::swap(outer, inner);
}

fn main() {
    let _ = answer_the_other;
}
