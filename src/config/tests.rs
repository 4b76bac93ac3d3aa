use super::*;

fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sawmill.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn load(
    file: &str,
    env: &[(&str, &str)],
    flags: &[(&'static str, &'static str, &str)],
) -> Result<Settings, Error> {
    let (_dir, path) = write(file);
    let env = env
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    let flags = flags
        .iter()
        .map(|&(key, flag, value)| Flag {
            key,
            flag,
            value: value.to_string(),
        })
        .collect();
    Settings::load(&Sources {
        files: vec![(path, true)],
        env,
        flags,
    })
}

#[test]
fn the_stronger_source_wins_and_is_told() {
    let file = "slots = 3\nheal_after = \"2m\"\nblock_size = 4096\nallow_exec = true\nnode = \"from-file\"";
    let env = [
        ("SAWMILL_SLOTS", "5"),
        ("SAWMILL_NODE", "17"),
        ("SAWMILL_ALLOW_EXEC", "false"),
        ("SAWMILL_JOB", "x"),
    ];
    let settings = load(file, &env, &[("slots", "--slots", "7")]).unwrap();
    assert_eq!((settings.slots, settings.origin("slots")), (7, "--slots"));
    assert_eq!(
        (settings.node.as_str(), settings.origin("node")),
        ("17", "SAWMILL_NODE")
    );
    assert_eq!(
        (settings.allow_exec, settings.origin("allow_exec")),
        (false, "SAWMILL_ALLOW_EXEC")
    );
    assert_eq!(
        (settings.heal_after, settings.block_size),
        (Duration::from_secs(120), 4096)
    );
    assert!(settings.origin("heal_after").ends_with("sawmill.toml"));
    assert_eq!(
        (settings.zookeeper.as_str(), settings.origin("zookeeper")),
        ("localhost:2181", "default")
    );
    assert!(settings.warnings().is_empty());
}

#[test]
fn mistakes_name_the_place_and_the_key() {
    let said = |file: &str, env: &[(&str, &str)]| load(file, env, &[]).unwrap_err().to_string();
    let unknown = said("zookeper = \"a:1\"", &[]);
    assert!(
        unknown.contains("sawmill.toml: unknown key \"zookeper\": did you mean \"zookeeper\"?"),
        "{unknown}"
    );
    assert!(said("[dispatcher]\nx = 1", &[]).contains("unknown key \"dispatcher\": `sawmill config show`"));
    let syntax = said("slots = = 3", &[]);
    assert!(
        syntax.contains("sawmill.toml is not valid TOML") && syntax.contains("line 1"),
        "{syntax}"
    );
    let kind = said("slots = \"many\"", &[]);
    assert!(
        kind.contains("bad slots (from ") && kind.contains("sawmill.toml)"),
        "{kind}"
    );
    let variable = said("", &[("SAWMILL_SLOTS", "many")]);
    assert!(
        variable.starts_with("bad slots (from SAWMILL_SLOTS): "),
        "{variable}"
    );
    assert!(said("", &[("SAWMILL_HEAL_AFTER", "7")]).contains("write it with a unit"));
    assert!(said("heal_after = 7", &[]).contains("a duration is a text with a unit"));
    assert!(said("", &[("SAWMILL_NODE", "a b")]).contains("a name has 1 to 64 characters"));
    assert!(said("", &[("SAWMILL_ZOOKEEPER", "h:1/a//b")]).contains("bad chroot"));
    assert!(said("", &[("SAWMILL_SLOTS", "0")]).contains("not within 1 to"));
    assert!(said("block_size = \"x\"", &[]).contains("no number of bytes"));
}

#[test]
fn missing_files_matter_only_when_asked_for() {
    let absent = PathBuf::from("/nonexistent/sawmill.toml");
    let sources = |required| Sources {
        files: vec![(absent.clone(), required)],
        ..Sources::default()
    };
    assert!(Settings::load(&sources(false)).is_ok());
    assert!(matches!(
        Settings::load(&sources(true)),
        Err(Error::Unreadable { .. })
    ));
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let (_dir, path) = write("mongodb://me:hush@db:1/x\n");
    let path = path.display().to_string();
    let (_dir2, auth) = write(" mill:quiet\n");
    let auth = auth.display().to_string();
    let env = [
        ("SAWMILL_MONGODB_FILE", path.as_str()),
        ("SAWMILL_ZOOKEEPER_AUTH_FILE", auth.as_str()),
    ];
    let settings = load("mongodb = \"mongodb://weaker/x\"", &env, &[]).unwrap();
    assert_eq!(settings.mongodb.expose(), "mongodb://me:hush@db:1/x");
    assert_eq!(settings.coordination().auth.as_deref(), Some("mill:quiet"));
    let all = format!("{settings}{settings:?}");
    assert!(all.contains("me:***@db") && all.contains("mill:***"), "{all}");
    assert!(!all.contains("hush") && !all.contains("quiet"), "{all}");
    let settings = load("", &[env[0], ("SAWMILL_MONGODB", "mongodb://direct/x")], &[]).unwrap();
    assert_eq!(settings.mongodb.expose(), "mongodb://direct/x");
}

