//! The loader's folders are layers: each imports only those below it, and no files import each other in a circle.
//! What the code says of itself is read here, test modules left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The layers of `effe-loader/src`, from the top; those of a row don't know each other.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["lib"],
    &["supervisor"],
    &["boot"],
    &["admin", "aws", "server"],
    &["handler"],
    &["effe"],
    &["scheduler"],
    &["exchange"],
    &["http"],
    &["net", "process"],
    &["body", "placement", "plugin", "rescue"],
    &["message"],
    &["error"],
    &["journal"],
    &["rt"],
];

/// A line that imports something.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    /// The module of the line: `http::head`, or nothing for the crate's root.
    from: String,
    line: usize,
    /// The module that is imported, or that an item is imported from.
    to: String,
}

/// The sources of a crate, by module.
struct Sources(BTreeMap<String, String>);

impl Sources {
    fn of(root: &Path) -> Sources {
        let (mut sources, mut folders) = (BTreeMap::new(), vec![root.to_owned()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("the sources are here") {
                let path = entry.expect("the sources can be read").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let module = module(path.strip_prefix(root).expect("it is below"));
                    sources.insert(module, fs::read_to_string(&path).expect("it is text"));
                }
            }
        }
        Sources(sources)
    }

    fn imports(&self) -> BTreeSet<Import> {
        self.0.iter().flat_map(|(module, text)| self.imports_of(module, text)).collect()
    }

    fn imports_of(&self, module: &str, text: &str) -> Vec<Import> {
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        let code = code.lines().map(|line| line.split("//").next().unwrap_or_default());
        let code = code.collect::<Vec<_>>().join("\n");
        let mut imports = Vec::new();
        for (start, _) in code
            .match_indices("crate::")
            .chain(code.match_indices("super::"))
            .chain(code.match_indices("self::"))
        {
            // A part of a longer path, such as `self::super::`, or of another crate's.
            if code[..start].ends_with(|before: char| before.is_alphanumeric() || "_:".contains(before)) {
                continue;
            }
            let line = code[..start].matches('\n').count() + 1;
            for path in paths(&code[start..]) {
                if let Some(to) = self.resolve(module, &path).filter(|to| to != module) {
                    imports.push(Import { from: module.to_owned(), line, to });
                }
            }
        }
        imports
    }

    /// The module that `path` leads into, seen from `module`.
    fn resolve(&self, module: &str, path: &[String]) -> Option<String> {
        let mut place: Vec<&str> =
            module.split("::").filter(|name| !name.is_empty() && *name != "lib").collect();
        let mut names = path.iter().map(String::as_str);
        match names.next()? {
            "crate" => place.clear(),
            "super" => drop(place.pop()),
            _ => {}
        }
        for name in names {
            if name == "super" {
                place.pop();
            } else if name != "self" {
                place.push(name);
            }
        }
        let module =
            (1..=place.len()).rev().map(|n| place[..n].join("::")).find(|module| self.0.contains_key(module));
        // What is in no module of its own is in the crate's root.
        module.or_else(|| self.0.contains_key("lib").then(|| "lib".to_owned()))
    }
}

/// `http/h1/conn.rs` is `http::h1::conn`.
fn module(path: &Path) -> String {
    path.with_extension("").to_str().expect("it is text").replace('/', "::")
}

/// The file of a module, as it is named in a message.
fn file(module: &str) -> String {
    format!("src/{}.rs", module.replace("::", "/"))
}

/// All paths of a `use` tree, or the one path of an expression, that begins here.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut tokens = Vec::new();
    let mut rest = code;
    let mut depth = 0;
    loop {
        rest = rest.trim_start_matches(|blank: char| blank.is_whitespace() && depth > 0);
        let n_name =
            rest.len() - rest.trim_start_matches(|part: char| part.is_alphanumeric() || part == '_').len();
        let token = match rest {
            _ if n_name > 0 => &rest[..n_name],
            _ if rest.starts_with("::") => "::",
            _ if rest.starts_with('{') && tokens.last() == Some(&"::") => "{",
            _ if depth > 0 && rest.starts_with(['{', '}', ',', '*']) => &rest[..1],
            _ => break,
        };
        depth += usize::from(token == "{");
        depth -= usize::from(token == "}");
        tokens.push(token);
        rest = &rest[token.len()..];
        if depth == 0 && token == "}" {
            break;
        }
    }
    let (mut all, mut prefixes, mut path) = (Vec::new(), Vec::new(), Vec::<String>::new());
    let mut tokens = tokens.into_iter();
    // Whether the path is what came before braces that have been closed, and so no import by itself.
    let mut is_closed = false;
    while let Some(token) = tokens.next() {
        match token {
            "::" | "*" => {}
            "{" => prefixes.push(path.clone()),
            "," | "}" => {
                let prefix = if token == "}" { prefixes.pop() } else { prefixes.last().cloned() };
                let prefix = prefix.unwrap_or_default();
                // Nothing follows a last comma.
                let is_path = !is_closed && path.len() > prefix.len();
                let ended = std::mem::replace(&mut path, prefix);
                is_closed = token == "}";
                if is_path {
                    all.push(ended);
                }
            }
            // What follows is only another name for it.
            "as" => drop(tokens.next()),
            name => path.push(name.to_owned()),
        }
    }
    if !is_closed {
        all.push(path);
    }
    all.retain(|path| path.len() > 1);
    all
}

