//! What commands read and where they write: files that have no end, outputs that nobody reads.

use std::fs;

use super::refused;
use crate::process::{Process, complaint, portcullis, program};

/// OPS-03: what is named as a file and is none, or has no end, is one line at once: nothing waits for it or reads on.
#[test]
fn only_files_of_a_sensible_size_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (pipe, large, config) = (at("pipe"), at("large"), at("portcullis.toml"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    fs::write(&large, vec![b'#'; (1 << 20) + 1]).unwrap();
    for (path, says) in [
        (pipe.as_str(), "it is not a file"),
        ("/dev/zero", "it is larger than 1 MiB"),
        (&large, "it is larger than 1 MiB"),
    ] {
        refused(&["check", "--config", path], &["cannot read the configuration", says]);
        fs::write(&config, format!("issuer = \"https://a.example\"\nlisten = \"127.0.0.1:0\"\n[tls]\ncert = \"{path}\"\nkey = \"{path}\"\n")).unwrap();
        assert!(!portcullis(&["check", "--config", &config]).status.success(), "{path} as certificate");
    }
    refused(
        &["policy", "check", "--user", "x", "--tool", "y", "--args", "/dev/zero"],
        &["it is larger than 1 MiB"],
    );
}

/// A command that hands out a secret does nothing if its standard output is closed, and one that is decomposed is one name.
#[test]
fn a_link_that_nobody_would_read_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    Process::start(&data, "localhost:0", None).stop();
    let data = data.to_str().unwrap();
    let with_closed_output = |words: &str| {
        let command = format!("exec \"$0\" {words} --data-dir \"$1\" >&-");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &command]).arg(program().get_program()).arg(data).output().unwrap()
    };
    let output = with_closed_output("user add ines");
    assert_eq!(output.status.code(), Some(1));
    let said = complaint(&output);
    assert!(said.starts_with("portcullis: standard output is closed") && said.lines().count() == 1, "{said}");
    let listed = portcullis(&["user", "list", "--json", "--data-dir", data]);
    assert!(!String::from_utf8(listed.stdout).unwrap().contains("ines"), "nothing was done");
    assert!(portcullis(&["user", "add", "Zoe\u{308}", "--data-dir", data]).status.success());
    assert!(portcullis(&["user", "show", "Zo\u{eb}", "--data-dir", data]).status.success());
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let read = program().args(["user", "list", "--data-dir", data]).stdout(full()).output().unwrap();
    assert!(
        complaint(&read).ends_with("cannot write to standard output\n")
            || complaint(&read).trim_end().contains("cannot write to standard output: "),
        "{}",
        complaint(&read)
    );
    assert!(!complaint(&read).contains("stay in effect"), "{}", complaint(&read));
}

/// SRC-12, POL-05: a source at an address that is never connected to is a problem that `check` finds.
#[test]
fn a_source_that_is_never_reached_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("portcullis.toml");
    for url in [
        "http://169.254.169.254/mcp",
        "http://[fe80::1]/mcp",
        "http://0.0.0.0:9/mcp",
        "http://[::ffff:169.254.1.1]/mcp",
    ] {
        fs::write(&config, format!("[sources.up]\nkind = \"mcp-http\"\nurl = \"{url}\"\n")).unwrap();
        refused(&["check", "--config", config.to_str().unwrap()], &["[sources.up]", "never connected to"]);
    }
}
