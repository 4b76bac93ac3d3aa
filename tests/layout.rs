//! Checks the repository itself: who may depend on whom, which words may appear, which files belong to nothing.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Crates by floor, from the ground up; a crate may use only what is on a lower floor.
const FLOORS: [&[&str]; 7] = [
    &["model", "folders"],
    &["pki"],
    &["api", "coordination", "storage", "sql"],
    &["engine", "ingest", "servers"],
    &["control", "tasks"],
    &["agent", "compute", "dispatcher", "gateway", "watcher"],
    &["."],
];
/// External crates that only one crate may use.
const MONOPOLIES: [(&str, &[&str]); 4] = [
    ("datafusion", &["sql"]),
    ("zookeeper-client", &["coordination", "testkit"]),
    ("mongodb", &["storage", "servers", "testkit"]),
    ("object_store", &["storage"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Names of the normal dependencies in a manifest.
fn dependencies(manifest: &Path) -> Vec<String> {
    let text = fs::read_to_string(manifest).unwrap();
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if inside
            && let Some(name) = line.split(['.', '=', ' ']).next().filter(|name| !name.is_empty())
        {
            found.push(name.to_string());
        }
    }
    found
}

fn floors() -> BTreeMap<&'static str, usize> {
    FLOORS
        .iter()
        .enumerate()
        .flat_map(|(floor, names)| names.iter().map(move |name| (*name, floor)))
        .collect()
}

#[test]
fn nothing_looks_up() {
    let floors = floors();
    for (name, floor) in &floors {
        for dependency in dependencies(&root().join(name).join("Cargo.toml")) {
            assert!(
                !["testkit", "hostile"].contains(&dependency.as_str()),
                "{name} uses the {dependency} outside its tests"
            );
            if let Some(other) = floors.get(dependency.as_str()) {
                assert!(other < floor, "{name} must not depend on {dependency}");
            }
        }
    }
}

#[test]
fn the_stores_have_one_user_each() {
    let crates = floors().into_keys().chain(["testkit"]);
    for name in crates {
        for dependency in dependencies(&root().join(name).join("Cargo.toml")) {
            for (library, users) in MONOPOLIES {
                assert!(
                    dependency != library || users.contains(&name),
                    "{name} must not use {library}"
                );
            }
        }
    }
}

#[test]
fn the_model_is_pure() {
    for dependency in dependencies(&root().join("model/Cargo.toml")) {
        assert!(
            !["tokio", "futures", "tracing", "rand"].contains(&dependency.as_str()),
            "model uses {dependency}"
        );
    }
    for file in sources(&root().join("model/src")) {
        let text = fs::read_to_string(&file).unwrap();
        for banned in [
            "std::fs",
            "std::net",
            "std::io",
            "Instant::now",
            "SystemTime",
            "async fn",
        ] {
            assert!(!text.contains(banned), "{} contains {banned}", file.display());
        }
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

fn all_sources() -> Vec<PathBuf> {
    let crates = floors()
        .into_keys()
        .filter(|name| *name != ".")
        .chain(["testkit", "hostile"]);
    crates
        .map(|name| root().join(name).join("src"))
        .chain([root().join("src")])
        .flat_map(|folder| sources(&folder))
        .collect()
}

#[test]
fn names_say_what_is_inside() {
    for file in all_sources() {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            !["util", "utils", "common", "helper", "helpers", "manager", "misc"].contains(&name.as_str()),
            "{}",
            file.display()
        );
        let text = fs::read_to_string(&file).unwrap();
        for banned in [
            "todo!(",
            "unimplemented!(",
            "dbg!(",
            concat!("TO", "DO"),
            concat!("FIX", "ME"),
        ] {
            assert!(!text.contains(banned), "{} contains {banned}", file.display());
        }
    }
}

#[test]
fn every_file_is_part_of_a_module() {
    for file in all_sources() {
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        let folder = file.parent().unwrap();
        if ["lib", "main", "mod"].contains(&stem.as_str()) || folder.ends_with("bin") {
            continue;
        }
        let parents = ["lib.rs", "main.rs", "mod.rs"].map(|name| folder.join(name));
        let above = folder.with_extension("rs");
        let declared = parents
            .iter()
            .chain([&above])
            .filter_map(|path| fs::read_to_string(path).ok())
            .any(|text| {
                text.lines().any(|line| {
                    let line = line.trim();
                    line.ends_with(&format!("mod {stem};"))
                })
            });
        assert!(declared, "{} is declared nowhere", file.display());
    }
}