#[test]
fn a_variable_with_a_typing_error_is_told() {
    let settings = load("", &[("SAWMILL_ZOOKEPER", "a:1"), ("SAWMILL_BLOCK", "3")], &[]).unwrap();
    assert_eq!(settings.warnings().len(), 1, "{:?}", settings.warnings());
    assert!(settings.warnings()[0].contains("did you mean SAWMILL_ZOOKEEPER?"));
}

/// `config/sawmill.toml` shows each key once, commented out: `#key = default`, or `#key = example` where the text
/// above says that it is unset or depends on the machine.
#[test]
fn the_example_file_lists_every_key_with_its_default() {
    let example = include_str!("../../config/sawmill.toml");
    let is_key = |line: &&str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_lowercase()))
    };
    let lines: Vec<&str> = example.lines().filter(is_key).map(|line| &line[1..]).collect();
    let named: Vec<&str> = lines
        .iter()
        .map(|line| line.split(" = ").next().unwrap())
        .collect();
    let expected: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(named, expected);
    let defaults = Settings::default();
    let secret_files = ["zookeeper_auth_file", "mongodb_file"];
    let readable: Vec<&str> = lines
        .into_iter()
        .filter(|line| !secret_files.iter().any(|key| line.starts_with(key)))
        .collect();
    let shown = load(&readable.join("\n"), &[], &[]).unwrap();
    for key in KEYS
        .iter()
        .filter(|key| !key.of_machine && (key.default)().is_some())
    {
        assert_eq!(shown.shown(key.name), defaults.shown(key.name), "{}", key.name);
    }
}

#[test]
fn the_compose_file_has_containers_reach_each_other() {
    let file = include_str!("../../docker-compose.yml");
    let variables: Vec<(&str, &str)> = file
        .lines()
        .filter_map(|line| line.trim().split_once(": "))
        .filter(|(name, _)| name.starts_with("SAWMILL_"))
        .map(|(name, value)| (name, value.trim_matches('"')))
        .collect();
    for (name, _) in &variables {
        assert!(keys::of_variable(name).is_some(), "{name} is no setting");
    }
    let settings = load("", &variables, &[]).unwrap();
    for listen in [&settings.listen, &settings.worker_listen] {
        assert!(
            listen.starts_with("0.0.0.0:"),
            "other containers do not reach {listen}"
        );
    }
    assert!(
        settings.insecure && settings.advertise.is_none(),
        "advertised is the name of each container"
    );
    let client = file.split_once("entrypoint: [\"client\"]").unwrap().1;
    let command = client
        .lines()
        .find_map(|line| line.trim().strip_prefix("command: "))
        .unwrap();
    let flags: Vec<String> = serde_json::from_str(command).unwrap();
    let line = std::iter::once("client".to_string()).chain(flags);
    let args = <crate::harness::ClientArgs as clap::Parser>::try_parse_from(line).unwrap();
    assert!(args.switches().unwrap().dispatcher);
}

#[cfg(feature = "sql")]
#[test]
fn formats_are_defined_by_tables_of_a_file() {
    let good = "[[formats]]\nname = \"x\"\npattern = '(?<n>\\d+) (?<m>.*)'\ntypes = { n = \"integer\" }\n\
                samples = [\"1 a\", \"2 b\"]\n";
    let settings = load(good, &[], &[]).unwrap();
    assert_eq!(settings.formats.len(), 1);
    assert_eq!(settings.formats[0].name, "x");
    assert!(settings.origin("formats").ends_with(".toml"));
    assert!(load("", &[], &[]).unwrap().formats.is_empty());
    for (from, to, why) in [
        ("(?<n>", "(?<n", "regex parse error"),
        ("samples", "sample = 1\nsamples", "sample"),
        ("n = \"integer\"", "o = \"integer\"", "it has no column o"),
    ] {
        let error = load(&good.replace(from, to), &[], &[]).unwrap_err().to_string();
        assert!(
            error.contains("formats.0") && error.contains(".toml") && error.contains(why),
            "{error}"
        );
    }
}
