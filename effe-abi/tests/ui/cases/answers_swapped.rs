//! The answers of two runs, one inside the other, can't be taken for each other.

use effe_abi::Response;

fn answer_the_other(outer: &mut Response<'_>, inner: &mut Response<'_>) {
    std::mem::swap(outer, inner);
}

fn main() {
    let _ = answer_the_other;
}
