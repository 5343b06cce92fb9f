//! The project's source, read for what it names.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// What is asked of a file.
pub struct Source {
    pub path: PathBuf,
    /// As in `crate::plan::print`, without `crate`.
    pub module: Vec<String>,
    pub text: String,
    /// Outside tests.
    pub mentions: Vec<Mention>,
    /// String literals outside tests, with their lines.
    pub strings: Vec<(usize, String)>,
    pub lines_with_unsafe: Vec<usize>,
}

/// A path written in the code.
pub struct Mention {
    pub line: usize,
    /// Begins at this crate's root, not with another crate or a name in scope.
    of_this_crate: bool,
    pub parts: Vec<String>,
}

impl Mention {
    /// Below this crate's root, if it is.
    pub fn internal(&self) -> Option<&[String]> {
        self.of_this_crate.then_some(&self.parts)
    }

    /// Whether it is of another crate and begins so.
    pub fn is_external(&self, prefix: &[&str]) -> bool {
        !self.of_this_crate
            && self
                .parts
                .iter()
                .zip(prefix)
                .filter(|(part, prefix)| part == prefix)
                .count()
                == prefix.len()
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("a readable entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.is_symlink() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// All Rust files, parsed once for all tests.
pub fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let mut paths = Vec::new();
        files_below(&root().join("src"), &mut paths);
        files_below(&root().join("tests"), &mut paths);
        paths
            .iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
            .map(|path| read(path))
            .collect()
    })
}

fn read(path: &Path) -> Source {
    let text = fs::read_to_string(path).expect("a readable file");
    let tokens: TokenStream = text
        .parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines_with_unsafe = lines_with_unsafe(tokens.clone());
    let syntax: syn::File =
        syn::parse2(tokens).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let path = path.strip_prefix(root()).expect("below the root");
    let module: Vec<String> = path
        .with_extension("")
        .iter()
        .skip(1)
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    let mut paths = Paths {
        module: module.clone(),
        found: Vec::new(),
        strings: Vec::new(),
    };
    paths.visit_file(&syntax);
    Source {
        path: path.to_owned(),
        module,
        text,
        mentions: paths.found,
        strings: paths.strings,
        lines_with_unsafe,
    }
}

fn lines_with_unsafe(tokens: TokenStream) -> Vec<usize> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Group(group) => lines_with_unsafe(group.stream()),
            TokenTree::Ident(ident) if ident == "unsafe" => vec![ident.span().start().line],
            _ => Vec::new(),
        })
        .collect()
}

/// String literals among tokens, as they are written.
fn literals(tokens: TokenStream) -> Vec<(usize, String)> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Group(group) => literals(group.stream()),
            TokenTree::Literal(literal) => {
                vec![(literal.span().start().line, literal.to_string())]
            }
            _ => Vec::new(),
        })
        .collect()
}

/// The library's own modules, tests in files of their own left out.
pub fn library() -> impl Iterator<Item = &'static Source> {
    sources().iter().filter(|source| {
        source.path.starts_with("src")
            && source.module[0] != "bin"
            && source.module != ["lib"]
            && source.module.last().is_none_or(|last| last != "tests")
    })
}

/// Collects paths outside `#[cfg(test)]`.
#[derive(Default)]
struct Paths {
    module: Vec<String>,
    found: Vec<Mention>,
    strings: Vec<(usize, String)>,
}

/// What a method call is noted under: of whose type it is, the syntax does not tell.
pub const METHOD: &str = "method";

impl Paths {
    fn mention(&mut self, line: usize, parts: &[String]) {
        let mut module = self.module.clone();
        let mut rest = parts;
        let of_this_crate = ["crate", "self", "super"].contains(&parts[0].as_str());
        if !of_this_crate {
            module.clear();
        }
        while let Some((first, tail)) = rest.split_first().filter(|_| of_this_crate) {
            match first.as_str() {
                "crate" => module.clear(),
                "super" => drop(module.pop()),
                "self" => {}
                _ => break,
            }
            rest = tail;
        }
        module.extend(rest.iter().cloned());
        self.found.push(Mention {
            line,
            of_this_crate,
            parts: module,
        });
    }

    fn tree(&mut self, tree: &syn::UseTree, prefix: &mut Vec<String>, line: usize) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.tree(&path.tree, prefix, line);
                prefix.pop();
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.tree(tree, prefix, line);
                }
            }
            syn::UseTree::Name(name) => {
                prefix.push(name.ident.to_string());
                self.mention(line, prefix);
                prefix.pop();
            }
            syn::UseTree::Rename(rename) => {
                prefix.push(rename.ident.to_string());
                self.mention(line, prefix);
                prefix.pop();
            }
            syn::UseTree::Glob(_) if !prefix.is_empty() => self.mention(line, prefix),
            syn::UseTree::Glob(_) => {}
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        syn::Meta::NameValue(_) => false,
    })
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Const(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let line = item.use_token.span.start().line;
        self.tree(&item.tree, &mut Vec::new(), line);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.found.push(Mention {
            line: call.method.span().start().line,
            of_this_crate: false,
            parts: vec![METHOD.to_owned(), call.method.to_string()],
        });
        visit::visit_expr_method_call(self, call);
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.strings.push((text.span().start().line, text.value()));
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.strings.extend(literals(call.tokens.clone()));
        visit::visit_macro(self, call);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if parts.len() > 1 {
            let line = path.segments[0].ident.span().start().line;
            self.mention(line, &parts);
        }
        visit::visit_path(self, path);
    }
}
