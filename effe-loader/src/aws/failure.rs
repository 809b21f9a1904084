//! Why an invocation has no result, in the form that Lambda's clients know.

use serde_json::{Value, json};

/// A function error. Its caller is told a type and a fixed sentence; of the author's text only what the author has
/// answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionError {
    /// `Effe.LambdaFailed`
    pub kind: String,
    pub message: String,
}

impl FunctionError {
    pub fn new(kind: &str, message: impl Into<String>) -> FunctionError {
        FunctionError { kind: kind.to_owned(), message: message.into() }
    }

    /// As Lambda itself says it.
    pub fn timed_out() -> FunctionError {
        FunctionError::new("Sandbox.Timedout", "the invocation has taken longer than its time")
    }

    pub fn broken_off() -> FunctionError {
        FunctionError::new("Effe.AnswerBrokenOff", "the lambda's answer broke off")
    }

    /// What an answer with a status of an error says: its own type and message if it has the form of a function error,
    /// else the body as message.
    pub fn of_answer(status: u16, body: &[u8]) -> FunctionError {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name| value.get(name).and_then(Value::as_str);
        match (text("errorType"), text("errorMessage")) {
            (Some(kind), Some(message)) => FunctionError::new(kind, message),
            _ => {
                let message = String::from_utf8_lossy(body).trim().to_owned();
                FunctionError { kind: format!("Effe.Status{status}"), message }
            }
        }
    }

    pub fn to_json(&self) -> Vec<u8> {
        json!({"errorType": self.kind, "errorMessage": self.message, "stackTrace": []})
            .to_string()
            .into_bytes()
    }
}
