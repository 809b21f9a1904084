//! What `export!` is given must be a lambda.

struct Nothing;

effe_abi::export!(Nothing);

fn main() {}
