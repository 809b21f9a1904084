//! So does the macro, in any of its forms.

use effe_abi::Params;

struct Patient;

effe_abi::export!(async Patient);

mod other {
    pub async fn app(_: effe_abi::Params) {}
    effe_abi::export!(tower app);
}

fn main() {
    let _: Option<Params> = None;
}
