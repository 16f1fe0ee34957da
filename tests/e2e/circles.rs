//! Two files must not depend on each other, directly or through others, unless one is the other's parent.

mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::Source;

/// The crates with their folders.
const CRATES: [(&str, &str); 6] = [
    ("portcullis", "src"),
    ("authz", "authz/src"),
    ("children", "children/src"),
    ("keys", "keys/src"),
    ("resource", "resource/src"),
    ("shared", "shared/src"),
];
/// The longest chain of renamed imports that is followed.
const LONGEST: usize = 12;

/// A file, as its path of modules: crate, module, module in it.
type Module = Vec<String>;

/// The files of the program, with what each imports and names.
struct Program(BTreeMap<Module, Source>);

impl Program {
    /// Files that are declared only for tests, or not at all, are left out.
    fn of(mut sources: BTreeMap<Module, Source>) -> Self {
        let declared: BTreeSet<Module> = sources
            .iter()
            .flat_map(|(module, source)| source.modules.iter().map(|name| below(module, name)))
            .collect();
        sources.retain(|module, _| module.len() == 1 || declared.contains(module));
        Self(sources)
    }

    /// The path from the crate's root that a path in this file means; `None` if it is in another crate.
    fn absolute(&self, module: &Module, path: &[String], depth: usize) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some([&module[..1], rest].concat()),
            "self" => Some([&module[..], rest].concat()),
            "super" => {
                let parent = module[..module.len() - 1].to_vec();
                match rest.first().map(String::as_str) {
                    Some("super") => self.absolute(&parent, rest, depth),
                    _ => Some([&parent[..], rest].concat()),
                }
            }
            _ if self.0.contains_key(&below(module, first)) => Some([&module[..], path].concat()),
            name => match self.0[module].uses.get(name) {
                Some(used) if used != path && depth < LONGEST => {
                    self.absolute(module, &[&used[..], rest].concat(), depth + 1)
                }
                _ => None,
            },
        }
    }

    /// The file that defines what has this path, not one that re-exports it.
    fn owner(&self, path: &[String], depth: usize) -> Module {
        let mut module = path[..1].to_vec();
        while let Some(name) = path.get(module.len())
            && self.0.contains_key(&below(&module, name))
        {
            module.push(name.clone());
        }
        if let Some(name) = path.get(module.len())
            && let Some(used) = self.0[&module].uses.get(name)
            && depth < LONGEST
        {
            let whole = [&used[..], &path[module.len() + 1..]].concat();
            if let Some(other) = self.absolute(&module, &whole, depth).filter(|other| other != path) {
                return self.owner(&other, depth + 1);
            }
        }
        module
    }

    /// The files that a file uses, except its own children.
    fn used_by(&self, module: &Module) -> BTreeSet<Module> {
        let source = &self.0[module];
        let paths = source.uses.values().chain(&source.paths);
        let paths =
            paths.filter_map(|path| self.absolute(module, path, 0)).filter(|path| path[0] == module[0]);
        paths.map(|path| self.owner(&path, 0)).filter(|owner| !owner.starts_with(module)).collect()
    }

    /// A cycle of files, if there is one.
    fn circle(&self) -> Option<Vec<String>> {
        let uses: BTreeMap<_, _> = self.0.keys().map(|module| (module, self.used_by(module))).collect();
        let mut done = BTreeSet::new();
        self.0.keys().find_map(|module| circle_from(module, &uses, &mut Vec::new(), &mut done))
    }
}

/// Follows the used files from here until one repeats.
fn circle_from<'m>(
    module: &'m Module,
    uses: &'m BTreeMap<&Module, BTreeSet<Module>>,
    path: &mut Vec<&'m Module>,
    done: &mut BTreeSet<&'m Module>,
) -> Option<Vec<String>> {
    if let Some(begin) = path.iter().position(|before| *before == module) {
        return Some(path[begin..].iter().chain([&module]).map(|module| module.join("::")).collect());
    }
    if !done.insert(module) {
        return None;
    }
    path.push(module);
    let found = uses[module].iter().find_map(|used| circle_from(used, uses, path, done));
    path.pop();
    found
}

