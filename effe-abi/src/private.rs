//! What the expansion of `export!` needs, under one path. Not for use by hand.

pub use abi_stable::library::{LibHeader, RootModuleResult};

#[cfg(feature = "async")]
pub use crate::async_entries::async_table;
#[cfg(feature = "aws")]
pub use crate::event_handler::event_table;
#[cfg(feature = "lambda_http")]
pub use crate::http_handler::http_table;
#[cfg(feature = "lambda_runtime")]
pub use crate::runtime_handler::runtime_table;
#[cfg(feature = "tower")]
pub use crate::tower::tower_table;
pub use crate::{
    export::{BUILD, Table, given, header, linked, root, root_module, table, table_of},
    info::{Field, is_json_object, object_len, text, write_object},
    note::{Notes, note_len, notes},
};
