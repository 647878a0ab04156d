//! The manual: one page for each task and each promise, in Markdown.
//!
//! The pages are the one source of `lattice help TOPIC`, of the pages in section 7 that `lattice man`
//! writes, and of the modules below. Begin with [`start`].

/// A page of the manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// Name of the page, which `lattice help` takes.
    pub name: &'static str,
    /// The content of the page in a few words.
    pub summary: &'static str,
    /// The page in Markdown. It begins with its title and one sentence.
    pub text: &'static str,
}

impl Page {
    /// Returns the page with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        PAGES.iter().find(|page| page.name == name)
    }
}

macro_rules! pages {
    ($($name:ident: $summary:literal,)*) => {
        $(
            // The links of the text lead to files. These come first, so they lead to modules here.
            #[doc = include_str!("manual/links.txt")]
            #[doc = ""]
            #[doc = include_str!(concat!("manual/", stringify!($name), ".md"))]
            pub mod $name {}
        )*

        /// All pages, in the order in which they are listed.
        pub const PAGES: &[Page] = &[
            $(Page {
                name: stringify!($name),
                summary: $summary,
                text: include_str!(concat!("manual/", stringify!($name), ".md")),
            },)*
        ];
    };
}

pages! {
    start: "first node, data directory, real data",
    commands: "all commands, keys, times, exit codes",
    output: "tables, JSON and its types, templates",
    recipes: "small set-ups to copy",
    mesh: "several nodes: invite, roles, removal, forks, addresses",
    stores: "several stores, private stores",
    configuration: "config.toml, environment, owner and mode of files",
    watching: "prefixes, patterns, cursors, JSON events",
    past: "older states, the end of history, tombstones",
    consumers: "durable positions that workers share",
    hooks: "commands and posts that run when a key changes",
    proofs: "compare nodes, check lines and states without a node",
    keys: "where the secret of a node is kept",
    backup: "snapshots, restore, repair",
    operating: "service, metrics, health",
    library: "a node in a Rust program",
    languages: "gRPC and JSON lines from any language",
    guarantees: "promises, and the tests that hold them",
    security: "who is trusted with what",
    limits: "maxima, and what does not exist yet",
    figures: "measured rates and times",
    comparison: "etcd, NATS, Syncthing, iroh-docs",
    glossary: "the words of this manual",
    design: "how it is built",
    formats: "versions, and what will not change",
    contributing: "build, test, change a rule",
    changelog: "what each version brought",
}