/// The row of a module's layer.
fn row(module: &str) -> usize {
    let top = module.split("::").next().unwrap_or_default();
    LAYERS
        .iter()
        .position(|row| row.contains(&top))
        .unwrap_or_else(|| panic!("{} is in no layer", file(module)))
}

fn upward(imports: &BTreeSet<Import>) -> Vec<String> {
    let is_upward = |import: &&Import| {
        let top = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
        top(&import.from) != top(&import.to) && row(&import.to) <= row(&import.from)
    };
    let say = |Import { from, line, to }: &Import| {
        format!("{}:{line} imports {}, which is not below it", file(from), file(to))
    };
    imports.iter().filter(is_upward).map(say).collect()
}

/// A circle of files, if there is one: the lines that make it.
fn circle(imports: &BTreeSet<Import>) -> Option<Vec<String>> {
    let mut edges = BTreeMap::<&str, BTreeMap<&str, usize>>::new();
    for Import { from, line, to } in imports {
        edges.entry(from).or_default().entry(to).or_insert(*line);
    }
    // What imports nothing that is left is in no circle; take that away again and again.
    loop {
        let left: BTreeSet<_> = edges.keys().copied().collect();
        edges.values_mut().for_each(|to| to.retain(|to, _| left.contains(to)));
        let before = edges.len();
        edges.retain(|_, to| !to.is_empty());
        if edges.len() == before {
            break;
        }
    }
    let mut place = edges.keys().next().copied()?;
    let mut way = Vec::new();
    while !way.contains(&place) {
        way.push(place);
        place = edges[place].keys().next().expect("what has no edge was taken away");
    }
    let begin = way.iter().position(|on_way| *on_way == place)?;
    let mut say = Vec::new();
    for (n, from) in way[begin..].iter().enumerate() {
        let to = way[begin..].get(n + 1).copied().unwrap_or(place);
        say.push(format!("{}:{} imports {}", file(from), edges[from][to], file(to)));
    }
    Some(say)
}

fn sources_of(package: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is in the workspace").join(package).join("src")
}

#[test]
fn each_folder_imports_only_those_below_it() {
    let upward = upward(&Sources::of(&sources_of("effe-loader")).imports());
    assert!(upward.is_empty(), "\n{}\n", upward.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    for package in ["effe-loader", "effe-abi", "effe-tool"] {
        if let Some(circle) = circle(&Sources::of(&sources_of(package)).imports()) {
            panic!("in {package}\n{}\n", circle.join("\n"));
        }
    }
}

#[test]
fn an_upward_import_and_a_circle_are_found_with_file_and_line() {
    let text = [
        ("boot", "mod cli;\nuse crate::{\n    http::{self, head::Head as Other},\n    rt::*,\n};\n"),
        ("http", "//! crate::boot::No\npub mod head;\nuse self::head::Head;\n"),
        (
            "http::head",
            "use super::Http;\nfn f() -> crate::net::io::Error { }\n#[cfg(test)]\nmod tests {\n    use crate::boot::X;\n}\n",
        ),
        ("lib", "mod boot;\npub use self::boot::Boot;\n"),
        ("net", "use crate::Boot;\n"),
        ("rt", "\nuse crate::boot::{\n    Boot,\n    cli,\n};"),
    ];
    let sources =
        Sources(text.into_iter().map(|(module, text)| (module.to_owned(), text.to_owned())).collect());
    let imports = sources.imports();
    let found: Vec<_> =
        imports.iter().map(|Import { from, line, to }| format!("{from}:{line} {to}")).collect();
    let expected = [
        "boot:2 http",
        "boot:2 http::head",
        "boot:2 rt",
        "http:3 http::head",
        "http::head:1 http",
        "http::head:2 net",
        "lib:2 boot",
        "net:1 lib",
        "rt:2 boot",
    ];
    assert_eq!(found, expected);
    let expected = ["net.rs:1 imports src/lib.rs", "rt.rs:2 imports src/boot.rs"];
    assert_eq!(upward(&imports), expected.map(|what| format!("src/{what}, which is not below it")));
    assert!(circle(&imports).is_some_and(|circle| circle.len() == 2));
}
