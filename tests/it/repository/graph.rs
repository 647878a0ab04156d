//! Which file of `src/` names which other one, through the re-exports of `mod.rs` files.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    source::module_path,
    tokens::{Named, Token, named_in_crate, renamed, tokens, without_tests},
};

/// A path of a module, without `crate`.
type Module = Vec<String>;

/// One file names another one.
#[derive(Debug, Clone)]
pub struct Edge {
    pub from: Module,
    pub to: Module,
    /// File and place of the first name.
    pub path: String,
    pub at: Token,
}

/// The files of a crate and what they name. Items under `#[cfg(test)]` have no part in it.
#[derive(Debug, Default)]
pub struct Graph {
    // By module; `main.rs` is not among them.
    files: BTreeMap<Module, String>,
    // What a `mod.rs` or `lib.rs` gives a name: `store::Store` is `store::store::Store`.
    names: BTreeMap<Module, Module>,
    edges: Vec<Edge>,
}

/// More steps from re-export to re-export than any name needs.
const STEPS_MAX: usize = 8;

impl Graph {
    /// Reads `files`, pairs of a path and a text.
    pub fn of(files: &[(String, String)]) -> Self {
        let mut graph = Self::default();
        let mut read = Vec::new();
        let mut tests = BTreeSet::new();
        for (path, text) in files.iter().filter(|(path, _)| path != "src/main.rs") {
            let module = module_path(path);
            let (tokens, test_files) = without_tests(&tokens(text));
            tests.extend(test_files.into_iter().map(|name| child(&module, &name)));
            read.push((path, module, tokens));
        }
        read.retain(|(_, module, _)| !tests.iter().any(|test| module.starts_with(test)));
        for (path, module, _) in &read {
            graph.files.insert(module.clone(), (*path).clone());
        }
        for (_, module, tokens) in read.iter().filter(|(path, ..)| is_folder(path)) {
            graph.read_names(module, tokens);
        }
        for (path, module, tokens) in &read {
            graph.read_edges(path, module, tokens);
        }
        graph
    }

    /// Returns what names what, each pair of files once.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// Returns the modules inside a folder, at any depth, with their files.
    pub fn modules_below<'a>(
        &'a self,
        folder: &'a str,
    ) -> impl Iterator<Item = (&'a [String], &'a str)> {
        let below = move |module: &Module| module.len() > 1 && module[0] == folder;
        let files = self.files.iter().filter(move |(module, _)| below(module));
        files.map(|(module, path)| (module.as_slice(), path.as_str()))
    }

    /// Returns the module of the file that defines what `path` names; `None` if no file of the
    /// crate does.
    fn resolve(&self, path: &[String]) -> Option<Module> {
        let mut path = path.to_vec();
        'steps: for _ in 0..STEPS_MAX {
            for length in (1..=path.len()).rev() {
                let (before, rest) = path.split_at(length);
                if let Some(defined) = self.names.get(before) {
                    path = [defined.as_slice(), rest].concat();
                    continue 'steps;
                }
                if self.files.contains_key(before) {
                    return Some(before.to_vec());
                }
            }
            return None;
        }
        None
    }

    fn read_names(&mut self, module: &[String], tokens: &[Token]) {
        for (path, name) in renamed(tokens) {
            let Some(path) = self.absolute(module, &path) else {
                continue;
            };
            let named = child(module, &name);
            if name != "*" && named != path {
                self.names.insert(named, path);
            }
        }
    }

    fn read_edges(&mut self, path: &str, module: &[String], tokens: &[Token]) {
        let in_binary = module.first().is_some_and(|first| first == "cli");
        let mut named = named_in_crate(tokens, module, in_binary);
        // `use child::Name` in a `mod.rs`.
        for (used, _) in renamed(tokens) {
            let first = used.first().map(|first| child(module, first));
            if first.is_some_and(|first| self.files.contains_key(&first)) {
                named.push(Named::new([module, &used].concat(), &tokens[0]));
            }
        }
        let mut seen = BTreeSet::new();
        for name in named {
            let Some(to) = self.resolve(&name.path) else {
                continue;
            };
            if to != module && seen.insert(to.clone()) {
                self.edges.push(Edge {
                    from: module.to_vec(),
                    to,
                    path: path.to_owned(),
                    at: name.at,
                });
            }
        }
    }

    /// Returns a path of a `use` in `module` from the crate's root; `None` if it leads elsewhere.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" | "lattice" => Some(rest.to_vec()),
            "self" => Some([module, rest].concat()),
            "super" => {
                let (_own, above) = module.split_last()?;
                Some([above, rest].concat())
            }
            name => {
                let is_child = self.files.contains_key(&child(module, name));
                is_child.then(|| [module, path].concat())
            }
        }
    }
}

fn child(module: &[String], name: &str) -> Module {
    let mut child = module.to_vec();
    child.push(name.to_owned());
    child
}

fn is_folder(path: &str) -> bool {
    path == "src/lib.rs" || path.ends_with("/mod.rs")
}
