//! What a client of Lambda's calls a function.

/// The name and the qualifier of a function, of what stands for it in a path: `name`, `name:qualifier`,
/// `account:function:name` or an ARN, each with a qualifier or without (Lambda's API Reference, "Invoke").
pub fn parse(text: &str) -> Option<(String, Option<String>)> {
    let text = decoded(text)?;
    let parts: Vec<&str> = text.split(':').collect();
    let rest = match parts.as_slice() {
        ["arn", _, "lambda", _, _, "function", rest @ ..] => rest,
        [account, "function", rest @ ..] if account.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        rest => rest,
    };
    match rest {
        [name] if !name.is_empty() => Some(((*name).to_owned(), None)),
        [name, qualifier] if !name.is_empty() && !qualifier.is_empty() => {
            Some(((*name).to_owned(), Some((*qualifier).to_owned())))
        }
        _ => None,
    }
}

/// Text without its percent-encoding; `None` if that is broken.
pub fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        out.push(match byte {
            b'%' => u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?,
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_names_and_arns() {
        let arn = "arn:aws:lambda:eu-west-1:123456789012:function:f";
        for (text, expected) in [
            ("f", Some(("f", None))),
            ("f:1", Some(("f", Some("1")))),
            ("123456789012:function:f", Some(("f", None))),
            (arn, Some(("f", None))),
            (&format!("{arn}:$LATEST"), Some(("f", Some("$LATEST")))),
            ("arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Af", Some(("f", None))),
            ("", None),
            (":", None),
            ("f:", None),
            ("f:1:2", None),
            ("%", None),
            ("%f", None),
            ("%ff", None),
            ("%2F..%2F", Some(("/../", None))),
        ] {
            let expected = expected.map(|(name, qualifier)| (name.to_owned(), qualifier.map(str::to_owned)));
            assert_eq!(parse(text), expected, "{text}");
        }
        bolero::check!().with_type::<String>().for_each(|text| {
            let _ = parse(text);
        });
    }
}