fn below(module: &Module, name: &str) -> Module {
    [&module[..], &[name.to_owned()]].concat()
}

fn read(folder: &Path, module: &Module, sources: &mut BTreeMap<Module, Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if path.is_dir() {
            read(&path, &below(module, name), sources);
        } else if path.extension().is_some_and(|e| e == "rs") && name != "main" {
            let module = if name == "lib" { module.clone() } else { below(module, name) };
            sources.insert(module, Source::read(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The whole program, crate by crate.
#[test]
fn no_two_files_use_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = BTreeMap::new();
    for (name, folder) in CRATES {
        read(&root.join(folder), &vec![name.to_owned()], &mut sources);
    }
    let program = Program::of(sources);
    assert!(program.0.len() > 300, "{} files", program.0.len());
    let uses: usize = program.0.keys().map(|module| program.used_by(module).len()).sum();
    assert!(uses > 1000, "only {uses} uses were found, so this walk has stopped seeing them");
    if let Some(circle) = program.circle() {
        panic!("these files use each other in a circle: {}", circle.join(" -> "));
    }
}

/// The cycle in a crate `a` with these files.
fn circle(files: &[(&str, &str)]) -> Option<String> {
    let sources = files
        .iter()
        .map(|(path, text)| (path.split("::").map(str::to_owned).collect::<Module>(), Source::read(text)));
    Program::of(sources.collect()).circle().map(|circle| circle.join(" "))
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let root = ("a", "mod b; mod c; mod d;");
    let found = |b, c| circle(&[root, ("a::b", b), ("a::c", c), ("a::d", "pub use super::b::B;")]);
    let back = "use crate::{b::B, d};";
    for there in [
        "use crate::c;",
        "use super::c::{self, C};",
        "pub(crate) use super::{c::{C as E}, d};",
        "fn f() { crate::c::g() }",
        "fn f() -> super::c::C { todo() }",
        "/* no */ const S: &str = \"// \\\" r\"; const R: &str = r#\"\"\"#; const Q: char = '\"'; use super::c;",
        "fn f<'a>(x: &'a str) { super::c::g::<'a>(x) }",
    ] {
        assert_eq!(found(there, back).as_deref(), Some("a::b a::c a::b"), "{there}");
    }
    // `d` re-exports an item of `b`.
    assert_eq!(found("use super::c;", "use super::d::B;").as_deref(), Some("a::b a::c a::b"));
    assert_eq!(found("use super::c;", "use super::d;").as_deref(), Some("a::b a::c a::d a::b"));
}

#[test]
fn files_without_a_circle_are_not_reported() {
    let root = ("a", "mod b; mod c;");
    for (b, c) in [
        ("use super::c;", "#[cfg(test)] use super::b; #[cfg(test)] mod tests { use crate::b; }"),
        ("use super::c;", "// crate::b\n/* crate::b */ const S: &str = \"crate::b::B\";"),
        ("use super::c;", "use b::B; use std::b;"),
        ("use super::c;", "fn f() { other::b() }"),
    ] {
        assert_eq!(circle(&[root, ("a::b", b), ("a::c", c)]), None, "{c}");
    }
    // A parent and its child, and a file that only a test declares.
    let family = [("a", "mod b;"), ("a::b", "mod c; use c::C;"), ("a::b::c", "use super::B; use crate::A;")];
    assert_eq!(circle(&family), None);
    let testing = [
        ("a", "mod b; #[cfg(test)] mod t;"),
        ("a::b", "fn f() { super::t::g() }"),
        ("a::t", "use super::b;"),
    ];
    assert_eq!(circle(&testing), None);
    // Two siblings that use each other.
    let around = [
        ("a", "mod b; mod d;"),
        ("a::b", "mod c; use crate::d;"),
        ("a::b::c", ""),
        ("a::d", "use super::b;"),
    ];
    assert_eq!(circle(&around).as_deref(), Some("a::b a::d a::b"));
}
