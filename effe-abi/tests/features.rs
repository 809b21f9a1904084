//! The page of features is true, and each item that needs a feature says so.

use std::{collections::BTreeMap, fs, path::Path};

/// The features of Cargo.toml, and what each turns on that is a feature too.
fn features() -> BTreeMap<String, Vec<String>> {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let (_, table) = manifest.split_once("\n[features]\n").unwrap();
    let (table, _) = table.split_once("\n[").unwrap();
    let lines = table.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let quoted = |text: &str| text.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let all: Vec<_> = lines.map(|line| line.split_once(" = ").unwrap()).collect();
    all.iter()
        .map(|(name, on)| {
            let on = quoted(on).into_iter().filter(|on| all.iter().any(|(name, _)| name == on)).collect();
            ((*name).to_owned(), on)
        })
        .collect()
}

#[test]
fn the_page_has_all_features_their_defaults_and_what_they_turn_on() {
    let mut features = features();
    let default = features.remove("default").unwrap();
    let expected: BTreeMap<_, _> = features
        .into_iter()
        .map(|(name, on)| {
            let by_default = if default.contains(&name) { "on" } else { "off" };
            let on: Vec<_> = on.iter().map(|on| format!("`{on}`")).collect();
            (format!("`{name}`"), (by_default.to_owned(), on.join(", ")))
        })
        .collect();
    let rows = include_str!("../FEATURES.md").lines().filter(|line| line.starts_with("| `"));
    let found: BTreeMap<_, _> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
            (cells[1].clone(), (cells[2].clone(), cells[4].clone()))
        })
        .collect();
    assert_eq!(found, expected);
}

/// `feature = "x"`, if that is in a line.
fn feature_of(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("#[cfg(feature = \"")?;
    rest.split_once("\")]").map(|(feature, _)| feature.to_owned())
}

/// The public items of a file that need a feature, and whether their documentation says so. `whole`: the one that the
/// whole file needs.
fn gated(source: &str, whole: Option<&str>) -> Vec<(String, String, bool)> {
    let (mut docs, mut own, mut of, mut found) = (String::new(), None, String::new(), Vec::new());
    let mut here = Vec::new();
    for line in source.lines() {
        let text = line.trim();
        if let Some(doc) = text.strip_prefix("///") {
            docs.push_str(doc);
        } else if let Some(feature) = feature_of(text) {
            own = Some(feature);
        } else if !text.starts_with("#[") {
            if let Some(name) = line.strip_prefix("impl<'a> ").or_else(|| line.strip_prefix("impl ")) {
                of = name.split(['<', ' ']).next().unwrap_or_default().to_owned();
            }
            if let Some(item) = text.strip_prefix("pub ") {
                let is_method = line.starts_with("    ");
                let mut words = item.split([' ', '(', '<', '{', ';']);
                let kinds = ["fn", "struct", "trait", "enum", "const", "async", "use"];
                let name = words.find(|word| !kinds.contains(word)).unwrap_or_default();
                if !is_method {
                    here.push(name.to_owned());
                }
                // A method of a type that is in the file is marked by the type.
                let marked_by_type = is_method && here.contains(&of) && own.is_none();
                if let Some(feature) = own.as_deref().or(whole).filter(|_| !marked_by_type)
                    && (is_method || item.starts_with("struct") || item.starts_with("trait"))
                {
                    let says = docs.split_whitespace().collect::<Vec<_>>().join(" ");
                    let says = says.contains(&format!("eeds the feature `{feature}`"));
                    found.push((format!("{of}::{name}"), feature.to_owned(), says));
                }
            }
            (docs, own) = (String::new(), None);
        }
    }
    found
}

#[test]
fn each_item_that_needs_a_feature_says_which() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(source.join("lib.rs")).unwrap();
    let lines: Vec<_> = lib.lines().collect();
    let mut whole = BTreeMap::new();
    for pair in lines.windows(2) {
        if let (Some(feature), Some((_, module))) = (feature_of(pair[0]), pair[1].split_once("mod ")) {
            whole.insert(module.trim_end_matches(';').to_owned(), feature);
        }
    }
    // What no author names is marked nowhere.
    let handlers = ["event_handler", "http_handler", "runtime_handler"];
    for module in ["async_entries", "runtime", "spawned", "tower"].into_iter().chain(handlers) {
        whole.remove(module);
    }
    let mut all = Vec::new();
    let files = ["body", "cookies", "http", "invocation", "urlencoded", "async_lambda", "async_response"];
    for file in
        files.into_iter().chain(["request", "response", "params", "upgraded", "websocket", "testing/call"])
    {
        let text = fs::read_to_string(source.join(file).with_extension("rs")).unwrap();
        all.extend(gated(&text, whole.remove(file).as_deref()));
    }
    assert!(whole.is_empty(), "is it to be looked at, too? {whole:?}");
    let silent: Vec<_> = all.iter().filter(|(_, _, says)| !says).collect();
    assert!(silent.is_empty(), "their documentation doesn't say that they need a feature: {silent:?}");
    let named: Vec<_> = all.iter().map(|(name, _, _)| name.as_str()).collect();
    for name in ["Request::form", "Request::query", "Request::body", "Response::json", "Response::set_cookie"]
    {
        assert!(named.contains(&name), "{name} is not found any more: {named:?}");
    }
}
