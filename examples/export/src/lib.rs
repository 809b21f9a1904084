//! Sends a table as CSV: each line of a file, such as `{"id": 1, "customer": "Ada", "total": 9.5}`, becomes a row.
//!
//! The parameter `rows` names the file. Of a table of any size there are never more than some rows in memory: the run
//! waits while the client is slow, and keeps no thread meanwhile.

use effe_abi::{AsyncLambda, AsyncResponse, Options, Params, Request, Result, StartError, Started, export};
use serde::Deserialize;
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
};

#[derive(Deserialize)]
struct Order {
    id: u64,
    customer: String,
    total: f64,
}

struct Export {
    rows: &'static str,
}

impl AsyncLambda for Export {
    /// A run whose client leaves is dropped, and leaves nothing half done in its Context.
    const OPTIONS: Options = Options::new().stream_response().keep_cancelled();

    async fn start(params: Params) -> Result<Self, StartError<Self>> {
        Ok(Export { rows: params.required("rows")? })
    }

    async fn run(export: Started<'_, Self>, _: &Request, response: &mut AsyncResponse<'_>) -> Result {
        let mut rows = BufReader::new(File::open(export?.rows).await?).lines();
        response.header("content-type", "text/csv; charset=utf-8");
        response.header("content-disposition", "attachment; filename=\"orders.csv\"");
        response.write_all(b"id,customer,total\r\n").await?;
        // What is written goes out whenever 64 KiB are waiting. After an error the connection breaks off, so that no
        // client takes half a table for a whole one.
        while let Some(row) = rows.next_line().await? {
            response.write_all(serde_json::from_str::<Order>(&row)?.csv().as_bytes()).await?;
        }
        Ok(())
    }
}

export!(async Export);

impl Order {
    /// The row, as RFC 4180 wants it.
    fn csv(&self) -> String {
        let Order { id, customer, total } = self;
        let must_be_quoted = customer.contains([',', '"', '\r', '\n']);
        let quoted = || format!("\"{}\"", customer.replace('"', "\"\""));
        let customer = if must_be_quoted { quoted() } else { customer.clone() };
        format!("{id},{customer},{total}\r\n")
    }
}

#[cfg(test)]
mod tests {
    use effe_abi::testing::{Call, Effe};

    use super::LAMBDA;

    #[test]
    fn a_table_comes_row_by_row_and_a_bad_row_breaks_it_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.jsonl");
        let effe = Effe::with(&LAMBDA, &[("rows", path.to_str().unwrap())]);
        let row = r#"{"id": 1, "customer": "Lovelace, \"Ada\"", "total": 9.5}"#;
        std::fs::write(&path, format!("{row}\n").repeat(10_000)).unwrap();
        let answer = effe.get("/");
        assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
        let text = answer.text();
        assert!(text.starts_with("id,customer,total\r\n1,\"Lovelace, \"\"Ada\"\"\",9.5\r\n1,"), "{text:.80}");
        assert_eq!((text.lines().count(), answer.failure), (10_001, None));
        assert!(answer.pieces.len() > 3, "{}", answer.pieces.len());
        assert!(effe.call_dropped(Call::get("/"), 2).is_none());
        assert_eq!((effe.get("/").text().len(), effe.started()), (text.len(), 1), "the Context is kept");
        std::fs::write(&path, format!("{row}\n").repeat(10_000) + "no row\n").unwrap();
        assert!(effe.get("/").broken);
    }
}
